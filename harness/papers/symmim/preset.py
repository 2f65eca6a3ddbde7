"""SymMIM (Nguyen and Park, ICPR 2024, arXiv 2408.12772): its structure, every value that is not published labelled.

One number of the paper is verified: 85.9 % of ViT-L fine-tuned on ImageNet-1K (its abstract). Neither a table nor a
hyper-parameter could be read, and no code is known. The boards rest on machine-written summaries of the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from harness.papers.mae.preset import CORRUPTION as DROPPED
from harness.papers.simmim.preset import CORRUPTION, HEAD, LOSS, TARGET
from harness.spec import (
    AnyLoss,
    CheckerboardMask,
    Contrastive,
    Corruption,
    Head,
    Mask,
    MomentumEncoder,
    Pretrain,
    Scale,
    Target,
)

SMALL_BOARD, LARGE_BOARD = 1, 2
"""Sides of a square of the two boards, in patches."""

# MoCo v3's, as the paper's own could not be read; `assumed` says so.
MOMENTUM = MomentumEncoder(start=0.99, end=1.0, schedule="cosine")


def symmim(
    scale: Scale,
    *,
    mask: Mask | None = None,
    contrastive: Contrastive | Literal["assumed"] | None = "assumed",
    momentum: MomentumEncoder = MOMENTUM,
    corruption: Corruption = CORRUPTION,
    head: Head = HEAD,
    target: Target = TARGET,
    loss: AnyLoss = LOSS,
    strict: bool = False,
    seed: int = 0,
) -> Pretrain:
    """SymMIM's pre-training at a scale; an ablation replaces one piece.

    The encoder sees a checkerboard of single patches and predicts the pixels of the hidden ones; the momentum encoder
    sees a board of 2 x 2 patches; InfoNCE tells the images apart. Where a board is not exactly half hidden, or a hidden
    patch does not reflect a visible one, `assumed` says so: at 224 px and patches of 16 that is the large board.

    Args:
        mask: of the encoder. contrastive: None leaves the loss and the momentum encoder out.
        strict: refuse such boards instead.
    """
    patch = scale.backbone.patch_size
    mask = mask or CheckerboardMask(size=patch, square=SMALL_BOARD, strict=strict)
    # A word as the default, since None leaves the loss out.
    if contrastive == "assumed":
        contrastive = Contrastive(mask=CheckerboardMask(size=patch, square=LARGE_BOARD, strict=strict))
    return Pretrain(
        data=scale.data,
        image_size=scale.image_size,
        backbone=scale.backbone,
        mask=mask,
        corruption=corruption,
        head=head,
        target=target,
        loss=loss,
        contrastive=contrastive,
        momentum=None if contrastive is None else momentum,
        recipe=scale.pretrain,
        seed=seed,
        assumed=(
            *_assumed_of_masks(scale, mask, contrastive),
            *_assumed_of_prediction(corruption, head, target, loss, branches=1 if contrastive is None else 2),
            *(() if contrastive is None else _assumed_of_contrast(contrastive, momentum)),
            "SymMIM: epochs, learning rate, batch, augmentation and fine-tuning are the scale's",
        ),
    )


def _assumed_of_masks(scale: Scale, mask: Mask, contrastive: Contrastive | None) -> Iterator[str]:
    boards = [mask] if isinstance(mask, CheckerboardMask) else []
    if contrastive is not None and isinstance(contrastive.mask, CheckerboardMask):
        boards.append(contrastive.mask)
    for board in boards:
        yield (
            f"board of {board.square} x {board.square} patches, phase {board.phase}: formula and size from a "
            "machine-written summary, the phase is open"
        )
        yield from board.notes(scale.image_size)


def _assumed_of_prediction(
    corruption: Corruption, head: Head, target: Target, loss: AnyLoss, branches: int
) -> Iterator[str]:
    hidden = "dropped before the encoder, as in MAE" if corruption == DROPPED else "replaced by a mask token"
    yield f"hidden patches: {hidden}{', in both branches' * (branches == 2)}"
    yield f"prediction: {head.kind} head, target {target.kind}, {loss.kind} loss over the {loss.scope} area"


def _assumed_of_contrast(contrastive: Contrastive, momentum: MomentumEncoder) -> Iterator[str]:
    crops = {"same": "the same crop", "two": "another crop", "swapped": "another crop, and both ways round"}
    yield f"contrastive loss: weight {contrastive.weight:g}, temperature {contrastive.temperature:g}"
    yield f"the momentum encoder sees {crops[contrastive.crops]}"
    yield (
        f"projector of {contrastive.projector_layers} layers, predictor of {contrastive.predictor_layers}, "
        f"{contrastive.hidden} channels inside and {contrastive.out} out, on the mean of the features (MoCo v3 takes "
        "the class token)"
    )
    yield f"momentum from {momentum.start:g} to {momentum.end:g}, {momentum.schedule}"
