"""A2MIM (Li et al., ICML 2023) and its SimMIM baselines for CNNs: the papers' points in the space of specs.

The paper and its released code (Westlake-AI/openmixup, commit 37e1372446ab) are two methods: `paper` and `released`
name them throughout. What of the paper is unverified or not published is among a run's `assumed` notes. The recipes in
full are in `harness.papers.a2mim.recipes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from harness.spec import (
    AfterStage,
    AnyBackbone,
    AnyLoss,
    AtInput,
    BeforeBlock,
    Corruption,
    CustomBackbone,
    FourierLoss,
    HarnessError,
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

Variant = Literal["paper", "released"]

HEAD, TARGET = LinearHead(), PixelTarget()
L1, FOCAL_L1 = Loss(kind="l1", scope="masked"), Loss(kind="focal-l1", scope="masked")
PAPER_FOURIER = FourierLoss(variant="paper", weight=0.5)
RELEASED_FOURIER = FourierLoss(variant="released", weight=0.5, unmask_weight=1e-3)
RELEASED_FOURIER_VIT = FourierLoss(variant="released", weight=0.1)

HIDING = Corruption(fill="mean", token="replace")
"""Corruption by which a CNN sees nothing of hidden patches: filled before the stem, replaced behind it."""

# Depths of timm's models by size, so that planning needs no torch.
CONVNEXT_DEPTHS = {"tiny": (3, 3, 9, 3), "small": (3, 3, 27, 3), "base": (3, 3, 27, 3), "large": (3, 3, 27, 3)}
VIT_DEPTHS = {"tiny": 12, "small": 12, "medium": 12, "base": 12, "large": 24, "huge": 32}
VIT_NAME = re.compile(r"(?:vit|deit3?|beit|beitv2)_([a-z]+)_(?:distilled_)?patch\d+_(?!\d+x\d)")  # no 36x1, 18x2

RAN: dict[Variant, str] = {
    "paper": "A2MIM as its paper says it, variant 'paper'",
    "released": "A2MIM as its released code does it, variant 'released'",
}
UNVERIFIED = "unverified: the paper's equations of its losses, and where its mask tokens come in"
ADDED = "the paper adds the mask token; its fill is the mean colour of the whole image, as in the released code"
RELEASED_HEAD = "the head's first weights are torch's; the released code draws them with deviation 0.02 and biases 0"
RELEASED_FILL = "hidden pixels have the mean colour of the whole image, hidden part included"


def a2mim(
    scale: Scale,
    *,
    variant: Variant = "paper",
    mask: Mask | None = None,
    corruption: Corruption | None = None,
    head: Head | None = None,
    target: Target | None = None,
    loss: AnyLoss | None = None,
    fourier: FourierLoss | Literal["variant"] | None = "variant",
    seed: int = 0,
) -> Pretrain:
    """A2MIM's pre-training at a scale; an ablation replaces one piece.

    The default is the paper's: random units of 32 of 224 pixels at ratio 0.6, hidden pixels of the image's mean colour,
    a learned mask token added in the middle of the network, a linear head, the clean pixels, l1 under the mask and half
    the Fourier loss of each image. `released` is what the code does: a gated addition in CNNs, a token at the input of
    ViTs, a focal l1 in CNNs, and the Fourier loss of the batch's mean image.

    Args:
        fourier: by default the variant's, or none where the target is no image; None leaves it out.

    Raises:
        Skip: the paper's mask unit does not fit the scale.
        HarnessError: where the token comes in is not known for the scale's backbone, and no corruption is given.
    """
    backbone, target = scale.backbone, target or TARGET
    stated = {"corruption": corruption is not None, "loss": loss is not None, "Fourier loss": fourier != "variant"}
    # A word as the default, since None leaves the loss out.
    if fourier == "variant":
        # A spectrum belongs to an image: classes and features have none.
        fourier = a2mim_fourier(backbone, variant) if isinstance(target, PixelTarget) else None
    corruption = corruption or a2mim_corruption(backbone, variant)
    return Pretrain(
        data=scale.data,
        image_size=scale.image_size,
        backbone=backbone,
        mask=mask or RandomMask(size=scale.pixels(32), ratio=0.6),
        corruption=corruption,
        head=head or HEAD,
        target=target,
        loss=loss or a2mim_loss(backbone, variant),
        fourier=fourier,
        recipe=scale.pretrain,
        seed=seed,
        assumed=tuple(_assumed(backbone, variant, corruption, [name for name, given in stated.items() if given])),
    )


def simmim_cnn(scale: Scale, *, mask: Mask | None = None, seed: int = 0) -> Pretrain:
    """SimMIM for CNNs, hiding what it says it hides: the data set's mean colour, then a token in place of the stem's
    output, a linear head, and l1 under the mask. What A2MIM is to be compared with.

    Raises:
        Skip: the paper's mask unit does not fit the scale.
    """
    note = "SimMIM publishes no CNN: hidden pixels have the data set's mean colour, since a CNN's stem would show them"
    return _simmim(scale, HIDING, mask, seed, note)


def released_simmim_cnn(scale: Scale, *, mask: Mask | None = None, seed: int = 0) -> Pretrain:
    """The baseline that A2MIM's tables are measured against, as its configurations run it: nothing fills hidden pixels.

    A ResNet's stem sees the whole image, and a token replaces its output: hidden pixels leak to their neighbours. To a
    ConvNeXt's the token is added, so that nothing is hidden (configs/selfsup/_base_/models/simmim; the option
    `mask_color='zero'` fills nothing). For its recipe see `harness.papers.simmim_cnn_pretrain`.

    Raises:
        Skip: the paper's mask unit does not fit the scale.
        HarnessError: the backbone is neither a ResNet nor a ConvNeXt.
    """
    note = "released SimMIM of CNNs: nothing fills hidden pixels, whatever its mask_color says"
    return _simmim(scale, released_simmim_corruption(scale.backbone), mask, seed, note, RELEASED_HEAD)


def _simmim(scale: Scale, corruption: Corruption, mask: Mask | None, seed: int, *notes: str) -> Pretrain:
    return Pretrain(
        data=scale.data,
        image_size=scale.image_size,
        backbone=scale.backbone,
        mask=mask or RandomMask(size=scale.pixels(32), ratio=0.6),
        corruption=corruption,
        head=HEAD,
        target=TARGET,
        loss=L1,
        recipe=scale.pretrain,
        seed=seed,
        assumed=notes,
    )


def a2mim_corruption(backbone: AnyBackbone, variant: Variant = "paper") -> Corruption:
    """Corruption of A2MIM for a backbone.

    Raises:
        HarnessError: where its token comes in is not known for this family.
    """
    site = a2mim_site(backbone, variant)
    # The released CNNs scale hidden features by a learned gate and add the token; its ViTs only add it.
    gated = variant == "released" and _family(backbone) in ("resnet", "convnext")
    return Corruption(fill="image-mean", token="gated-add" if gated else "add", site=site)


def a2mim_site(backbone: AnyBackbone, variant: Variant = "paper") -> AtInput | AfterStage | BeforeBlock:
    """Site of A2MIM's mask token.

    `paper`: after stage 3 of a pyramid, and before the block at two thirds of a ViT, which is the paper's layer 8 of 12
    and 5 of 8. `released`: after stage 3 of a ResNet (stride 16), before the first block of a ConvNeXt's stage 4
    (stride 32), and at the input of a ViT.

    Raises:
        HarnessError: it is not known for this family.
    """
    family, half = _family(backbone), backbone.stride // 2
    if family == "vit":
        if variant == "released":
            return AtInput()
        return BeforeBlock(block=_vit_depth(backbone) * 2 // 3, stride=backbone.stride)
    if family == "swin":
        return AtInput() if variant == "released" else AfterStage(stage=3, stride=half)
    if family == "convnext" and variant == "released":
        return BeforeBlock(block=sum(_convnext_depths(backbone)[:3]) + 1, stride=backbone.stride)
    return AfterStage(stage=3, stride=half)


def a2mim_loss(backbone: AnyBackbone, variant: Variant = "paper") -> Loss:
    """A2MIM's prediction error: l1, but focal l1 in every released configuration of a CNN."""
    return FOCAL_L1 if variant == "released" and _family(backbone) in ("resnet", "convnext") else L1


def a2mim_fourier(backbone: AnyBackbone, variant: Variant = "paper") -> FourierLoss | None:
    """A2MIM's Fourier loss; the released ConvNeXts have none, other ResNets than ResNet-50 other ones
    (`harness.papers.a2mim.recipes`)."""
    if variant == "paper":
        return PAPER_FOURIER
    match _family(backbone):
        case "resnet":
            return RELEASED_FOURIER
        case "swin":
            return RELEASED_FOURIER_VIT.replace(weight=0.5)
        case "convnext":
            return None
        case _:
            return RELEASED_FOURIER_VIT


def released_simmim_corruption(backbone: AnyBackbone) -> Corruption:
    """Corruption of the released SimMIM of CNNs, which fails to hide patches.

    Raises:
        HarnessError: the backbone is neither a ResNet nor a ConvNeXt.
    """
    match _family(backbone):
        case "resnet":
            return Corruption(fill="none", token="replace")
        case "convnext":
            # Declared, as specs that hide nothing are refused otherwise.
            return Corruption(fill="none", token="add", hides_nothing=True)
        case family:
            raise HarnessError(f"released_simmim_cnn is of CNNs, not of a {family}; valid: ResNets and ConvNeXts")


def _assumed(backbone: AnyBackbone, variant: Variant, corruption: Corruption, stated: list[str]) -> Iterator[str]:
    """Notes on what is assumed of A2MIM, the variant first. stated: pieces that are the caller's, not the variant's."""
    yield RAN[variant] + (f", but for its {' and its '.join(stated)}" if stated else "")
    if variant == "paper":
        yield UNVERIFIED
        if corruption.fill == "image-mean":
            yield ADDED
        if not isinstance(backbone, CustomBackbone) and _family(backbone) in ("convnext", "swin"):
            yield "the paper states a site for ResNet-50 and ViTs: other pyramids have ResNet-50's, stage 3"
        return
    yield RELEASED_HEAD
    if corruption.fill == "image-mean":
        yield RELEASED_FILL


def _family(backbone: AnyBackbone) -> Literal["resnet", "convnext", "swin", "vit"]:
    """Family of a backbone, by its timm name.

    Raises:
        HarnessError: A2MIM says nothing of it.
    """
    name = "" if isinstance(backbone, CustomBackbone) else backbone.name
    # timm's ResNeXts are ResNets with other blocks.
    if "resnet" in name or "resnext" in name:
        return "resnet"
    if name.startswith("convnext"):
        return "convnext"
    if "swin" in name:
        return "swin"
    if name.startswith(("vit_", "deit", "beit")):
        return "vit"
    raise HarnessError(
        f"A2MIM says nothing of {backbone.name}; valid: ResNets, ConvNeXts, Swins, ViTs; or state the corruption"
    )


def _vit_depth(backbone: AnyBackbone) -> int:
    # Arguments take precedence over the model's name.
    if stated := dict(backbone.args).get("depth"):
        return int(stated)
    name = VIT_NAME.match(backbone.name)
    if name is None or name[1] not in VIT_DEPTHS:
        raise HarnessError(
            f"the depth of {backbone.name} is not known here: state it as depth in args, or take one of "
            f"{', '.join(VIT_DEPTHS)}"
        )
    return VIT_DEPTHS[name[1]]


def _convnext_depths(backbone: AnyBackbone) -> tuple[int, ...]:
    stated = dict(backbone.args).get("depths")
    size = backbone.name.split("_")[1] if "_" in backbone.name else ""
    if not stated and size not in CONVNEXT_DEPTHS:
        raise HarnessError(
            f"the depths of {backbone.name} are not known here: state them in args, or take one of "
            f"{', '.join(CONVNEXT_DEPTHS)}"
        )
    return tuple(stated or CONVNEXT_DEPTHS[size])
