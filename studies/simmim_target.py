"""SimMIM Table 5: what should be predicted, colours as values or as classes?

Paper   SimMIM (Xie et al., CVPR 2022), Table 5: Swin-B, 192 px, 100 epochs of pre-training, 100 of fine-tuning,
        ImageNet-1K top-1.
Claim   Regressing raw pixels does no worse than classifying them, however the classes are made; l1, l2 and smooth-l1
        are the same.
Here    Reduced scales have grey images: the palette has 64 colours, learnt on the pre-training images, and BEiT's
        tokens are 64 words of a k-means over raw patches of the size of 16 of the paper's pixels.
Run     harness run studies/simmim_target.py --scale small
"""

from harness import (
    BinTarget,
    ClusterTarget,
    Loss,
    PatchWords,
    PixelTarget,
    Skip,
    Study,
    TokenTarget,
    axes,
    claims,
    paper_table,
    simmim,
)
from studies.scales import CPU, MARGINS, PAPER, SMALL, TINY_96, beside, downsampling, finetune

GRID = (
    axes(loss_family="classification", target=("8-bin", "256-bin", "iGPT cluster"), pred_resolution=(192, 48))
    | axes(loss_family="classification", target="BEiT")
    | axes(loss_family="regression", target=("l2", "smooth-l1"), pred_resolution=192)
    | axes(loss_family="regression", target="l1", pred_resolution=(192, 48, 6))
)
KINDS = {"l1": Loss(kind="l1"), "l2": Loss(kind="l2"), "smooth-l1": Loss(kind="smooth-l1")}
DALLE = None
"""BEiT's own tokenizer at scale paper: `DalleTokenizer(path=...)` with the weights of DALL-E's encoder."""


def target_of(scale, target, pred_resolution):
    """The target of that name at a scale."""
    paper = scale.name == "paper"
    if target == "BEiT":
        if paper and DALLE is None:
            raise Skip("BEiT's tokens need the weights of DALL-E's encoder: name their file as DALLE in this study")
        tokenizer = DALLE if paper else PatchWords(vocabulary=64)
        return TokenTarget(tokenizer=tokenizer, downsample=16 * scale.image_size // scale.paper_image_size)
    if target in ("256-bin", "iGPT cluster") and pred_resolution == 192:
        raise Skip("the paper prints N/A")
    downsample = downsampling(scale, pred_resolution)
    if target == "iGPT cluster":
        return ClusterTarget(clusters=512 if paper else 64, downsample=downsample)
    if target in KINDS:
        return PixelTarget(downsample=downsample)
    return BinTarget(bins=int(target.removesuffix("-bin")), downsample=downsample)


def cell(scale, loss_family, target, pred_resolution, seed):
    predicted = target_of(scale, target, pred_resolution)
    start = simmim(scale, target=predicted, loss=KINDS.get(target), seed=seed)
    return {"top1": finetune(scale, start, seed), **beside(scale, start, seed)}


STUDY = Study(
    cell=cell,
    grid=GRID,
    scales=(SMALL, CPU, TINY_96, PAPER),
    seeds=5,
    looks=(5, 10),
    reference={"loss_family": "regression", "target": "l1", "pred_resolution": 192},
    paper=paper_table("simmim_table5_target"),
    labels={"pred_resolution": "predicted resolution (px of 192)"},
    claims=(
        claims.no_worse(
            "regression is no worse than classification, each at its best",
            claims.best(loss_family="regression"),
            claims.best(loss_family="classification"),
            margin=MARGINS,
        ),
        claims.same(
            "l1 and l2 are the same, for regression of all 192 px",
            {"target": "l1"},
            {"target": "l2"},
            at={"pred_resolution": 192},
            margin=MARGINS,
        ),
        claims.same(
            "l1 and smooth-l1 are the same, for regression of all 192 px",
            {"target": "l1"},
            {"target": "smooth-l1"},
            at={"pred_resolution": 192},
            margin=MARGINS,
        ),
        claims.better(
            "8 bins beat 256", {"target": "8-bin"}, {"target": "256-bin"}, at={"pred_resolution": 48}, margin=MARGINS
        ),
    ),
)
