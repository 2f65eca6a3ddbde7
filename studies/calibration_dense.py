"""How long, and at which learning rates, are scenes learnt at scale `cpu` of studies/downstream_dense.py?

Here    The three evaluations of a ViT from scratch at two rates, and at twice the steps, on seed 100; one pre-training
        by SimMIM and its frozen probe. Verdicts are about seeds 10 and up, which are not tried here.
Rule    Written before the first run.
        1. Rate of an evaluation: that of the two at which the control does best after 800 steps. The reference's own
           best rate is not asked for.
        2. Steps of an evaluation: 1,600 if at this rate they give the control more than 2 points more than 800, about
           what another seed moves such a number; else 800.
        3. Epochs of the pre-training: 5. If its frozen probe is not more than 2 points better than the control's, 10,
           and it is said that 5 do not do.
        4. A head has learnt if it is more than 2 points above the most frequent class (mIoU), or above 2 (box AP). One
           that has not after 1,600 steps has no claim at this scale.
Run     harness run studies/calibration_dense.py
"""

from harness import Scratch, Study, axes, simmim
from studies.downstream_dense import CPU, TRAININGS, reduced

FIRST = TRAININGS["cpu"]


def cell(scale, method, evaluation, lr, steps, seed):
    if method == "scratch":
        start = Scratch(backbone=scale.backbone, image_size=scale.image_size)
    else:
        start = simmim(scale.replace(pretrain=scale.pretrain.replace(epochs=5)), seed=seed)
    tried = {**FIRST, evaluation: FIRST[evaluation]._replace(lr=lr, steps=steps)}
    return {"score": reduced(scale, start, seed, tried)[evaluation]}


STUDY = Study(
    cell=cell,
    grid=axes(method="scratch", evaluation="probe_miou", lr=(1e-2, 3e-2), steps=(800, 1600))
    | axes(method="scratch", evaluation=("miou", "box_ap"), lr=(1e-3, 3e-3), steps=(800, 1600))
    | axes(method="SimMIM", evaluation="probe_miou", lr=(1e-2, 3e-2), steps=(800, 1600)),
    scales=(CPU,),
    seeds=1,
    first_seed=100,
    reference={"method": "scratch", "evaluation": "box_ap", "lr": 1e-3, "steps": 800},
    factors={
        "method": ("start",),
        "evaluation": ("recipe", "head", "frozen", "taps", "test", "pyramid", "anchor", "rois", "masks", "box_head"),
        "lr": ("recipe.lr",),
        "steps": ("recipe.steps",),
    },
)
