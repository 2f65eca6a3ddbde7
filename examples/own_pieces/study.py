"""Does a rounded error help a network, an optimiser and an augmentation of one's own?

Run     harness run examples/own_pieces/study.py
"""

from harness import (
    CustomAugment,
    CustomBackbone,
    CustomLoss,
    CustomOptimiser,
    FineTune,
    Images,
    Knn,
    Loss,
    Pretrain,
    RandomMask,
    Recipe,
    Scale,
    Shapes,
    Study,
    axes,
)

MIXER = CustomBackbone(function="pieces:mixer", params={"width": 32}, patch_size=4, stride=8)
SIGN = CustomOptimiser(function="pieces:sign")
DIM = CustomAugment(function="pieces:dim", params={"least": 0.5}, crop_scale=(0.5, 1.0))

SMALL = Scale(
    name="small",
    data=Images(name="fashion-mnist-mini"),
    labelled=Images(name="fashion-mnist-mini", train_images=500),
    image_size=32,
    backbone=MIXER,
    pretrain=Recipe(epochs=4, batch_size=128, lr=3e-4, lr_batch=None, optimizer=SIGN, augment=DIM),
    finetune=Recipe(epochs=20, batch_size=50, lr=3e-4, lr_batch=None, optimizer=SIGN, augment=DIM),
)
TINY = SMALL.replace(
    name="tiny",
    data=Shapes(image_size=32, train=64, test=32),
    labelled=None,
    pretrain=SMALL.pretrain.replace(epochs=2, batch_size=16),
    finetune=SMALL.finetune.replace(epochs=2, batch_size=16),
)
LOSSES: dict[str, Loss | CustomLoss] = {
    "l1": Loss(),
    "rounded": CustomLoss(function="pieces:charbonnier", params={"eps": 0.1}),
}


def cell(scale: Scale, loss: str, seed: int) -> dict[str, FineTune | Knn]:
    start = Pretrain(
        data=scale.data,
        image_size=scale.image_size,
        backbone=scale.backbone,
        mask=RandomMask(size=8, ratio=0.6),
        loss=LOSSES[loss],
        recipe=scale.pretrain,
        seed=seed,
    )
    return {
        "top1": FineTune(start=start, data=scale.labelled or scale.data, recipe=scale.finetune, seed=seed),
        "knn": Knn(start=start, data=scale.labelled or scale.data, seed=seed),
    }


STUDY = Study(cell=cell, grid=axes(loss=tuple(LOSSES)), scales=(SMALL, TINY), seeds=2, reference={"loss": "l1"})
