"""SimMIM Table 4: should the loss count under the mask only, or over the full image?

Paper   SimMIM (Xie et al., CVPR 2022), Table 4: Swin-B, 192 px, 100 epochs of pre-training, 100 of fine-tuning,
        ImageNet-1K top-1.
Claim   Predicting only the hidden pixels beats predicting the full image.
Run     harness run studies/simmim_scope.py --scale small, with --until-decided for up to 10 seeds
"""

from harness import Loss, Study, axes, claims, paper_table, simmim
from studies.scales import CPU, MARGINS, PAPER, SMALL, TINY, beside, finetune

SCOPES = {"masked area": "masked", "full image": "full"}


def cell(scale, scope, seed):
    start = simmim(scale, loss=Loss(scope=SCOPES[scope]), seed=seed)
    return {"top1": finetune(scale, start, seed), **beside(scale, start, seed)}


STUDY = Study(
    cell=cell,
    grid=axes(scope=tuple(SCOPES)),
    scales=(SMALL, CPU, TINY, PAPER),
    seeds=5,
    looks=(5, 10),
    reference={"scope": "masked area"},
    paper=paper_table("simmim_table4_scope"),
    claims=(
        claims.better(
            "predicting the masked area beats predicting the full image",
            {"scope": "masked area"},
            {"scope": "full image"},
            margin=MARGINS,
        ),
    ),
)
