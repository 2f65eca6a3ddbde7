"""Whether the pieces of a pre-training fit each other and the image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.spec.backbone import PLAIN_VITS
from harness.spec.features import MomentumTarget
from harness.spec.heads import DecoderHead
from harness.spec.masking import CustomMask, Mask

if TYPE_CHECKING:
    from harness.spec.run import Pretrain


def check_mask(mask: Mask, run: Pretrain, what: str = "mask") -> None:
    """Whether a mask's units fit the image, the patches and the place where hidden patches are hidden.

    Args:
        what: the mask's name in the complaint.

    Raises:
        ValueError: they do not; names the valid sizes.
    """
    size, patch, unit = run.image_size, run.backbone.patch_size, mask.size
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


def check_target(downsample: int, stride: int, unit: int, *, inside: bool) -> None:
    """Whether a target has the encoder's resolution or a finer one.

    Args:
        inside: whether it has to tell hidden pixels from visible ones.

    Raises:
        ValueError: it does not.
    """
    if stride % downsample:
        raise ValueError(f"target.downsample {downsample} does not divide the stride; {choices(stride)}")
    if inside and unit % downsample:
        raise ValueError(
            f"target.downsample {downsample} mixes hidden and visible pixels: it does not divide the mask unit "
            f"of {unit} px; {choices(math.gcd(stride, unit))}"
        )


def check_dropping(run: Pretrain) -> None:
    """Whether an encoder can compute visible tokens alone, and a head can make up the others.

    Raises:
        ValueError: they cannot.
    """
    name, head = run.backbone.name, run.head
    if not isinstance(head, DecoderHead):
        raise ValueError(f"token='drop' leaves holes that a {head.kind} head cannot fill; valid heads: decoder")
    if run.backbone.stride != run.backbone.patch_size or not name.startswith(PLAIN_VITS):
        raise ValueError(f"token='drop' needs a plain ViT (vit_...), not {name}; valid here: token='replace'")


def check_momentum(run: Pretrain) -> None:
    """Whether a momentum encoder is there where one is used, and only there.

    Raises:
        ValueError: it is not, or the contrastive loss does not fit the run.
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
        raise ValueError(
            "nothing uses the momentum encoder; leave it out, or set contrastive, or another target or mask"
        )
    if run.contrastive is None:
        return
    if run.recipe.batch_size < 2:
        raise ValueError("a contrastive loss tells images apart: batch_size should be 2 or more")
    mask = run.contrastive.mask
    if isinstance(mask, str):
        return
    check_mask(mask, run, "momentum encoder's mask")
    if mask.views > 1 or mask.scored_by is not None:
        raise ValueError(f"the momentum encoder's mask is one that does not look at the image, once; not {mask.kind}")


def choices(size: int, multiple: int = 1) -> str:
    """The multiples of a number that divide a size, as the end of a complaint."""
    valid = [str(n) for n in range(multiple, size + 1, multiple) if size % n == 0]
    return f"valid: {', '.join(valid) or 'none'}"
