"""SimMIM (Xie et al., CVPR 2022): the paper's point in the space of specs.

The published recipes in full, with model, sizes and schedules, are in `harness.papers.simmim_recipes`.
"""

from __future__ import annotations

from typing import assert_never

from harness.spec import (
    BlockMask,
    Corruption,
    CustomMask,
    Head,
    LinearHead,
    Loss,
    Mask,
    PixelTarget,
    Pretrain,
    RandomMask,
    Scale,
    SquareMask,
    Target,
    target_classes,
)

# Built once: a study of ten thousand cells shares their digests.
CORRUPTION = Corruption(fill="none", token="replace")
HEAD = LinearHead()
TARGET = PixelTarget(downsample=1)
LOSS = Loss(kind="l1", scope="masked")
CLASS_LOSS = Loss(kind="cross-entropy", scope="masked")


def simmim(
    scale: Scale,
    *,
    mask: Mask | None = None,
    head: Head | None = None,
    target: Target | None = None,
    loss: Loss | None = None,
    seed: int = 0,
) -> Pretrain:
    """SimMIM's pre-training at a scale; an ablation replaces one piece.

    The default is the paper's: random units of 32 of 192 pixels at ratio 0.6, a learned mask token after the patch
    embedding, a linear head, the clean pixels at full resolution, l1 under the mask. A target of classes brings
    cross-entropy under the mask, unless a loss is given.

    Raises:
        Skip: the paper's mask unit does not fit the scale.
    """
    mask = mask or RandomMask(size=scale.pixels(32), ratio=0.6)
    target = target or TARGET
    return Pretrain(
        data=scale.data,
        image_size=scale.image_size,
        backbone=scale.backbone,
        mask=mask,
        corruption=CORRUPTION,
        head=head or HEAD,
        target=target,
        loss=loss or (LOSS if target_classes(target) is None else CLASS_LOSS),
        recipe=scale.pretrain,
        seed=seed,
        assumed=_assumed(mask),
    )


def _assumed(mask: Mask) -> tuple[str, ...]:
    """What SimMIM does not publish of its masks: only the code of the random ones is released."""
    match mask:
        case SquareMask():
            return ("square masks: the square moves by whole units",)
        case BlockMask():
            counts = {"exact": "the exact count", "beit": "a count that varies"}
            return (f"block-wise masks: BEiT's algorithm with {counts[mask.count]}, smallest block {mask.min_block:g} "
                    f"of the units, aspect ratio from {mask.min_aspect:g}",)  # fmt: skip
        case RandomMask() | CustomMask():
            return ()
        case _:
            assert_never(mask)
