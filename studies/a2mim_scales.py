"""The scales of the A2MIM studies: the published settings, one GPU, two cores.

PAPER       ImageNet-1K, ResNet-50 at 224 px, 100 epochs of pre-training, then RSB A3.
PAPER_300   The same with 300 epochs and RSB A2, as in A2MIM's main table.
SMALL       Fashion-MNIST at 96 px, a ResNet of 0.5M parameters (1.0M with its head) with bottlenecks.
CPU         The SimMIM studies' scale of that name at 96 px, with the ResNet of TINY.
TINY        The packaged subset of Fashion-MNIST at 96 px, a ResNet of 0.3M parameters (0.4M with its head)
            without bottlenecks.
ViTs have the image sizes, patches and recipes of the SimMIM studies' ViTs, absolute positions besides, and six blocks.

Reduced CNNs have units of 16 of 96 px, so 6 x 6 of them as in A2MIM's runs at 192 px, and positions of 16 px after
stage 3, one unit each. A ConvNeXt's last stage has positions of 32 px: its units are as large at every scale.
"""

from harness import (
    Backbone,
    FineTune,
    Recipe,
    Scale,
    a2mim_backbone,
    a2mim_finetune,
    a2mim_pretrain,
)
from studies.scales import CPU as CPU_OF_SIMMIM
from studies.scales import CROPS, FASHION, MINI, SMALL_VIT, TINY_VIT, lent


def resnet(width, depths=(1, 1, 1, 1), *, bottlenecks=False):
    """A small ResNet whose width doubles from stage to stage.

    Its residual branches do not begin at zero, as timm's do: with a block a stage, hidden positions would learn of
    visible ones too late for runs this short.
    """
    channels = tuple(width * 2**stage for stage in range(4))
    args = {"layers": depths, "channels": channels, "stem_type": "deep", "stem_width": width, "zero_init_last": False}
    return Backbone(name="resnet26" if bottlenecks else "resnet18", args=args, patch_size=4, stride=32)


def convnext(width, depths=(1, 1, 1, 1)):
    """A small ConvNeXt whose width doubles from stage to stage."""
    dims = tuple(width * 2**stage for stage in range(4))
    return Backbone(name="convnext_tiny", args={"depths": depths, "dims": dims}, patch_size=4, stride=32)


def vit(width, depth, patch):
    """A small ViT of A2MIM's kind: SimMIM's with absolute positions besides."""
    args = {"embed_dim": width, "depth": depth, "num_heads": 4, "use_abs_pos_emb": True}
    return Backbone(name="beit_base_patch16_224", args=args, patch_size=patch, variant="simmim")


def published(model, epochs, protocol):
    """A published setting as a scale, with the text's pre-training."""
    run = a2mim_finetune(model, protocol=protocol)
    start = a2mim_pretrain(model, epochs=epochs, variant="paper")
    return Scale(
        name="paper",
        data=start.data,
        image_size=start.image_size,
        paper_image_size=start.image_size,
        backbone=a2mim_backbone(model),
        pretrain=start.recipe,
        finetune=run.recipe,
    )


PAPER = published("r50", 100, "rsb-a3")
PAPER_300 = published("r50", 300, "rsb-a2")
SMALL = Scale(
    name="small",
    data=FASHION,
    labelled=FASHION.replace(train_images=1_000),
    image_size=96,
    paper_image_size=192,
    backbone=resnet(16, bottlenecks=True),
    pretrain=Recipe(epochs=4, batch_size=128, lr=2e-3, lr_batch=None, warmup_epochs=1, augment=CROPS, precision="bf16"),
    finetune=Recipe(
        epochs=30, batch_size=100, lr=2e-3, lr_batch=None, warmup_epochs=3, augment=CROPS, precision="bf16"
    ),
)
# Epochs and rate by the rule of studies/calibration.py (results/calibration).
CPU = CPU_OF_SIMMIM.replace(image_size=96, backbone=resnet(16), pretrain=CPU_OF_SIMMIM.pretrain.replace(epochs=10))
TINY = Scale(
    name="tiny",
    data=MINI,
    labelled=MINI.replace(train_images=500),
    image_size=96,
    paper_image_size=192,
    backbone=resnet(16),
    pretrain=Recipe(epochs=2, batch_size=32, lr=4e-3, lr_batch=None, warmup_epochs=1, augment=CROPS),
    finetune=Recipe(epochs=8, batch_size=25, lr=3e-3, lr_batch=None, warmup_epochs=2, augment=CROPS),
)


def finetune(scale, start, seed, *, model="r50", protocol="rsb-a3"):
    """The fine-tuning of a scale; reduced ones test the whole image, after the last epoch only."""
    if scale.name == "paper":
        return a2mim_finetune(model, protocol=protocol, start=start, data=scale.data, seed=seed)
    labels = {"data": scale.labelled, "image_size": start.image_size, "crop": 1.0, "tested_epochs": 1}
    return FineTune(start=start, recipe=scale.finetune, seed=seed, **labels)


def vit_scale(scale):
    """The scale with a ViT of six blocks, so that two thirds and one third of them are inside."""
    if scale.name == "paper":
        return published("vit-s", 800, "beit")
    if scale.name == "tiny":
        return TINY_VIT.replace(backbone=vit(48, 6, 2))
    small = SMALL_VIT.replace(backbone=vit(96, 6, 4))
    return small if scale.name == "small" else lent(scale, small)
