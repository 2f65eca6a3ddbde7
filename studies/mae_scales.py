"""The scales of the studies on plain ViTs that drop tokens, and of SymMIM: MAE's published setting, one GPU, two cores.

PAPER_MAE   ImageNet-1K, ViT-L at 224 px, 800 epochs of pre-training and 50 of fine-tuning, as MAE's ablations.
SMALL_MAE   Fashion-MNIST at 56 px, a ViT of 0.7M parameters with the paper's 14 x 14 tokens.
CPU_MAE     The SimMIM studies' scale `cpu` with MAE's ViT of the same size; 20-NN takes the place of the linear probe.
TINY_MAE    The packaged subset of Fashion-MNIST at 28 px, a ViT of 0.04M parameters with 14 x 14 tokens.
"""

from harness import Backbone, LinearProbe, Scale, mae_finetune, mae_pretrain, mae_probe
from studies.scales import CPU, SMALL, TINY
from studies.scales import beside as nearest
from studies.scales import finetune as reduced


def vit(width, depth, patch):
    """MAE's ViT, small."""
    args = {"embed_dim": width, "depth": depth, "num_heads": 4}
    return Backbone(name="vit_tiny_patch16_224", args=args, patch_size=patch, variant="mae")


_PRETRAINED, _TUNED = mae_pretrain("vit-l", epochs=800), mae_finetune("vit-l", epochs=800)
PAPER_MAE = Scale(
    name="paper",
    data=_TUNED.data,
    image_size=224,
    paper_image_size=224,
    backbone=_PRETRAINED.backbone,
    pretrain=_PRETRAINED.recipe,
    finetune=_TUNED.recipe,
)
SMALL_MAE = SMALL.replace(image_size=56, paper_image_size=224, backbone=vit(96, 6, 4))
CPU_MAE = CPU.replace(backbone=vit(64, 3, 4))
TINY_MAE = TINY.replace(image_size=28, paper_image_size=224, backbone=vit(32, 3, 2))


def finetune(scale, start, seed):
    """The fine-tuning of a scale: the published one, or that of the reduced scale."""
    if scale.name == "paper":
        return mae_finetune("vit-l", epochs=800, start=start, seed=seed)
    return reduced(scale, start, seed)


def beside(scale, start, seed):
    """What is measured beside fine-tuning: a linear probe, but the nearest neighbours at scale cpu."""
    return nearest(scale, start, seed) or {"linear_top1": probe(scale, start, seed)}


def probe(scale, start, seed):
    """The linear probe of a scale's ViT: the published one, or the scale's fine-tuning recipe on the class token."""
    if scale.name == "paper":
        return mae_probe("vit-l", epochs=800, seed=seed).replace(start=start)
    recipe = scale.finetune.replace(weight_decay=0.0, clip=None)
    return LinearProbe(
        start=start, data=scale.labelled, recipe=recipe, pool="token", crop=1.0, tested_epochs=1, seed=seed
    )
