"""SymMIM: how much does the contrastive loss matter, and what should the momentum encoder see?

Paper   SymMIM (Nguyen and Park, ICPR 2024): ViT-L, fine-tuned on ImageNet-1K, 85.9 %. Weight, temperature, momentum,
        projections and crops are not published in anything that could be read: all of them are assumed, and the number
        stands beside the cell of the assumed ones.
Claim   The contrastive loss between a board of single patches and a board of 2 x 2 improves on prediction alone.
Here    At reduced scales the projections are four times as wide inside as the encoder.
Run     harness run studies/symmim_losses.py --scale small
"""

from harness import CheckerboardMask, Contrastive, Study, TokenMask, axes, claims, paper_table, symmim
from studies.mae_scales import CPU_MAE, PAPER_MAE, SMALL_MAE, TINY_MAE, beside, finetune
from studies.scales import MARGINS

MASKS = {
    "none": lambda size: "none",
    "same": lambda size: "same",
    "board of 2": lambda size: CheckerboardMask(size=size, square=2),
    "random": lambda size: TokenMask(size=size, ratio=0.5),
}
ASSUMED: dict[str, str | float] = {"contrastive_weight": 1.0, "momentum_mask": "board of 2", "crops": "same"}


def sizes(scale):
    """Channels of the projections."""
    width = dict(scale.backbone.args).get("embed_dim")
    return {} if width is None else {"hidden": 4 * width, "out": width}


def cell(scale, contrastive_weight, momentum_mask, crops, seed):
    contrastive = None
    if contrastive_weight:
        mask = MASKS[momentum_mask](scale.backbone.patch_size)
        contrastive = Contrastive(weight=contrastive_weight, mask=mask, crops=crops, **sizes(scale))
    start = symmim(scale, contrastive=contrastive, seed=seed)
    return {"finetune_top1": finetune(scale, start, seed), **beside(scale, start, seed)}


STUDY = Study(
    cell=cell,
    grid=axes(contrastive_weight=0.0)
    | axes(contrastive_weight=(0.1, 0.5, 1.0), momentum_mask=tuple(MASKS), crops="same")
    | axes(contrastive_weight=1.0, momentum_mask="board of 2", crops=("two", "swapped")),
    scales=(SMALL_MAE, CPU_MAE, TINY_MAE, PAPER_MAE),
    seeds=5,
    looks=(5, 10),
    reference=ASSUMED,
    paper=paper_table("symmim_abstract", metric="finetune_top1"),
    claims=(
        claims.better(
            "the contrastive loss beats prediction alone", ASSUMED, {"contrastive_weight": 0.0}, margin=MARGINS
        ),
        claims.better(
            "a larger board for the momentum encoder beats the whole image",
            {"momentum_mask": "board of 2"},
            {"momentum_mask": "none"},
            at={"contrastive_weight": 1.0, "crops": "same"},
            margin=MARGINS,
        ),
        claims.no_worse(
            "a larger board for the momentum encoder is no worse than a random mask",
            {"momentum_mask": "board of 2"},
            {"momentum_mask": "random"},
            at={"contrastive_weight": 1.0, "crops": "same"},
            margin=MARGINS,
        ),
    ),
)
