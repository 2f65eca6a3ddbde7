"""SimMIM (Xie et al., CVPR 2022): the paper's point in the space of specs.

The published recipes in full, with model, sizes and schedules, are in `harness.papers.simmim_recipes`.
"""

from __future__ import annotations

from harness.spec import (
    Corruption,
    Head,
    LinearHead,
    Loss,
    Mask,
    PixelTarget,
    Pretrain,
    RandomMask,
    Scale,
    Target,
)

# Built once: a study of ten thousand cells shares their digests.
CORRUPTION = Corruption(fill="none", token="replace")
HEAD = LinearHead()
TARGET = PixelTarget(downsample=1)
LOSS = Loss(kind="l1", scope="masked")


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
    embedding, a linear head, the clean pixels at full resolution, l1 under the mask.

    Raises:
        Skip: the paper's mask unit does not fit the scale.
    """
    return Pretrain(
        data=scale.data,
        image_size=scale.image_size,
        backbone=scale.backbone,
        mask=mask or RandomMask(size=scale.pixels(32), ratio=0.6),
        corruption=CORRUPTION,
        head=head or HEAD,
        target=target or TARGET,
        loss=loss or LOSS,
        recipe=scale.pretrain,
        seed=seed,
    )
