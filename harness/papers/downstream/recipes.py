"""Published trainings of segmentation and detection on top of pre-trained encoders, in full, and two of our own.

Complete as published are two: UPerNet on MAE's ViT-B (open-mmlab/mmsegmentation, configs/mae, as of 0.x) and ViTDet
(facebookresearch/detectron2, projects/ViTDet); of Swin the official files (Swin-Transformer-Semantic-Segmentation).

A2MIM's figures (39.8 / 34.9 and 38.3 of ResNet-50, 49.4 / 43.5 and 49.0 of ViT-B) are published without a file that
could have given them. Those of Westlake-AI/openmixup at 37e1372 cannot: its ViT-B detector feeds four maps of stride 16
to a pyramid whose anchors and regions are those of strides 4 to 64, as the rescaling layers of the file's origin (CAE)
are lost; it switches off both kinds of positions, and loses the layer decay; the ResNet-50 detector's pipeline drops
the masks that its loss needs, and has a form that its version of mmdetection does not read; the ResNet-50 segmenter
builds another stem than was pre-trained. So `a2mim_segment` and `a2mim_detect` have what the files and the text say as
far as it can be run, and say in `assumed` what stands in for the rest. Their numbers are no reproduction.

SimMIM and SymMIM publish nothing that could be written down here.

What a recipe cannot express is in `assumed`, which reports print.
"""

from __future__ import annotations

from typing import Literal

from harness.papers.a2mim.recipes import a2mim_pretrain
from harness.papers.mae.preset import mae_pretrain
from harness.papers.simmim.recipes import simmim_backbone, simmim_pretrain
from harness.spec import (
    Augment,
    CocoFolder,
    Data,
    Detect,
    Fpn,
    HarnessError,
    LinearMap,
    MaskFolder,
    MultiStep,
    Poly,
    Recipe,
    Segment,
    SimplePyramid,
    Slide,
    Start,
    UPerNet,
)

VitModel = Literal["vit-b"]
SwinModel = Literal["swin-t", "swin-b"]
A2mimModel = Literal["vit-b", "r50"]

ADE20K_SIDE, WINDOW_STRIDE = 512, 341
"""Side of crops and of test windows, and pixels from a window to the next."""
COCO_SIDE = 1024
ADE20K_STEPS, ADE20K_BATCH = 160_000, 16
VIT_TAPS = (4, 6, 8, 12)
"""Blocks whose maps UPerNet sees, counted from 1: `out_indices=[3, 5, 7, 11]`."""
SCENES = Augment(scale=(0.5, 2.0), class_limit=0.75)

LOSS = (
    "segmentation: no photometric distortion, and the mean over the batch's pixels of a known class, where "
    "mmsegmentation divides by all pixels of each device's pictures"
)
WARM_UP = (
    "warm-up to the peak, after which the rate goes on at what the decay, counted from the first step, gives: "
    "mmsegmentation multiplies both"
)
RESIZED = "test pictures are resized bicubically, where mmsegmentation and detectron2 resize them bilinearly"
MAE_VIT = "ViT as it was pre-trained: mmsegmentation adds relative positions that begin at 0 and scales that begin at 1"
SWIN_WINDOWS = "Swin: tested in windows of 512 px, where the official files test whole pictures"
SWIN_SHIFTS = (
    "Swin: at 512 px windows of 7 do not divide the maps: timm shifts before it pads, so that shifted windows mix "
    "opposite edges; mmsegmentation pads first"
)
SWIN = "Swin: biases do not decay, where the official files spare those of norms alone"
SWIN_T = "Swin-T: drop path 0.3, which is Swin-B's"
VITDET = (
    "ViTDet: attention of all blocks is global and without relative positions, where eight of twelve blocks have "
    "windows of 14; biases do not decay"
)
FILES = "A2MIM: no file that could have given the published figure is known (harness.papers.downstream.recipes)"
TWO_FILES = "A2MIM's ViT-B segmenter: openmixup has a file of MAE's head (rate 1e-4, as here) and one of BEiT's (4e-4)"
FCN = "A2MIM's ResNet-50 segmenter: UPerNet in place of a FCN on stages dilated to stride 8, on the pre-trained stem"
CAE = (
    "A2MIM's ViT-B detector: ViTDet's simple pyramid, and the layer decay of CAE's file, 0.75, which openmixup's lost; "
    "no GIoU loss"
)
C4 = "A2MIM's ResNet-50 detector: a feature pyramid in place of C4"
SQUARES = (
    "squares of 1024 px whose longer side is resized, in place of a shorter side of {} px and a longer one up to 1333; "
    "tested at 1024 instead of 800 px"
)
A2MIM_VIT = Recipe(
    epochs=12,
    batch_size=16,
    lr=3e-4,
    lr_batch=None,
    weight_decay=0.05,
    layer_decay=0.75,
    drop_path=0.2,
    warmup_steps=500,
    warmup_lr=3e-4 * 1e-3,
    schedule=MultiStep(milestones=(9, 11)),
    clip=None,
    augment=Augment(scale=(0.6, 1.0)),
)
A2MIM_R50 = Recipe(
    epochs=24,
    batch_size=16,
    lr=0.02,
    lr_batch=None,
    optimizer="sgd",
    nesterov=False,
    weight_decay=1e-4,
    warmup_steps=1000,
    warmup_lr=0.02 * 1e-3,
    schedule=MultiStep(milestones=(16, 23)),
    clip=None,
    augment=Augment(scale=(0.8, 1.0)),
)
OWN = "a protocol of this package, of no paper"


def ade20k() -> MaskFolder:
    """ADE20K's 150 classes; runs are planned without its files.

    A function, since whoever builds the spec looks whether the folder has changed.
    """
    return MaskFolder(name="ade20k", classes=150, shift=-1)


def coco() -> CocoFolder:
    """COCO 2017; runs are planned without its files. Two of its annotations have boxes without an area."""
    return CocoFolder(name="coco", flat="drop")


def mae_segment(
    model: VitModel = "vit-b",
    *,
    epochs: int = 1600,
    start: Start | None = None,
    data: Data | None = None,
    seed: int = 0,
) -> Segment:
    """UPerNet on a ViT-B of MAE, as mmsegmentation trains and tests it on ADE20K: 48.13 mIoU at one scale.

    Args:
        epochs: of the published pre-training. start: another starting point, of blocks of one stride.

    Raises:
        HarnessError: there is no such model or pre-training.
    """
    _check("mae_segment", model, "vit-b")
    return Segment(
        start=start or mae_pretrain("vit-b", epochs=epochs, seed=seed),
        data=data or ade20k(),
        image_size=ADE20K_SIDE,
        head=UPerNet(width=768, dropout=0.1),
        taps=VIT_TAPS,
        test=Slide(stride=WINDOW_STRIDE),
        recipe=_ade20k_recipe(1e-4, weight_decay=0.05, layer_decay=0.65, drop_path=0.1),
        seed=seed,
        assumed=(LOSS, WARM_UP, RESIZED, MAE_VIT),
    )


def swin_segment(
    model: SwinModel = "swin-b", *, start: Start | None = None, data: Data | None = None, seed: int = 0
) -> Segment:
    """UPerNet on a Swin, as its official files train it on ADE20K.

    They test whole pictures; timm's Swin takes squares of one size, so here windows are tested. The published 44.51
    (Swin-T) and 48.13 (Swin-B) start from supervised training: give such weights as a `Checkpoint`.

    Args:
        start: SimMIM's pre-training by default, of 800 epochs for Swin-B and of 100 for Swin-T.

    Raises:
        HarnessError: there is no such model.
    """
    _check("swin_segment", model, "swin-t", "swin-b")
    begun = start or simmim_pretrain(model, epochs=800 if model == "swin-b" else 100, seed=seed)
    return Segment(
        start=begun,
        data=data or ade20k(),
        image_size=ADE20K_SIDE,
        backbone=simmim_backbone(model, window=7) if start is None else None,
        head=UPerNet(width=512, dropout=0.1),
        test=Slide(stride=WINDOW_STRIDE),
        recipe=_ade20k_recipe(6e-5, weight_decay=0.01, drop_path=0.3, precision="fp32"),
        seed=seed,
        assumed=(LOSS, WARM_UP, RESIZED, SWIN, SWIN_WINDOWS, SWIN_SHIFTS, *[SWIN_T] * (model == "swin-t")),
    )


def vitdet(
    model: VitModel = "vit-b",
    *,
    epochs: int = 1600,
    start: Start | None = None,
    data: Data | None = None,
    seed: int = 0,
) -> Detect:
    """ViTDet on MAE's ViT-B: Mask R-CNN on a simple pyramid, 100 epochs of COCO: 51.6 box and 45.9 mask AP.

    Args:
        epochs, start: as for `mae_segment`.

    Raises:
        HarnessError: there is no such model or pre-training.
    """
    _check("vitdet", model, "vit-b")
    return Detect(
        start=start or mae_pretrain("vit-b", epochs=epochs, seed=seed),
        data=data or coco(),
        image_size=COCO_SIDE,
        pyramid=SimplePyramid(),
        box_head="4conv1fc",
        recipe=Recipe(
            steps=184_375,
            batch_size=64,
            lr=1e-4,
            lr_batch=None,
            weight_decay=0.1,
            layer_decay=0.7,
            drop_path=0.1,
            warmup_steps=250,
            warmup_lr=1e-4 * 1e-3,
            schedule=MultiStep(milestones=(163_889, 177_546), unit="steps"),
            clip=None,
            precision="fp16",
            augment=Augment(scale=(0.1, 2.0)),
        ),
        seed=seed,
        assumed=(VITDET, RESIZED),
    )


def a2mim_segment(
    model: A2mimModel = "vit-b", *, start: Start | None = None, data: Data | None = None, seed: int = 0
) -> Segment:
    """A segmentation of ADE20K as near to A2MIM's as is published; `assumed` says what stands in for the rest.

    Args:
        start: another starting point than A2MIM's longest released pre-training.

    Raises:
        HarnessError: there is no such model.
    """
    _check("a2mim_segment", model, "vit-b", "r50")
    begun = start or a2mim_pretrain(model, seed=seed)
    if model == "vit-b":
        run = mae_segment(start=begun, data=data, seed=seed)
        return run.replace(assumed=(LOSS, WARM_UP, RESIZED, FILES, TWO_FILES))
    recipe = _ade20k_recipe(1e-2, weight_decay=5e-4, precision="fp32").replace(
        optimizer="sgd",
        nesterov=False,
        schedule=Poly(power=0.9, min_lr=1e-4),
        warmup_steps=0,
        warmup_lr=0.0,
    )
    return Segment(
        start=begun,
        data=data or ade20k(),
        image_size=ADE20K_SIDE,
        head=UPerNet(width=512, dropout=0.1),
        recipe=recipe,
        seed=seed,
        assumed=(LOSS, RESIZED, FILES, FCN),
    )


def a2mim_detect(
    model: A2mimModel = "vit-b", *, start: Start | None = None, data: Data | None = None, seed: int = 0
) -> Detect:
    """Detection and instance segmentation of COCO as near to A2MIM's as is published; as `a2mim_segment`.

    Raises:
        HarnessError: there is no such model.
    """
    _check("a2mim_detect", model, "vit-b", "r50")
    vit = model == "vit-b"
    return Detect(
        start=start or a2mim_pretrain(model, seed=seed),
        data=data or coco(),
        image_size=COCO_SIDE,
        pyramid=SimplePyramid() if vit else Fpn(),
        box_head="4conv1fc" if vit else "2fc",
        recipe=A2MIM_VIT if vit else A2MIM_R50,
        seed=seed,
        assumed=(RESIZED, FILES, *((CAE, SQUARES.format("480 to 800")) if vit else (C4, SQUARES.format("640 to 800")))),
    )


def dense_probe(start: Start, *, data: Data | None = None, seed: int = 0) -> Segment:
    """A linear layer on the frozen maps of an encoder, 20,000 steps of ADE20K: our own protocol, of no paper."""
    recipe = _ade20k_recipe(1e-3, weight_decay=0.0).replace(steps=20_000, warmup_steps=0, warmup_lr=0.0)
    return Segment(
        start=start,
        data=data or ade20k(),
        image_size=ADE20K_SIDE,
        head=LinearMap(),
        frozen=True,
        test=Slide(stride=WINDOW_STRIDE),
        recipe=recipe,
        seed=seed,
        assumed=(OWN,),
    )


def upernet_20k(start: Start, *, data: Data | None = None, seed: int = 0) -> Segment:
    """UPerNet for 20,000 steps of ADE20K, an eighth of the usual length: our own protocol, of no paper.

    The recipe is otherwise `mae_segment`'s; a CNN and a Swin have no layer decay, and their usual maps.
    """
    one_stride = start.backbone.stride == start.backbone.patch_size
    recipe = _ade20k_recipe(1e-4, weight_decay=0.05, layer_decay=0.65 if one_stride else None, drop_path=0.1)
    return Segment(
        start=start,
        data=data or ade20k(),
        image_size=ADE20K_SIDE,
        head=UPerNet(width=512, dropout=0.1),
        test=Slide(stride=WINDOW_STRIDE),
        recipe=recipe.replace(steps=20_000),
        seed=seed,
        assumed=(OWN,),
    )


def _ade20k_recipe(
    lr: float,
    *,
    weight_decay: float,
    layer_decay: float | None = None,
    drop_path: float = 0.0,
    precision: Literal["fp32", "fp16"] = "fp16",
) -> Recipe:
    """AdamW for 160,000 steps of 16 crops: a linear warm-up from a millionth of the rate, then a straight line to 0."""
    return Recipe(
        steps=ADE20K_STEPS,
        batch_size=ADE20K_BATCH,
        lr=lr,
        lr_batch=None,
        betas=(0.9, 0.999),
        weight_decay=weight_decay,
        layer_decay=layer_decay,
        drop_path=drop_path,
        warmup_steps=1500,
        warmup_lr=lr * 1e-6,
        schedule=Poly(power=1.0, min_lr=0.0),
        clip=None,
        precision=precision,
        augment=SCENES,
    )


def _check(preset: str, model: str, *valid: str) -> None:
    if model not in valid:
        raise HarnessError(f"{preset} has no model {model!r}; valid: {', '.join(valid)}")
