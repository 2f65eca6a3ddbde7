"""Whole runs: they learn, they repeat bit for bit, what must not matter does not, and what must does."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import BINS, CLASSES, CLUSTERS, DATA, INVERSE, RECIPE, SWIN, SWIN_V2, VIT, WORDS, pretrain

from harness.audit import fixed_batch
from harness.core.data.batches import Batch
from harness.core.evaluate.labelled import summary
from harness.core.evaluate.probe import cosines, vote
from harness.core.evaluate.tested_training import last_test
from harness.core.model.encoder import build
from harness.core.objective.losses import total
from harness.core.pretrain.mim import MaskedImageModel, load_pretraining_start
from harness.core.runtime.drop_path import KeyedDropPath, Place, key_drop_paths
from harness.core.runtime.randomness import initialised
from harness.core.runtime.session import Session
from harness.core.train.optimiser import make_optimiser, parameter_groups
from harness.core.train.training import Step, Training
from harness.launch.job import work
from harness.launch.resources import Resources
from harness.spec import (
    Augment,
    Backbone,
    BlockMask,
    Checkpoint,
    ComplementMask,
    Contrastive,
    Corruption,
    CustomEvaluation,
    CustomHead,
    CustomMask,
    CustomTarget,
    DecoderHead,
    FineTune,
    FrequencyMask,
    Garments,
    GuidedMask,
    Head,
    ImageFolder,
    Knn,
    LinearHead,
    LinearProbe,
    LocalMask,
    LogisticProbe,
    Loss,
    LossPredictor,
    MlpHead,
    MomentumEncoder,
    PixelTarget,
    Pretrain,
    Run,
    Scratch,
    Target,
    key,
)
from harness.store import Store

LOSSES = [Loss(kind=kind, scope=scope) for kind in ("l1", "l2", "smooth-l1") for scope in ("masked", "full")]
TARGETS = ["8 bins", "256 bins", "clusters", "words"]
Compute = Callable[..., dict[str, Any]]


@pytest.fixture
def compute(tmp_path: Path) -> Compute:
    """Compute runs in order in a fresh store; returns the last one's metrics lines (without times) and result."""
    stores = itertools.count()

    def call(*runs: Run, **resources: Any) -> dict[str, Any]:
        store = Store(tmp_path / str(next(stores)))
        torch.set_num_threads(1)
        for run in runs:
            event = work(store, run, torch.device("cpu"), Resources(**resources), report=lambda event: None)
            assert event.kind == "done", event.text
        name = key(runs[-1])
        times = {"seconds", "images_per_second"}
        lines = [{k: v for k, v in line.items() if k not in times} for line in store.metrics(name)]
        result = store.result(name)
        assert result is not None
        attempt = store.final_attempt(name)
        return {"lines": lines, "metrics": result.metrics, "weights": result.weights, "attempt": attempt}

    return call


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return all(left[name] == right[name] for name in ("lines", "metrics", "weights"))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{loss.kind}-{loss.scope}")
@pytest.mark.parametrize("backbone", [VIT, SWIN, SWIN_V2], ids=["vit", "swin", "swinv2"])
def test_one_batch_is_learnt(backbone: Backbone, loss: Loss) -> None:
    check_learnt(pretrain(backbone=backbone, loss=loss))


@pytest.mark.parametrize("backbone", [VIT, SWIN], ids=["vit", "swin"])
@pytest.mark.parametrize("number", range(4), ids=TARGETS)
def test_one_batch_of_classes_is_learnt(backbone: Backbone, number: int) -> None:
    """Every pair of a backbone, a target and a head occurs."""
    target = [BINS, BINS.replace(bins=256, downsample=4), CLUSTERS, WORDS][number]
    head = (LinearHead(), INVERSE)[(number + (backbone is SWIN)) % 2]
    check_learnt(pretrain(backbone=backbone, target=target, head=head, loss=CLASSES))


@pytest.mark.parametrize("backbone", [VIT, SWIN], ids=["vit", "swin"])
@pytest.mark.parametrize("head", [MlpHead(), MlpHead(layers=4), INVERSE], ids=["mlp", "mlp of 4", "inverse"])
def test_one_batch_is_learnt_by_every_head(backbone: Backbone, head: Head) -> None:
    check_learnt(pretrain(backbone=backbone, head=head))


def check_learnt(run: Pretrain) -> None:
    """Within 30 steps at a constant rate on one batch and mask, the loss falls by 20 % or more.

    A head of transformer blocks wants a smaller rate: at 5e-3 it hardly learns in 30 steps.
    """
    rate = 2e-3 if run.head == INVERSE else 5e-3
    batch = fixed_batch(run)
    model = MaskedImageModel(run, 3).train()
    optimiser = make_optimiser(parameter_groups(model.named_parameters(), run.recipe), run.recipe)
    losses = []
    for _ in range(31):
        value = total(model(batch.images, batch.units)[1])
        losses.append(value.item())
        if losses[-1] < 0.8 * losses[0]:
            return
        optimiser.zero_grad()
        value.backward()
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
    pytest.fail(f"not learnt: the loss goes from {losses[0]} to {losses[-1]}")


FINETUNE = RECIPE.replace(augment=Augment(mixup=0.8, cutmix=1.0, smoothing=0.1), drop_path=0.2, layer_decay=0.8)


def test_same_spec_twice_is_equal_bit_for_bit_and_another_seed_is_not(compute: Compute) -> None:
    recipe = RECIPE.replace(drop_path=0.2)
    runs = [pretrain(recipe=recipe), pretrain(recipe=recipe, seed=1)]
    first, again, other = compute(runs[0]), compute(runs[0]), compute(runs[1])
    assert same(first, again)
    assert first["weights"] != other["weights"]
    assert first["lines"] != other["lines"]


def test_finetuning_repeats_and_slices_do_not_matter(compute: Compute) -> None:
    start = pretrain()
    run = FineTune(start=start, recipe=FINETUNE)
    first, again, sliced = compute(start, run), compute(start, run), compute(start, run, micro_batch=4)
    assert same(first, again)
    for line, other in zip(first["lines"], sliced["lines"], strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert first["metrics"].keys() == set(run.metrics)
    assert first["lines"][-1]["test_top1"] == first["metrics"]["top1"]


def test_pretraining_in_slices_agrees(compute: Compute) -> None:
    run = pretrain(recipe=RECIPE.replace(drop_path=0.2))
    for line, other in zip(compute(run)["lines"], compute(run, micro_batch=5)["lines"], strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4)


@pytest.mark.parametrize("scope", ["masked", "full"])
def test_slices_agree_where_the_number_of_hidden_units_varies(compute: Compute, scope: Any) -> None:
    """A slice of one image: the mean of its own hidden pixels must not count like that of an image that hides more.

    The mean of all its pixels counts like any other's.
    """
    run = pretrain(mask=BlockMask(size=4, ratio=0.6, count="beit", min_block=0.4), loss=Loss(scope=scope))
    counts = fixed_batch(run, RECIPE.batch_size).units.flatten(1).sum(1)
    assert int(counts.max()) >= 1.1 * int(counts.min())
    for size in (1, 5):
        for line, other in zip(compute(run)["lines"], compute(run, micro_batch=size)["lines"], strict=True):
            assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)
            assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"mask": ComplementMask(size=4, ratio=0.25), "recipe": RECIPE.replace(drop_path=0.2)},
        {"mask": FrequencyMask(radius=4.0), "loss": Loss(kind="frequency")},
        {"mask": LocalMask(size=4, window=3, windows=2, shared=False)},
    ],
    ids=["both views of an image", "frequencies", "local windows"],
)
def test_slices_agree_for_views_and_frequencies(compute: Compute, changes: dict[str, Any]) -> None:
    run = pretrain(**changes)
    whole = compute(run)
    assert same(whole, compute(run))
    for line, other in zip(whole["lines"], compute(run, micro_batch=5)["lines"], strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


def test_the_loss_of_a_pair_is_the_mean_of_both() -> None:
    """L_M + L_inverse, up to a factor of two, where both hide half."""
    run = pretrain(mask=ComplementMask(size=4))
    model, batch = MaskedImageModel(run, 3), fixed_batch(run)
    pairs = batch.units.view(-1, 2, *batch.units.shape[1:])
    first, second = (total(model(batch.images[::2], pairs[:, view])[1]) for view in (0, 1))
    assert torch.equal(pairs[:, 0], ~pairs[:, 1])
    assert total(model(batch.images, batch.units)[1]).item() == pytest.approx(((first + second) / 2).item(), rel=1e-5)


def test_loader_workers_do_not_matter(compute: Compute) -> None:
    augment = Augment(rand_augment="rand-m9-mstd0.5-inc1", erasing=0.25)
    run = FineTune(
        start=Scratch(backbone=VIT, image_size=32), data=DATA, recipe=RECIPE.replace(augment=augment), tested_epochs=1
    )
    assert same(compute(run), compute(run, workers=2))


def test_the_encoder_is_what_finetuning_starts_from(compute: Compute) -> None:
    """At a learning rate of almost nothing, a start from pre-training differs from scratch, and equals itself."""
    still = RECIPE.replace(lr=1e-12, epochs=1)
    start = pretrain()
    scratch = Scratch(backbone=VIT, image_size=32)
    trained = compute(start, FineTune(start=start, recipe=still))
    assert trained["lines"] != compute(FineTune(start=scratch, data=DATA, recipe=still))["lines"]


def test_arms_are_paired_by_seed(compute: Compute) -> None:
    """Another loss changes neither the first batch nor the start: the first step's targets and masks are the same."""
    masked, full = (MaskedImageModel(pretrain(loss=Loss(scope=scope)), 3) for scope in ("masked", "full"))
    batches = [fixed_batch(pretrain(loss=Loss(scope=scope))) for scope in ("masked", "full")]
    assert torch.equal(batches[0].images, batches[1].images)
    assert torch.equal(batches[0].units, batches[1].units)
    assert all(torch.equal(a, b) for a, b in zip(masked.parameters(), full.parameters(), strict=True))


def test_a_pretraining_goes_on_with_all_parts_of_its_start(compute: Compute, caplog: pytest.LogCaptureFixture) -> None:
    def continued(run: Pretrain, **changes: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        file = compute(run)["attempt"].weights
        start = Checkpoint(path=str(file), backbone=VIT, image_size=32)
        model = MaskedImageModel(run.replace(start=start, seed=1, **changes), 3)
        load_pretraining_start(start, model)
        return model.state_dict(), load_file(file)

    contrastive = Contrastive(hidden=16, out=8)
    for run in (
        pretrain(contrastive=contrastive, momentum=MomentumEncoder()),
        pretrain(loss_predictor=LossPredictor(decoder=DecoderHead(depth=1, width=16, heads=2))),
        pretrain(target=CLUSTERS, loss=CLASSES),
    ):
        ours, theirs = continued(run)
        assert not [name for name in ours if "momentum." not in name and not torch.equal(ours[name], theirs[name])]
    assert not caplog.records
    # The codebook of other images, whose classes mean something else.
    ours, theirs = continued(pretrain(target=CLUSTERS, loss=CLASSES), data=Garments(image_size=32, train=64, test=8))
    assert not torch.equal(ours["targets.codebook"], theirs["targets.codebook"])
    assert not torch.equal(ours["head.0.weight"], theirs["head.0.weight"])
    assert "has no prediction head that fits: it begins anew" in caplog.text


def test_runs_that_go_on_with_more_of_their_start_have_another_revision(tmp_path: Path) -> None:
    path = tmp_path / "start.pth"
    torch.save({}, path)
    start = Checkpoint(path=str(path), backbone=VIT, image_size=32)
    contrastive = {"contrastive": Contrastive(hidden=16, out=8), "momentum": MomentumEncoder()}
    for changes in (contrastive, {"loss_predictor": LossPredictor()}, {"target": CLUSTERS, "loss": CLASSES}):
        assert pretrain(**changes).current_revision() == 1
        assert pretrain(**changes, start=start).current_revision() == 3
    plain: dict[str, Any] = {}
    for changes in (
        plain,
        {"target": BINS, "loss": CLASSES},
        {"momentum": MomentumEncoder(), "mask": GuidedMask(size=8, ratio=0.5)},
    ):
        assert pretrain(**changes, start=start).current_revision() == 1


def test_reconstructions_without_test_images_are_of_training_images(
    compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    for number in range(16):
        path = tmp_path / "pets" / "train" / "cat" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    monkeypatch.setenv("HARNESS_DATA_PETS", str(tmp_path / "pets"))
    found = np.load(compute(pretrain(data=ImageFolder(name="pets")))["attempt"].artefacts / "reconstructions.npz")
    first = np.asarray(Image.open(tmp_path / "pets" / "train" / "cat" / "00.png"))
    assert np.abs(found["original"][0].astype(int) - first).max() <= 1


def test_reconstructions_are_kept(compute: Compute) -> None:
    found = np.load(compute(pretrain())["attempt"].artefacts / "reconstructions.npz")
    assert found["original"].shape == found["predicted"].shape == (8, 32, 32, 3)
    assert found["original"].dtype == np.uint8
    assert (found["labels"].shape, found["labels"].dtype) == ((8,), np.int64)
    assert found["hidden"].reshape(8, -1).mean(axis=1).tolist() == [0.5] * 8
    assert (found["masked"][found["hidden"]] == 128).all()
    assert (found["masked"][~found["hidden"]] == found["original"][~found["hidden"]]).all()


def test_reconstructions_have_the_noise_of_step_0_whatever_the_last_slice_was(compute: Compute) -> None:
    """The eight pictures fit slices of eight and of four images, and not one of sixteen."""
    run = pretrain(corruption=Corruption(fill="noise", token="none"))
    whole, *sliced = (
        np.load(compute(run, micro_batch=size)["attempt"].artefacts / "reconstructions.npz")["predicted"].astype(int)
        for size in (None, 8, 4)
    )
    for found in sliced:
        assert np.abs(found - whole).max() <= 1  # slices round otherwise


@pytest.mark.parametrize("target", [BINS, CLUSTERS, WORDS], ids=["bins", "clusters", "words"])
def test_reconstructions_of_classes_show_what_they_can(compute: Compute, target: Target) -> None:
    attempt = compute(pretrain(target=target, loss=CLASSES))["attempt"]
    predicted = np.load(attempt.artefacts / "reconstructions.npz")["predicted"]
    assert predicted.shape == (8, 32, 32, 3)
    weights = load_file(attempt.weights)
    if target is BINS:
        assert predicted.min() >= 255 // 16  # no colour beyond the middles of the outer bins
        assert predicted.max() <= 255 - 255 // 16
    elif target is CLUSTERS:
        palette = {tuple(colour) for colour in (weights["targets.codebook"] * 255).round().int().tolist()}
        assert {tuple(colour) for colour in predicted.reshape(-1, 3).tolist()} <= palette
    else:
        words = {tuple(word) for word in (weights["targets.codebook"] * 255).round().int().tolist()}
        shown = predicted.reshape(8, 8, 4, 8, 4, 3).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 48)
        assert {tuple(word) for word in shown.tolist()} <= words


def test_classes_train_in_slices(compute: Compute) -> None:
    run = pretrain(target=CLUSTERS, loss=CLASSES, head=INVERSE)
    whole = compute(run)
    assert same(whole, compute(run))
    for line, other in zip(whole["lines"], compute(run, micro_batch=4)["lines"], strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert whole["lines"][-1]["loss"] < whole["lines"][0]["loss"]


def test_a_finetuning_starts_from_a_run_with_a_palette(compute: Compute) -> None:
    start = pretrain(target=CLUSTERS, loss=CLASSES)
    run = FineTune(start=start, recipe=RECIPE)
    assert compute(start, run)["metrics"].keys() == set(run.metrics)


def test_linear_probe_and_neighbours(compute: Compute) -> None:
    start = pretrain()
    probe = compute(start, LinearProbe(start=start, recipe=RECIPE, block=1))
    assert 0 <= probe["metrics"]["top1"] <= probe["metrics"]["top5"] <= 100
    knn = compute(start, Knn(start=start, crop=1.0))
    assert knn["metrics"].keys() == {"top1"}
    logistic = compute(start, LogisticProbe(start=start, crop=1.0, block=1))["metrics"]
    assert 0 <= logistic["top1"] <= logistic["top5"] <= 100


def test_several_numbers_of_neighbours_equal_each_alone(compute: Compute) -> None:
    start = pretrain()
    together = compute(start, Knn(start=start, crop=1.0, k=(20, 1, 5)))["metrics"]
    alone = [compute(start, Knn(start=start, crop=1.0, k=k))["metrics"]["top1"] for k in (20, 1, 5)]
    assert together == dict(zip(("top1", "top1_k1", "top1_k5"), alone, strict=True))
    assert len(set(alone)) > 1


def test_probe_leaves_the_encoder_alone(compute: Compute) -> None:
    """The same features in every epoch: with no learning rate, the test loss does not move."""
    run = LinearProbe(
        start=Scratch(backbone=VIT, image_size=32),
        data=DATA,
        recipe=RECIPE.replace(lr=1e-12, augment=Augment(crop_scale=(1.0, 1.0), flip=0.0)),
        batch_norm=False,
    )
    losses = [line["test_loss"] for line in compute(run)["lines"] if "test_loss" in line]
    assert losses[0] == pytest.approx(losses[-1], rel=1e-6)


def test_vote_by_hand() -> None:
    """Two near neighbours of class 1 outvote a nearest of class 0 once the temperature is high enough."""
    bank = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6], [-1.0, 0.0]])
    labels = torch.tensor([0, 1, 1, 0])
    query = torch.tensor([[2.0, 0.0]])
    # cosines 1, .8, .8, -1: exp(1 / .07) against 2 exp(.8 / .07) is 17.4 against 2; at temperature 1, 2.72 against 4.45
    for temperature, winner in ((0.07, 0), (1.0, 1)):
        found = vote(cosines(query, bank), labels, num_classes=2, k=3, temperature=temperature)
        assert found.tolist() == [winner]
    # more neighbours than there are images: all of them
    assert vote(cosines(query, bank), labels, num_classes=2, k=9, temperature=1.0).tolist() == [1]


@pytest.mark.parametrize("temperature", [1e-4, 0.005, 0.0112, 0.0113, 0.07, 10.0])
def test_votes_are_those_of_exact_arithmetic_at_every_temperature(temperature: float) -> None:
    """exp(1 / temperature) is beyond float32 below 0.0113."""
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(200, 4, generator=generator), torch.randn(50, 4, generator=generator)
    labels = torch.randint(0, 5, (200,), generator=generator)
    wanted = []
    for query in torch.nn.functional.normalize(queries, dim=1).tolist():
        similar = [
            sum(a * b for a, b in zip(query, image, strict=True)) / math.hypot(*image) for image in bank.tolist()
        ]
        best = sorted(range(200), key=lambda image: -similar[image])[:20]
        votes = [Fraction(0)] * 5
        for image in best:
            votes[labels[image]] += Fraction(math.exp((similar[image] - similar[best[0]]) / temperature))
        wanted.append(votes.index(max(votes)))
    found = vote(cosines(queries, bank), labels, num_classes=5, k=20, temperature=temperature)
    assert found.tolist() == wanted


def test_of_equal_votes_the_first_class_wins() -> None:
    bank, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([3, 1, 2, 4])
    found = vote(
        cosines(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), bank), labels, num_classes=5, k=4, temperature=0.07
    )
    assert found.tolist() == [2, 1, 1]


def test_only_neighbours_whose_votes_overflowed_have_another_key() -> None:
    start = Scratch(backbone=VIT, image_size=32)
    runs = [
        Knn(start=start, data=DATA, k=k, temperature=t) for k, t in ((1, 0.0112), (20, 0.0115), (20, 0.02), (1, 0.07))
    ]
    assert [run.current_revision() for run in runs] == [2, 2, 1, 1]


@pytest.mark.parametrize("k", [64, 65, 1000])
def test_no_more_neighbours_vote_than_there_are(compute: Compute, k: int) -> None:
    """Of 64 training images all vote: as many as there are, whatever k says beyond that."""
    run = Knn(start=Scratch(backbone=VIT, image_size=32), data=DATA, k=k)
    assert compute(run)["metrics"] == compute(run.replace(k=64))["metrics"]


def test_drop_path_rate_scale_and_independence_of_the_batch() -> None:
    place = Place([7], [0.3], batch_size=10_000).move(3, torch.arange(10_000))
    layer = KeyedDropPath(0, place).train()
    out = layer(torch.ones(10_000, 2, 2))
    values = sorted(set(out.flatten().tolist()))
    assert values == pytest.approx([0.0, 1 / 0.7])
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(out[:, 0, 0], out[:, 1, 1])
    place.move(3, torch.arange(100, 200))
    assert torch.equal(layer(torch.ones(100, 2, 2)), out[100:200])
    place.move(4, torch.arange(100, 200))
    assert not torch.equal(layer(torch.ones(100, 2, 2)), out[100:200])
    assert torch.equal(layer.eval()(torch.ones(5, 2)), torch.ones(5, 2))


def test_every_drop_path_is_keyed_with_its_own_rate_and_stream() -> None:
    model = build(VIT.replace(args={**dict(VIT.args), "depth": 3}), image_size=32, channels=3, drop_path=0.2)
    place = key_drop_paths(model, seed=0, batch_size=8)
    assert [module.layer for module in model.modules() if isinstance(module, KeyedDropPath)] == [0, 1, 2, 3]
    assert place.rates == pytest.approx([0.1, 0.1, 0.2, 0.2])
    assert len(set(place.streams)) == 4
    assert not [module for module in model.modules() if type(module).__name__ == "DropPath"]


OWN = """
import random
import numpy as np
import torch
from safetensors.torch import load_file

def head(width, out, *, groups):
    return torch.nn.Conv2d(width, out, 1, groups=groups)

def grey(images):
    return torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 2)

def corner(random, grid, step, steps):
    hidden = torch.zeros(len(random(1)), *grid, dtype=torch.bool)
    hidden[:, 0, 0] = True
    return hidden

def spread(encoder, train, test, *, scale):
    images, labels = test
    assert images.dtype == torch.uint8 and len(images) == len(labels)
    return {"spread": scale * encoder(images).std().item(), "images": len(images)}

def drawn(encoder, train, test):
    return {"torch": torch.rand(1).item(), "numpy": np.random.rand(), "python": random.random()}

def worded(encoder, train, test):
    return {"top1": "much"}
"""


def test_pieces_of_a_user_s_own(compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_pieces.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    start = pretrain(
        mask=CustomMask(function="own_pieces:corner", size=8),
        head=CustomHead(function="own_pieces:head", params={"groups": 4}),
        target=CustomTarget(function="own_pieces:grey", channels=1, downsample=2),
    )
    run = CustomEvaluation(start=start, function="own_pieces:spread", metric="spread", params={"scale": 2.0})
    found = compute(start, run)["metrics"]
    assert found["images"] == 32
    assert found["spread"] > 0


def test_what_an_evaluation_of_a_user_s_own_draws_is_that_of_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_draws.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)

    start = Scratch(backbone=VIT, image_size=32)
    drawn = CustomEvaluation(start=start, data=DATA, function="own_draws:drawn", metric="torch")

    def found(folder: str, run: CustomEvaluation) -> dict[str, float]:
        torch.manual_seed(len(folder))  # whatever was computed before
        store = Store(tmp_path / folder)
        event = work(store, run, torch.device("cpu"), Resources(), report=lambda event: None)
        result = store.result(event.name)
        assert result is not None, event.text
        return result.metrics

    one = found("one", drawn)
    assert found("again", drawn) == one
    other = found("other", drawn.replace(seed=1))
    assert all(one[name] != other[name] for name in ("torch", "numpy", "python"))


def test_an_evaluation_of_a_user_s_own_that_returns_words_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_words.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    start = Scratch(backbone=VIT, image_size=32)
    run = CustomEvaluation(start=start, data=DATA, function="own_words:worded", metric="top1")
    event = work(Store(tmp_path), run, torch.device("cpu"), Resources(), report=lambda event: None)
    assert "own_words:worded should return a dict of numbers, not {'top1': 'much'}" in event.text


def test_an_evaluation_of_a_user_s_own_on_a_folder(
    compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets the images as they are tested, so that the features are those of other evaluations."""
    for number in range(12):
        folder = tmp_path / "pets" / ("train" if number < 8 else "val") / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (40, 50, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    monkeypatch.setenv("HARNESS_DATA_PETS", str(tmp_path / "pets"))
    (tmp_path / "own_on_folder.py").write_text(OWN_ON_FOLDER)
    monkeypatch.syspath_prepend(tmp_path)
    start = Scratch(backbone=VIT, image_size=32)
    data = ImageFolder(name="pets")
    own = CustomEvaluation(start=start, data=data, function="own_on_folder:nearest", metric="top1")
    found = compute(own)["metrics"]
    assert (found["train"], found["test"], found["side"]) == (8, 4, 32)
    assert found["top1"] == compute(Knn(start=start, data=data, k=1))["metrics"]["top1"]


OWN_ON_FOLDER = """
import torch

def nearest(encoder, train, test):
    bank, queries = (torch.nn.functional.normalize(encoder(part[0]).mean((2, 3)), dim=1) for part in (train, test))
    right = train[1][(queries @ bank.T).argmax(1)] == test[1]
    return {
        "top1": 100 * right.double().mean().item(),
        "train": len(bank),
        "test": len(queries),
        "side": train[0].shape[-1],
    }
"""


@pytest.mark.parametrize(
    "change",
    [{"head": MlpHead(layers=3)}, {"target": PixelTarget(downsample=4)}, {"backbone": SWIN}, {"loss": Loss(kind="l2")}],
    ids=lambda change: next(iter(change)),
)
def test_other_pieces_train(compute: Compute, change: dict[str, Any]) -> None:
    lines = compute(pretrain(**change))["lines"]
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_session_defaults_are_quiet(tmp_path: Path) -> None:
    attempt = Store(tmp_path).acquire(pretrain())
    session = Session(attempt, torch.device("cpu"))  # type: ignore[arg-type]
    session.report({})
    assert not session.stopping()
    attempt.release()  # type: ignore[union-attr]


def test_bf16_trains_on_the_cpu_and_differs_from_fp32(compute: Compute) -> None:
    full, half = (compute(pretrain(recipe=RECIPE.replace(precision=name))) for name in ("fp32", "bf16"))
    assert full["weights"] != half["weights"]
    assert full["metrics"]["loss"] == pytest.approx(half["metrics"]["loss"], rel=0.05)


def test_pretraining_uses_what_its_spec_says(compute: Compute) -> None:
    """Each of these fields changes the numbers."""
    weights = {compute(run)["weights"] for run in _variants()}
    assert len(weights) == len(_variants())


def _variants() -> list[Pretrain]:
    changes: list[dict[str, Any]] = [
        {},
        {"weight_decay": 0.5},
        {"betas": (0.8, 0.9)},
        {"eps": 1e-3},
        {"clip": 0.01},
        {"warmup_epochs": 1},
        {"drop_path": 0.3},
        {"lr": 2e-3},
        {"lr_batch": 512},
        {"batch_size": 8},
        {"augment": Augment(crop_scale=(1.0, 1.0))},
        {"augment": Augment(flip=0.0)},
        {"augment": Augment(interpolation="bicubic")},
    ]
    return [pretrain(recipe=RECIPE.replace(**change)) for change in changes]


def test_finetuning_uses_what_its_spec_says(compute: Compute) -> None:
    """Each of these fields changes the weights that come out."""
    changes: list[dict[str, Any]] = [
        {},
        {"layer_decay": 0.5},
        {"drop_path": 0.3},
        {"weight_decay": 0.5},
        {"augment": RECIPE.augment.replace(smoothing=0.2)},
        {"augment": RECIPE.augment.replace(mixup=0.8)},
        {"augment": RECIPE.augment.replace(cutmix=1.0)},
        {"augment": RECIPE.augment.replace(rand_augment="rand-m9-mstd0.5-inc1")},
        {"augment": RECIPE.augment.replace(erasing=1.0)},
    ]
    scratch = Scratch(backbone=VIT, image_size=32)
    runs = [FineTune(start=scratch, data=DATA, recipe=RECIPE.replace(**change), tested_epochs=1) for change in changes]
    runs.append(runs[0].replace(pool="token"))
    found = [compute(run)["weights"] for run in runs]
    assert len(set(found)) == len(found)


def test_evaluations_use_what_their_specs_say(compute: Compute) -> None:
    scratch = Scratch(backbone=VIT, image_size=32)
    probe = LinearProbe(start=scratch, data=DATA, recipe=RECIPE, tested_epochs=1)
    probes = [probe, probe.replace(block=1), probe.replace(batch_norm=False), probe.replace(seed=1)]
    assert len({compute(run)["weights"] for run in probes}) == len(probes)
    crops = [compute(probe.replace(crop=crop))["metrics"]["loss"] for crop in (0.5, 1.0)]
    assert crops[0] != crops[1]


def test_layer_decay_reaches_the_optimiser_once(compute: Compute) -> None:
    """At one step of SGD-like size the embedding of a decayed run moves less than that of an even one."""
    scratch = Scratch(backbone=VIT, image_size=32)
    recipe = RECIPE.replace(epochs=1, batch_size=64, weight_decay=0.0, clip=None, augment=Augment())
    start, moved = {}, {}
    for decay in (None, 0.5):
        run = FineTune(start=scratch, data=DATA, recipe=recipe.replace(layer_decay=decay), tested_epochs=1)
        after = load_file(compute(run)["attempt"].weights)
        before = initialised(0, "encoder", lambda: build(VIT, image_size=32, channels=3, num_classes=6, pool="mean"))
        start = before.state_dict()
        name = "patch_embed.proj.weight"
        moved[decay] = (after[name] - start[name]).abs().median().item()
    # Adam's first step has the size of the learning rate: 0.5 ** 3 for the embedding of a model of two blocks
    assert moved[0.5] / moved[None] == pytest.approx(0.5**3, rel=0.01)


def test_summary_by_hand() -> None:
    """The last epoch is reported, whatever came before."""
    top1 = [10.0, 90.0, 30.0, 50.0, 20.0, 40.0]
    lines = [{"test_top1": value, "test_top5": 99.0, "test_loss": 1.0} for value in top1]
    assert summary([{"loss": 0.0}, *lines]) == {
        "top1": 40.0,
        "top5": 99.0,
        "top1_median5": 40.0,
        "top1_best": 90.0,
        "loss": 1.0,
    }
    tests = [{"test_miou": 50.0, "test_loss": 1.0}, {"loss": 0.1}, {"test_miou": 30.0, "test_loss": 2.0}, {"loss": 0.2}]
    assert last_test(tests) == {"miou": 30.0, "loss": 2.0}


@pytest.mark.parametrize(("last", "epochs"), [(None, [1, 2, 3, 4]), (1, [4]), (2, [3, 4]), (9, [1, 2, 3, 4])])
def test_which_epochs_are_tested(last: int | None, epochs: list[int]) -> None:
    assert [done / 2 for done in _tested(8, last)] == epochs


def test_the_last_step_is_tested_where_the_length_is_in_steps() -> None:
    """7 steps of 2 an epoch: three epochs, and one that is cut short."""
    assert _tested(7, None) == [2, 4, 6, 7]
    assert _tested(7, 1) == [7]
    assert _tested(7, 2) == [6, 7]


def _tested(total: int, last: int | None) -> list[int]:
    """Numbers of the steps, two of them an epoch, after which a training is tested."""
    training = SimpleNamespace(total_steps=total, steps_per_epoch=2, progress=SimpleNamespace(step=0))
    found = []
    for number in range(total):
        training.progress.step = number
        step = Step(cast(Training, training), Batch(number, *[torch.zeros(0)] * 3))
        if step.ends_epoch(last):
            assert step.logged
            found.append(number + 1)
    return found


def test_predictions_of_one_colour_fail_with_the_reason(tmp_path: Path) -> None:
    """A learning rate that drives the head to a constant: the run says so instead of reporting a number."""
    (tmp_path / "flat_head.py").write_text(FLAT)
    sys.path.insert(0, str(tmp_path))
    try:
        run = pretrain(head=CustomHead(function="flat_head:flat"))
        event = work(Store(tmp_path), run, torch.device("cpu"), Resources(), report=lambda event: None)
    finally:
        sys.path.remove(str(tmp_path))
    assert event.kind == "failed"
    assert "collapsed to one colour" in event.text
    assert "at step 8" in event.text  # of 8: the first half, which has a line at step 4, is not judged


FLAT = """
import torch
from safetensors.torch import load_file

class Flat(torch.nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.layer = torch.nn.Conv2d(width, out, 1)

    def forward(self, x):
        colour = torch.tensor([0.1, -0.05, 0.2])  # no grey: its channels differ
        return self.layer(x) * 0 + colour.repeat_interleave(self.layer.out_channels // 3)[:, None, None]

def flat(width, out):
    return Flat(width, out)
"""
