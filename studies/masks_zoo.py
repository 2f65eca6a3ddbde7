"""Every mask that needs no attention, at equal ratio: does any of them beat random units?

Paper   MAE (He et al., CVPR 2022), Table 1f, for random, block-wise and grid masks: ViT-L, 800 epochs. The other masks
        come from other papers and other settings, so that no single table has them; what those claim is below, with how
        far it can be trusted.
Claim   Random masks beat block-wise, grid and square ones; uniform sampling equals them; green noise beats them.
Note    All of them hide 50 or 75 % of 14 x 14 units at every scale, as near as their geometry allows. Pairs
        (complement, disjoint) and both phases of a board train two masks of each image a step, at twice the cost;
        local windows (LoMaR) train four. MFM hides frequencies, so it has no ratio, and a loss of its own. Hard patches
        (HPM) are the only ones that depend on the image, by a momentum encoder. Masks by attention need another ViT.
Run     harness run studies/masks_zoo.py --scale small
        harness avgdist studies/masks_zoo.py --scale small    for the difficulty of each mask beside its accuracy
"""

from harness import (
    BlockMask,
    CheckerboardMask,
    ColourMask,
    ComplementMask,
    DecoderHead,
    DisjointMask,
    FrequencyMask,
    GridMask,
    HardMask,
    LocalMask,
    Loss,
    LossPredictor,
    MomentumEncoder,
    RandomMask,
    Skip,
    SquareMask,
    Study,
    TokenMask,
    UniformMask,
    VisibleSquareMask,
    axes,
    claims,
    paper_table,
    simmim,
)
from studies.scales import MARGINS, PAPER_VIT, SMALL_VIT, TINY_VIT, finetune

BOTH = {
    "random": lambda size, ratio: TokenMask(size=size, ratio=ratio),
    "random, one a batch": lambda size, ratio: TokenMask(size=size, ratio=ratio, shared=True),
    "random, double units": lambda size, ratio: RandomMask(size=2 * size, ratio=ratio),
    "square": lambda size, ratio: SquareMask(size=size, ratio=ratio),
    "central square": lambda size, ratio: SquareMask(size=size, ratio=ratio, place="centre"),
    "all but a square": lambda size, ratio: VisibleSquareMask(size=size, ratio=ratio),
    "block-wise": lambda size, ratio: BlockMask(size=size, ratio=ratio),
    "block-wise, BEiT's count": lambda size, ratio: BlockMask(size=size, ratio=ratio, count="beit"),
    "block-wise, BootMAE's": lambda size, ratio: BlockMask(size=size, ratio=ratio, max_block=60 / 196),
    "block-wise, iBOT's": lambda size, ratio: BlockMask(size=size, ratio=ratio, count="beit", ratio_spread=0.2),
    "green noise": lambda size, ratio: ColourMask(size=size, ratio=ratio, colour="green", sigma=0.5, wide=2.0),
    "blue noise": lambda size, ratio: ColourMask(size=size, ratio=ratio, colour="blue", sigma=1.0),
    "purple noise": lambda size, ratio: ColourMask(size=size, ratio=ratio, colour="purple", sigma=0.5, wide=2.0),
    "red noise": lambda size, ratio: ColourMask(size=size, ratio=ratio, colour="red", sigma=2.0),
}
HALF = {
    "checkerboard 1": lambda size, ratio: CheckerboardMask(size=size),
    "checkerboard 1, random phase": lambda size, ratio: CheckerboardMask(size=size, phase="random"),
    "checkerboard 1, both phases": lambda size, ratio: CheckerboardMask(size=size, phase="both"),
    "checkerboard 2": lambda size, ratio: CheckerboardMask(size=size, square=2),
    "complement": lambda size, ratio: ComplementMask(size=size, ratio=ratio),
}
THREE_QUARTERS = {
    "grid": lambda size, ratio: GridMask(size=size),
    "uniform": lambda size, ratio: UniformMask(size=size),
    "disjoint": lambda size, ratio: DisjointMask(size=size, ratio=ratio),
}
MASKS = BOTH | HALF | THREE_QUARTERS
OTHERS = {  # without a ratio of the image; a radius of 16 at 224 px
    "local windows": lambda scale: {
        "mask": LocalMask(size=scale.backbone.patch_size, window=min(7, scale.image_size // scale.backbone.patch_size))
    },
    "frequencies": lambda scale: {
        "mask": FrequencyMask(radius=scale.image_size / 14),
        "loss": Loss(kind="frequency"),
    },
}
HARD = {  # the share of hidden units that is chosen by its predicted loss, from the first step to the last
    "hard patches": {"first": 0.0, "last": 0.5},
    "hardest patches": {"first": 1.0, "last": 1.0},
}
EMA = MomentumEncoder(start=0.999, end=0.9999, schedule="linear", epochs=100)
SIGMAS = "colour-filtered noise: sigmas of 0.5 and 2 units (green, purple), 1 (blue), 2 (red)"


def cell(scale, mask, mask_ratio, seed):
    if mask in OTHERS:
        return {"finetune_top1": finetune(scale, simmim(scale, **OTHERS[mask](scale), seed=seed), seed)}
    if mask in HARD:
        if scale.backbone.stride > scale.backbone.patch_size:
            raise Skip(f"losses are predicted at the encoder's stride of {scale.backbone.stride} px, not for patches")
        made = HardMask(size=scale.backbone.patch_size, ratio=mask_ratio, **HARD[mask])
        start = simmim(scale, seed=seed).replace(mask=made, **predictor(scale))
        return {"finetune_top1": finetune(scale, start, seed)}
    made = MASKS[mask](scale.backbone.patch_size, mask_ratio)
    start = simmim(scale, mask=made, seed=seed)
    notes = (SIGMAS,) if isinstance(made, ColourMask) else ()
    return {"finetune_top1": finetune(scale, start.replace(assumed=(*start.assumed, *notes)), seed)}


def predictor(scale):
    """What predicts the loss: HPM's own setting at scale paper, a small one elsewhere."""
    if scale.name == "paper":
        return {"momentum": EMA, "loss_predictor": LossPredictor()}
    decoder = DecoderHead(depth=1, width=32, heads=4)
    return {"momentum": MomentumEncoder(), "loss_predictor": LossPredictor(decoder=decoder)}


AT = {"mask_ratio": 0.75}

STUDY = Study(
    cell=cell,
    grid=axes(mask=tuple(BOTH), mask_ratio=(0.75, 0.5))
    | axes(mask=tuple(THREE_QUARTERS), mask_ratio=0.75)
    | axes(mask=tuple(HALF), mask_ratio=0.5)
    | axes(mask=tuple(HARD), mask_ratio=0.75)
    | axes(mask=tuple(OTHERS)),
    scales=(SMALL_VIT, TINY_VIT, PAPER_VIT),
    seeds=5,
    reference={"mask": "random", "mask_ratio": 0.75},
    paper=paper_table("mae_table1f_masks", metric="finetune_top1"),
    claims=(
        claims.better(
            "random beats block-wise masks at 0.75 (MAE, ViT-L: 84.9 to 82.8, in its text)",
            {"mask": "random"},
            {"mask": "block-wise"},
            at=AT,
        ),
        claims.better(
            "random masks of 0.75 beat block-wise ones of 0.5 (MAE, ViT-L: 84.9 to 83.9, in its text)",
            {"mask": "random", "mask_ratio": 0.75},
            {"mask": "block-wise", "mask_ratio": 0.5},
        ),
        claims.better(
            "random beats grid masks at 0.75 (MAE, ViT-L: 84.9 to 84.0, in its text)",
            {"mask": "random"},
            {"mask": "grid"},
            at=AT,
        ),
        claims.better(
            "random masks of double units beat squares, each at its best (SimMIM, 83.0 to 82.6, Table 1)",
            claims.best(mask="random, double units"),
            claims.best(mask="square"),
        ),
        claims.better(
            "random masks of double units beat block-wise ones, each at its best (SimMIM, 83.0 to 82.7, Table 1)",
            claims.best(mask="random, double units"),
            claims.best(mask="block-wise"),
        ),
        claims.same(
            "uniform sampling equals random masks (UM-MAE, ViT-B, with a secondary mask: 82.88 both, in its README)",
            {"mask": "uniform"},
            {"mask": "random"},
            at=AT,
            margin=MARGINS,
        ),
        claims.better(
            "green noise beats random masks (ColorMAE, ViT-B, 300 epochs: 82.98 to 82.82, quoted by others)",
            {"mask": "green noise"},
            {"mask": "random"},
            at=AT,
        ),
        claims.better(
            "half chosen by predicted loss in the end beats random (HPM, ViT-B: 82.95 to 82.49, quoted by others)",
            {"mask": "hard patches"},
            {"mask": "random"},
            at=AT,
        ),
        claims.better(
            "random masks beat the patches of highest predicted loss (HPM, ViT-B: 82.49 to 81.40, quoted by others)",
            {"mask": "random"},
            {"mask": "hardest patches"},
            at=AT,
        ),
        claims.better(
            "of the colours red is the worst, after purple (ColorMAE, quoted by others)",
            {"mask": "purple noise"},
            {"mask": "red noise"},
            at=AT,
        ),
    ),
)
