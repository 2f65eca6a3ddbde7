"""A2MIM's recipes in full: pre-training of ResNets, ConvNeXts and ViTs, their SimMIM baselines, and fine-tuning.

`released` is Westlake-AI/openmixup at commit 37e1372446ab (configs/selfsup/a2mim, configs/selfsup/simmim,
configs/benchmarks/classification/imagenet). `paper` is the text as far as it is known: AdamW, batch 2048, rate 1.2e-3,
cosine, 224 px, units of 32 at 60 %; the rest is the released code's, which `assumed` says. Baseline and method do not
share a recipe in the released code.

`vit-s` is the 8-layer ViT of 768 channels and 48.8M parameters of A2MIM's tables; `deit-s` is DeiT-S, of its
ImageNet-100 runs.
"""

from __future__ import annotations

from typing import Literal

from harness.papers.a2mim.preset import (
    HEAD,
    HIDING,
    L1,
    PAPER_FOURIER,
    RAN,
    RELEASED_FOURIER,
    RELEASED_FOURIER_VIT,
    RELEASED_HEAD,
    TARGET,
    UNVERIFIED,
    Variant,
    a2mim_corruption,
    a2mim_loss,
    released_simmim_corruption,
)
from harness.spec import (
    Augment,
    Backbone,
    BeforeBlock,
    Cosine,
    Data,
    FourierLoss,
    HarnessError,
    ImageFolder,
    MultiStep,
    Pretrain,
    RandomMask,
    Recipe,
)

Model = Literal[
    "r50", "r101", "r152", "r200", "convnext-t", "convnext-s", "convnext-b", "vit-s", "deit-s", "vit-b", "vit-l"
]  # fmt: skip

BATCH = 2048
"""Images a step in every pre-training."""
CNNS: dict[Model, str] = {
    "r50": "resnet50",
    "r101": "resnet101",
    "r152": "resnet152",
    "r200": "resnet200",
    "convnext-t": "convnext_tiny",
    "convnext-s": "convnext_small",
    "convnext-b": "convnext_base",
}
VITS: dict[Model, tuple[str, dict[str, int | float]]] = {
    "vit-s": ("base", {"depth": 8, "num_heads": 8, "mlp_ratio": 3.0}),
    "deit-s": ("base", {"embed_dim": 384, "depth": 12, "num_heads": 6}),
    "vit-b": ("base", {}),
    "vit-l": ("large", {}),
}
MODELS: tuple[Model, ...] = (*CNNS, *VITS)
FOURIER: dict[str, FourierLoss | None] = {
    "r50": RELEASED_FOURIER.replace(group=256),
    "r101": FourierLoss(variant="released", weight=0.1, focal=False, unmask_weight=1e-3),
    "vit-s": RELEASED_FOURIER_VIT.replace(group=256),
    "deit-s": RELEASED_FOURIER_VIT.replace(group=256),
    "vit-b": RELEASED_FOURIER_VIT.replace(group=128),
    "vit-l": RELEASED_FOURIER_VIT.replace(group=128),
}
"""The released Fourier losses; the group is what one GPU held. Other models have none."""

TEXT = (
    "the text's recipe is AdamW, batch 2048, rate 1.2e-3 and a cosine; warm-up, floor, crops, clipping, drop path, "
    "weight decay and precision are the released configuration's"
)
POSITIONS = (
    "ViTs: timm's BEiT with absolute positions besides, which has the published number of parameters; first weights "
    "are drawn as timm draws them"
)
SIMMIM_CNN = "SimMIM of CNNs that hides: the released baseline's recipe, with the data set's mean colour as fill"
CONVNEXT_NORMS = "ConvNeXt: the released code decays the scales of its norms, by a pattern that misses their names"
R152 = "ResNet-152: weight 0 in openmixup, 0.1 without focal weights in the repository A2MIM"


def a2mim_backbone(model: Model) -> Backbone:
    """The encoder of a model.

    Raises:
        HarnessError: there is no such model.
    """
    if model in CNNS:
        # Stride 4 of the stem with its pooling, as the spec counts a ResNet's patch.
        return Backbone(name=CNNS[model], patch_size=4, stride=32)
    if model not in VITS:
        raise HarnessError(f"A2MIM has no model {model!r}; valid: {', '.join(MODELS)}")
    size, args = VITS[model]
    # timm's BEiT has relative positions alone; these arguments give the published number of parameters.
    shared: dict[str, int | float | bool] = {"use_abs_pos_emb": True, "init_values": 0.1}
    return Backbone(name=f"beit_{size}_patch16_224", args=tuple({**shared, **args}.items()), patch_size=16, stride=16)


def a2mim_pretrain(
    model: Model = "r50",
    *,
    epochs: int | None = None,
    variant: Variant = "released",
    data: Data | None = None,
    seed: int = 0,
) -> Pretrain:
    """A published pre-training; `replace` changes one piece of it.

    Args:
        epochs: 100 (ResNet-50 only) or 300 of CNNs, 800 of ViTs; None for the longest.
        data: ImageNet-1K as a folder of images unless said otherwise; ImageNet-100 for `deit-s`.

    Raises:
        HarnessError: it is not published.
    """
    backbone, cnn = a2mim_backbone(model), model in CNNS
    epochs = _length(model, epochs)
    corruption, side = a2mim_corruption(backbone, variant), 192 if model == "deit-s" else 224
    if model == "deit-s":  # the one released ViT whose token comes in later
        corruption = corruption.replace(site=BeforeBlock(block=8, stride=16))
    fourier = PAPER_FOURIER if variant == "paper" else FOURIER.get(model)
    notes = [RAN[variant], UNVERIFIED, TEXT] if variant == "paper" else [RAN[variant], RELEASED_HEAD]
    notes += [] if cnn else [POSITIONS]
    notes += [CONVNEXT_NORMS] if model.startswith("convnext") else [R152] if model == "r152" else []
    return Pretrain(
        data=data or ImageFolder(name="imagenet100" if model == "deit-s" else "imagenet"),
        image_size=side,
        backbone=backbone,
        mask=RandomMask(size=32, ratio=0.6),
        corruption=corruption,
        head=HEAD,
        target=TARGET,
        loss=a2mim_loss(backbone, variant),
        fourier=fourier,
        recipe=_pretrain_recipe(model, epochs, variant),
        seed=seed,
        assumed=tuple(notes),
    )


def simmim_cnn_pretrain(
    model: Model = "r50", *, released: bool = False, data: Data | None = None, seed: int = 0
) -> Pretrain:
    """The SimMIM baseline of a CNN for 300 epochs, with its own released recipe.

    Args:
        released: as it was released, which hides little (ResNets) or nothing (ConvNeXts); else hiding what it says.

    Raises:
        HarnessError: the model is no CNN.
    """
    if model not in CNNS:
        raise HarnessError(f"simmim_cnn_pretrain is of CNNs, not of {model!r}; valid: {', '.join(CNNS)}")
    backbone = a2mim_backbone(model)
    recipe = _pretrain_recipe(model, 300, "released").replace(
        lr=2e-4, warmup_lr=2e-10, token_lr=1.0, gate_lr=1.0, no_decay="usual", precision="fp16"
    )
    # Baseline and method differ in rate, crops and precision: the tables compare them all the same.
    crops = recipe.augment.replace(crop_scale=(0.67, 1.0))
    return Pretrain(
        data=data or ImageFolder(name="imagenet"),
        image_size=224,
        backbone=backbone,
        mask=RandomMask(size=32, ratio=0.6),
        corruption=released_simmim_corruption(backbone) if released else HIDING,
        head=HEAD,
        target=TARGET,
        loss=L1,
        recipe=recipe.replace(augment=crops),
        seed=seed,
        assumed=(RELEASED_HEAD,) if released else (SIMMIM_CNN,),
    )


def _length(model: Model, epochs: int | None) -> int:
    valid = (800,) if model in VITS else (100, 300) if model == "r50" else (300,)
    if epochs is not None and epochs not in valid:
        shown = " or ".join(map(str, valid))
        raise HarnessError(f"A2MIM publishes no pre-training of {model} for {epochs} epochs; valid: {shown}")
    return epochs or valid[-1]


def _pretrain_recipe(model: Model, epochs: int, variant: Variant) -> Recipe:
    """Rates are stated for 512 images, as the configurations do; the floor is theirs for 2048."""
    # The released ViTs of ImageNet-1K step down at epoch 700; DeiT-S, CNNs and the text follow a cosine.
    cnn, steps = model in CNNS, model in ("vit-s", "vit-b", "vit-l") and variant == "released"
    lr = 3e-4 if cnn or variant == "paper" else 2e-4 if model == "deit-s" else 1e-4
    gated = cnn and variant == "released"
    return Recipe(
        epochs=epochs,
        batch_size=BATCH,
        lr=lr,
        lr_batch=512,
        warmup_epochs=10,
        warmup_lr=lr * (2e-6 if steps else 1e-6),
        schedule=MultiStep(milestones=(700,), gamma=0.1) if steps else Cosine(min_lr=1e-5 / 4),
        weight_decay=0.05,
        # ResNets of 300 epochs are released without the option of the gate, which decays there and learns at full rate.
        no_decay="usual-but-gate" if gated and model.startswith("r") and epochs == 300 else "usual",
        clip=None if cnn else 5.0,
        drop_path=0.0 if cnn else 0.1,
        token_lr=0.1 if gated else 1.0,
        gate_lr=0.1 if gated and (epochs == 100 or model.startswith("convnext")) else 1.0,
        precision="fp16" if model.startswith("convnext") else "fp32",
        augment=Augment(crop_scale=(0.8, 1.0) if cnn else (0.67, 1.0), interpolation="bilinear", flip=0.5),
    )
