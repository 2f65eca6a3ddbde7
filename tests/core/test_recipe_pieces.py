"""Optimisers, averaged weights, repeated augmentation and the losses of fine-tuning, each against its formula."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from harness.core.data.batches import Batch, training_batches
from harness.core.data.datasets import ImageSet, load
from harness.core.evaluate.finetune import classification_loss
from harness.core.evaluate.labelled import whole_set
from harness.core.evaluate.probe import _probe
from harness.core.runtime.average import Averaged
from harness.core.runtime.session import Session
from harness.core.train.optimiser import make_optimiser, parameter_groups
from harness.core.train.training import Training, Update
from harness.launch import Resources
from harness.launch.job import work
from harness.spec import Augment, Average, Backbone, FineTune, LinearProbe, Recipe, Scratch, Shapes, key
from harness.store import Attempt, Store

VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 16, "depth": 2, "num_heads": 2}, patch_size=4)
DATA = Shapes(image_size=16, train=64, test=32)
SCRATCH = Scratch(backbone=VIT, image_size=16)


def recipe(**changes: Any) -> Recipe:
    return Recipe(epochs=2, batch_size=16, lr=0.1, lr_batch=None, clip=None).replace(**changes)


def trained(
    optimizer: str, steps: int, weight_decay: float, **changes: Any
) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """Gradients of every step and the weights at the end, at lr 0.1, for one matrix and one vector."""
    random = torch.Generator().manual_seed(1)
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    first = {name: value.detach().clone() for name, value in layer.named_parameters()}
    settings = recipe(optimizer=optimizer, weight_decay=weight_decay, **changes)
    optimiser = make_optimiser(parameter_groups(layer.named_parameters(), settings), settings)
    for group in optimiser.param_groups:
        group["lr"] = 0.1
    history = [first]
    for _ in range(steps):
        gradients = {name: torch.randn(value.shape, generator=random) for name, value in layer.named_parameters()}
        for name, parameter in layer.named_parameters():
            parameter.grad = gradients[name].clone()
        optimiser.step()
        history.append(gradients)
    return history, {name: value.detach() for name, value in layer.named_parameters()}


def test_lamb_against_its_formula() -> None:
    """You et al. 2020: Adam's direction plus decay, scaled to the length of the weights where there is decay."""
    (weights, *gradients), found = trained("lamb", 3, 0.02)
    for name, start in weights.items():
        w, m, v = start.double(), torch.zeros_like(start).double(), torch.zeros_like(start).double()
        decay = 0.02 if name == "weight" else 0.0
        for step, gradient in enumerate(gradients, start=1):
            g = gradient[name].double()
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            update = (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8) + decay * w
            w = w - 0.1 * update * (w.norm() / update.norm() if decay else 1.0)
        torch.testing.assert_close(found[name].double(), w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lars_against_its_formula(weight_decay: float) -> None:
    """You et al. 2017, with MAE's exception: vectors are neither adapted nor decayed."""
    (weights, *gradients), found = trained("lars", 3, weight_decay)
    for name, start in weights.items():
        w, velocity = start.double(), torch.zeros_like(start).double()
        for gradient in gradients:
            g = gradient[name].double()
            if name == "weight":
                trust = 0.001 * w.norm() / (g.norm() + weight_decay * w.norm())
                g = (g + weight_decay * w) * trust
            velocity = 0.9 * velocity + g
            w = w - 0.1 * velocity
        torch.testing.assert_close(found[name].double(), w, rtol=1e-5, atol=1e-6)


def test_sgd_against_its_formula() -> None:
    (weights, *gradients), found = trained("sgd", 3, 0.1)
    for name, start in weights.items():
        w, velocity = start.double(), torch.zeros_like(start).double()
        for gradient in gradients:
            g = gradient[name].double() + (0.1 * w if name == "weight" else 0.0)
            velocity = 0.9 * velocity + g
            w = w - 0.1 * (g + 0.9 * velocity)
        torch.testing.assert_close(found[name].double(), w, rtol=1e-5, atol=1e-6)


def test_plain_momentum_against_its_formula() -> None:
    (weights, *gradients), found = trained("sgd", 3, 0.1, nesterov=False)
    for name, start in weights.items():
        w, velocity = start.double(), torch.zeros_like(start).double()
        for gradient in gradients:
            velocity = 0.9 * velocity + gradient[name].double() + (0.1 * w if name == "weight" else 0.0)
            w = w - 0.1 * velocity
        torch.testing.assert_close(found[name].double(), w, rtol=1e-5, atol=1e-6)


def test_momentum_belongs_to_some_optimisers() -> None:
    assert recipe(optimizer="sgd").momentum == recipe(optimizer="lars").momentum == 0.9
    assert recipe(optimizer="sgd", momentum=0.0).momentum == 0.0
    assert recipe().momentum is None
    with pytest.raises(ValidationError, match="momentum belongs to lars and sgd, not to lamb; leave it out"):
        recipe(optimizer="lamb", momentum=0.9)
    with pytest.raises(ValidationError, match=r"adamw.*lamb.*lars.*sgd"):
        recipe(optimizer="adam")


def test_decay_of_the_average_warms_up() -> None:
    average = Average(decay=0.9, warmup_epochs=2, warmup_ratio=0.2)
    assert [average.decay_at(step, 5) for step in (0, 5, 10, 99)] == pytest.approx([0.18, 0.54, 0.9, 0.9])
    assert Average(decay=0.9).decay_at(0, 5) == 0.9


def test_the_average_follows_weights_and_copies_buffers() -> None:
    linear, norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
    model = nn.Sequential(linear, norm)
    held = Averaged(model)
    expected = linear.weight.detach().clone()
    for decay in (0.9, 0.5):
        with torch.no_grad():
            linear.weight.add_(1.0)
        model(torch.randn(4, 2))
        held.follow(decay)
        expected = decay * expected + (1 - decay) * linear.weight.detach()
    found = held.average.state_dict()
    torch.testing.assert_close(found["0.weight"], expected)
    assert torch.equal(found["1.running_mean"], norm.state_dict()["running_mean"])
    assert not any(parameter.requires_grad for parameter in held.average.parameters())


def run_of(**changes: Any) -> FineTune:
    settings = Recipe(epochs=3, batch_size=16, lr=1e-2, lr_batch=None, drop_path=0.2)
    return FineTune(start=SCRATCH, data=DATA, recipe=settings.replace(**changes))


def computed(store: Store, run: FineTune, **resources: Any) -> tuple[str, dict[str, float]]:
    torch.set_num_threads(1)
    wanted = {"device": "cpu", "checkpoint_seconds": 0.0, **resources}
    event = work(store, run, torch.device("cpu"), Resources(**wanted), report=lambda event: None)
    assert event.kind == "done", event.text
    result = store.result(key(run))
    assert result is not None
    return result.weights, result.metrics


def test_a_finetuning_publishes_its_average(tmp_path: Path) -> None:
    plain, averaged = run_of(), run_of(average=Average(decay=0.9, warmup_epochs=1))
    almost_none = run_of(average=Average(decay=1e-9))
    store = Store(tmp_path / "runs")
    first, second, third = (computed(store, run) for run in (plain, averaged, almost_none))
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert third[1]["loss"] == pytest.approx(first[1]["loss"], rel=1e-5)  # an average of nothing but the last step
    assert computed(Store(tmp_path / "again"), averaged) == second
    sliced = computed(Store(tmp_path / "sliced"), averaged, micro_batch=4)
    assert sliced[1]["loss"] == pytest.approx(second[1]["loss"], rel=1e-4)


def test_an_interrupted_average_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    run = run_of(average=Average(decay=0.9))
    store, calls = Store(tmp_path / "runs"), iter(range(1000))
    stopped = work(
        store,
        run,
        torch.device("cpu"),
        Resources(device="cpu", checkpoint_seconds=0.0),
        report=lambda event: None,
        stopping=lambda: next(calls) >= 4,
    )
    assert stopped.kind == "interrupted"
    assert computed(store, run) == computed(Store(tmp_path / "whole"), run)


@pytest.mark.parametrize("optimizer", ["lamb", "lars", "sgd"])
def test_other_optimisers_train_and_survive_an_interruption(tmp_path: Path, optimizer: str) -> None:
    run = run_of(optimizer=optimizer, epochs=1)
    store, calls = Store(tmp_path / "runs"), iter(range(1000))
    work(
        store,
        run,
        torch.device("cpu"),
        Resources(device="cpu", checkpoint_seconds=0.0),
        report=lambda event: None,
        stopping=lambda: next(calls) >= 2,
    )
    assert computed(store, run) == computed(Store(tmp_path / "whole"), run)


def test_averages_belong_to_finetuning() -> None:
    with pytest.raises(ValidationError, match=r"recipe\.average belongs to fine-tuning"):
        LinearProbe(start=SCRATCH, data=DATA, recipe=recipe(average=Average()))


def test_images_are_repeated_with_other_crops() -> None:
    source = load(DATA, "train")
    assert isinstance(source, ImageSet)
    settings: dict[str, Any] = {"image_size": 16, "batch_size": 12, "seed": 0, "first_step": 0, "steps": 5}
    cropped = Augment(crop_scale=(0.3, 0.6))
    device = torch.device("cpu")
    once = [batch.labels for batch in training_batches(source, cropped, device=device, **settings)]
    thrice = list(training_batches(source, cropped.replace(repeats=3), device=device, **settings))
    assert len(once) == len(thrice) == 5  # an epoch is as long as before
    visited = torch.cat(once)
    assert torch.equal(torch.cat([batch.labels for batch in thrice]), visited.repeat_interleave(3)[:60])
    images = thrice[0].images
    assert not torch.equal(images[0], images[1])


def test_binary_cross_entropy_by_hand() -> None:
    logits, labels = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.6, 0.1]])
    sigmoid = logits.double().sigmoid()
    soft = -(labels * sigmoid.log() + (1 - labels) * (1 - sigmoid).log()).mean()
    run = FineTune(start=SCRATCH, data=DATA, recipe=recipe(), loss="binary-cross-entropy")
    assert classification_loss(run, logits, labels).item() == pytest.approx(soft.item())
    hard = -(sigmoid[0, 0].log() + (1 - sigmoid[0, 1]).log()) / 2
    run = run.replace(label_threshold=0.2)
    assert classification_loss(run, logits, labels).item() == pytest.approx(hard.item())
    with pytest.raises(ValidationError, match="label_threshold belongs to binary-cross-entropy, not to cross-entropy"):
        FineTune(start=SCRATCH, data=DATA, recipe=recipe(), label_threshold=0.2)


def test_another_test_size(tmp_path: Path) -> None:
    run = run_of(epochs=1)
    assert run.replace(test_size=16) == run
    refused = run.replace(test_size=32)
    event = work(
        Store(tmp_path / "runs"), refused, torch.device("cpu"), Resources(device="cpu"), report=lambda event: None
    )
    assert event.kind == "failed"
    assert "cannot be tested at 32 px" in event.text


def test_keys_made_before_these_fields_hold() -> None:
    """The digest leaves them out while they have the value they implicitly had."""
    assert {"optimizer", "momentum", "average"} <= set(Recipe.implicit)
    assert {"loss", "label_threshold", "test_size"} <= set(FineTune.implicit)
    assert "repeats" in Augment.implicit


@pytest.mark.parametrize(("test_size", "side"), [(None, 64), (96, 96)])
def test_test_images_have_the_test_size(tmp_path: Path, test_size: int | None, side: int) -> None:
    cnn = Backbone(name="resnet10t", patch_size=4, stride=32)
    start = Scratch(backbone=cnn, image_size=64)
    run = FineTune(start=start, data=DATA, recipe=recipe(), test_size=test_size)
    attempt = Store(tmp_path / "runs").acquire(run)
    assert isinstance(attempt, Attempt)
    session = Session(attempt=attempt, device=torch.device("cpu"))
    shown = [tuple(images.shape) for images, _ in whole_set(run, load(DATA, "test"), session)]
    attempt.release()
    assert shown == [(32, 3, side, side)]


def test_a_linear_probe_starts_as_maes_does() -> None:
    """main_linprobe.py: weights of deviation 0.01, no bias, and a batch norm without parameters of eps 1e-6."""
    norm, linear = _probe(1000, 100, batch_norm=True)
    assert isinstance(norm, nn.BatchNorm1d)
    assert isinstance(linear, nn.Linear)
    assert float(linear.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert not linear.bias.any()
    assert (norm.affine, norm.eps, norm.num_features) == (False, 1e-6, 1000)


def test_what_draws_from_torch_draws_anew_at_each_step_and_alike_in_each_run(tmp_path: Path) -> None:
    """Dropout, for one."""
    model, drawn = nn.Linear(1, 1), list[tuple[float, ...]]()

    def batches(first: int) -> Iterator[Batch]:
        return (Batch(step, torch.ones(2, 1), torch.zeros(2), torch.arange(2)) for step in range(first, 4))

    def learn(update: Update[Batch]) -> None:
        (part,) = update.parts
        drawn.append(tuple(torch.rand(2).tolist()))
        part.backward({"mean": model(part.batch.images).mean()})
        update.apply()

    groups = [{"params": list(model.parameters()), "scale": 1.0}]
    for name in ("a", "b"):
        attempt = Store(tmp_path / name).acquire(run_of())
        assert isinstance(attempt, Attempt)
        session = Session(attempt=attempt, device=torch.device("cpu"))
        setup = recipe(batch_size=2, epochs=1)
        training, lines = Training(session, setup, model, seed=0, groups=groups, steps_per_epoch=4), []
        for step in training.steps(batches):
            step.compute(learn)
            lines += [step.read()["step"]] if step.logged else []
        assert lines == [4]
        attempt.release()
    assert drawn[:4] == drawn[4:]
    assert len(set(drawn)) == 4
