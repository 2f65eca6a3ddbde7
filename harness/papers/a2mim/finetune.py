"""Fine-tuning of A2MIM's encoders: RSB A2 and A3 for CNNs, BEiT's style for ViTs.

`released` is Westlake-AI/openmixup at commit 37e1372446ab (configs/benchmarks/classification/imagenet). `paper` is what
the text refers to: the RSB procedures as timm's authors publish them (Wightman et al., 2021), without the averaged
weights and the larger drop path of the released files, and 200 epochs for ViTs. The best of the last ten epochs is what
A2MIM's tables report; here the last one is.
"""

from __future__ import annotations

from typing import Any, Literal

from harness.papers.a2mim.preset import Variant
from harness.papers.a2mim.recipes import CNNS, MODELS, Model, a2mim_pretrain
from harness.papers.simmim.recipes import FINETUNE_AUGMENT
from harness.spec import Augment, Average, Cosine, Data, FineTune, HarnessError, Pretrain, Recipe, Start

Protocol = Literal["rsb-a2", "rsb-a3", "beit"]

RSB_CROP = 224 / 236
"""Test images are resized to 236 px, of which the middle 224 are seen."""
RSB_DROP_PATH = {"r50": 0.05, "r101": 0.1, "r152": 0.15, "r200": 0.2}
"""Of RSB A2 as released. The repository A2MIM has 0.05 for all."""

VIT_EPOCHS = {"vit-s": 200, "deit-s": 100, "vit-b": 100, "vit-l": 150}
"""Epochs of the released fine-tunings; the text says 200 for all."""
AVERAGED = ("vit-b", "vit-l")
"""ViTs whose released fine-tuning tests averaged weights."""

A3_THRESHOLD = "RSB: labels above 0.2 become 1, as timm's published commands have it"
CONVNEXT = "ConvNeXt: A2MIM's table says RSB A2; its file is not published, so drop path is ResNet-50's"
VIT_TEXT = "ViT of the text: batch 1024, 200 epochs, layer decay 0.65; the rest is the released configuration's"
MIX_REPEAT = "ViT-B: the released option mix_repeat=2 is not expressed"


def a2mim_finetune(
    model: Model = "r50",
    *,
    protocol: Protocol | None = None,
    variant: Variant = "released",
    start: Start | None = None,
    data: Data | None = None,
    seed: int = 0,
) -> FineTune:
    """A published fine-tuning, with the pre-training that it starts from.

    Args:
        protocol: rsb-a2 or rsb-a3 of a CNN, beit of a ViT; None for rsb-a2 or beit.
        start: another starting point than A2MIM's longest pre-training of the same variant.

    Raises:
        HarnessError: it is not published.
    """
    if model not in MODELS:
        raise HarnessError(f"A2MIM has no model {model!r}; valid: {', '.join(MODELS)}")
    valid: tuple[Protocol, ...] = ("rsb-a2", "rsb-a3") if model in CNNS else ("beit",)
    protocol = protocol or valid[0]
    # RSB is a procedure of CNNs, layer decay one of ViTs: neither is published for the other.
    if protocol not in valid:
        raise HarnessError(f"A2MIM fine-tunes {model} by {' or '.join(valid)}, not by {protocol!r}")
    begun = start or a2mim_pretrain(model, variant=variant, data=data, seed=seed)
    # A checkpoint has no data set of its own; the published pre-training tells.
    data = data or (begun.data if isinstance(begun, Pretrain) else a2mim_pretrain(model).data)
    match protocol:
        case "rsb-a2":
            return _rsb_a2(model, variant, begun, data, seed)
        case "rsb-a3":
            return _rsb_a3(model, variant, begun, data, seed)
        case "beit":
            return _beit(model, variant, begun, data, seed)


def _rsb_a2(model: Model, variant: Variant, start: Start, data: Data, seed: int) -> FineTune:
    """RSB A2: 300 epochs at 224 px."""
    released = variant == "released"
    recipe = Recipe(
        epochs=300,
        lr=5e-3,
        drop_path=RSB_DROP_PATH.get(model, 0.05) if released else 0.05,
        average=Average(decay=0.9999, warmup_epochs=20) if released and model == "r50" else None,
        augment=_rsb_augment(7, repeats=3),
        **_rsb(5e-3),
    )
    return FineTune(
        start=start, data=data, image_size=224, crop=RSB_CROP, recipe=recipe, seed=seed, **_binary(model, variant)
    )


def _rsb_a3(model: Model, variant: Variant, start: Start, data: Data, seed: int) -> FineTune:
    """RSB A3: 100 epochs at 160 px, tested at 224 px."""
    recipe = Recipe(epochs=100, lr=8e-3, augment=_rsb_augment(6), **_rsb(8e-3))
    return FineTune(
        start=start,
        data=data,
        # RSB A3 saves time by training on smaller images than it is tested on.
        image_size=160,
        test_size=224,
        crop=RSB_CROP,
        recipe=recipe,
        seed=seed,
        **_binary(model, variant),
    )


def _binary(model: Model, variant: Variant) -> dict[str, Any]:
    """Binary cross-entropy: of labels as they are mixed (released), or of those above timm's threshold."""
    notes = [CONVNEXT] if model.startswith("convnext") else []
    if variant == "released":
        return {"loss": "binary-cross-entropy", "assumed": tuple(notes)}
    return {"loss": "binary-cross-entropy", "label_threshold": 0.2, "assumed": (A3_THRESHOLD, *notes)}


def _rsb(peak: float) -> dict[str, Any]:
    """Settings that A2 and A3 share. peak: the learning rate."""
    return {
        "batch_size": 2048,
        # RSB states rates for its own batch of 2048, so nothing is scaled.
        "lr_batch": None,
        "optimizer": "lamb",
        "weight_decay": 0.02,
        "warmup_epochs": 5,
        "warmup_lr": peak * 1e-5,
        "schedule": Cosine(min_lr=1e-6),
        # Both are defaults of the released code's LAMB, as of apex's and timm's.
        "eps": 1e-6,
        "clip": 1.0,
        "precision": "fp16",
    }


def _rsb_augment(magnitude: int, repeats: int = 1) -> Augment:
    return Augment(
        crop_scale=(0.08, 1.0),
        interpolation="bicubic",
        flip=0.5,
        rand_augment=f"rand-m{magnitude}-mstd0.5-inc1",
        mixup=0.1,
        cutmix=1.0,
        repeats=repeats,
    )


def _beit(model: Model, variant: Variant, start: Start, data: Data, seed: int) -> FineTune:
    """Fine-tuning of ViTs in BEiT's style."""
    released, peak = variant == "released", 2.5e-3
    recipe = Recipe(
        epochs=VIT_EPOCHS[model] if released else 200,
        batch_size=1024,
        lr=peak,
        lr_batch=256,
        weight_decay=0.05,
        warmup_epochs=20,
        warmup_lr=peak * 1e-6,
        schedule=Cosine(min_lr=1e-6 / 4),  # 1e-6 once it is scaled
        clip=5.0,
        drop_path=0.1,
        layer_decay=0.65,
        average=Average(decay=0.99996, warmup_epochs=20) if released and model in AVERAGED else None,
        precision="fp16",
        augment=FINETUNE_AUGMENT.replace(repeats=3 if released and model == "vit-l" else 1),
    )
    notes = (MIX_REPEAT,) if released and model == "vit-b" else () if released else (VIT_TEXT,)
    return FineTune(
        start=start,
        data=data,
        # As in its pre-training.
        image_size=192 if model == "deit-s" else 224,
        recipe=recipe,
        pool="mean",
        seed=seed,
        assumed=notes,
    )
