"""The scales of the SimMIM studies: the published setting, one GPU, two cores, and one of the evidence in results/.

PAPER   ImageNet-1K, Swin-B with windows of 6 at 192 px, 100 epochs of pre-training and 100 of fine-tuning, batch 2048.
SMALL   Fashion-MNIST at 96 px, a Swin of 1.4M parameters. Its four stages have the paper's maps (48, 24, 12 and 6
        tokens a side) and windows, so that every mask of the paper exists.
CPU     Fashion-MNIST at 24 px, a ViT of 0.15M parameters with a token for each of the 6 x 6 units of 32 of the paper's
        image. A cell is measured by fine-tuning as in the papers and by 20-NN (`beside`): about two minutes of a core.
        CPU_SWIN has a Swin of 0.12M parameters instead, of 12 and 6 tokens a side.
TINY    The packaged subset of Fashion-MNIST at 48 px, a Swin of three stages (24, 12 and 6 tokens a side).
TINY_96 The same at 96 px with patches of 4, for questions about targets: more of the paper's resolutions exist.

A ViT has maps of 14 tokens a side at 224 px in the paper, so its scales have image sides that 14 divides.
"""

from harness import (
    Augment,
    Backbone,
    FineTune,
    Images,
    Knn,
    LinearProbe,
    Recipe,
    Scale,
    Skip,
    simmim_finetune,
    simmim_probe,
)

MARGINS = {"paper": 0.25, "*": 1.0}
"""Points of accuracy that do not matter to claims of no loss or no difference.

paper: what two runs of the paper differ by from noise alone, 1.96 x sqrt(2) x 0.09 (MAE's published seeds). Reduced
scales: about a third of the 3 points that pre-training gains over training from scratch in studies/quickstart.py.
"""

CROPS = Augment(crop_scale=(0.67, 1.0))
FASHION = Images(name="fashion-mnist", train_images=20_000)
MINI = Images(name="fashion-mnist-mini", train_images=2_000)


def swin(width, depths, patch, *, window=6, name="swin_tiny_patch4_window7_224"):
    """A Swin whose width doubles from stage to stage, with one more doubling of heads each."""
    heads = tuple(2**stage for stage in range(len(depths)))
    args = {"embed_dim": width, "depths": depths, "num_heads": heads, "window_size": window}
    return Backbone(name=name, args=args, patch_size=patch, stride=patch * 2 ** (len(depths) - 1))


def vit(width, depth, patch):
    """SimMIM's ViT, small."""
    args = {"embed_dim": width, "depth": depth, "num_heads": 4}
    return Backbone(name="beit_base_patch16_224", args=args, patch_size=patch, variant="simmim")


def published(model, epochs, image_size):
    """The published setting of a model as a scale."""
    run = simmim_finetune(model, epochs=epochs, image_size=image_size)
    return Scale(
        name="paper",
        data=run.data,
        image_size=run.start.image_size,
        paper_image_size=run.start.image_size,
        backbone=run.start.backbone,
        pretrain=run.start.recipe,
        finetune=run.recipe,
    )


PAPER = published("swin-b", 100, 192)
SMALL = Scale(
    name="small",
    data=FASHION,
    labelled=FASHION.replace(train_images=1_000),
    image_size=96,
    backbone=swin(32, (1, 1, 2, 1), 2),
    pretrain=Recipe(epochs=4, batch_size=128, lr=2e-3, lr_batch=None, warmup_epochs=1, augment=CROPS, precision="bf16"),
    finetune=Recipe(
        epochs=30, batch_size=100, lr=2e-3, lr_batch=None, warmup_epochs=3, augment=CROPS, precision="bf16"
    ),
)
CPU = Scale(
    name="cpu",
    data=FASHION,
    labelled=FASHION.replace(train_images=1_000),
    image_size=24,
    paper_image_size=192,
    backbone=Backbone(
        name="vit_tiny_patch16_224",
        args={"embed_dim": 64, "depth": 3, "num_heads": 4, "class_token": False},
        patch_size=4,
    ),
    pretrain=Recipe(epochs=5, batch_size=64, lr=3e-3, lr_batch=None, warmup_epochs=1, augment=CROPS),
    finetune=Recipe(epochs=30, batch_size=50, lr=3e-3, lr_batch=None, warmup_epochs=3, augment=CROPS),
    first_seed=10,  # the setting was tried on lower ones
)
"""Epochs of pre-training and rate of fine-tuning by the rule of studies/calibration.py (results/calibration)."""

CPU_SWIN = CPU.replace(
    backbone=swin(32, (1, 2), 2),
    pretrain=CPU.pretrain.replace(epochs=10),
    finetune=CPU.finetune.replace(lr=6e-3),
)
TINY = Scale(
    name="tiny",
    data=MINI,
    labelled=MINI.replace(train_images=500),
    image_size=48,
    backbone=swin(16, (1, 1, 1), 2),
    pretrain=Recipe(epochs=3, batch_size=32, lr=4e-3, lr_batch=None, warmup_epochs=1, augment=CROPS),
    finetune=Recipe(epochs=16, batch_size=25, lr=3e-3, lr_batch=None, warmup_epochs=2, augment=CROPS),
)
TINY_96 = TINY.replace(image_size=96, backbone=swin(16, (1, 1, 1), 4))

PAPER_VIT = published("vit-b", 800, 224)
SMALL_VIT = SMALL.replace(image_size=56, paper_image_size=224, backbone=vit(96, 6, 4))
TINY_VIT = TINY.replace(image_size=28, paper_image_size=224, backbone=vit(32, 3, 2))


def stated(backbone, name):
    """An argument by which a study sizes models of its own.

    Raises:
        Skip: the backbone of this scale does not state it.
    """
    args = dict(backbone.args)
    if name not in args:
        raise Skip(f"this study sizes its models by {name}, which args of {backbone.name} do not state")
    return args[name]


def lent(scale, sizes):
    """A scale with the model and the sizes of another."""
    return sizes.replace(
        name=scale.name, data=scale.data, labelled=scale.labelled, pretrain=scale.pretrain, finetune=scale.finetune
    )


def finetune(scale, start, seed):
    """The fine-tuning of a scale; reduced ones test the whole image, after the last epoch only."""
    reduced = {} if scale.name == "paper" else {"crop": 1.0, "tested_epochs": 1}
    return FineTune(start=start, data=scale.labelled, recipe=scale.finetune, seed=seed, **reduced)


def beside(scale, start, seed):
    """What is measured beside fine-tuning at a scale: at scale cpu the 20 nearest of all images of the pre-training."""
    if scale.name != "cpu":
        return {}
    return {"knn_top1": Knn(start=start, data=scale.data, image_size=scale.image_size, k=20, crop=1.0, seed=seed)}


def probe(scale, start, seed):
    """The linear probe of a scale's ViT, after two thirds of its blocks as in the paper (8 of 12)."""
    if scale.name == "paper":
        return simmim_probe(seed=seed).replace(start=start)
    recipe = scale.finetune.replace(weight_decay=0.0, clip=None)
    block = stated(scale.backbone, "depth") * 2 // 3
    return LinearProbe(
        start=start, data=scale.labelled, recipe=recipe, block=block, crop=1.0, tested_epochs=1, seed=seed
    )


def downsampling(scale, size):
    """Pixels of the input under one of a target of `size` x `size`, as printed for the paper's image.

    The full resolution stays the full resolution. A coarser target keeps its size, and so what a target pixel covers of
    a masked unit.

    Raises:
        Skip: the target is no coarser than the image of this scale, or does not divide it.
    """
    if size == scale.paper_image_size:
        return 1
    covered, rest = divmod(scale.image_size, size)
    if rest or covered < 2:
        raise Skip(f"a target of {size} x {size} is no coarsening of {scale.image_size} px by whole pixels")
    return covered
