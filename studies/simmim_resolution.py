"""SimMIM Table 3: at which resolution should pixels be predicted?

Paper   SimMIM (Xie et al., CVPR 2022), Table 3: Swin-B, 192 px, 100 epochs of pre-training, 100 of fine-tuning,
        ImageNet-1K top-1.
Claim   Every resolution from 1/16 of the input upwards does equally well; 1/32, one value a masked unit, is worse.
Run     harness run studies/simmim_resolution.py --scale small
"""

from harness import PixelTarget, Study, axes, claims, paper_table, simmim
from studies.scales import MARGINS, PAPER, SMALL, TINY_96, downsampling, finetune


def cell(scale, target_size, seed):
    target = PixelTarget(downsample=downsampling(scale, target_size))
    return {"top1": finetune(scale, simmim(scale, target=target, seed=seed), seed)}


STUDY = Study(
    cell=cell,
    grid=axes(target_size=(6, 12, 24, 48, 96, 192)),
    scales=(SMALL, TINY_96, PAPER),
    seeds=5,
    reference={"target_size": 192},
    paper=paper_table("simmim_table3_resolution"),
    claims=(
        claims.better("1/16 of the resolution beats 1/32", {"target_size": 12}, {"target_size": 6}),
        claims.same(
            "1/16 of the resolution does as well as all of it",
            {"target_size": 12},
            {"target_size": 192},
            margin=MARGINS,
        ),
        claims.same(
            "1/4 of the resolution does as well as all of it", {"target_size": 48}, {"target_size": 192}, margin=MARGINS
        ),
    ),
)
