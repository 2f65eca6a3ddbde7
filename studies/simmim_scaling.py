"""SimMIM Table 7: does it scale with the model and with the length of pre-training?

Paper   SimMIM (Xie et al., CVPR 2022), Table 7 and the released models: Swin-B, Swin-L, SwinV2-H and ViT-B, 192 px (ViT
        224), ImageNet-1K top-1.
Claim   Larger models, longer pre-training and a larger image in fine-tuning all help.
Here    Reduced scales have small models of the same families, as wide to each other as the paper's: Swin-L half as wide
        again as Swin-B, SwinV2-H 2.75 times as wide. All pre-train with windows of 6 and fine-tune with 7 at 224 px of
        the paper, 16 at 512. 100 epochs are the scale's own, 800 are eight times as many.
Run     harness run studies/simmim_scaling.py --scale small
"""

from harness import FineTune, Skip, Study, claims, paper_table, simmim, simmim_finetune, zipped
from studies.scales import PAPER, SMALL, TINY, stated, swin, vit

NAMES = {"Swin-B": "swin-b", "Swin-L": "swin-l", "ViT-B": "vit-b"}
WINDOWS = {192: 6, 224: 7, 512: 16}
GRID = zipped(
    model=("Swin-B", "Swin-B", "Swin-B", "Swin-L", "SwinV2-H", "SwinV2-H", "ViT-B"),
    pretrain_epochs=(100, 100, 800, 800, 800, 800, 800),
    pretrain_size=(192, 192, 192, 192, 192, 192, 224),
    finetune_size=(192, 224, 224, 224, 224, 512, 224),
)


def small_model(scale, model, size):
    """The small model of a family, with the windows of an image of `size` of the paper's pixels."""
    patch = scale.backbone.patch_size
    width, depths = stated(scale.backbone, "embed_dim"), stated(scale.backbone, "depths")
    if model == "ViT-B":
        return vit(4 * width, 3, 16 * scale.image_size // scale.paper_image_size)
    if model == "SwinV2-H":
        return swin(width * 11 // 4, depths, patch, window=WINDOWS[size], name="swinv2_tiny_window8_256")
    return swin(width * 3 // 2 if model == "Swin-L" else width, depths, patch, window=WINDOWS[size])


def cell(scale, model, pretrain_epochs, pretrain_size, finetune_size, seed):
    if scale.name == "paper":
        if model not in NAMES:
            raise Skip(f"the recipe of {model} is not published")
        run = simmim_finetune(NAMES[model], epochs=pretrain_epochs, image_size=finetune_size, seed=seed)
        return {"simmim_top1": run}
    ours = scale.replace(
        image_size=scale.image_size * pretrain_size // scale.paper_image_size,
        paper_image_size=pretrain_size,
        backbone=small_model(scale, model, pretrain_size),
        pretrain=scale.pretrain.replace(epochs=scale.pretrain.epochs * pretrain_epochs // 100),
    )
    built = small_model(scale, model, finetune_size)
    run = FineTune(
        start=simmim(ours, seed=seed),
        data=scale.labelled,
        image_size=scale.image_size * finetune_size // scale.paper_image_size,
        backbone=None if built == ours.backbone else built,
        recipe=scale.finetune,
        crop=1.0,
        tested_epochs=1,
        seed=seed,
    )
    return {"simmim_top1": run}


SHORT = TINY.replace(pretrain=TINY.pretrain.replace(epochs=1, warmup_epochs=0))
SWIN_B: dict[str, str | int] = {"model": "Swin-B", "pretrain_epochs": 100, "pretrain_size": 192}

STUDY = Study(
    cell=cell,
    grid=GRID,
    scales=(SMALL, SHORT, PAPER),
    seeds=5,
    reference={**SWIN_B, "finetune_size": 192},
    factors={
        "model": ("start", "recipe", "backbone"),
        "pretrain_epochs": ("start.recipe", "recipe.layer_decay"),
        "pretrain_size": ("start.image_size",),
        "finetune_size": ("image_size", "backbone"),
    },
    paper=paper_table("simmim_table7_scaling", metric="simmim_top1"),
    claims=(
        claims.better("224 px in fine-tuning beat 192", {"finetune_size": 224}, {"finetune_size": 192}, at=SWIN_B),
        claims.better(
            "800 epochs beat 100",
            {"pretrain_epochs": 800},
            {"pretrain_epochs": 100},
            at={"model": "Swin-B", "finetune_size": 224},
        ),
        claims.better("Swin-L beats Swin-B", {"model": "Swin-L"}, {"model": "Swin-B"}, at={"finetune_size": 224}),
    ),
)
