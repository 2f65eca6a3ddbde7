"""SimMIM (Xie et al., CVPR 2022): the paper's point in the space of specs.

The published recipes in full, with model, sizes and schedules, are in `harness.papers.simmim.recipes`.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.spec import (
    AnyLoss,
    BinTarget,
    BlockMask,
    ClusterTarget,
    Corruption,
    Head,
    InverseSwinHead,
    LinearHead,
    Loss,
    Mask,
    PatchWords,
    PixelTarget,
    Pretrain,
    RandomMask,
    Scale,
    SquareMask,
    Target,
    TokenTarget,
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
    loss: AnyLoss | None = None,
    seed: int = 0,
) -> Pretrain:
    """SimMIM's pre-training at a scale; an ablation replaces one piece.

    The default is the paper's: random units of 32 of 192 pixels at ratio 0.6, a learned mask token after the patch
    embedding, a linear head, the clean pixels at full resolution, l1 under the mask. A target of classes brings
    cross-entropy under the mask, unless a loss is given.

    Raises:
        Skip: the paper's mask unit does not fit the scale.
    """
    mask, head, target = mask or RandomMask(size=scale.pixels(32), ratio=0.6), head or HEAD, target or TARGET
    # Distances between class numbers mean nothing.
    loss = loss or (LOSS if target.classes is None else CLASS_LOSS)
    return Pretrain(
        data=scale.data,
        image_size=scale.image_size,
        backbone=scale.backbone,
        mask=mask,
        corruption=CORRUPTION,
        head=head,
        target=target,
        loss=loss,
        recipe=scale.pretrain,
        seed=seed,
        assumed=(
            *_assumed_of_mask(mask),
            *_assumed_of_head(head),
            *_assumed_of_target(target),
            *_assumed_of_loss(loss),
        ),
    )


def _assumed_of_mask(mask: Mask) -> tuple[str, ...]:
    """Assumptions about SimMIM's masks: only the code of the random ones is released."""
    match mask:
        case SquareMask():
            return ("square masks: the square moves by whole units",)
        case BlockMask():
            counts = {"exact": "the exact count", "beit": "a count that varies"}
            return (f"block-wise masks: BEiT's algorithm with {counts[mask.count]}, smallest block {mask.min_block:g} "
                    f"of the units, aspect ratio from {mask.min_aspect:g}",)  # fmt: skip
        case _:
            return ()


def _assumed_of_head(head: Head) -> Iterator[str]:
    """Assumptions about SimMIM's heads: only the code of the linear one is released."""
    if isinstance(head, InverseSwinHead):
        yield (
            f"inverse Swin heads: linear patch splittings with LayerNorm and windows of {head.window}, "
            "which give the printed parameter counts"
        )


def _assumed_of_target(target: Target) -> Iterator[str]:
    """Assumptions about SimMIM's targets: only the code of pixels at full resolution is released."""
    match target:
        case PixelTarget() | BinTarget():
            if target.downsample > 1:
                yield "smaller targets: means over squares"
        case ClusterTarget():
            yield (
                f"colour clusters: a palette learnt from {target.per_image} colours in each of {target.images} images, "
                f"{target.iterations} rounds of k-means"
            )
        case TokenTarget(tokenizer=PatchWords()):
            yield "tokens: words of a k-means over patches in place of BEiT's tokenizer"
        case TokenTarget():
            yield "tokens: the crop itself is scaled for the tokenizer, bicubic"


def _assumed_of_loss(loss: AnyLoss) -> Iterator[str]:
    """Assumptions about SimMIM's losses."""
    if loss.kind == "smooth-l1":
        yield f"smooth-l1: beta {loss.beta:g}"
