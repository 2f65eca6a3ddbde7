"""Contract checks of a pre-training on one small batch: masking, clean target, gradients of every parameter.

Each check changes the pixels of one kind (hidden or visible) and compares what the model computes before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.core.data.augment import crops_of, train_batch
from harness.core.data.batches import training_batches
from harness.core.data.custom_augment import custom_augment
from harness.core.data.datasets import FolderSet, load
from harness.core.masks.masking import in_views, spread
from harness.core.model.corruption import IMAGE_MEAN, declared_leaks
from harness.core.objective.contrastive import SECOND, Pairs, has_second_crop
from harness.core.objective.losses import total
from harness.core.pretrain.draws import FIRST, draw_masks, masks_of, pairs_of
from harness.core.pretrain.mim import MaskedImageModel
from harness.spec import CustomAugment, FrequencyMask, Pretrain, seed_stream

BATCH = 8
"""Images of a batch, where the caller does not say."""
ROUNDING = 1e-4
"""Largest change that counts as float32 rounding, as a share of the change that visible pixels make."""
SHOWN = 3
"""Parameters that a finding names; it counts the others."""

Verdict = Literal["passed", "failed", "remark"]


@dataclass(frozen=True)
class Finding:
    """One sentence of an audit.

    check: name of the check, such as `masked`. arm: the cells that the finding speaks of, in words; empty for the whole
    study. A remark is for the reader to judge and does not fail the audit.
    """

    check: str
    verdict: Verdict
    text: str
    arm: str = ""


def shortened(texts: Sequence[str], most: int = SHOWN) -> str:
    """The first texts, joined by commas, and the number of the others."""
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


@dataclass(frozen=True)
class Batch:
    """One fixed batch.

    images: float32 [B, C, S, S], normalised. units: bool [B, units, units], True = hidden. pairs: further inputs of a
    contrastive loss; None for a run without one.
    """

    images: Tensor
    units: Tensor
    pairs: Pairs | None = None

    @property
    def inputs(self) -> tuple[Tensor | Pairs, ...]:
        """Arguments of the model's forward pass in training."""
        return (self.images, self.units) if self.pairs is None else (self.images, self.units, self.pairs)


def looked_at(run: Pretrain, images: Tensor) -> Tensor | None:
    """Scores of image patches from the untrained model, for masks that are drawn from scores; None for other masks."""
    if run.mask.scored_by is None:
        return None
    return MaskedImageModel(run, images.shape[1]).eval().scores(images)


def fixed_batch(run: Pretrain, size: int = BATCH) -> Batch:
    """First batch of a pre-training, cut to `size` images and repeated once for each view of the mask.

    Raises:
        HarnessError: the data set is not on this machine.
    """
    source = load(run.data, "pretrain")
    size = min(size, len(source))
    positions = torch.arange(size)  # places in the global batch, which masks and crops are drawn for
    augment = run.recipe.augment

    def crops(seed: int) -> Tensor:
        # Files of a folder are decoded and cropped by the data loader; images in memory need none.
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
        drawn = crops_of(source, augment, seed=seed, step=0, positions=positions)
        found = train_batch(source, positions, drawn, augment=augment, image_size=run.image_size)
        if not isinstance(augment, CustomAugment):
            return found
        return custom_augment(augment, found, source, seed=seed, step=0, steps=1, positions=positions)

    images = crops(run.seed)
    second = crops(seed_stream(run.seed, SECOND)) if has_second_crop(run.contrastive) else None
    scores = {name: looked_at(run, seen) for name, seen in ((FIRST, images), (SECOND, second)) if seen is not None}
    masks = draw_masks(run, masks_of(run), step=0, steps=1, positions=positions, scores=scores)
    return Batch(in_views(run.mask, images), masks[FIRST], pairs_of(run, second, masks))


def awake(run: Pretrain, batch: Batch) -> MaskedImageModel:
    """Model of a run at its initial weights, with every norm scale that starts at zero set to one.

    timm's ResNets initialise the last norm of each residual branch to zero. The branches are then silent, and a leak
    through them would stay unseen until the first step.
    """
    model = MaskedImageModel(run, batch.images.shape[1])
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.nn.Parameter) and weight.ndim == 1 and not bool(weight.any()):
            torch.nn.init.ones_(weight)
    return model


@torch.no_grad()
def leak(run: Pretrain, batch: Batch, model: MaskedImageModel | None = None) -> float:
    """Largest absolute change of the encoder's output when hidden pixels are replaced by noise.

    0 for a correct mask. `reach_of_visible` is the counter-check, which shows that this check can fail.
    """
    return _largest_change(run, batch, _noisy(run, batch, spread(batch.units, run.image_size)), model)


@torch.no_grad()
def reach_of_visible(run: Pretrain, batch: Batch, model: MaskedImageModel | None = None) -> float:
    """Largest absolute change of the encoder's output when visible pixels are replaced by noise; 0 is a defect."""
    return _largest_change(run, batch, _noisy(run, batch, ~spread(batch.units, run.image_size)), model)


@torch.no_grad()
def leak_beside_mean(run: Pretrain, batch: Batch, model: MaskedImageModel | None = None) -> float:
    """As `leak`, with noise that keeps the mean colour of each image's hidden pixels.

    A fill with the image's mean lets only that mean through, so what is left here is rounding.
    """
    return _largest_change(run, batch, same_mean_noise(batch), model)


def is_masked(run: Pretrain, batch: Batch, model: MaskedImageModel | None = None) -> bool:
    """True if visible pixels reach the encoder, and hidden ones only through leaks that the spec declares.

    Some units must be hidden and some visible. A declared leak must exist. Where it is the image's mean, nothing else
    but rounding may come through; other leaks (`harness.core.model.corruption.declared_leaks`) have no bound.
    """
    model = model or awake(run, batch)
    some = bool(batch.units.any()) and not bool(batch.units.all())
    # Without this, a model that ignores its input would pass.
    visible = reach_of_visible(run, batch, model) if some else 0.0
    if visible == 0.0:
        return False
    if isinstance(run.mask, FrequencyMask):
        return leak(run, batch, model) <= ROUNDING * visible  # rounding of the transform
    leaks, found = declared_leaks(run), leak(run, batch, model)
    if leaks == (IMAGE_MEAN,):
        return found > 0.0 and leak_beside_mean(run, batch, model) <= ROUNDING * visible
    return found > 0.0 if leaks else found == 0.0


@torch.no_grad()
def is_clean(run: Pretrain, batch: Batch, model: MaskedImageModel | None = None) -> bool:
    """True if the target is computed from the clean image: noise in hidden pixels changes the loss, not the prediction.

    A target computed from the corrupted image would change neither. For a spec that declares leaks the noise keeps each
    image's mean. Where nothing fills hidden pixels no corrupted image exists, so only the loss is checked.
    """
    model = (model or awake(run, batch)).eval()
    leaks = declared_leaks(run)
    changed = same_mean_noise(batch) if leaks else _noisy(run, batch, spread(batch.units, run.image_size))
    before, after = (model(images, batch.units) for images in (batch.images, changed))  # (prediction, loss)
    if not leaks and not isinstance(run.mask, FrequencyMask):
        return torch.equal(before[0], after[0]) and not torch.equal(total(before[1]), total(after[1]))
    same = (before[0] - after[0]).abs().max() <= ROUNDING * before[0].abs().max()
    kept = bool(same) or (bool(leaks) and run.corruption.fill == "none")
    losses = total(before[1]), total(after[1])
    return kept and bool((losses[0] - losses[1]).abs() > ROUNDING * losses[0].abs())


def noise(batch: Batch, where: Tensor) -> Tensor:
    """Copy of the images with noise in the pixels that are True in `where`, bool [B, S, S]."""
    drawn = torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(0))
    return torch.where(where[:, None], drawn, batch.images)


def same_mean_noise(batch: Batch) -> Tensor:
    """Copy of the images with noise in hidden pixels, shifted to the mean colour that they had in each image."""
    where = spread(batch.units, batch.images.shape[-1])
    changed, share = noise(batch, where), where[:, None].to(batch.images.dtype)
    count = share.sum((2, 3), keepdim=True).clamp(min=1)
    # The shift acts on hidden pixels alone, and makes the noise's mean equal to the mean that it replaced.
    missing = ((batch.images - changed) * share).sum((2, 3), keepdim=True) / count
    return changed + missing * share


def _noisy(run: Pretrain, batch: Batch, where: Tensor) -> Tensor:
    """Copy of the images with noise in the pixels that are True; for a `FrequencyMask`, in the frequencies."""
    if not isinstance(run.mask, FrequencyMask):
        return noise(batch, where)
    drawn = torch.fft.fft2(noise(batch, torch.ones_like(where)))
    replaced = torch.fft.ifftshift(where, dim=(-2, -1))[:, None]  # a mask has frequency zero in its middle
    found: Tensor = torch.fft.ifft2(torch.where(replaced, drawn, torch.fft.fft2(batch.images))).real
    return found


def _largest_change(run: Pretrain, batch: Batch, changed: Tensor, model: MaskedImageModel | None) -> float:
    model = (model or awake(run, batch)).eval()
    before, after = (model.encode(images, batch.units) for images in (batch.images, changed))
    return (before - after).abs().max().item()


@dataclass(frozen=True)
class Step:
    """One forward and backward pass. gradients: by parameter name, without parameters that got none."""

    loss: float
    gradients: dict[str, Tensor]

    def same_as(self, other: Step) -> bool:
        """True if loss and all gradients are equal to the last bit."""
        names = self.gradients.keys()
        return (
            self.loss == other.loss
            and names == other.gradients.keys()
            and all(torch.equal(self.gradients[name], other.gradients[name]) for name in names)
        )


def first_step(run: Pretrain, batch: Batch | None = None) -> Step:
    """Loss and gradients of a pre-training's first batch at its initial weights."""
    batch = batch or fixed_batch(run)
    model = MaskedImageModel(run, batch.images.shape[1]).train()
    loss = total(model(*batch.inputs)[1])
    torch.autograd.backward(loss)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return Step(loss.item(), gradients)


def dead_parameters(run: Pretrain, batch: Batch | None = None) -> list[str]:
    """Trainable parameters of a pre-training that get no gradient from its first batch; see `without_gradient`."""
    batch = batch or fixed_batch(run)
    model = MaskedImageModel(run, batch.images.shape[1]).train()
    return without_gradient(model, lambda: total(model(*batch.inputs)[1]))


def without_gradient(model: torch.nn.Module, loss: Callable[[], Tensor]) -> list[str]:
    """Trainable parameters whose gradient is missing or zero in each of the first two steps.

    Two steps, because a scale that starts at zero, as the last norm of timm's residual branches does, blocks the first
    gradient of everything before it.
    """
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    dead = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for _ in range(2):
        optimiser.zero_grad()
        torch.autograd.backward(loss())
        alive = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
        dead = [name for name in dead if name not in alive]
        optimiser.step()
    return dead
