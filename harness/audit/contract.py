"""Contract checks of a pre-training on one small batch: is it masked, is the target clean, is every switch live?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.core.data.augment import train_batch
from harness.core.data.batches import training_batches
from harness.core.data.datasets import FolderSet, load
from harness.core.masks.masking import in_views, make_views, spread
from harness.core.model.corruption import IMAGE_MEAN, declared_leaks
from harness.core.objective.contrastive import SECOND, Pairs, has_second_crop, pairs_of
from harness.core.objective.losses import total
from harness.core.pretrain.mim import MaskedImageModel
from harness.spec import FrequencyMask, HarnessError, Pretrain, pretraining, seed_stream
from harness.spec.differences import Difference, differences
from harness.study import Plan, Row

BATCH = 8
ROUNDING = 1e-4
"""What float32 may make of a mean that did not change, as a share of the change that visible pixels make."""


@dataclass(frozen=True)
class Arm:
    """A cell, and how its evaluations differ from the reference's at the same seed, by column."""

    row: Row
    differences: dict[str, list[Difference]]


def arms(plan: Plan) -> list[Arm]:
    """The spec diff of every arm against the reference, at the first seed.

    Raises:
        HarnessError: the reference is excluded at this scale, or left out by a selection.
    """
    rows = [row for row in plan.rows if row.seed == 0 and not row.excluded]
    wanted = plan.study.complete(plan.study.reference)
    reference = next((row for row in rows if row.axes == wanted), None)
    if reference is None:
        raise HarnessError(f"the reference {wanted} is not among the cells that run")
    return [
        Arm(
            row,
            {
                column: differences(reference.evaluations.get(column), evaluation)
                for column, evaluation in row.evaluations.items()
            },
        )
        for row in rows
    ]


@dataclass(frozen=True)
class Batch:
    """One fixed batch: images float32 [B, C, S, S], normalised, and the mask's units, bool, True = hidden.

    pairs: what a contrastive loss sees besides; None where the run has none.
    """

    images: Tensor
    units: Tensor
    pairs: Pairs | None = None

    @property
    def inputs(self) -> tuple[Tensor | Pairs, ...]:
        """What a model is called with in training."""
        return (self.images, self.units) if self.pairs is None else (self.images, self.units, self.pairs)


def looked_at(run: Pretrain, images: Tensor) -> Tensor | None:
    """What a run's mask looks at in images before the first step; None for one that does not look."""
    if run.mask.scored_by is None:
        return None
    return MaskedImageModel(run, images.shape[1]).eval().scores(images)


def fixed_batch(run: Pretrain, size: int = BATCH) -> Batch:
    """The first batch of a pre-training, cut to `size` images, each as often as its mask has views.

    Raises:
        HarnessError: its data set is not here.
    """
    source = load(run.data, "pretrain")
    size = min(size, len(source))
    positions = torch.arange(size)
    augment = run.recipe.augment

    def crops(seed: int) -> Tensor:
        if isinstance(source, FolderSet):
            batches = training_batches(
                source,
                augment,
                image_size=run.image_size,
                batch_size=size,
                seed=run.seed,
                first_step=0,
                steps=1,
                device=torch.device("cpu"),
                crop_seed=seed,
            )
            return next(batches).images
        return train_batch(source, positions, positions, 0, augment=augment, image_size=run.image_size, seed=seed)

    images = crops(run.seed)
    second = crops(seed_stream(run.seed, SECOND)) if has_second_crop(run.contrastive) else None
    units = make_views(
        run.mask,
        image_size=run.image_size,
        seed=run.seed,
        step=0,
        steps=1,
        positions=positions,
        scores=looked_at(run, images),
    )
    return Batch(
        in_views(run.mask, images),
        units,
        pairs_of(run, second, step=0, steps=1, positions=positions, look=lambda crops: looked_at(run, crops)),
    )


def awake(run: Pretrain, batch: Batch) -> MaskedImageModel:
    """The model of a run at its first weights, but for norms that scale by zero, which scale by one.

    timm's ResNets begin so: their residual branches are silent at first, and the encoder sees less of an image than it
    will after the first step.
    """
    model = MaskedImageModel(run, batch.images.shape[1])
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.nn.Parameter) and weight.ndim == 1 and not bool(weight.any()):
            torch.nn.init.ones_(weight)
    return model


@torch.no_grad()
def leak(run: Pretrain, batch: Batch, model: MaskedImageModel | None = None) -> float:
    """How far hidden pixels reach the encoder's output: the largest change when they are replaced by noise.

    0 if the mask hides what it says. See `reach_of_visible` for the other half: that the check can fail.
    """
    return _reach(run, batch, spread(batch.units, run.image_size), model)


@torch.no_grad()
def reach_of_visible(run: Pretrain, batch: Batch, model: MaskedImageModel | None = None) -> float:
    """The largest change of the encoder's output when the visible pixels are replaced by noise; never 0."""
    return _reach(run, batch, ~spread(batch.units, run.image_size), model)


@torch.no_grad()
def leak_beside_mean(run: Pretrain, batch: Batch, model: MaskedImageModel | None = None) -> float:
    """As `leak`, by noise that leaves the mean colour of each image's hidden pixels as it is.

    Rounding of that mean is all that a fill with the image's mean lets through.
    """
    return _largest_change(run, batch, same_mean_noise(batch), model)


def is_masked(run: Pretrain, batch: Batch, model: MaskedImageModel | None = None) -> bool:
    """Whether hidden pixels reach the encoder by the leaks that the spec declares only, while visible ones do.

    Something has to be hidden and something visible. A leak that is declared has to be there. Beside the image's mean,
    nothing but rounding may come through. Other leaks (`harness.core.model.corruption.declared_leaks`) have no bound.
    """
    model = model or awake(run, batch)
    some = bool(batch.units.any()) and not bool(batch.units.all())
    visible = reach_of_visible(run, batch, model) if some else 0.0
    if visible == 0.0:
        return False
    if isinstance(run.mask, FrequencyMask):
        return leak(run, batch, model) <= ROUNDING * visible  # of the transform
    leaks, found = declared_leaks(run), leak(run, batch, model)
    if leaks == (IMAGE_MEAN,):
        return found > 0.0 and leak_beside_mean(run, batch, model) <= ROUNDING * visible
    return found > 0.0 if leaks else found == 0.0


@torch.no_grad()
def is_clean(run: Pretrain, batch: Batch, model: MaskedImageModel | None = None) -> bool:
    """Whether the target shows what is hidden: noise in place of hidden pixels changes the loss, not the prediction.

    A target made of the corrupted images would change neither. Of a spec that declares leaks the noise leaves each
    image's mean as it is; where nothing fills hidden pixels, there are no corrupted images that a target could be made
    of, and the loss has to change.
    """
    model = (model or awake(run, batch)).eval()
    leaks = declared_leaks(run)
    changed = same_mean_noise(batch) if leaks else _noisy(run, batch, spread(batch.units, run.image_size))
    before, after = (model(images, batch.units) for images in (batch.images, changed))
    if not leaks and not isinstance(run.mask, FrequencyMask):
        return torch.equal(before[0], after[0]) and not torch.equal(total(before[1]), total(after[1]))
    moved = (before[0] - after[0]).abs().max() <= ROUNDING * before[0].abs().max()
    kept = bool(moved) or (bool(leaks) and run.corruption.fill == "none")
    losses = total(before[1]), total(after[1])
    return kept and bool((losses[0] - losses[1]).abs() > ROUNDING * losses[0].abs())


def noise(batch: Batch, where: Tensor) -> Tensor:
    """The images with the pixels that are True in `where`, bool [B, S, S], replaced by noise."""
    drawn = torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(0))
    return torch.where(where[:, None], drawn, batch.images)


def same_mean_noise(batch: Batch) -> Tensor:
    """The images with hidden pixels replaced by noise around the mean colour of each image's hidden pixels."""
    where = spread(batch.units, batch.images.shape[-1])
    changed, share = noise(batch, where), where[:, None].to(batch.images.dtype)
    count = share.sum((2, 3), keepdim=True).clamp(min=1)
    missing = ((batch.images - changed) * share).sum((2, 3), keepdim=True) / count
    return changed + missing * share


def _reach(run: Pretrain, batch: Batch, where: Tensor, model: MaskedImageModel | None) -> float:
    return _largest_change(run, batch, _noisy(run, batch, where), model)


def _noisy(run: Pretrain, batch: Batch, where: Tensor) -> Tensor:
    """The images with noise in place of the pixels, or of the frequencies of a mask of these, that are True."""
    if not isinstance(run.mask, FrequencyMask):
        return noise(batch, where)
    drawn = torch.fft.fft2(noise(batch, torch.ones_like(where)))
    chosen = torch.fft.ifftshift(where, dim=(-2, -1))[:, None]
    found: Tensor = torch.fft.ifft2(torch.where(chosen, drawn, torch.fft.fft2(batch.images))).real
    return found


def _largest_change(run: Pretrain, batch: Batch, changed: Tensor, model: MaskedImageModel | None) -> float:
    model = (model or awake(run, batch)).eval()
    before, after = (model.encode(images, batch.units) for images in (batch.images, changed))
    return (before - after).abs().max().item()


@dataclass(frozen=True)
class Step:
    """One forward and backward pass. gradients: by parameter name; a parameter that got none is missing."""

    loss: float
    gradients: dict[str, Tensor]

    def same_as(self, other: Step) -> bool:
        """Whether loss and all gradients are equal to the last bit."""
        names = self.gradients.keys()
        return (
            self.loss == other.loss
            and names == other.gradients.keys()
            and all(torch.equal(self.gradients[name], other.gradients[name]) for name in names)
        )


def first_step(run: Pretrain, batch: Batch | None = None) -> Step:
    """Loss and gradients of a pre-training's first batch, from its own initial weights."""
    batch = batch or fixed_batch(run)
    model = MaskedImageModel(run, batch.images.shape[1]).train()
    loss = total(model(*batch.inputs)[1])
    torch.autograd.backward(loss)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return Step(loss.item(), gradients)


def dead_parameters(run: Pretrain, batch: Batch | None = None) -> list[str]:
    """Parameters that get no gradient, or a gradient of zeros, in the first two steps; those not trained aside.

    Two, because what begins at zero keeps the first gradient from all behind it, as the last scale of a residual branch
    of timm's ResNets.
    """
    batch = batch or fixed_batch(run)
    model = MaskedImageModel(run, batch.images.shape[1]).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    dead = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for _ in range(2):
        optimiser.zero_grad()
        torch.autograd.backward(total(model(*batch.inputs)[1]))
        dead -= {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
        optimiser.step()
    return [name for name, _ in model.named_parameters() if name in dead]


def dead_arms(plan: Plan) -> list[tuple[Row, str]]:
    """Arms whose pre-training differs from the reference's in its spec but not in loss or gradients: dead switches.

    Differences that show only later are not looked at here: recipe, epochs, seed.
    """
    found = arms(plan)
    wanted = plan.study.complete(plan.study.reference)
    reference = next(arm for arm in found if arm.row.axes == wanted)
    dead = []
    for arm in found:
        for column, evaluation in arm.row.evaluations.items():
            ours, theirs = pretraining(evaluation), pretraining(reference.row.evaluations[column])
            if ours is None or theirs is None or not _differ_in_step(ours, theirs):
                continue
            if first_step(ours).same_as(first_step(theirs)):
                dead.append((arm.row, column))
    return dead


def _differ_in_step(left: Pretrain, right: Pretrain) -> bool:
    paths = {found.path.split(".")[0] for found in differences(left, right)}
    return bool(paths - {"recipe", "seed", "assumed"})
