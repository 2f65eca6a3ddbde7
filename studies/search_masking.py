"""Which masking setting is best? A search over mask, unit, ratio, scope, head depth and target around SimMIM's default.

Question  Of SimMIM's choices (Xie et al., CVPR 2022: random units of 32 px at ratio 0.6, loss under the mask, a linear
          head, raw pixels), does another combination give better features at this size?
Metric    Top-1 on held-out training images: fine-tuned at scales paper and small, weighted k-nearest neighbours of
          frozen features at scale tiny. The winner and the default are compared with fresh seeds, on test images too.
Here      By default 60 cells at scales tiny and small and 40 at scale paper, each a pre-training and an evaluation; at
          scales small and paper hopeless ones are stopped early. At scale tiny a unit of 16 px is half a patch, so 240
          of the 360 cells exist.
Run       harness search studies/search_masking.py --scale tiny

Found     At scale tiny (CPU, one thread, torch 2.14; results/search_masking): a square of 64-px units at ratio 0.11,
          two layers in the head, pixels of half size, against the default 47.58 to 46.11 on held-out images over ten
          fresh seeds (+1.47 +- 0.74, p = 0.0046); on test images +0.84 +- 0.49. Over both seeds of the table its mean
          is the highest of the 240 cells, with one other of the same; by seed 1 alone, which did not choose it, it is
          18th. The default is 193rd. Features of three epochs are poor, so this says little of the paper's size.
"""

from harness import (
    Augment,
    Backbone,
    BlockMask,
    Images,
    Knn,
    Loss,
    MlpHead,
    PixelTarget,
    RandomMask,
    Recipe,
    Rungs,
    Scale,
    Search,
    SquareMask,
    simmim,
)
from harness.spec import LinearHead
from studies.scales import PAPER, SMALL, finetune

MINI = Images(name="fashion-mnist-mini")
TINY = Scale(
    name="tiny",
    data=MINI.replace(train_images=1_000),
    labelled=MINI.replace(train_images=1_000),
    image_size=24,
    paper_image_size=192,
    backbone=Backbone(
        name="vit_tiny_patch16_224",
        args={"embed_dim": 48, "depth": 2, "num_heads": 2, "class_token": False},
        patch_size=4,
    ),
    pretrain=Recipe(
        epochs=3, batch_size=50, lr=4e-3, lr_batch=None, warmup_epochs=1, augment=Augment(crop_scale=(0.67, 1.0))
    ),
    finetune=Recipe(epochs=10, batch_size=50, lr=2e-3, lr_batch=None, warmup_epochs=1),
)
TARGETS = {"pixels": PixelTarget(), "half-size pixels": PixelTarget(downsample=2)}


def space(trial):
    """360 cells. A square has the paper's three sizes, and only block-wise masks have a smallest block."""
    cell = {
        "mask_type": trial.suggest_categorical("mask_type", ("random", "block-wise", "square")),
        "masked_patch_size": trial.suggest_categorical("masked_patch_size", (16, 32, 64)),
        "scope": trial.suggest_categorical("scope", ("masked", "full")),
        "head_layers": trial.suggest_int("head_layers", 1, 2),
        "target": trial.suggest_categorical("target", tuple(TARGETS)),
    }
    if cell["mask_type"] == "square":
        return {**cell, "mask_ratio": trial.suggest_categorical("square_ratio", (0.11, 0.25, 0.44))}
    cell["mask_ratio"] = trial.suggest_categorical("mask_ratio", (0.2, 0.4, 0.6, 0.8))
    if cell["mask_type"] == "block-wise":
        cell["min_block"] = trial.suggest_categorical("min_block", (0.08, 0.16))
    return cell


def make_mask(scale, mask_type, masked_patch_size, mask_ratio, min_block):
    size = scale.pixels(masked_patch_size)
    if mask_type == "block-wise":
        return BlockMask(size=size, ratio=mask_ratio, min_block=min_block)
    return {"random": RandomMask, "square": SquareMask}[mask_type](size=size, ratio=mask_ratio)


def cell(scale, mask_type, masked_patch_size, mask_ratio, min_block, scope, head_layers, target, seed):
    pretrain = simmim(
        scale,
        mask=make_mask(scale, mask_type, masked_patch_size, mask_ratio, min_block),
        head=LinearHead() if head_layers == 1 else MlpHead(layers=head_layers),
        target=TARGETS[target],
        loss=Loss(kind="l1", scope=scope),
        seed=seed,
    )
    return {
        "validation": evaluation(scale, pretrain, seed, split="validation"),
        "top1": evaluation(scale, pretrain, seed, split="test"),
    }


def evaluation(scale, start, seed, split):
    """No label of a held-out image is ever trained on; pre-training sees the images without their labels."""
    data = (scale.labelled or scale.data).replace(split=split)
    if scale.name == "tiny":
        return Knn(start=start, data=data, crop=1.0, seed=seed)
    return finetune(scale.replace(labelled=data), start, seed)


def rung(scale, start, seed):
    """Nearest neighbours of a snapshot: cheap beside the fine-tuning that it stands in for."""
    return Knn(start=start, data=(scale.labelled or scale.data).replace(split="validation"), seed=seed)


SEARCH = Search(
    space=space,
    cell=cell,
    metric="validation",
    test="top1",
    scales=(SMALL, TINY, PAPER),
    trials={"tiny": 60, "small": 60, "paper": 40},
    reference={
        "mask_type": "random",
        "masked_patch_size": 32,
        "mask_ratio": 0.6,
        "scope": "masked",
        "head_layers": 1,
        "target": "pixels",
    },
    fresh_seeds=10,
    rungs=Rungs(epochs={"small": (1, 3), "paper": (10, 30)}, evaluation=rung),
    pruner="halving",
)
