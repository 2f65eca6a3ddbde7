"""A2MIM, analysis: does a masked pre-training raise the strength of interactions of middle order?

Paper   A2MIM (Li et al., ICML 2023), multi-order interaction strength J(m): ViT-S at 224 px, from random weights and
        from a masked pre-training.
Claim   A masked pre-training raises the strength at orders of 0.05 n to 0.5 n. From memory of the paper and
        unverified; its curves are not published as numbers.
Here    The runs are those of `a2mim_occlusion`, without augmentation; the mean of J(m) over that range is judged.
Run     harness run studies/a2mim_interactions.py --scale tiny
"""

from harness import Interactions, Study, axes, claims
from studies.a2mim_occlusion import INTERACTIONS, PAPER, TINY, tuned
from studies.scales import SMALL_VIT


def cell(scale, init, seed):
    classifier = tuned(scale, init, "none", seed)
    return {"interactions": Interactions(start=classifier, seed=seed, **INTERACTIONS[scale.name]), "top1": classifier}


STUDY = Study(
    cell=cell,
    grid=axes(init=("random", "SimMIM")),
    scales=(SMALL_VIT, TINY, PAPER),
    seeds=5,
    reference={"init": "random"},
    claims=(
        claims.better(
            "a masked pre-training raises J(m) from 0.05 n to 0.5 n (from memory, unverified)",
            {"init": "SimMIM"},
            {"init": "random"},
        ),
    ),
)
