"""A2MIM, analysis: does a masked pre-training raise the strength of interactions of middle order?

Paper   A2MIM (Li et al., ICML 2023), multi-order interaction strength J(m): ViT-S and ResNet-50 at 224 px, from random
        weights and from a masked pre-training.
Claim   A masked pre-training raises the strength at orders of 0.05 n to 0.5 n (ViT-S) and of 0.1 n to 0.55 n
        (ResNet-50). From memory of the paper and unverified; its curves are not published as numbers.
Here    The runs are those of `a2mim_occlusion`, without augmentation; the mean of J(m) over that range is judged.
Run     harness run studies/a2mim_interactions.py --scale tiny
"""

from harness import Study, axes, claims
from studies.a2mim_occlusion import BANDS, FACTORS, PAPER, SMALL, TINY, interactions, tuned


def cell(scale, backbone, init, seed):
    classifier = tuned(scale, backbone, init, "none", seed)
    return {"interactions": interactions(scale, backbone, classifier, seed), "top1": classifier}


STUDY = Study(
    cell=cell,
    grid=axes(backbone=tuple(BANDS), init=("random", "SimMIM", "A2MIM")),
    scales=(SMALL, TINY, PAPER),
    seeds=5,
    reference={"backbone": "ViT-S", "init": "random"},
    claims=tuple(
        claims.better(
            f"a masked pre-training raises J(m) of {backbone} from {low:g} n to {high:g} n (from memory, unverified)",
            {"init": "A2MIM"},
            {"init": "random"},
            at={"backbone": backbone},
        )
        for backbone, (low, high) in BANDS.items()
    ),
    factors={axis: FACTORS[axis] for axis in ("backbone", "init")},
)
