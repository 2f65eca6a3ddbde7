"""A user's own backbone, loss, optimiser and augmentation: what they get, errors in a line, kills and resuming."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from tiny import DATA, RECIPE, pretrain
from torch import nn

from harness import audit
from harness.core.data.batches import training_batches
from harness.core.data.custom_augment import custom_augment
from harness.core.data.datasets import load
from harness.core.model.corruption import declared_leaks
from harness.core.model.encoder import Encoder, build, depth, layer_id
from harness.core.objective.losses import prediction_loss
from harness.core.runtime.custom import load_function
from harness.core.runtime.session import Interrupted, Session
from harness.core.train.optimiser import make_optimiser, parameter_groups
from harness.core.weights.export import export
from harness.core.weights.finished_run import opened
from harness.runs import compute
from harness.spec import (
    AfterStage,
    Corruption,
    CustomAugment,
    CustomBackbone,
    CustomLoss,
    CustomOptimiser,
    FineTune,
    HarnessError,
    Knn,
    Loss,
    Run,
    key,
)
from harness.store import Attempt, Store

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_pieces"
OWN = """
import torch
from timm.layers.drop import DropPath
from torch import nn

def one(channels, image_size):
    return nn.Conv2d(channels, 8, 8, stride=8)

def dropping(channels, image_size, drop_path=0.0):
    return nn.Sequential(nn.Conv2d(channels, 8, 4, 4), DropPath(drop_path), nn.Conv2d(8, 8, 1))

def deaf(channels, image_size, drop_path=0.0):
    return nn.Sequential(nn.Conv2d(channels, 8, 4, 4), nn.Conv2d(8, 8, 1))

def flat(channels, image_size):
    return nn.Sequential(nn.Conv2d(channels, 8, 4, 4), nn.Flatten())

def no_module(channels, image_size):
    return [1]

def shared(channels, image_size):
    act = nn.ReLU()
    return nn.Sequential(nn.Conv2d(channels, 8, 4, 4), act, nn.Conv2d(8, 8, 3, padding=1), act)

def per_image(prediction, target, hidden):
    return (prediction - target).square().mean((1, 2, 3))

def deaf_loss(prediction, target, hidden):
    return (prediction - target).detach()

def where_hidden(prediction, target, hidden):
    return (prediction - target).abs() * hidden[:, None]

def some(groups):
    return torch.optim.SGD(groups[:1], lr=1.0)

def scaleless(groups):
    return torch.optim.SGD([p for group in groups for p in group["params"]], lr=1.0)

def no_optimiser(groups):
    return None

def sgd(groups):
    return torch.optim.SGD(groups)

def half(images, random, step, steps):
    return images.half()

def told(images, random, step, steps):
    assert images.min() >= 0 and images.max() <= 1
    return (step / steps + 0 * images) + 1e-3 * random(1, 1, 1)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a module with pieces that work and that do not; the example's `pieces` can be imported too."""
    (tmp_path / "own_edges.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLE)
    load_function.cache_clear()
    yield "own_edges"
    for name in ("own_edges", "pieces"):
        sys.modules.pop(name, None)


def backbone(function: str, **changes: Any) -> CustomBackbone:
    return CustomBackbone(**{"function": function, "patch_size": 4, "stride": 4, **changes})


def built(function: str, **changes: Any) -> Any:
    return build(backbone(function, **changes), image_size=32, channels=3)


def test_children_are_a_stem_and_blocks_with_sites(own: str) -> None:
    model = built("pieces:mixer", stride=8)
    pieces = Encoder(model).layers.pieces(model)
    assert [(piece.width, piece.stride, piece.block) for piece in pieces] == [
        (32, 4, None), (32, 4, 1), (32, 4, 2), (64, 8, 3),
    ]  # fmt: skip
    assert [site for piece in pieces for site in piece.sites if isinstance(site, AfterStage)] == [
        AfterStage(stage=1, stride=4), AfterStage(stage=2, stride=4),
    ]  # fmt: skip
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(Encoder(model)(images), model.body(images))
    assert Encoder(model).features(images, 2).shape == (2, 32, 8, 8)
    assert depth(model) == 3
    classifier: Any = build(backbone("pieces:mixer", stride=8), image_size=32, channels=3, num_classes=5, pool="mean")
    found = {layer_id(classifier, name) for name, _ in classifier.named_parameters()}
    assert found == {0, 1, 2, 3, 4}  # the stem, three blocks, the classifier
    assert torch.equal(classifier(images), classifier.head(classifier.body(images).mean((2, 3))))


def test_a_layer_may_stand_in_a_network_twice(own: str) -> None:
    model, images = built(f"{own}:shared"), torch.randn(2, 3, 32, 32)
    assert torch.equal(Encoder(model)(images), model.body(images))


def test_the_mask_token_comes_in_at_the_site_that_is_named(own: str) -> None:
    for corruption, place in ((Corruption(), 0), (Corruption(site=AfterStage(stage=1, stride=4)), 1)):
        model = built("pieces:mixer", stride=8)
        encoder, images = Encoder(model, corruption), torch.randn(2, 3, 32, 32)
        hidden, token = torch.rand(2, 8, 8) < 0.5, torch.randn(32)
        x = images
        for number, child in enumerate(model.body):
            x = child(x)
            if number == place:
                x = torch.where(hidden[:, None], token[:, None, None], x)
        assert torch.allclose(encoder(images, hidden, token), x, atol=1e-6)


def test_leaks_before_the_site_are_measured(own: str) -> None:
    """A stem of patches lets nothing through; a convolution before the site does, and the audit sees that too."""
    for stage, leaks in ((None, ()), (1, ("layers before the site",))):
        corruption = Corruption() if stage is None else Corruption(site=AfterStage(stage=stage, stride=4))
        run = pretrain(backbone=backbone("pieces:mixer", stride=8), corruption=corruption)
        assert declared_leaks(run) == leaks
        batch = audit.fixed_batch(run, 4)
        assert audit.is_masked(run, batch)
        assert (audit.leak(run, batch) > 0) is bool(leaks)


@pytest.mark.parametrize(
    ("function", "changes", "said"),
    [
        ("no_module", {}, "should return a torch module, not list"),
        (
            "flat",
            {},
            r"child '1' of own_edges:flat should give float maps \[B, C, h, w\], not torch.float32 \[1, 512\]",
        ),
        ("shared", {"stride": 8}, "own_edges:shared has stride 4, not the stated 8"),
        ("shared", {"patch_size": 2}, "stem of own_edges:shared has stride 4, not the stated patch_size 2"),
        ("shared", {"params": {"width": 3}}, "own_edges:shared: got an unexpected keyword argument 'width'"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(own: str, function: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(HarnessError, match=said):
        built(f"{own}:{function}", **changes)


def test_a_module_that_is_no_sequence_has_no_site(own: str) -> None:
    one = backbone(f"{own}:one", patch_size=8, stride=8)
    images = torch.randn(2, 3, 32, 32)
    assert Encoder(built(f"{own}:one", patch_size=8, stride=8))(images).shape == (2, 8, 4, 4)
    with pytest.raises(HarnessError, match=r"no layer is left behind a mask token .* valid: token='none'"):
        Encoder(build(one, image_size=32, channels=3), Corruption())
    run = pretrain(backbone=one, corruption=Corruption(fill="mean", token="none"))
    assert audit.is_masked(run, audit.fixed_batch(run, 4))


def test_drop_path_has_to_be_used(own: str) -> None:
    model = build(backbone(f"{own}:dropping"), image_size=32, channels=3, drop_path=0.25)
    assert model.body[1].drop_prob == 0.25  # type: ignore[union-attr, index]
    with pytest.raises(HarnessError, match="own_edges:deaf has no DropPath layer of timm"):
        build(backbone(f"{own}:deaf"), image_size=32, channels=3, drop_path=0.25)
    with pytest.raises(HarnessError, match="unexpected keyword argument 'drop_path'"):
        build(backbone(f"{own}:shared"), image_size=32, channels=3, drop_path=0.25)


def test_an_own_loss_is_the_mean_of_its_map_over_the_scope(own: str) -> None:
    hidden = torch.zeros(2, 4, 4, dtype=torch.bool)
    hidden[0, :2], hidden[1, 3] = True, True
    prediction, target = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4)
    rounded = ((prediction - target).square() + 1e-4).sqrt()
    scopes: dict[Literal["masked", "full"], torch.Tensor] = {"masked": hidden, "full": torch.ones_like(hidden)}
    for scope, where in scopes.items():
        loss = CustomLoss(function="pieces:charbonnier", scope=scope)
        found = prediction_loss(loss, prediction, target, hidden)
        assert found.item() == pytest.approx(rounded.transpose(0, 1)[:, where].mean().item(), rel=1e-5)
    told = prediction_loss(CustomLoss(function=f"{own}:where_hidden", scope="full"), prediction, target, hidden)
    wanted = (prediction - target).abs().transpose(0, 1)[:, hidden].sum() / (3 * 32)
    assert told.item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("per_image", r"own_edges:per_image should return an error map \[2, K, 4, 4\], not \[2\]"),
        ("deaf_loss", "own_edges:deaf_loss returned an error without a gradient"),
    ],
)
def test_an_own_loss_that_is_no_map_is_refused(own: str, function: str, said: str) -> None:
    prediction, hidden = torch.randn(2, 3, 4, 4, requires_grad=True), torch.ones(2, 4, 4, dtype=torch.bool)
    with pytest.raises(HarnessError, match=said):
        prediction_loss(CustomLoss(function=f"{own}:{function}"), prediction, torch.zeros(2, 3, 4, 4), hidden)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("no_optimiser", "should return a torch.optim.Optimizer, not NoneType"),
        ("some", "optimiser of the 2 parameters that it gets, each once; it has 1, 1 of them"),
        ("scaleless", "should keep each group's `scale`"),
    ],
)
def test_an_own_optimiser_that_does_not_fit_is_refused(own: str, function: str, said: str) -> None:
    recipe = RECIPE.replace(optimizer=CustomOptimiser(function=f"{own}:{function}"))
    with pytest.raises(HarnessError, match=said):
        make_optimiser(parameter_groups(nn.Linear(2, 2).named_parameters(), recipe), recipe)


def test_an_own_optimiser_that_is_torch_s_trains_as_the_shipped_one(own: str, tmp_path: Path) -> None:
    recipe = RECIPE.replace(optimizer="sgd", momentum=0.0, lr=1e-2, epochs=1)
    named = RECIPE.replace(optimizer=CustomOptimiser(function=f"{own}:sgd"), lr=1e-2, epochs=1)
    shipped, users = (losses(tmp_path / name, pretrain(recipe=found)) for name, found in (("a", recipe), ("b", named)))
    assert shipped == users


def test_an_own_augmentation_sees_steps_and_places_alone(own: str) -> None:
    source, augment = load(DATA, "pretrain"), CustomAugment(function=f"{own}:told")
    images, positions = torch.zeros(6, 3, 8, 8), torch.arange(6)
    steps = torch.tensor([0, 1, 2, 3, 4, 5])
    whole = custom_augment(augment, images, source, seed=0, step=steps, steps=10, positions=positions)
    rows = torch.tensor([4, 1])
    part = custom_augment(augment, images[rows], source, seed=0, step=steps[rows], steps=10, positions=positions[rows])
    assert torch.equal(whole[rows], part)
    values = (whole * torch.tensor(source.std).view(-1, 1, 1) + torch.tensor(source.mean).view(-1, 1, 1))[:, 0, 0, 0]
    assert torch.allclose(values, steps / 10, atol=2e-3)
    assert len(set(values.tolist())) == 6


def test_an_own_augmentation_of_another_dtype_is_refused(own: str) -> None:
    sizes: dict[str, Any] = {"image_size": 32, "batch_size": 4, "first_step": 0, "steps": 1}
    augment = CustomAugment(function=f"{own}:half")
    batches = training_batches(load(DATA, "pretrain"), augment, seed=0, device=torch.device("cpu"), **sizes)
    said = r"own_edges:half should return images torch.float32 \[4, 3, 32, 32\] on cpu, not torch.float16"
    with pytest.raises(HarnessError, match=said):
        next(batches)


def whole_of_one_s_own() -> dict[str, Run]:
    """Runs that use all four pieces of the example."""
    recipe = RECIPE.replace(
        optimizer=CustomOptimiser(function="pieces:sign"), augment=CustomAugment(function="pieces:dim"), epochs=2
    )
    start = pretrain(
        backbone=backbone("pieces:mixer", stride=8), loss=CustomLoss(function="pieces:charbonnier"), recipe=recipe
    )
    return {
        "pretrain": start,
        "finetune": FineTune(start=start, recipe=recipe.replace(layer_decay=0.7)),
        "knn": Knn(start=start),
    }


class Killed(Exception):
    """Stands for a process that ends without saving."""


def finished(store: Store, run: Run, after: int | None = None, ending: type[Exception] = Interrupted) -> None:
    """Compute a run. One that is stopped or killed after some steps is taken up again from its last checkpoint."""
    for most in (None,) if after is None else (after, None):
        attempt, asked = store.acquire(run), itertools.count(1)
        assert isinstance(attempt, Attempt)

        def stopping(most: int | None = most, asked: Iterator[int] = asked) -> bool:
            stops = most is not None and next(asked) >= most
            if stops and ending is Killed:
                raise Killed
            return stops

        with nullcontext() if most is None else pytest.raises(ending):
            compute(run, Session(attempt, torch.device("cpu"), stopping=stopping, checkpoint_seconds=0.0))
        attempt.release()


def losses(folder: Path, run: Run) -> list[float]:
    store = Store(folder)
    finished(store, run)
    return [line["loss"] for line in store.metrics(key(run))]


@pytest.mark.parametrize("ending", [Interrupted, Killed])
def test_runs_of_one_s_own_pieces_resume_bit_for_bit(own: str, tmp_path: Path, ending: type[Exception]) -> None:
    torch.set_num_threads(1)
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    for run in whole_of_one_s_own().values():
        finished(one, run)
        finished(other, run, None if isinstance(run, Knn) else 6, ending)
        left, right = one.result(key(run)), other.result(key(run))
        assert left is not None
        assert right is not None
        assert (left.metrics, left.weights) == (right.metrics, right.weights)


def test_weights_of_an_own_network_are_opened_and_not_exported(own: str, tmp_path: Path) -> None:
    store, run = Store(tmp_path), whole_of_one_s_own()["pretrain"]
    finished(store, run)
    trained = opened(run, store)
    assert {name.split(".")[0] for name in trained.weights.encoder} == {"body"}
    with pytest.raises(HarnessError, match="is a network of your own, which no other program builds"):
        export(trained, tmp_path / "x.safetensors", "timm")


def test_the_key_follows_the_source_and_the_parameters(own: str, tmp_path: Path) -> None:
    first = pretrain(loss=CustomLoss(function=f"{own}:where_hidden"))
    assert key(pretrain(loss=CustomLoss(function=f"{own}:deaf_loss"))) != key(first)
    (tmp_path / "own_edges.py").write_text(OWN + "\n# changed\n")
    assert key(pretrain(loss=CustomLoss(function=f"{own}:where_hidden"))) != key(first)
    assert key(pretrain(loss=Loss())) == key(pretrain())
