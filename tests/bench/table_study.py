"""A table of 32 cells for measuring how fast tables are: masks of four sizes at eight ratios, at scale `small`.

Run  harness run tests/bench/table_study.py --in-flight 8

Scale `small` is that of studies/scales.py, a Swin of 1.4M parameters at 96 px, on the packaged subset of Fashion-MNIST:
10,000 images for 8 epochs, which are as many steps as 20,000 images for 4. `toy` is for trying the measurement out.
"""

from typing import Literal

from harness import Augment, Backbone, FineTune, Images, RandomMask, Recipe, Scale, Shapes, Study, axes, simmim

PICTURES = Images(name="fashion-mnist-mini")
CROPS = Augment(crop_scale=(0.67, 1.0))


def swin(width: int, patch: int) -> Backbone:
    args = {"embed_dim": width, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "window_size": 6}
    return Backbone(name="swin_tiny_patch4_window7_224", args=args, patch_size=patch, stride=8 * patch)


def recipe(epochs: int, batch: int, precision: Literal["fp32", "bf16"]) -> Recipe:
    return Recipe(
        epochs=epochs, batch_size=batch, lr=2e-3, lr_batch=None, warmup_epochs=1, augment=CROPS, precision=precision
    )


SMALL = Scale(
    name="small",
    data=PICTURES,
    labelled=PICTURES.replace(train_images=1_000),
    image_size=96,
    backbone=swin(32, 2),
    pretrain=recipe(8, 128, "bf16"),
    finetune=recipe(30, 100, "bf16"),
)
TOY = SMALL.replace(
    name="toy",
    data=Shapes(train=40, test=40),
    labelled=None,
    image_size=32,
    backbone=Backbone(
        name="vit_tiny_patch16_224",
        args={"embed_dim": 16, "depth": 1, "num_heads": 1, "class_token": False},
        patch_size=2,
    ),
    pretrain=recipe(2, 20, "fp32"),
    finetune=recipe(2, 10, "fp32"),
)


def cell(scale: Scale, unit: int, mask_ratio: float, seed: int) -> dict[str, FineTune]:
    start = simmim(scale, mask=RandomMask(size=unit, ratio=mask_ratio), seed=seed)
    recipe = scale.finetune
    return {
        "top1": FineTune(
            start=start, data=scale.labelled or scale.data, recipe=recipe, tested_epochs=1, crop=1.0, seed=seed
        )
    }


RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75)

STUDY = Study(
    cell=cell,
    grid=axes(unit=(2, 4, 8, 16), mask_ratio=RATIOS),
    scales=(SMALL, TOY),
    seeds=1,
    reference={"unit": 16, "mask_ratio": 0.6},
)
