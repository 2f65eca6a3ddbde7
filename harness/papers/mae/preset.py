"""MAE (He et al., CVPR 2022): the paper's point in the space of specs, and its published recipes.

The recipes are those of facebookresearch/mae as released (PRETRAIN.md, FINETUNE.md, main_*.py): ViT-B, ViT-L and ViT-H.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from harness.spec import (
    AnyLoss,
    Augment,
    Backbone,
    Corruption,
    Cosine,
    Data,
    DecoderHead,
    FineTune,
    HarnessError,
    Head,
    ImageFolder,
    LinearProbe,
    Loss,
    Mask,
    NormPixelTarget,
    Pretrain,
    Recipe,
    Scale,
    Start,
    Target,
    TokenMask,
)

Model = Literal["vit-b", "vit-l", "vit-h"]

# The paper's default point (section 4); numbers of heads and rates are those of the released code.
RATIO = 0.75
CORRUPTION = Corruption(token="drop")
HEAD = DecoderHead(depth=8, width=512, heads=16)
LOSS = Loss(kind="l2", scope="masked")
LR_BATCH = 256
"""Batch that published rates are stated for; they grow linearly with the real one."""
EPOCHS = (800, 1600)
"""Lengths of the published pre-trainings."""
BACKBONES: dict[Model, Backbone] = {
    "vit-b": Backbone(name="vit_base_patch16_224", patch_size=16, stride=16, variant="mae"),
    "vit-l": Backbone(name="vit_large_patch16_224", patch_size=16, stride=16, variant="mae"),
    "vit-h": Backbone(name="vit_huge_patch14_224", patch_size=14, stride=14, variant="mae"),
}

FLOOR = (
    "fine-tuning: the floor of 1e-6 is the same for all layers, where the released code multiplies it by the layer's "
    "factor too"
)


class MaeFineTuning(NamedTuple):
    """Settings that differ between the models' fine-tunings. lr: for 256 images."""

    epochs: int
    lr: float
    layer_decay: float
    drop_path: float


FINETUNED: dict[Model, MaeFineTuning] = {
    "vit-b": MaeFineTuning(100, 5e-4, 0.65, 0.1),
    "vit-l": MaeFineTuning(50, 1e-3, 0.75, 0.2),
    "vit-h": MaeFineTuning(50, 1e-3, 0.75, 0.3),
}


def mae(
    scale: Scale,
    *,
    mask: Mask | None = None,
    head: Head | None = None,
    target: Target | None = None,
    loss: AnyLoss | None = None,
    seed: int = 0,
) -> Pretrain:
    """MAE's pre-training at a scale; an ablation replaces one piece.

    The default is the paper's: patches at random, 75 % of them dropped before the encoder, a decoder of 8 blocks of
    width 512, pixels normalised in each patch, l2 under the mask. The scale's backbone has to be a plain ViT.
    """
    # Units and normalised areas are patches, whatever their size: tokens are dropped as they are.
    patch = scale.backbone.patch_size
    return Pretrain(
        data=scale.data,
        image_size=scale.image_size,
        backbone=scale.backbone,
        mask=mask or TokenMask(size=patch, ratio=RATIO),
        corruption=CORRUPTION,
        head=head or HEAD,
        target=target or NormPixelTarget(size=patch),
        loss=loss or LOSS,
        recipe=scale.pretrain,
        seed=seed,
    )


def mae_pretrain(model: Model = "vit-b", *, epochs: int = 800, data: Data | None = None, seed: int = 0) -> Pretrain:
    """A published pre-training; `replace` changes one piece of it.

    Args:
        epochs: 800 or 1600.
        data: ImageNet-1K as a folder of images unless said otherwise.

    Raises:
        HarnessError: it is not published.
    """
    _check(model, epochs)
    backbone = BACKBONES[model]
    return Pretrain(
        data=data or ImageFolder(name="imagenet"),
        image_size=224,
        backbone=backbone,
        mask=TokenMask(size=backbone.patch_size, ratio=RATIO),
        corruption=CORRUPTION,
        head=HEAD,
        target=NormPixelTarget(size=backbone.patch_size),
        loss=LOSS,
        recipe=Recipe(
            epochs=epochs,
            batch_size=4096,
            # Rates of the released scripts are for 256 images: blr * batch / 256.
            lr=1.5e-4,
            lr_batch=LR_BATCH,
            betas=(0.9, 0.95),
            weight_decay=0.05,
            no_decay="mae",
            warmup_epochs=40,
            schedule=Cosine(counted_from="warm-up"),
            clip=None,
            precision="fp16",
            augment=Augment(crop_scale=(0.2, 1.0), interpolation="bicubic"),
        ),
        seed=seed,
    )


def mae_finetune(
    model: Model = "vit-b", *, epochs: int = 1600, start: Start | None = None, data: Data | None = None, seed: int = 0
) -> FineTune:
    """A published fine-tuning, with the pre-training that it starts from; its accuracies are of 1600 epochs.

    Args:
        epochs: of pre-training.
        start: another starting point than the published pre-training.

    Raises:
        HarnessError: it is not published.
    """
    given = mae_pretrain(model, epochs=epochs, data=data, seed=seed)
    found, batch = FINETUNED[model], 1024
    return FineTune(
        start=start or given,
        data=data or given.data,
        image_size=224,
        classifier_std=2e-5,
        recipe=Recipe(
            epochs=found.epochs,
            batch_size=batch,
            lr=found.lr,
            lr_batch=LR_BATCH,
            weight_decay=0.05,
            warmup_epochs=5,
            schedule=Cosine(counted_from="warm-up", min_lr=1e-6 * LR_BATCH / batch),  # 1e-6 once it is scaled
            clip=None,
            drop_path=found.drop_path,
            layer_decay=found.layer_decay,
            precision="fp16",
            augment=Augment(
                crop_scale=(0.08, 1.0),
                interpolation="bicubic",
                rand_augment="rand-m9-mstd0.5-inc1",
                erasing=0.25,
                mixup=0.8,
                cutmix=1.0,
                smoothing=0.1,
            ),
        ),
        pool="mean",
        seed=seed,
        assumed=(FLOOR,),
    )


def mae_probe(
    model: Model = "vit-b", *, epochs: int = 1600, start: Start | None = None, data: Data | None = None, seed: int = 0
) -> LinearProbe:
    """The published linear probe: LARS on the class token behind a batch norm; arguments as for `mae_finetune`.

    Raises:
        HarnessError: it is not published.
    """
    given = mae_pretrain(model, epochs=epochs, data=data, seed=seed)
    return LinearProbe(
        start=start or given,
        data=data or given.data,
        image_size=224,
        recipe=Recipe(
            # FINETUNE.md probes ViT-B for 90 epochs, the larger models for 50.
            epochs=90 if model == "vit-b" else 50,
            batch_size=16384,
            lr=0.1,
            lr_batch=LR_BATCH,
            # Regularisation harms a linear classifier (appendix A.1): no weight decay, no more than crops and flips.
            optimizer="lars",
            momentum=0.9,
            weight_decay=0.0,
            warmup_epochs=10,
            schedule=Cosine(counted_from="warm-up"),
            clip=None,
            precision="fp16",
            augment=Augment(crop_scale=(0.08, 1.0), interpolation="bicubic"),
        ),
        batch_norm=True,
        pool="token",
        seed=seed,
    )


def _check(model: str, epochs: int) -> None:
    if model not in BACKBONES:
        raise HarnessError(f"MAE has no model {model!r}; valid: {', '.join(BACKBONES)}")
    if epochs not in EPOCHS:
        valid = ", ".join(map(str, EPOCHS))
        raise HarnessError(f"MAE publishes no pre-training of {model} for {epochs} epochs; valid: {valid}")
