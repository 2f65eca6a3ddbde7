"""A2MIM's head and target: which decoder, and pixels, gradients or features?

Paper   A2MIM (Li et al., ICML 2023), scalability ablation: ResNet-50 (100 epochs, RSB A3) and ViT-B, ImageNet-1K top-1.
        Its values are from memory: reports mark them as unverified.
Claim   A linear head is enough; histograms of gradients and features are better targets than pixels.
Here    Targets that are no image have the l2 and no Fourier loss. DINO's features need its weights: name their files as
        DINO in this study. The momentum encoder's features are a row of ours. A2MIM+ is the histograms with the
        depth-wise MLP, which is assumed: no configuration of it is released.
Run     harness run studies/a2mim_head_target.py --scale small
"""

from harness import (
    HogTarget,
    LinearHead,
    Loss,
    MlpHead,
    MomentumEncoder,
    MomentumTarget,
    Skip,
    Study,
    TransformerHead,
    a2mim,
    axes,
    claims,
    paper_table,
)
from studies.a2mim_scales import PAPER, SMALL, TINY, finetune, published, vit_scale
from studies.scales import MARGINS

BACKBONES = ("ResNet-50", "ViT-B")
HEADS = {
    "linear": LinearHead(),
    "2-layer MLP": MlpHead(layers=2),
    "2-layer MLP with DW": MlpHead(layers=2, depthwise=5),
    "2-layer Transformer": TransformerHead(layers=2),
    "2-layer Transformer with DW": TransformerHead(layers=2, depthwise=5),
}
TARGETS = ("RGB", "HoG", "DINO feature", "momentum feature")
NO_TEACHER = "DINO's features need the weights of its teacher: name their files as DINO in this study"
PLUS = "A2MIM+: no configuration is released; histograms of gradients with the depth-wise MLP"

GRID = (
    axes(table="decoder", arm=tuple(HEADS), backbone=BACKBONES)
    | axes(table="target", arm=TARGETS, backbone=BACKBONES)
    | axes(table="A2MIM+", arm="HoG, 2-layer MLP with DW", backbone=BACKBONES)
)


def scale_of(scale, backbone):
    """The scale with a backbone of this family."""
    if backbone == "ResNet-50":
        return scale
    return published("vit-b", 800, "beit") if scale.name == "paper" else vit_scale(scale)


def hog(scale):
    """MaskFeat's histograms, two cells a side of 16 of the paper's pixels."""
    patch = 16 * scale.image_size // scale.paper_image_size
    if patch < 4:
        raise Skip(f"cells of {patch // 2} px: a histogram of one pixel is its direction alone")
    return HogTarget(cell=patch // 2, cells=2, window=patch)


def width_of(backbone):
    """Channels of an encoder's output."""
    args = dict(backbone.args)
    if "channels" in args:
        return args["channels"][-1] * (4 if backbone.name == "resnet26" else 1)
    return args.get("embed_dim", 2048 if backbone.name == "resnet50" else 768)


def cell(scale, table, arm, backbone, seed):
    ours = scale_of(scale, backbone)
    if arm == "DINO feature":
        raise Skip(NO_TEACHER)
    if arm == "momentum feature" and ours.pixels(32) % ours.backbone.stride:
        raise Skip(f"positions of {ours.backbone.stride} px mix hidden and visible units of {ours.pixels(32)} px")
    start = a2mim(ours, head=HEADS.get(arm.removeprefix("HoG, ")), seed=seed)
    if arm.startswith("HoG"):
        start = start.replace(target=hog(ours), loss=Loss(kind="l2"), fourier=None)
    if arm == "momentum feature":
        target = MomentumTarget(width=width_of(ours.backbone), downsample=ours.backbone.stride, blocks=1)
        start = start.replace(target=target, loss=Loss(kind="l2"), fourier=None, momentum=MomentumEncoder())
    if table == "A2MIM+":
        start = start.replace(assumed=(*start.assumed, PLUS))
    protocol = {"model": "vit-b", "protocol": "beit"} if backbone == "ViT-B" else {}
    return {"top1": finetune(ours, start, seed, **protocol)}


STUDY = Study(
    cell=cell,
    grid=GRID,
    scales=(SMALL, TINY, PAPER),
    seeds=5,
    reference={"table": "decoder", "arm": "linear", "backbone": "ResNet-50"},
    paper=paper_table("a2mim_ablation_memory", where={"dataset": "ImageNet-1K"}),
    claims=(
        *(
            claims.no_worse(
                f"with {backbone}, a linear head is no worse than two transformer blocks",
                {"arm": "linear"},
                {"arm": "2-layer Transformer"},
                at={"table": "decoder", "backbone": backbone},
                margin=MARGINS,
            )
            for backbone in BACKBONES
        ),
        *(
            claims.better(
                f"with {backbone}, histograms of gradients beat pixels",
                {"arm": "HoG"},
                {"arm": "RGB"},
                at={"table": "target", "backbone": backbone},
            )
            for backbone in BACKBONES
        ),
    ),
    labels={"table": "ablation of"},
    factors={"backbone": ("start", "recipe", "data", "image_size", "test_size", "loss", "label_threshold", "crop")},
)
