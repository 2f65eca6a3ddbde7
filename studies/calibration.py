"""Which setting has scale `cpu`: how long is the pre-training, at which learning rate is fine-tuned?

Here    Masked pre-training (SimMIM's; A2MIM's on the ResNet), and the control from scratch, for the three backbones of
        scale `cpu`. Both are fine-tuned at three learning rates and measured by 20-NN beside. Seeds 100 and up, which
        no other study uses: what is chosen here is judged nowhere here.
Rule    Written before the first run; each backbone by itself; means over the seeds.
        1. Learning rate of all fine-tunings: the one at which the control does best. If that is the highest, twice as
           much is tried once, for control and reference, and the rule is applied to the four.
        2. Epochs of all pre-trainings: 5; 10 if at that rate the gain of the reference over the control grows, in
           fine-tuning and in 20-NN, by more than the root of what its cost grows by (CPU seconds of pre-training,
           fine-tuning and 20-NN together): fewer epochs with as much more seeds resolve as small a difference.
        3. A backbone decides claims at this scale only if the reference beats the control in 20-NN at every seed.
        Nothing else is chosen. The reference's own best rate is shown and not used. Margins stay as they are.
Run     harness run studies/calibration.py
"""

from harness import Scratch, Study, a2mim, axes, simmim
from studies.a2mim_scales import CPU as CPU_RESNET
from studies.scales import CPU, CPU_SWIN, beside, finetune, lent

BACKBONES = {"ViT": (CPU, simmim), "Swin": (CPU_SWIN, simmim), "ResNet": (CPU_RESNET, a2mim)}
RATES = (0.75e-3, 1.5e-3, 3e-3)
HIGHEST = ("ViT", "Swin", "ResNet")
"""Backbones whose control did best at the highest rate: twice as much is tried."""


def cell(scale, backbone, pretraining, epochs, lr, seed):
    sizes, preset = BACKBONES[backbone]
    ours = lent(scale, sizes)
    ours = ours.replace(finetune=ours.finetune.replace(lr=lr))
    if pretraining == "from scratch":
        start = Scratch(backbone=ours.backbone, image_size=ours.image_size)
    else:
        start = preset(ours.replace(pretrain=ours.pretrain.replace(epochs=epochs)), seed=seed)
    return {"top1": finetune(ours, start, seed), **beside(ours, start, seed)}


STUDY = Study(
    cell=cell,
    grid=axes(backbone=tuple(BACKBONES), pretraining="masked", epochs=(5, 10), lr=RATES)
    | axes(backbone=tuple(BACKBONES), pretraining="from scratch", lr=RATES)
    | axes(backbone=HIGHEST, pretraining="masked", epochs=(5, 10), lr=2 * RATES[-1])
    | axes(backbone=HIGHEST, pretraining="from scratch", lr=2 * RATES[-1]),
    scales=(CPU,),
    seeds=3,
    first_seed=100,
    reference={"backbone": "ViT", "pretraining": "masked", "epochs": 5, "lr": 1.5e-3},
    factors={
        "backbone": ("start", "backbone", "image_size"),
        "pretraining": ("start",),
        "epochs": ("start.recipe.epochs",),
        "lr": ("recipe.lr",),
    },
)
