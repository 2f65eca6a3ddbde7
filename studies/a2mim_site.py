"""A2MIM's mask token: where in the network, and replacing or added?

Paper   A2MIM (Li et al., ICML 2023), figure on the mask token's place: ResNet-50 and ViT-S, ImageNet. It prints bars
        without values, and none is known here: there is nothing to print beside ours.
Claim   Medium stages (stage 3) and layers (layer 5 of 8) are best, and adding the token beats replacing by it.
Here    A site is given by its share of the network's depth: a CNN's stages 1 to 3 end at strides of 4, 8 and 16 px; a
        ViT's token comes in before the block at that share of its depth. Hidden pixels have the image's mean colour.
Run     harness run studies/a2mim_site.py --scale small
"""

from harness import AfterStage, AtInput, BeforeBlock, Corruption, Skip, Study, a2mim, axes, claims
from studies.a2mim_scales import PAPER, SMALL, TINY, finetune, vit_scale

OPERATIONS = {"replace": "replace", "add": "add", "gated add": "gated-add"}

GRID = axes(
    backbone="ResNet-50",
    site=("stem", "stage 1", "stage 2", "stage 3"),
    operation=("replace", "add", "gated add"),
) | axes(
    backbone="ViT-S",
    site=("stem", "layer at 1/3", "layer at 2/3"),
    operation=("replace", "add", "gated add"),
)


def place(backbone, site):
    """The site of a name in a backbone."""
    if site == "stem":
        return AtInput()
    if site.startswith("stage"):
        stage = int(site.split()[1])
        return AfterStage(stage=stage, stride=backbone.patch_size * 2 ** (stage - 1))
    depth = dict(backbone.args)["depth"]
    return BeforeBlock(block=depth // 3 if site.endswith("1/3") else depth * 2 // 3, stride=backbone.patch_size)


def cell(scale, backbone, site, operation, seed):
    vit = backbone == "ViT-S"
    ours = vit_scale(scale) if vit else scale
    if vit and site == "stem" and operation == "replace":
        raise Skip("a token that replaces a ViT's patches leaves nothing of what fills their pixels")
    where = place(ours.backbone, site)
    if getattr(where, "stride", 0) > ours.pixels(32):
        raise Skip(f"a position after {site} is larger than a mask unit at {ours.image_size} px")
    corruption = Corruption(fill="image-mean", token=OPERATIONS[operation], site=where)
    start = a2mim(ours, corruption=corruption, seed=seed)
    protocol = {"model": "vit-s", "protocol": "beit"} if vit else {}
    return {"top1": finetune(ours, start, seed, **protocol)}


STUDY = Study(
    cell=cell,
    grid=GRID,
    scales=(SMALL, TINY, PAPER),
    seeds=5,
    reference={"backbone": "ResNet-50", "site": "stage 3", "operation": "add"},
    claims=(
        claims.better(
            "a token added at stage 3 beats one added at the stem",
            {"site": "stage 3"},
            {"site": "stem"},
            at={"backbone": "ResNet-50", "operation": "add"},
        ),
        claims.better(
            "a token added in the middle of a ViT beats one added at its input",
            {"site": "layer at 2/3"},
            {"site": "stem"},
            at={"backbone": "ViT-S", "operation": "add"},
        ),
        claims.better(
            "at stage 3, adding beats replacing",
            {"operation": "add"},
            {"operation": "replace"},
            at={"backbone": "ResNet-50", "site": "stage 3"},
        ),
    ),
    factors={
        "backbone": ("start", "recipe", "data", "image_size", "crop", "test_size", "loss", "pool", "label_threshold")
    },
)
