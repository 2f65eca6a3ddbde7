"""SimMIM Table 1: which mask, which masked patch size, which ratio?

Paper   SimMIM (Xie et al., CVPR 2022), Table 1: Swin-B, 192 px, 100 epochs of pre-training, 100 of fine-tuning,
        ImageNet-1K top-1.
Claim   Random masking with large units beats square and block-wise masking; accuracy over the ratio has an inner
        maximum near 0.5; small units need high ratios.
Run     harness run studies/simmim_masking.py --scale small
"""

from harness import BlockMask, RandomMask, SquareMask, Study, axes, claims, paper_table, simmim
from studies.scales import CPU, MARGINS, PAPER, SMALL, TINY, beside, finetune

MASKS = {"random": RandomMask, "block-wise": BlockMask, "square": SquareMask}

GRID = (
    axes(mask_type="random", masked_patch_size=(4, 8, 16, 32), mask_ratio=(0.4, 0.6, 0.8))
    | axes(mask_type="random", masked_patch_size=32, mask_ratio=(0.1, 0.2, 0.3, 0.5, 0.7, 0.9))
    | axes(mask_type="random", masked_patch_size=64, mask_ratio=(0.1, 0.2))
    | axes(mask_type="block-wise", masked_patch_size=(16, 32), mask_ratio=(0.4, 0.6, 0.8))
    | axes(mask_type="square", masked_patch_size=32, mask_ratio=(0.11, 0.25, 0.44))
)


def cell(scale, mask_type, masked_patch_size, mask_ratio, seed):
    mask = MASKS[mask_type](size=scale.pixels(masked_patch_size), ratio=mask_ratio)
    start = simmim(scale, mask=mask, seed=seed)
    return {"top1": finetune(scale, start, seed), **beside(scale, start, seed)}


RANDOM_32: dict[str, str | int] = {"mask_type": "random", "masked_patch_size": 32}

STUDY = Study(
    cell=cell,
    grid=GRID,
    scales=(SMALL, CPU, TINY, PAPER),
    seeds=5,
    looks=(5, 10),
    reference={**RANDOM_32, "mask_ratio": 0.6},
    paper=paper_table("simmim_table1_masking"),
    labels={"masked_patch_size": "masked patch size (px of 192)"},
    claims=(
        claims.better(
            "random units of 32 px beat units of 4 px",
            {"masked_patch_size": 32},
            {"masked_patch_size": 4},
            at={"mask_type": "random"},
            margin=MARGINS,
        ),
        claims.better(
            "random masks beat square ones, each at its best",
            claims.best(mask_type="random"),
            claims.best(mask_type="square"),
            margin=MARGINS,
        ),
        claims.better(
            "random masks beat block-wise ones, each at its best",
            claims.best(mask_type="random"),
            claims.best(mask_type="block-wise"),
            margin=MARGINS,
        ),
        claims.inner_maximum(
            "accuracy over the ratio has an inner maximum", axis="mask_ratio", at=RANDOM_32, margin=MARGINS
        ),
    ),
)
