"""Checks that the pieces of a pre-training fit each other and the image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.spec.base import choices
from harness.spec.masks.custom import CustomMask
from harness.spec.masks.frequency import FrequencyMask
from harness.spec.masks.masking import Mask
from harness.spec.model.corruption import Corruption
from harness.spec.model.heads import DecoderHead
from harness.spec.objective.targets import MomentumTarget
from harness.spec.recipe import Recipe, check_whole_pictures

if TYPE_CHECKING:
    from harness.spec.run import Pretrain


def check_mask(mask: Mask, run: Pretrain, what: str = "mask") -> None:
    """Refuse a mask whose units do not fit the image, the patches or the site of the mask token.

    Args:
        what: the mask's name in the complaint.

    Raises:
        ValueError: names the valid sizes.
    """
    size, patch, unit = run.image_size, run.backbone.patch_size, mask.size
    if isinstance(mask, FrequencyMask):
        mask.check(size)
        return
    if unit % patch:
        valid = choices(size, patch)
        raise ValueError(f"a {what} unit of {unit} px is no multiple of the {patch}-px patch; {valid}")
    if size % unit:
        valid = choices(size, patch)
        raise ValueError(f"a {what} unit of {unit} px does not divide the image of {size} px; {valid}")
    if unit % (there := run.corruption.stride(patch)):
        raise ValueError(
            f"a {what} unit of {unit} px hides a part of a position at the mask token's site, "
            f"{run.corruption.site.text}; {choices(size, there)}"
        )
    mask.check(size)
    known = not isinstance(mask, CustomMask)  # of which the first batch will tell
    if run.corruption.token == "drop" and known and mask.varies(size):
        raise ValueError(f"token='drop' needs as many hidden units in every image; this {mask.kind} mask varies")


def check_frequencies(run: Pretrain) -> None:
    """Refuse a frequency mask with a loss of patches, and the reverse.

    Raises:
        ValueError: mask and loss do not belong together.
    """
    kind, scope = run.loss.kind, run.loss.scope
    if not isinstance(run.mask, FrequencyMask):
        if kind == "frequency" and scope == "masked":
            raise ValueError(f"a {run.mask.kind} mask removes no frequencies; valid for a frequency loss: scope='full'")
        return
    if kind == "custom":
        raise ValueError("a loss of your own gets hidden pixels, and a frequency mask hides none; valid: loss.kind")
    if run.corruption != Corruption():
        raise ValueError("a frequency mask filters the image, and nothing else hides it: leave corruption out")
    if kind != "frequency" and scope == "masked":
        raise ValueError(
            f"a frequency mask hides no pixels: valid with loss.kind {kind!r}: scope='full'; or 'frequency'"
        )
    if run.fourier is not None:
        raise ValueError("fourier needs hidden pixels, and a frequency mask hides none; leave it out")
    if run.contrastive is not None:
        raise ValueError("the branches of a contrastive loss hide patches, and a frequency mask none; leave one out")
    if run.loss_predictor is not None:
        raise ValueError("loss_predictor ranks hidden patches, and a frequency mask hides none; leave it out")


def check_target(downsample: int, stride: int, unit: int, *, inside: bool) -> None:
    """Refuse a target whose places do not tile those of the encoder's output, or mix hidden and visible pixels.

    Args:
        downsample: side of a place of the target in pixels. stride: of one of the encoder's output. unit: of the mask.
        inside: True if no target place may mix hidden and visible pixels.

    Raises:
        ValueError: `downsample` does not divide the stride or, if `inside`, the unit; names those that do.
    """
    if stride % downsample:
        raise ValueError(f"target.downsample {downsample} does not divide the stride; {choices(stride)}")
    if inside and unit % downsample:
        raise ValueError(
            f"target.downsample {downsample} mixes hidden and visible pixels: it does not divide the mask unit "
            f"of {unit} px; {choices(math.gcd(stride, unit))}"
        )


def check_dropping(run: Pretrain) -> None:
    """Refuse dropped tokens with an encoder that cannot compute visible tokens alone, or a head that cannot fill holes.

    Raises:
        ValueError: names the valid heads or corruptions.
    """
    head = run.head
    if not isinstance(head, DecoderHead):
        raise ValueError(f"token='drop' leaves holes that a {head.kind} head cannot fill; valid heads: decoder")
    if run.backbone.stride != run.backbone.patch_size or not run.backbone.is_plain_vit:
        raise ValueError(
            f"token='drop' needs a plain ViT (vit_...), not {run.backbone.name}; valid here: token='replace'"
        )


def check_momentum(run: Pretrain) -> None:
    """Refuse a missing momentum encoder where one is used, and one that nothing uses.

    Raises:
        ValueError: it is missing or unused, or the contrastive loss does not fit the run.
    """
    uses = (
        ("contrastive", run.contrastive is not None),
        ("the target 'momentum'", isinstance(run.target, MomentumTarget)),
        (f"the mask {run.mask.kind!r}", run.mask.scored_by is not None),
    )
    used = [name for name, needs in uses if needs]
    if used and run.momentum is None:
        raise ValueError(f"{used[0]} needs a momentum encoder: set momentum, such as MomentumEncoder()")
    if run.momentum is not None and not used:
        raise ValueError("nothing uses the momentum encoder; leave momentum out (a loss, target or mask would)")
    _check_looking(run)
    if run.contrastive is None:
        return
    if run.recipe.batch_size < 2:
        raise ValueError("a contrastive loss tells images apart: batch_size should be 2 or more")
    mask = run.contrastive.mask
    if isinstance(mask, str):
        return
    if isinstance(mask, FrequencyMask) or isinstance(run.mask, FrequencyMask):
        raise ValueError("the momentum encoder's mask is 'none' or 'same' where frequencies are removed")
    check_mask(mask, run, "momentum encoder's mask")
    if mask.views > 1 or mask.scored_by is not None:
        raise ValueError(f"the momentum encoder's mask is one that does not look at the image, once; not {mask.kind}")


def _check_looking(run: Pretrain) -> None:
    by = run.mask.scored_by
    if by == "loss" and run.loss_predictor is None:
        raise ValueError(f"the mask {run.mask.kind!r} looks at predicted losses: set loss_predictor, LossPredictor()")
    if run.loss_predictor is not None and run.target.classes is not None:
        raise ValueError(f"hard patches are told by errors of values; the target {run.target.kind!r} has classes")
    if run.loss_predictor is not None and run.mask.size % run.backbone.stride:
        raise ValueError(
            f"a loss predictor ranks places of {run.backbone.stride} px, the encoder's stride: mask units of "
            f"{run.mask.size} px should be a multiple of that"
        )
    if by == "attention" and not run.backbone.is_plain_vit:
        raise ValueError(f"attention is read from a plain ViT (vit_...), not from {run.backbone.name}")


def check_pretraining_recipe(recipe: Recipe) -> None:
    """Refuse settings that belong to fine-tuning.

    Raises:
        ValueError: the recipe has such a setting.
    """
    if recipe.layer_decay is not None:
        raise ValueError("layer_decay belongs to fine-tuning; a pre-training has none")
    if recipe.average is not None:
        raise ValueError("recipe.average belongs to fine-tuning; a pre-training publishes its weights")
    augment = recipe.augment
    if augment.mixes or augment.smoothing:
        raise ValueError("mixup, cutmix and smoothing belong to fine-tuning: a pre-training has no labels")
    check_whole_pictures(recipe)
