"""Contract of single pieces: counts and polarity, independence of the batch, determinism, gradients.

Each check raises an AssertionError of one line. `harness.testing` publishes them for test runners, and an audit runs
them on every piece of a user's own (`piece_findings`).
"""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.audit.contract import Finding, fixed_batch, is_masked, leak, reach_of_visible, shortened, without_gradient
from harness.audit.masks import check_masks, noise_scores
from harness.core.data.augment import seeded
from harness.core.data.custom_augment import custom_augment
from harness.core.data.datasets import ImageSet, load
from harness.core.masks.masking import make_views
from harness.core.model.backbones import layers_of
from harness.core.model.encoder import Encoder, build
from harness.core.model.heads import build_head
from harness.core.objective.losses import loss_weight, prediction_loss
from harness.core.objective.targets import Targets
from harness.core.runtime.custom import call, load_function
from harness.core.runtime.randomness import initialised
from harness.core.train.optimiser import make_optimiser, parameter_groups
from harness.spec import (
    AnyBackbone,
    AnyLoss,
    Corruption,
    CustomAugment,
    CustomBackbone,
    CustomData,
    CustomEvaluation,
    CustomHead,
    CustomLoss,
    CustomMask,
    CustomOptimiser,
    CustomTarget,
    Data,
    HarnessError,
    Head,
    Mask,
    MomentumTarget,
    Pretrain,
    RandomMask,
    Recipe,
    Run,
    Shapes,
    Target,
    upstreams,
)
from harness.spec.user_code import UserFunction
from harness.study import Plan

SEED = 3
ROWS = 12
"""Images of a batch."""
STEPS = 100
"""Length of the training that masks and augmentations are drawn for."""
ROUNDING = 1e-4
"""Largest difference, as a share of the largest value, that counts as rounding of another batch size."""
UNITS = 8
"""Units a side of the image that a mask is drawn for, unless the caller says."""
DRAWN_STEPS = (0, 3, 99)
PARTS = ([0, 11], [5], [*range(1, 12)], [7, 2, 2])
"""Places of a batch that are computed by themselves: batches of other lengths and orders."""


def check_mask(mask: Mask, *, image_size: int | None = None) -> None:
    """Check a mask: counts and polarity, variety, determinism, independence of the batch, steps as a tensor.

    Some units are hidden and some visible in every image, and their share is the ratio that the spec states (`ratio`
    among the params of your own), True = hidden. The same seed, step and place give the same mask, in batches of any
    length and order, alone and drawn together with other steps.

    Args:
        image_size: side in pixels; 8 units by default.
    """
    size, name = image_size or UNITS * mask.size, _name(mask)
    with _told(name):
        mask.check(size)
        for finding in check_masks(mask, size, seed=SEED):
            _require(finding.verdict != "failed", finding.text)
    _check_mask_draws(mask, size)


def _check_mask_draws(mask: Mask, size: int) -> None:
    def drawn(step: int | Tensor, positions: Tensor) -> Tensor:
        scores = noise_scores(size // mask.size, step, positions) if mask.scored_by else None
        found = make_views(mask, image_size=size, seed=SEED, step=step, steps=STEPS, positions=positions, scores=scores)
        return found.view(len(positions), mask.views, *found.shape[1:])

    _check_draws(_name(mask), "masks", drawn)


def check_augment(augment: CustomAugment, *, image_size: int = 32, channels: int = 3) -> None:
    """Check an augmentation: shape and dtype, finite values, determinism, independence of the batch, steps as a tensor;
    and that it changes images."""
    images = torch.rand(ROWS, channels, image_size, image_size, generator=_generator())
    # Without normalisation, so that what is compared is what the function returned.
    source = ImageSet(images.mul(255).byte(), torch.zeros(ROWS).long(), 1, (0.0,) * channels, (1.0,) * channels)
    name = _name(augment)

    def drawn(step: int | Tensor, positions: Tensor) -> Tensor:
        keys: dict[str, Any] = {"seed": SEED, "step": step, "steps": STEPS, "positions": positions}
        return custom_augment(augment, images[positions], source, **keys)

    _check_draws(name, "images", drawn)
    with _told(name):
        found = [drawn(step, torch.arange(ROWS)) for step in DRAWN_STEPS]
    _require(all(bool(one.isfinite().all()) for one in found), f"{name} gives values that are not finite")
    _require(any(not torch.equal(one, images) for one in found), f"{name} changes no image: a dead switch")


def check_target(target: Target, *, data: Data | None = None, image_size: int = 32) -> None:
    """Check a target: shape, dtype, values, determinism, independence of the batch; that it follows the image and
    leaves the image as it is.

    Args:
        data: the set that codebooks are learnt from and that states the normalisation; generated shapes by default.
    """
    data, name = data or Shapes(image_size=image_size, train=64, test=8), _name(target)
    if isinstance(target, MomentumTarget):
        raise AssertionError("the target 'momentum' is that of a whole run; audit a study that has it")
    images = torch.randn(ROWS, data.channels, image_size, image_size, generator=_generator())
    before = images.clone()
    with _told(name):
        target.check_images(image_size, images.shape[1])
        made = Targets(target, data, image_size)
        found = made(images)
    _require(torch.equal(images, before), f"{name} writes into the images that it is given")
    side = image_size // target.downsample
    _shape(name, found, (ROWS, target.maps(images.shape[1]), side, side))
    classes = target.classes
    if classes is None:
        _require(bool(found.isfinite().all()) and found.is_floating_point(), f"{name} gives no finite floats")
    else:
        inside = found.dtype == torch.int64 and int(found.min()) >= 0 and int(found.max()) < classes
        _require(inside, f"{name} should give int64 classes from 0 to {classes - 1}")
    _require(not found.requires_grad, f"{name} carries a gradient")
    with _told(name):
        _check_rows(name, made, images, exact=classes is not None)
        other = made(images.flip(0))
    _require(not torch.equal(found, other), f"{name} is the same for other images: a dead switch")


def check_head(head: Head, *, width: int = 32, channels: int = 3, upscale: int = 4, side: int = 8) -> None:
    """Check a prediction head: shape, gradients of every parameter and of the features, determinism, independence of
    the batch.

    Args:
        width, side: channels and side of the feature map. channels, upscale: of the prediction, as a target sets them.
    """
    name = _name(head)
    with _told(name):
        made = initialised(
            0, "head", lambda: build_head(head, width=width, channels=channels, upscale=upscale, side=side)
        )
        features = torch.randn(ROWS, width, side, side, generator=_generator())
        found = made(features)
    _shape(name, found, (ROWS, channels, side * upscale, side * upscale))
    _check_module(name, made, features)


def check_loss(loss: AnyLoss, *, channels: int = 3, classes: int | None = None, side: int = 16) -> None:
    """Check a prediction error: a finite map with a gradient into the prediction, independence of the batch, and that a
    perfect prediction costs less than noise.

    Args:
        classes: of a target of classes; None for values to regress. channels, side: of the target.
    """
    name, generator = _name(loss), _generator()
    hidden = torch.rand(ROWS, side, side, generator=generator) < torch.linspace(0.2, 0.9, ROWS)[:, None, None]
    target = torch.randn(ROWS, channels, side, side, generator=generator)
    perfect = target
    if classes is not None:
        target = torch.randint(classes, target.shape, generator=generator)
        perfect = 20.0 * nn.functional.one_hot(target, classes).permute(0, 1, 4, 2, 3).flatten(1, 2)
    guess = torch.randn(perfect.shape, generator=generator).requires_grad_()
    with _told(name):
        found = prediction_loss(loss, guess, target, hidden)
        gradient = torch.autograd.grad(found, guess)[0]
        best = prediction_loss(loss, perfect.requires_grad_(), target, hidden)
        each = [prediction_loss(loss, guess[[i]], target[[i]], hidden[[i]]) for i in range(ROWS)]
        weights = torch.stack([loss_weight(loss, hidden[[i]]) for i in range(ROWS)])
    _require(bool(found.isfinite()) and bool(gradient.isfinite().all()), f"{name} or its gradient is not finite")
    _require(bool(gradient.flatten(1).any(1).all()), f"{name} has no gradient into the predictions of some images")
    _require(best.item() < found.item(), f"{name} is {best:.4g} for a perfect prediction and {found:.4g} for noise")
    alone = ((torch.stack(each).double() * weights).sum() / weights.sum()).item()
    text = f"{name} of a batch is {found:.6g}, and {alone:.6g} from its images one by one: row i depends on other rows"
    _require(abs(alone - found.item()) <= ROUNDING * abs(found.item()), text)


def check_backbone(backbone: AnyBackbone, *, image_size: int | None = None, channels: int = 3) -> None:
    """Check a backbone: strides and shapes, gradients of every parameter, determinism, independence of the batch,
    weights that are drawn from the seed and saved whole, a classifier; and that it is blind to what a mask token hides.

    Args:
        image_size: side in pixels; four times the stride by default.
    """
    size, name = image_size or 4 * backbone.stride, _name(backbone)

    def made(**changes: Any) -> Any:
        values = {"image_size": size, "channels": channels, **changes}
        return initialised(0, "encoder", lambda: build(backbone, **values))

    with _told(name):
        encoder, other = Encoder(made()), Encoder(made())
        classifier = made(num_classes=5, pool="mean")
        images = torch.randn(ROWS, channels, size, size, generator=_generator())
        _shape(f"a classifier of {name}", classifier(images), (ROWS, 5))
    same = all(torch.equal(left, other.state_dict()[key]) for key, left in encoder.state_dict().items())
    _require(same, f"{name} has other weights each time: they are not drawn from torch's default generator")
    side = size // backbone.stride
    _shape(name, encoder(images), (ROWS, encoder.width, side, side))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
        other.load_state_dict(encoder.state_dict())
        whole = torch.equal(encoder.eval()(images), other.eval()(images))
    _require(whole, f"{name} gives other features after its weights were saved and loaded: state is kept elsewhere")
    _check_module(name, encoder, images)
    if channels == Shapes.channels:
        with _told(name):
            _check_masked(name, backbone, size)


def check_optimiser(optimiser: CustomOptimiser) -> None:
    """Check an optimiser: it moves every parameter, by the learning rate of its groups, lowers a loss, and goes on from
    a saved state to the same bits."""
    name = _name(optimiser)
    recipe = Recipe(epochs=1, batch_size=1, lr=1e-2, lr_batch=None, optimizer=optimiser)
    inputs = torch.randn(64, 4, generator=_generator())

    def begun() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = initialised(0, "model", lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)))
        return model, make_optimiser(parameter_groups(model.named_parameters(), recipe), recipe)

    def steps(model: nn.Module, optimiser: torch.optim.Optimizer, count: int, lr: float = 1e-2) -> float:
        for _ in range(count):
            for group in optimiser.param_groups:
                group["lr"] = lr * group["scale"]
            optimiser.zero_grad()
            loss = (model(inputs) - inputs).square().mean()
            torch.autograd.backward(loss)
            optimiser.step()
        return float(loss.detach())

    with _told(name):
        (model, first), start = begun(), begun()[0]
        steps(model, first, 1, lr=0.0)
        moved = [not torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True)]
        _require(not any(moved), f"{name} moves weights at a learning rate of 0: it does not read its groups' lr")
        steps(model, first, 2)
        moved = [not torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True)]
        _require(all(moved), f"{name} leaves {moved.count(False)} of {len(moved)} parameters where they were")
        model, first = begun()
        before, after = steps(model, first, 1), steps(model, first, 50)
        _require(after < before, f"{name} does not lower a loss in 50 steps: {before:.4g} before, {after:.4g} after")
        file = io.BytesIO()
        torch.save({"model": model.state_dict(), "optimiser": first.state_dict()}, file)
    file.seek(0)
    with _told(name, " when its state is read back: it has to be tensors and plain values"):
        state = torch.load(file, weights_only=True)
    with _told(name):
        other, second = begun()
        other.load_state_dict(state["model"])
        second.load_state_dict(state["optimiser"])
        steps(model, first, 3)
        steps(other, second, 3)
    equal = all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    _require(equal, f"{name} goes on otherwise from a saved state: something that it needs is not in state_dict()")


def check_data(data: CustomData) -> None:
    """Check a data set: images and labels as they should be, the same at every reading, tested classes among those that
    are trained."""
    name, read = _name(data), load_function(data.function, data.source)
    with _told(name):
        for split in ("train", "test"):
            pairs: list[Any] = [call(read, name, split, **dict(data.params)) for _ in range(2)]
            same = all(np.array_equal(one, other) for one, other in zip(*pairs, strict=True))
            _require(same, f"{name} gives other images or labels of {split!r} when it is called again")
        load(data, "train")  # which refuses other shapes and dtypes
        load(data, "test")  # and labels that are not trained


def check_evaluation(evaluation: CustomEvaluation) -> None:
    """Check an evaluation: it asks the encoder, gives its metric as finite numbers, and the same ones again."""
    name, generator, called = _name(evaluation), _generator(), [0]
    shape = (evaluation.data.channels, evaluation.image_size, evaluation.image_size)
    sets = [
        (torch.randint(256, (4 * ROWS, *shape), dtype=torch.uint8, generator=generator), torch.arange(4 * ROWS) % 4)
        for _ in range(2)
    ]
    weights = torch.randn(16, shape[0], 4, 4, generator=generator)

    def encoder(images: Tensor) -> Tensor:
        called[0] += 1
        return nn.functional.conv2d(images.float() / 255, weights, stride=4)

    function = load_function(evaluation.function, evaluation.source)
    with _told(name):
        found: list[Any] = []
        for _ in range(2):
            with seeded(evaluation.seed, "evaluation", 0):  # as a run calls it
                found.append(call(function, name, encoder, *sets, **dict(evaluation.params)))
        metrics = [{key: float(value) for key, value in one.items()} for one in found]
    _require(called[0] > 0, f"{name} never asks the encoder: a dead switch")
    _require(evaluation.metric in metrics[0], f"{name} gives {', '.join(metrics[0])}, not {evaluation.metric!r}")
    finite = all(math.isfinite(value) for value in metrics[0].values())
    _require(finite, f"{name} gives numbers that are not finite: {metrics[0]}")
    _require(metrics[0] == metrics[1], f"{name} gives other numbers when it is called again")


def _check_masked(name: str, backbone: AnyBackbone, size: int) -> None:
    """Nothing hidden reaches the features of a pre-training, but by the leaks that it declares."""
    # A network of one block has no site for a token: its pixels are filled.
    model = build(backbone, image_size=size, channels=3)
    alone = len(layers_of(model).pieces(model)) == 1
    corruption = Corruption(fill="mean", token="none") if alone else Corruption()
    run = Pretrain(
        data=Shapes(image_size=size, train=8, test=8),
        image_size=size,
        backbone=backbone,
        mask=RandomMask(size=backbone.stride, ratio=0.5),
        corruption=corruption,
        recipe=Recipe(epochs=1, batch_size=8, lr=1e-3),
    )
    batch = fixed_batch(run, 4)
    _require(reach_of_visible(run, batch) > 0, f"{name} gives features that do not depend on visible pixels")
    text = f"{name} sees hidden pixels: its features change by {leak(run, batch):.2g} with them"
    _require(is_masked(run, batch), text)


def _check_draws(name: str, what: str, drawn: Callable[[int | Tensor, Tensor], Tensor]) -> None:
    """Determinism, and rows that depend on their own step and place alone, in batches of any length."""
    positions = torch.arange(ROWS)
    with _told(name):
        whole = {step: drawn(step, positions) for step in DRAWN_STEPS}
        again = all(torch.equal(found, drawn(step, positions)) for step, found in whole.items())
    _require(again, f"{name} gives other {what} for the same seed, step and places: draw from `random` alone")
    for rows in PARTS:
        with _told(name, f" for a batch of {len(rows)}"):
            part = drawn(3, torch.tensor(rows))
        same = len(part) == len(rows) and torch.equal(part, whole[3][torch.tensor(rows)])
        _require(same, f"{name} gives places {rows} other {what} alone than in a batch of {ROWS}")
    steps = torch.tensor([step for step in whole for _ in range(ROWS)])
    with _told(name, " where each row has its own step; `step` is a tensor"):
        together = drawn(steps, positions.repeat(len(whole)))
    text = f"{name} gives other {what} where each row has its own step: `step` is a tensor, to be broadcast over rows"
    _require(torch.equal(together, torch.cat([*whole.values()])), text)


def _check_module(name: str, module: nn.Module, inputs: Tensor) -> None:
    """Gradients, determinism and independence of the batch of a module."""
    given = inputs.clone().requires_grad_()
    trained = copy.deepcopy(module).train()

    def loss() -> Tensor:
        found: Tensor = trained(given)
        return (found * torch.randn(found.shape, generator=_generator())).sum()

    with _told(name):
        dead = without_gradient(trained, loss)
    _require(not dead, f"{name} has parameters without a gradient: {shortened(dead)}")
    reached = given.grad is not None and bool(given.grad.flatten(1).any(1).all())
    _require(reached, f"{name} passes no gradient to its input")
    with _told(name):
        _check_rows(name, module.eval(), inputs)


@torch.no_grad()
def _check_rows(name: str, module: Callable[[Tensor], Tensor], inputs: Tensor, *, exact: bool = False) -> None:
    """In evaluation, the same input gives the same bits, and a row the same values in any batch."""
    whole = module(inputs)
    _require(torch.equal(whole, module(inputs)), f"{name} gives other values for the same input in evaluation")
    for rows in PARTS:
        part = module(inputs[torch.tensor(rows)])
        wanted = whole[torch.tensor(rows)]
        if exact:
            same = part.shape == wanted.shape and torch.equal(part, wanted)
        else:
            same = part.shape == wanted.shape and bool((part - wanted).abs().max() <= ROUNDING * whole.abs().max())
        _require(same, f"{name} gives rows {rows} other values alone than in a batch of {len(inputs)}")


def _shape(name: str, found: object, wanted: tuple[int, ...]) -> None:
    got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
    _require(got == list(wanted), f"{name} should give {list(wanted)}, not {got}")


def _name(piece: Any) -> str:
    """The function of a user's own piece, or the kind of a shipped one."""
    return str(getattr(piece, "function", "") or getattr(piece, "name", "") or f"{piece.kind} {type(piece).__name__}")


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _require(holds: bool, text: str) -> None:
    if not holds:  # no assert, which python -O leaves out
        raise AssertionError(text)


@contextmanager
def _told(name: str, when: str = "") -> Iterator[None]:
    """Any error of a piece as an AssertionError of one line; the cause of an unexpected one stays attached."""
    try:
        yield
    except AssertionError:
        raise
    except (HarnessError, ValueError) as error:
        raise AssertionError(" ".join(str(error).split())) from error
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        hint = "; `step` is a tensor, each row's own" if "Boolean value of Tensor" in reason else ""
        raise AssertionError(f"{name} raised {type(error).__name__}{when}: {reason}{hint}") from error


def piece_findings(plan: Plan) -> Iterator[Finding]:
    """A finding for each piece of a user's own in the runs of a study, at the first seed."""
    seen: set[str] = set()
    for row in plan.firsts():
        for run in (run for final in row.evaluations.values() for run in (*upstreams(final), final)):
            for piece, check in _own_pieces(run):
                if piece.digest not in seen:
                    seen.add(piece.digest)
                    yield _finding(piece, check, row.text)


def _finding(piece: UserFunction, check: Callable[[], None], arm: str) -> Finding:
    try:
        check()
    except AssertionError as error:
        return Finding("pieces", "failed", str(error), arm)
    return Finding("pieces", "passed", f"{piece.function} keeps the contract of a {type(piece).__name__}", arm)


def _own_pieces(run: Run) -> Iterator[tuple[UserFunction, Callable[[], None]]]:
    """Pieces of a user's own that a run uses, each with its check at the sizes of the run."""
    recipe = getattr(run, "recipe", None)
    size, channels = run.image_size, run.data.channels
    if isinstance(run.data, CustomData):
        yield run.data, partial(check_data, run.data)
    if isinstance(run, CustomEvaluation):
        yield run, partial(check_evaluation, run)
    if recipe is not None and isinstance(optimiser := recipe.optimizer, CustomOptimiser):
        yield optimiser, partial(check_optimiser, optimiser)
    if recipe is not None and isinstance(augment := recipe.augment, CustomAugment):
        yield augment, partial(check_augment, augment, image_size=size, channels=channels)
    backbone = run.backbone if isinstance(run, Pretrain) else run.encoder
    if isinstance(backbone, CustomBackbone):
        yield backbone, partial(check_backbone, backbone, image_size=size, channels=channels)
    if not isinstance(run, Pretrain):
        return
    target = run.target
    for mask in run.masks:
        if isinstance(mask, CustomMask):
            yield mask, partial(_check_mask_draws, mask, size)  # `check_masks` has looked at counts and polarity
    if isinstance(target, CustomTarget):
        yield target, partial(check_target, target, data=run.data, image_size=size)
    if isinstance(run.head, CustomHead):
        yield run.head, partial(_check_head_of, run, run.head)
    if isinstance(run.loss, CustomLoss):
        sizes = {"channels": target.maps(channels), "side": size // target.downsample}
        yield run.loss, partial(check_loss, run.loss, classes=target.classes, **sizes)


def _check_head_of(run: Pretrain, head: Head) -> None:
    channels, stride = run.data.channels, run.backbone.stride
    encoder = Encoder(build(run.backbone, image_size=run.image_size, channels=channels))
    check_head(
        head,
        width=encoder.width,
        channels=run.target.prediction_channels(channels),
        upscale=stride // run.target.downsample,
        side=run.image_size // stride,
    )
