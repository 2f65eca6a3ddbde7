"""A2MIM's main table: one framework for ViTs, ResNets and ConvNeXts?

Paper   A2MIM (Li et al., ICML 2023), ImageNet-1K top-1 by backbone (README of Westlake-AI/A2MIM): 224 px, 800 epochs of
        pre-training of ViTs and BEiT-style fine-tuning, 300 epochs of CNNs and RSB A2.
Claim   A2MIM beats SimMIM and supervised training with every backbone.
Here    At scale paper each method has its own published recipe, which differ in rate, crops and precision for CNNs.
        The published column of SimMIM was measured with the released baseline, which hides little or nothing of a CNN;
        ours that hides stands beside the same values. Reduced scales have small models of the same families.
Run     harness run studies/a2mim_backbones.py --scale small
"""

from harness import (
    Corruption,
    RandomMask,
    Scratch,
    Skip,
    Study,
    a2mim,
    a2mim_finetune,
    a2mim_pretrain,
    axes,
    claims,
    paper_table,
    released_simmim_cnn,
    simmim,
    simmim_cnn,
    simmim_cnn_pretrain,
)
from studies.a2mim_scales import PAPER_300, SMALL, TINY, convnext, finetune, resnet, vit, vit_scale
from studies.scales import stated

MODELS = {
    "ViT-S": "vit-s",
    "ViT-B": "vit-b",
    "ViT-L": "vit-l",
    "ResNet-50": "r50",
    "ResNet-101": "r101",
    "ResNet-152": "r152",
    "ResNet-200": "r200",
    "ConvNeXt-S": "convnext-s",
    "ConvNeXt-B": "convnext-b",
}
METHODS = ("supervised", "released SimMIM", "SimMIM", "released A2MIM", "A2MIM")
DEPTHS = {
    "ResNet-50": (1, 1, 1, 1),
    "ResNet-101": (1, 1, 2, 1),
    "ResNet-152": (1, 1, 3, 1),
    "ResNet-200": (1, 2, 3, 1),
}
NO_OTHER = "the released SimMIM of ViTs hides what it says it hides"
SIMMIM = "SimMIM of ViTs by A2MIM's recipe, in 32 bits for ViT-B and with 100 epochs of fine-tuning"
OTHER_RECIPE = "the published recipe of {} on {} is another, which is not expressed here"


def small_scale(scale, backbone):
    """The reduced scale with a small model of a backbone's family."""
    width = stated(scale.backbone, "channels")[0]
    if backbone.startswith("ViT"):
        ours = vit_scale(scale)
        args = dict(ours.backbone.args)
        wider = {"ViT-S": 1, "ViT-B": 1.5, "ViT-L": 2}[backbone]
        deeper = {"ViT-S": 0, "ViT-B": 1, "ViT-L": 2}[backbone]
        return ours.replace(
            backbone=vit(int(args["embed_dim"] * wider), args["depth"] + deeper, ours.backbone.patch_size)
        )
    if backbone.startswith("ConvNeXt"):
        return scale.replace(backbone=convnext(2 * width if backbone.endswith("S") else 3 * width))
    return scale.replace(backbone=resnet(width, DEPTHS[backbone], bottlenecks=scale.name == "small"))


def start_of(scale, backbone, method, seed):
    """What is fine-tuned at a reduced scale."""
    mask = None
    if backbone.startswith("ConvNeXt"):  # whose released token comes in where a position has the side of two units
        mask = RandomMask(size=scale.backbone.stride, ratio=0.6)
    match method:
        case "supervised":
            return Scratch(backbone=scale.backbone, image_size=scale.image_size)
        case "released SimMIM":
            return released_simmim_cnn(scale, mask=mask, seed=seed)
        case "SimMIM" if backbone.startswith("ViT"):
            return simmim(scale, seed=seed)
        case "SimMIM":
            return simmim_cnn(scale, mask=mask, seed=seed)
        case _:
            return a2mim(scale, variant="paper" if method == "A2MIM" else "released", mask=mask, seed=seed)


def published(backbone, method, seed):
    """The published run of a method."""
    model, is_vit = MODELS[backbone], backbone.startswith("ViT")
    if is_vit and method == "supervised":
        raise Skip(OTHER_RECIPE.format(method, backbone))
    variant = "paper" if method == "A2MIM" else "released"
    match method:
        case "SimMIM" if is_vit:  # A2MIM's recipe, but for precision and for the length of fine-tuning
            first = a2mim_pretrain(model, seed=seed)
            recipe = first.recipe.replace(precision="fp32" if model == "vit-b" else "fp16")
            start = first.replace(corruption=Corruption(), fourier=None, recipe=recipe, assumed=(SIMMIM,))
            run = a2mim_finetune(model, start=start, seed=seed)
            return run.replace(recipe=run.recipe.replace(epochs=100))
        case "supervised":
            first = a2mim_pretrain(model)
            start = Scratch(backbone=first.backbone, image_size=first.image_size)
            return a2mim_finetune(model, start=start, data=first.data, seed=seed)
        case "released SimMIM" | "SimMIM":
            start = simmim_cnn_pretrain(model, released=method != "SimMIM", seed=seed)
            return a2mim_finetune(model, start=start, seed=seed)
        case _:
            return a2mim_finetune(model, variant=variant, seed=seed)


def cell(scale, backbone, method, seed):
    if method == "released SimMIM" and backbone.startswith("ViT"):
        raise Skip(NO_OTHER)
    if scale.name == "paper":
        return {"top1": published(backbone, method, seed)}
    ours = small_scale(scale, backbone)
    return {"top1": finetune(ours, start_of(ours, backbone, method, seed), seed)}


STUDY = Study(
    cell=cell,
    grid=axes(backbone=tuple(MODELS), method=METHODS),
    scales=(SMALL, TINY, PAPER_300),
    seeds=5,
    reference={"backbone": "ResNet-50", "method": "A2MIM"},
    paper=paper_table(
        "a2mim_imagenet",
        metric="top1",
        across=(
            "method",
            {
                "supervised": "supervised",
                "released SimMIM": "simmim",
                "SimMIM": "simmim",
                "released A2MIM": "a2mim",
                "A2MIM": "a2mim",
            },
        ),
    ),
    claims=tuple(
        claims.better(f"A2MIM beats {other} with {backbone}", {"method": "A2MIM"}, {"method": method}, at=where)
        for backbone, where in ((name, {"backbone": name}) for name in MODELS)
        for other, method in (("SimMIM", "SimMIM"), ("supervised training", "supervised"))
    ),
    factors={
        "backbone": (
            "start",
            "backbone",
            "recipe",
            "data",
            "image_size",
            "test_size",
            "loss",
            "label_threshold",
            "crop",
        ),
        "method": ("start", "recipe", "label_threshold"),
    },
)
