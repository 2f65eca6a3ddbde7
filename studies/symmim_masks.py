"""SymMIM: does a checkerboard spare the search for a mask ratio?

Paper   SymMIM (Nguyen and Park, ICPR 2024): its masks are boards of a fixed half, its abstract says that random masks
        need many trials to find the ratio. None of its tables could be read.
Claim   A board does as well as random masks of the best ratio.
Here    Pixels are predicted by SimMIM's linear head without the contrastive loss, so that masks alone differ. The
        complementary pair and both phases of a board train two masks of an image a step, at twice the cost. At 14 x 14
        patches the board of 2 x 2 hides 48.98 %, and its hidden patches reflect hidden ones.
Run     harness run studies/symmim_masks.py --scale small
"""

from harness import CheckerboardMask, ComplementMask, Study, TokenMask, axes, claims, symmim
from studies.mae_scales import CPU_MAE, PAPER_MAE, SMALL_MAE, TINY_MAE, beside, finetune
from studies.scales import MARGINS

BOARDS = {
    "board of 1": lambda size: CheckerboardMask(size=size),
    "board of 1, random phase": lambda size: CheckerboardMask(size=size, phase="random"),
    "board of 1, both phases": lambda size: CheckerboardMask(size=size, phase="both"),
    "board of 2": lambda size: CheckerboardMask(size=size, square=2),
    "board of 2, random phase": lambda size: CheckerboardMask(size=size, square=2, phase="random"),
    "complementary pair": lambda size: ComplementMask(size=size, ratio=0.5),
}
RATIOS = (0.25, 0.4, 0.5, 0.6, 0.75, 0.9)


def cell(scale, mask, mask_ratio, seed):
    size = scale.backbone.patch_size
    made = TokenMask(size=size, ratio=mask_ratio) if mask == "random" else BOARDS[mask](size)
    start = symmim(scale, mask=made, contrastive=None, seed=seed)
    return {"finetune_top1": finetune(scale, start, seed), **beside(scale, start, seed)}


STUDY = Study(
    cell=cell,
    grid=axes(mask="random", mask_ratio=RATIOS) | axes(mask=tuple(BOARDS)),
    scales=(SMALL_MAE, CPU_MAE, TINY_MAE, PAPER_MAE),
    seeds=5,
    looks=(5, 10),
    reference={"mask": "random", "mask_ratio": 0.5},
    claims=(
        *(
            claims.no_worse(f"a {name} is no worse than random masks of the best ratio", {"mask": name},
                            claims.best(mask="random"), margin=MARGINS)
            for name in ("board of 1", "board of 2", "board of 1, random phase")
        ),
        claims.no_worse(
            "a complementary pair is no worse than random masks of one half",
            {"mask": "complementary pair"},
            {"mask": "random", "mask_ratio": 0.5},
            margin=MARGINS,
        ),
    ),
)  # fmt: skip
