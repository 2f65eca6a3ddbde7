"""SimMIM's published recipes in full: pre-training, fine-tuning and linear probe of Swin-B, Swin-L and ViT-B.

`official` is microsoft/SimMIM as released (configs/, optimizer.py, main_*.py). `mmpretrain` is open-mmlab/mmpretrain's
re-implementation (configs/simmim/), which differs in pre-training's drop path, in what weight decay leaves out, in
where the cosine begins, in Swin-L's windows on small maps, and in the layer decay of Swin-B after 800 epochs. No spec
expresses that its warm-up starts at a share of each layer's rate; here and in the released code all layers start at the
same rate.

The released ViT-B schedule (10 epochs of warm-up, a step at epoch 700) is not the paper's text (20 epochs of warm-up,
then the cosine of the ablation): `released` and `paper` name them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from harness.papers.simmim.preset import CORRUPTION, HEAD, LOSS, TARGET
from harness.spec import (
    Augment,
    Backbone,
    Cosine,
    Data,
    FineTune,
    HarnessError,
    ImageFolder,
    LinearProbe,
    MultiStep,
    Pretrain,
    RandomMask,
    Recipe,
    Schedule,
    Start,
)
from harness.spec.recipe import NoDecay

Model = Literal["swin-b", "swin-l", "vit-b", "swin-t", "swinv2-b", "vit-s"]
Variant = Literal["official", "mmpretrain"]
ViTSchedule = Literal["released", "paper"]

BATCH = 2048
"""Images a step in all published trainings, of pre-training and fine-tuning alike."""
# Built once, as in `preset`: runs share the digests of these.
MASK = RandomMask(size=32, ratio=0.6)
PRETRAIN_AUGMENT = Augment(crop_scale=(0.67, 1.0), interpolation="bilinear", flip=0.5)
FINETUNE_AUGMENT = Augment(
    crop_scale=(0.08, 1.0),
    interpolation="bicubic",
    flip=0.5,
    rand_augment="rand-m9-mstd0.5-inc1",
    color_jitter=0.4,
    erasing=0.25,
    mixup=0.8,
    cutmix=1.0,
    smoothing=0.1,
)
IMAGE_SIZE = {"swin-b": 192, "swin-l": 192, "vit-b": 224, "swin-t": 192, "swinv2-b": 192, "vit-s": 224}
"""Sides of images in pre-training, in pixels."""

BORROWED: dict[Model, Model] = {"swin-t": "swin-b", "swinv2-b": "swin-b", "vit-s": "vit-b"}
"""Models without a published recipe, and whose they are given. Every run of theirs says so among its `assumed`."""

PRETRAINED: tuple[tuple[Model, int], ...] = (("swin-b", 100), ("swin-b", 800), ("swin-l", 800), ("vit-b", 800))
"""Models and epochs whose pre-training is published."""


class SimmimFineTuning(NamedTuple):
    """Settings of a published fine-tuning that its pre-training does not give. window: in tokens, None for a ViT."""

    window: int | None
    layer_decay: float
    drop_path: float


FINETUNED: dict[tuple[Model, int, int], SimmimFineTuning] = {
    ("swin-b", 100, 192): SimmimFineTuning(6, 0.9, 0.1),
    ("swin-b", 100, 224): SimmimFineTuning(7, 0.9, 0.1),
    ("swin-b", 800, 224): SimmimFineTuning(7, 0.8, 0.1),
    ("swin-l", 800, 224): SimmimFineTuning(14, 0.7, 0.2),
    ("vit-b", 800, 224): SimmimFineTuning(None, 0.65, 0.1),
}
"""Model, epochs of pre-training and image size of the published fine-tunings."""

VIT_TEXT = (
    "ViT-B on the paper's schedule: peak, warm-up start and floor are those of the Swin-B ablation, drop path and what "
    "weight decay leaves out those of the released configuration; 20 epochs of warm-up and the cosine are the text's"
)
PROBE = (
    "linear probe: SimMIM publishes neither code nor recipe. Block 8 and the mean over patch tokens are the authors' "
    "word (microsoft/SimMIM issue 14); optimiser, batch size, rate, warm-up, augmentation and the batch norm without "
    "parameters are assumed"
)


def simmim_backbone(model: Model, *, window: int | None = None, variant: Variant = "official") -> Backbone:
    """The encoder of a published recipe; `window` in tokens, None for the one of pre-training.

    Raises:
        HarnessError: there is no such model, or mmpretrain has none.
    """
    match model:
        case "swin-b":
            # 192 px leave maps of 48, 24, 12 and 6 tokens, all of which windows of 6 divide.
            return _swin("base", {"window_size": window or 6})
        case "swin-l":
            # mmpretrain's windows keep their size on maps that are smaller
            small_maps = {"always_partition": True} if variant == "mmpretrain" else {}
            return _swin("large", {"window_size": window or 12, **small_maps})
        case "vit-b":
            if variant == "mmpretrain":
                raise HarnessError("mmpretrain has no SimMIM recipe of vit-b; valid there: swin-b, swin-l")
            return Backbone(name="beit_base_patch16_224", patch_size=16, stride=16, variant="simmim")
        case "swin-t" | "swinv2-b" | "vit-s" if variant == "mmpretrain":
            raise HarnessError(f"mmpretrain has no SimMIM recipe of {model}; valid there: swin-b, swin-l")
        case "swin-t":
            return _swin("tiny", {"window_size": window or 6})
        case "swinv2-b":
            args = (("window_size", window or 6),)
            return Backbone(name="swinv2_base_window8_256", args=args, patch_size=4, stride=32)
        case "vit-s":
            # timm has no small BEiT, so the base model is built with the sizes of a small one.
            args_s = {"embed_dim": 384, "depth": 12, "num_heads": 6}
            name = "beit_base_patch16_224"
            return Backbone(name=name, args=tuple(args_s.items()), patch_size=16, stride=16, variant="simmim")
        case _:
            raise HarnessError(f"SimMIM has no model {model!r}; valid: {', '.join(IMAGE_SIZE)}")


def _swin(size: str, args: dict[str, int]) -> Backbone:
    return Backbone(name=f"swin_{size}_patch4_window7_224", args=tuple(args.items()), patch_size=4, stride=32)


def borrowed(model: Model) -> tuple[Model, tuple[str, ...]]:
    """Model that lends its recipe to a model, itself if it is published, and a note on it if it is another one."""
    lender = BORROWED.get(model, model)
    note = f"SimMIM publishes no recipe of {model}: it has that of {lender}"
    return lender, () if lender == model else (note,)


def simmim_pretrain(
    model: Model = "swin-b",
    *,
    epochs: int = 100,
    variant: Variant = "official",
    schedule: ViTSchedule = "released",
    data: Data | None = None,
    seed: int = 0,
) -> Pretrain:
    """A published pre-training; `replace` changes one piece of it. Models without one borrow it (`BORROWED`).

    Args:
        epochs: 100 (Swin-B) or 800.
        schedule: ViT-B's; the other models have one only.
        data: ImageNet-1K as a folder of images unless said otherwise.

    Raises:
        HarnessError: it is not published.
    """
    backbone = simmim_backbone(model, variant=variant)
    lender, notes = borrowed(model)
    if (lender, epochs) not in PRETRAINED:
        valid = ", ".join(f"{name} {length}" for name, length in PRETRAINED)
        raise HarnessError(f"SimMIM publishes no pre-training of {model} for {epochs} epochs; valid: {valid}")
    # Text and released files disagree about ViT-B alone.
    if schedule == "paper" and lender != "vit-b":
        raise HarnessError(f"schedule='paper' is a choice of vit-b, not of {model}; valid: released")
    return Pretrain(
        data=data or ImageFolder(name="imagenet"),
        image_size=IMAGE_SIZE[model],
        backbone=backbone,
        mask=MASK,
        corruption=CORRUPTION,
        head=HEAD,
        target=TARGET,
        loss=LOSS,
        recipe=_pretrain_recipe(lender, epochs, variant, schedule),
        seed=seed,
        assumed=(*notes, VIT_TEXT) if schedule == "paper" else notes,
    )


def _pretrain_recipe(model: Model, epochs: int, variant: Variant, schedule: ViTSchedule) -> Recipe:
    """Recipe of a published pre-training; rates are stated for 512 images, as in the configurations."""
    mmpretrain, vit = variant == "mmpretrain", model == "vit-b"
    # The released configurations of 800 epochs step down once; those of 100 follow a cosine.
    cosine = epochs == 100 or schedule == "paper"
    falls: Schedule = MultiStep(milestones=(700,), gamma=0.1)
    if cosine:
        falls = Cosine(min_lr=1e-5, counted_from="warm-up" if mmpretrain else "start")
    # Each code base leaves other parameters out of weight decay, which the spec has a name for.
    spared: NoDecay = "mmpretrain" if mmpretrain else "simmim-vit" if vit else "simmim-swin"
    return Recipe(
        epochs=epochs,
        batch_size=BATCH,
        lr=2e-4 if cosine else 1e-4,
        warmup_epochs=20 if schedule == "paper" else 10,
        warmup_lr=1e-6 if cosine else 5e-7,
        schedule=falls,
        weight_decay=0.05,
        no_decay=spared,
        clip=5.0,
        # mmpretrain's Swins keep the default of their class, 0.1; the released ViT-B states it.
        drop_path=0.1 if mmpretrain or vit else 0.0,
        precision="fp16",
        augment=PRETRAIN_AUGMENT,
    )


def simmim_finetune(
    model: Model = "swin-b",
    *,
    epochs: int = 100,
    image_size: int = 192,
    variant: Variant = "official",
    schedule: ViTSchedule = "released",
    start: Start | None = None,
    data: Data | None = None,
    seed: int = 0,
) -> FineTune:
    """A published fine-tuning, with the pre-training that it starts from.

    Args:
        epochs: of pre-training; fine-tuning takes 100 always.
        schedule: of ViT-B's pre-training.
        start: another starting point than the published pre-training.

    Raises:
        HarnessError: it is not published.
    """
    backbone = simmim_backbone(model, variant=variant)
    lender, notes = borrowed(model)
    # Asked of the lender: a model that borrows a recipe has the lengths and sizes of its lender.
    if (lender, epochs, image_size) not in FINETUNED:
        valid = ", ".join(f"{name} {length} at {side}" for name, length, side in FINETUNED)
        what = f"{model} after {epochs} epochs at {image_size} px"
        raise HarnessError(f"SimMIM publishes no fine-tuning of {what}; valid: {valid}")
    found = FINETUNED[lender, epochs, image_size]
    built = simmim_backbone(model, window=found.window, variant=variant)
    given = simmim_pretrain(model, epochs=epochs, variant=variant, schedule=schedule, data=data, seed=seed)
    return FineTune(
        start=start or given,
        data=data or given.data,
        image_size=image_size,
        recipe=_finetune_recipe(lender, epochs, found, variant),
        # Left out where it is that of the pre-training, so that the same run has one key.
        backbone=None if built == backbone else built,
        seed=seed,
        assumed=notes,
    )


def _finetune_recipe(model: Model, epochs: int, found: SimmimFineTuning, variant: Variant) -> Recipe:
    """Recipe of a published fine-tuning. epochs: of its pre-training."""
    mmpretrain = variant == "mmpretrain"
    floor = 2.5e-7
    falls = Cosine(min_lr=floor)
    if mmpretrain:
        # mmpretrain begins the cosine after the warm-up; that of Swin-L is stated over 100 epochs all the same.
        falls = Cosine(min_lr=floor, counted_from="warm-up", epochs=100 if model == "swin-l" else None)
    # mmpretrain keeps 0.9 after 800 epochs too, where the released configuration has 0.8.
    longer = mmpretrain and (model, epochs) == ("swin-b", 800)
    return Recipe(
        epochs=100,
        batch_size=BATCH,
        lr=1.25e-3,
        warmup_epochs=20,
        warmup_lr=2.5e-7,
        schedule=falls,
        weight_decay=0.05,
        no_decay="mmpretrain" if mmpretrain else "simmim-vit" if model == "vit-b" else "usual",
        clip=5.0,
        drop_path=found.drop_path,
        layer_decay=0.9 if longer else found.layer_decay,
        precision="fp16",
        augment=FINETUNE_AUGMENT,
    )


def simmim_probe(*, schedule: ViTSchedule = "released", data: Data | None = None, seed: int = 0) -> LinearProbe:
    """The linear probe of ViT-B: block 8, mean over patch tokens, 100 epochs. Most of it is assumed (`PROBE`)."""
    start = simmim_pretrain("vit-b", epochs=800, schedule=schedule, data=data, seed=seed)
    return LinearProbe(
        start=start,
        data=start.data,
        image_size=start.image_size,
        recipe=Recipe(
            epochs=100,
            batch_size=BATCH,
            lr=1e-3,
            warmup_epochs=5,
            schedule=Cosine(),
            weight_decay=0.0,
            clip=None,
            precision="fp16",
            augment=Augment(crop_scale=(0.08, 1.0), interpolation="bicubic"),
        ),
        block=8,
        batch_norm=True,
        seed=seed,
        assumed=(PROBE,),
    )
