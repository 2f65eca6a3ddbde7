"""Impossible values are refused when a spec is built, in one line that names the valid choices."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from harness.spec import (
    AfterStage,
    Augment,
    Backbone,
    BinTarget,
    BlockMask,
    Checkpoint,
    ColourMask,
    ComplementMask,
    Corruption,
    CustomAugment,
    CustomBackbone,
    CustomLoss,
    CustomMask,
    CustomOptimiser,
    DalleTokenizer,
    DecoderHead,
    DisjointMask,
    FeatureTarget,
    FineTune,
    FourierLoss,
    FrequencyMask,
    GuidedMask,
    HardMask,
    HarnessError,
    HogTarget,
    ImageFolder,
    Images,
    InverseSwinHead,
    LinearProbe,
    Loss,
    LossPredictor,
    LowPassTarget,
    MaskFolder,
    MlpHead,
    MomentumTarget,
    NormPixelTarget,
    PixelTarget,
    Pretrain,
    RandomMask,
    Recipe,
    Scale,
    Scratch,
    Segment,
    Shapes,
    Skip,
    Slide,
    Snapshot,
    Spec,
    SquareMask,
    TokenMask,
    TokenTarget,
    TransformerHead,
    one_line,
    run_from_json,
)
from harness.spec.base import choices
from harness.spec.masks.base import MaskSpec
from harness.spec.recipe import check_scenes


def pretrain(**changes: Any) -> Pretrain:
    plain: dict[str, Any] = {
        "data": Shapes(),
        "image_size": 48,
        "backbone": Backbone(name="vit", patch_size=4),
        "mask": RandomMask(size=8, ratio=0.5),
        "recipe": recipe(),
    }
    return Pretrain(**{**plain, **changes})


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{"epochs": 4, "batch_size": 8, "lr": 1e-3, **changes})


def segment(**changes: Any) -> Segment:
    start = Scratch(backbone=Backbone(name="vit", patch_size=16), image_size=32)
    return Segment(**{"start": start, "data": Shapes(image_size=32), "recipe": recipe(), **changes})


TEACHER = Checkpoint(path="", backbone=Backbone(name="vit", patch_size=16), image_size=224, sha256="0a")

# What is built, and what the one line must say.
REFUSED: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "labels of a folder of masks": (
        lambda: LinearProbe(start=pretrain(data=MaskFolder(name="ade", classes=150)), recipe=recipe()),
        ("ade does not come with a label for every picture", "Shapes or ImageFolder"),
    ),
    "names of other classes": (
        lambda: MaskFolder(name="ade", classes=3, names=("wall", "sky")),
        ("2 names", "3 classes"),
    ),
    "crops beside scale": (lambda: Augment(scale=(0.5, 2.0), crop_scale=(0.2, 1.0)), ("crop_scale", "beside scale")),
    "scale the wrong way round": (lambda: Augment(scale=(2.0, 0.5)), ("scale", "low <= high")),
    "class limit alone": (lambda: Augment(class_limit=0.75), ("class_limit", "state scale too")),
    "scale without scenes": (
        lambda: pretrain(recipe=recipe(augment=Augment(scale=(0.5, 2.0)))),
        ("scale", "Segment and Detect", "crop_scale"),
    ),
    "scale of whole pictures": (
        lambda: LinearProbe(start=pretrain(), recipe=recipe(augment=Augment(scale=(0.5, 2.0)))),
        ("scale", "Segment and Detect", "crop_scale"),
    ),
    "unit does not divide": (
        lambda: pretrain(mask=RandomMask(size=20, ratio=0.5)),
        ("20 px", "48 px", "valid: 4, 8, 12, 16, 24, 48"),
    ),
    "unit smaller than the patch": (
        lambda: pretrain(mask=RandomMask(size=2, ratio=0.5)),
        ("2 px", "4-px patch", "valid: 4, 8, 12, 16, 24, 48"),
    ),
    "unit no multiple": (lambda: pretrain(mask=RandomMask(size=6, ratio=0.5)), ("6 px", "valid: 4, 8, 12")),
    "stride does not divide": (
        lambda: pretrain(backbone=Backbone(name="swin", patch_size=4, stride=32)),
        ("stride 32", "48 px", "valid: 1, 2, 3, 4, 6, 8, 12, 16, 24, 48"),
    ),
    "ratio 0": (lambda: RandomMask(size=8, ratio=0.0), ("ratio", "greater than 0")),
    "ratio 1": (lambda: RandomMask(size=8, ratio=1.0), ("ratio", "less than 1")),
    "ratio above": (lambda: RandomMask(size=8, ratio=60.0), ("ratio", "less than 1", "60.0")),
    "ratio below": (lambda: RandomMask(size=8, ratio=-0.5), ("ratio", "greater than 0")),
    "ratio is no number": (lambda: RandomMask(size=8, ratio=float("nan")), ("ratio", "finite")),
    "ratio as text": (lambda: RandomMask(size=8, ratio="0.5"), ("ratio", "valid number", "'0.5'")),  # type: ignore[arg-type]
    # 6 x 6 units of 8 px: ceil(36 * 0.98) = 36 are hidden; 35 / 36 = 0.9722 leaves one
    "all hidden": (lambda: pretrain(mask=RandomMask(size=8, ratio=0.98)), ("all 36 units", "0.9722")),
    # 3 x 3 units: 8 / 9 = 0.88889, and 0.8889 would hide 9
    "all hidden of 9": (lambda: pretrain(mask=RandomMask(size=16, ratio=0.9)), ("all 9 units", "0.8888 leaves")),
    "all hidden, blocks": (lambda: pretrain(mask=BlockMask(size=8, ratio=0.98)), ("all 36 units", "0.9722")),
    # sides of 6 sqrt(0.005) = 0.42 and 6 sqrt(0.9) = 5.7 units, rounded
    "no square": (
        lambda: pretrain(mask=SquareMask(size=8, ratio=0.005)),
        ("0.005", "0 x 0 of 6 x 6", "valid: 0.02778 (1 x 1) to 0.6944 (5 x 5)"),
    ),
    "square of all": (lambda: pretrain(mask=SquareMask(size=8, ratio=0.9)), ("6 x 6 of 6 x 6", "0.6944 (5 x 5)")),
    "square of one unit": (lambda: pretrain(mask=SquareMask(size=48, ratio=0.5)), ("1 x 1 of 1 x 1", "valid: none")),
    "square unit": (lambda: pretrain(mask=SquareMask(size=20, ratio=0.5)), ("20 px", "valid: 4, 8, 12, 16, 24, 48")),
    # ceil(36 * 0.05) = 2 hidden units, smallest block round(36 * 0.08) = 3; 2 / 36 = 0.0556
    "blocks too large": (
        lambda: pretrain(mask=BlockMask(size=8, ratio=0.05)),
        ("min_block 0.08", "3 units", "2 of 36", "ratio 0.05", "valid: up to 0.0555"),
    ),
    # blocks are shorter than the image: 5 x 5 of 6 x 6 at most, 25 / 36 = 0.6944
    "blocks as long as the image": (
        lambda: pretrain(mask=BlockMask(size=8, ratio=0.9, min_block=0.8)),
        ("29 units", "25 of 36", "valid: up to 0.6944"),
    ),
    "aspect ratio": (lambda: BlockMask(size=8, ratio=0.5, min_aspect=1.5), ("min_aspect", "less than or equal to 1")),
    "count": (lambda: BlockMask(size=8, ratio=0.5, count="most"), ("count", "'exact' or 'beit'", "'most'")),  # type: ignore[arg-type]
    "one unit": (lambda: pretrain(mask=RandomMask(size=48, ratio=0.5)), ("all 1 units; choose smaller units",)),
    "size 0": (lambda: RandomMask(size=0, ratio=0.5), ("size", "greater than 0")),
    "misspelt": (
        lambda: RandomMask(siez=8, ratio=0.5),  # type: ignore[call-arg]
        ("no field 'siez'", "did you mean 'size'?", "kind, size, ratio"),
    ),
    "misspelt inside": (lambda: pretrain(recpie=1), ("'recpie'", "did you mean 'recipe'?")),
    "loss kind": (lambda: Loss(kind="huber"), ("kind", "'l1', 'l2', 'smooth-l1', 'focal-l1'", "'huber'")),  # type: ignore[arg-type]
    "loss scope": (lambda: Loss(scope="all"), ("scope", "'masked' or 'full'")),  # type: ignore[arg-type]
    "precision": (lambda: recipe(precision="fp8"), ("'fp32', 'tf32', 'bf16' or 'fp16'",)),
    "data set": (lambda: Images(name="mnist"), ("fashion-mnist-mini", "cifar10", "stl10", "'mnist'")),  # type: ignore[arg-type]
    "folder name": (lambda: ImageFolder(name="../etc"), ("name", "pattern")),
    "beta of l1": (lambda: Loss(kind="l1", beta=1.0), ("beta", "smooth-l1")),
    "alpha of l2": (lambda: Loss(kind="l2", alpha=0.2), ("alpha belongs to focal-l1", "l2")),
    "gamma of cosine": (lambda: Loss(kind="cosine", gamma=1.0), ("gamma belongs to focal-l1 and frequency", "cosine")),
    "cosine of pixels": (lambda: pretrain(loss=Loss(kind="cosine")), ("'cosine'", "'pixels'", "focal-l1, frequency")),
    "group of the paper's loss": (lambda: FourierLoss(group=4), ("group belongs to variant='released' with focal",)),
    "group without focal": (
        lambda: FourierLoss(variant="released", focal=False, group=4),
        ("group belongs to", "leave it out"),
    ),
    "alpha without focal": (lambda: FourierLoss(focal=False, alpha=1.0), ("alpha belongs to focal=True",)),
    "visible part of the paper's loss": (lambda: FourierLoss(unmask_weight=0.1), ("unmask_weight", "'released'")),
    "reweighted and focal": (lambda: FourierLoss(variant="released", reweight=True), ("reweight", "focal=False")),
    "plain but not focal": (lambda: FourierLoss(variant="plain", focal=False), ("'plain' is focal", "'paper'")),
    "spectrum of a spectrum": (
        lambda: pretrain(
            loss=Loss(kind="frequency", scope="full"), fourier=FourierLoss(variant="released", focal=False)
        ),
        ("'frequency'", "valid", "l1, l2, smooth-l1, focal-l1", "focal=True"),
    ),
    "group that does not divide": (
        lambda: pretrain(fourier=FourierLoss(variant="released", group=3)),
        ("fourier.group 3", "batch_size 8", "valid: 1, 2, 4, 8"),
    ),
    "spectrum of classes": (
        lambda: pretrain(target=BinTarget(), loss=Loss(kind="cross-entropy"), fourier=FourierLoss()),
        ("Fourier loss", "'bins'", "leave fourier out"),
    ),
    "nothing hidden": (lambda: Corruption(fill="none", token="none"), ("hides nothing", "token='replace'")),
    "nothing removed": (lambda: Corruption(token="add"), ("token='add' hides nothing", "set a fill such as 'mean'")),
    "nothing hidden, not so": (lambda: Corruption(fill="mean", hides_nothing=True), ("against hides_nothing=True",)),
    "gate of no gate": (lambda: Corruption(fill="mean", token="add", gate=0.1), ("gate belongs to token='gated-add'",)),
    "detached, replaced": (lambda: Corruption(detach=True), ("detach does nothing to token='replace'", "gated-add")),
    "rates of no token": (lambda: FineTune(start=pretrain(), recipe=recipe(token_lr=0.1)), ("token_lr", "no mask")),
    "gate's rate, frozen": (lambda: LinearProbe(start=pretrain(), recipe=recipe(gate_lr=0.1)), ("gate_lr",)),
    "site of no token": (
        lambda: Corruption(fill="mean", token="none", site=AfterStage(stage=1, stride=4)),
        ("token='none' has no site",),
    ),
    "unit finer than the site": (
        lambda: pretrain(
            mask=RandomMask(size=8, ratio=0.5), corruption=Corruption(site=AfterStage(stage=3, stride=16))
        ),
        ("a mask unit of 8 px", "after stage 3 (stride 16)", "valid: 16, 48"),
    ),
    "odd batch, mixup": (lambda: recipe(batch_size=7, augment=Augment(mixup=0.8)), ("even batch_size", "7")),
    "odd batch, cutmix": (lambda: recipe(batch_size=7, augment=Augment(cutmix=1.0)), ("even batch_size", "7")),
    "warm-up": (lambda: recipe(warmup_epochs=4), ("warmup_epochs 4", "4 epochs")),
    "no data of pixels": (lambda: segment(data=None), ("data has to be stated", "Garments, Shapes or MaskFolder")),
    "data without pixels": (
        lambda: segment(data=ImageFolder(name="somewhere", content="0a")),
        ("somewhere does not come with a class for every pixel", "valid: Garments, Shapes or MaskFolder"),
    ),
    "crop of tested pictures": (lambda: segment(crop=1.0), ("crop would do nothing", "leave it out")),
    "taps out of order": (lambda: segment(taps=(4, 2, 6, 8)), ("ascending order", "(4, 2, 6, 8)")),
    "three maps of a vit": (lambda: segment(taps=(4, 8, 12)), ("UPerNet takes four maps", "(4, 8, 12)")),
    "windows with gaps": (lambda: segment(test=Slide(stride=33)), ("32 px", "stride of 33", "leave pixels out")),
    "smoothed pixels": (
        lambda: segment(recipe=recipe(augment=Augment(smoothing=0.1))),
        ("recipe.augment", "cropped, scaled and flipped only"),
    ),
    "drop path of a frozen segmentation": (
        lambda: segment(frozen=True, recipe=recipe(drop_path=0.1)),
        ("do nothing to a frozen encoder",),
    ),
    "warm-up in steps": (lambda: recipe(epochs=0, steps=5, warmup_steps=5), ("warmup_steps 5", "5 steps")),
    "no length": (lambda: recipe(epochs=0), ("state the length once", "neither epochs nor steps")),
    "two lengths": (lambda: recipe(steps=5), ("state the length once", "epochs 4 and steps 5")),
    "two warm-ups": (lambda: recipe(warmup_epochs=1, warmup_steps=5), ("the warm-up once", "1 and warmup_steps 5")),
    "nesterov of adamw": (lambda: recipe(nesterov=False), ("nesterov belongs to sgd, not to adamw",)),
    "snapshot of a length in steps": (
        lambda: Snapshot(pretrain=pretrain(recipe=recipe(epochs=0, steps=5)), epoch=1),
        ("state the pre-training's length in epochs",),
    ),
    "crop": (lambda: Augment(crop_scale=(0.5, 1.5)), ("crop_scale", "at most 1")),
    "crop order": (lambda: Augment(crop_scale=(0.9, 0.5)), ("crop_scale", "low <= high")),
    "layer decay": (lambda: pretrain(recipe=recipe(layer_decay=0.8)), ("layer_decay", "fine-tuning")),
    "mixup in pre-training": (lambda: pretrain(recipe=recipe(augment=Augment(mixup=0.8))), ("mixup", "no labels")),
    "smoothing": (lambda: pretrain(recipe=recipe(augment=Augment(smoothing=0.1))), ("smoothing", "no labels")),
    "downsample, stride": (lambda: pretrain(target=PixelTarget(downsample=3)), ("3", "stride", "valid: 1, 2, 4")),
    # ViT of patch 8 and units of 24: 16 divides neither; Swin of stride 32 with units of 16: 32 would mix two units
    "downsample mixes": (
        lambda: pretrain(
            image_size=96,
            backbone=Backbone(name="swin", patch_size=4, stride=32),
            mask=RandomMask(size=16, ratio=0.5),
            target=PixelTarget(downsample=32),
        ),
        ("mixes hidden and visible", "16 px", "valid: 1, 2, 4, 8, 16"),
    ),
    "regression of classes": (
        lambda: pretrain(target=BinTarget(bins=8)),
        ("loss.kind 'l1'", "target 'bins'", "valid: cross-entropy"),
    ),
    "classes of pixels": (
        lambda: pretrain(loss=Loss(kind="cross-entropy")),
        ("'cross-entropy'", "target 'pixels'", "valid: l1, l2, smooth-l1, focal-l1, frequency"),
    ),
    "dalle on grey images": (
        lambda: pretrain(
            data=Images(name="fashion-mnist"),
            target=TokenTarget(tokenizer=DalleTokenizer(path="w.pt", sha256="0a"), downsample=4),
            loss=Loss(kind="cross-entropy"),
        ),
        ("'dalle'", "1 channels", "valid here: patch-words"),
    ),
    "file of no tokenizer": (lambda: DalleTokenizer(path="/nowhere/dalle.pt"), ("cannot read", "dalle.pt")),
    "patches that do not fill the image": (
        lambda: pretrain(target=NormPixelTarget(size=9), loss=Loss(kind="l2")),
        ("patches of 9 px", "48 px", "valid: 2, 3, 4, 6, 8, 12, 16, 24, 48"),
    ),
    "low-pass patches": (lambda: pretrain(target=LowPassTarget(patch=5)), ("patches of 5 px", "48 px")),
    "window without a middle": (lambda: NormPixelTarget(size=8, area="window"), ("8 px", "valid here: 7, 9")),
    "histograms coarser than the stride": (
        lambda: pretrain(target=HogTarget(), loss=Loss(kind="l2")),
        ("target.downsample 16", "stride", "valid: 1, 2, 4"),
    ),
    "spectrum of histograms": (
        lambda: pretrain(target=HogTarget(cell=2), fourier=FourierLoss()),
        ("Fourier loss", "'hog'"),
    ),
    "frequencies of features": (
        lambda: pretrain(target=HogTarget(cell=2), loss=Loss(kind="frequency")),
        ("'frequency'", "'hog'", "valid: l1, l2, smooth-l1, focal-l1, cosine"),
    ),
    "teacher of another size": (
        lambda: pretrain(target=FeatureTarget(teacher=TEACHER, width=8, downsample=4), loss=Loss(kind="l2")),
        ("stride 16", "sees 192 px", "not the teacher.image_size of 224"),
    ),
    "teacher's mean": (
        lambda: pretrain(
            target=FeatureTarget(
                teacher=TEACHER.replace(image_size=192), width=8, downsample=4, mean=(0.5,), std=(0.5,)
            ),
            loss=Loss(kind="l2"),
        ),
        ("mean has 1 numbers", "3 channels"),
    ),
    "mean without std": (
        lambda: FeatureTarget(teacher=TEACHER, width=8, mean=(0.5, 0.5, 0.5)),
        ("mean and std belong together",),
    ),
    "target of no momentum encoder": (
        lambda: pretrain(target=MomentumTarget(width=8, downsample=4), loss=Loss(kind="l2")),
        ("target 'momentum' needs a momentum encoder", "MomentumEncoder()"),
    ),
    "even convolution": (lambda: MlpHead(depthwise=4), ("side 4", "valid: odd")),
    "width of a depth-wise head": (lambda: MlpHead(depthwise=5, width=8), ("leave width out",)),
    "heads of a transformer": (lambda: TransformerHead(width=20, num_heads=8), ("8 heads", "width 20")),
    "one bin": (lambda: BinTarget(bins=1), ("bins", "greater than or equal to 2")),
    "bins of no byte": (lambda: BinTarget(bins=257), ("bins", "less than or equal to 256")),
    "tokens coarser than the stride": (
        lambda: pretrain(target=TokenTarget(downsample=16), loss=Loss(kind="cross-entropy")),
        ("target.downsample 16", "stride", "valid: 1, 2, 4"),
    ),
    # stride 12 over 4 is 3, over 2 is 6: no powers of two; over 3, 6 and 12 they are
    "inverse head, odd factor": (
        lambda: pretrain(
            backbone=Backbone(name="vit", patch_size=12),
            mask=RandomMask(size=24, ratio=0.5),
            head=InverseSwinHead.tiny(),
            target=PixelTarget(downsample=4),
        ),
        ("inverse-swin", "stride 12", "3 times", "valid target.downsample: 3, 6, 12"),
    ),
    "heads of no stage": (
        lambda: InverseSwinHead(embed_dim=8, depths=(2, 2), num_heads=(2,)),
        ("depths names 2 stages", "num_heads 1"),
    ),
    "heads do not divide": (
        lambda: InverseSwinHead(embed_dim=8, depths=(2, 2), num_heads=(2, 3)),
        ("3 heads", "16 channels of stage 2"),
    ),
    "stride of patch": (lambda: Backbone(name="vit", patch_size=16, stride=24), ("stride 24", "patch_size 16")),
    "args of the harness": (lambda: Backbone(name="vit", args={"img_size": 1}, patch_size=4), ("img_size",)),
    "args nested": (lambda: Backbone(name="vit", args={"a": {"b": 1}}, patch_size=4), ("plain values",)),
    "args as text": (lambda: Backbone(name="vit", args="depth=4", patch_size=4), ("plain values",)),
    "args nan": (lambda: Backbone(name="vit", args={"a": float("nan")}, patch_size=4), ("plain values",)),
    "args twice": (lambda: Backbone(name="vit", args=(("a", 1), ("a", 2)), patch_size=4), ("repeats a name",)),
    "mlp of one layer": (lambda: MlpHead(layers=1), ("layers", "greater than or equal to 2")),
    "settings of another optimiser": (
        lambda: recipe(optimizer=CustomOptimiser(function="json:dumps"), eps=1e-6, betas=(0.9, 0.95)),
        ("betas and eps would not reach", "params"),
    ),
    "betas of sgd": (
        lambda: recipe(optimizer="sgd", betas=(0.1, 0.2)),
        ("betas belongs to adamw and lamb, not to sgd", "leave it out"),
    ),
    "eps of lars": (lambda: recipe(optimizer="lars", eps=1e-6), ("eps belongs to adamw and lamb, not to lars",)),
    "an optimiser's name": (lambda: recipe(optimizer="adam"), ("Recipe.optimizer: Input should be 'adamw', 'lamb'",)),
    "stride of an own network": (
        lambda: CustomBackbone(function="json:dumps", patch_size=16, stride=24),
        ("stride 24", "patch_size 16"),
    ),
    "dropped tokens of an own network": (
        lambda: pretrain(
            backbone=CustomBackbone(function="json:dumps", patch_size=4, stride=4),
            corruption=Corruption(token="drop"),
            head=DecoderHead(),
        ),
        ("needs a plain ViT", "not json:dumps"),
    ),
    "hidden frequencies for an own loss": (
        lambda: pretrain(mask=FrequencyMask(radius=4), loss=CustomLoss(function="json:dumps", scope="full")),
        ("loss of your own", "frequency mask hides none"),
    ),
    "hidden frequencies and a loss predictor": (
        lambda: pretrain(mask=FrequencyMask(radius=4), loss=Loss(kind="frequency"), loss_predictor=LossPredictor()),
        ("loss_predictor ranks hidden patches", "frequency mask hides none"),
    ),
    "function": (lambda: CustomMask(function="no_colon", size=8), ("package.module:function",)),
    "module": (lambda: CustomMask(function="no_such_module_here:f", size=8), ("no_such_module_here", "project root")),
    "probe": (
        lambda: LinearProbe(start=pretrain(), recipe=recipe(drop_path=0.1)),
        ("drop_path", "frozen encoder"),
    ),
    "bool for a number": (lambda: recipe(epochs=True), ("epochs", "valid integer")),
    "float for an integer": (lambda: recipe(epochs=4.0), ("epochs", "valid integer")),
    "infinite": (lambda: recipe(lr=float("inf")), ("lr", "finite")),
    "missing": (lambda: Recipe(epochs=1, batch_size=8), ("lr", "required")),  # type: ignore[call-arg]
    "scale name": (
        lambda: Scale(
            name="../x",
            data=Shapes(),
            image_size=48,
            backbone=Backbone(name="v", patch_size=4),
            pretrain=recipe(),
            finetune=recipe(),
        ),
        ("name", "pattern"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name: str) -> None:
    build, parts = REFUSED[name]
    with pytest.raises(ValidationError) as caught:
        build()
    line = one_line(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line, line


def test_the_message_says_where() -> None:
    with pytest.raises(ValidationError) as caught:
        pretrain(recipe={"epochs": -1, "batch_size": 8, "lr": 1e-3})
    assert one_line(caught.value).startswith("Pretrain.recipe.epochs: ")


RATIOS: dict[str, Callable[[float], MaskSpec]] = {
    "random": lambda ratio: RandomMask(size=1, ratio=ratio),
    "tokens": lambda ratio: TokenMask(size=1, ratio=ratio),
    "block": lambda ratio: BlockMask(size=1, ratio=ratio, min_block=1e-6),
    "block, ratio_spread": lambda ratio: BlockMask(size=1, ratio=ratio, min_block=1e-6, ratio_spread=1e-9),
    "colour": lambda ratio: ColourMask(size=1, ratio=ratio, colour="red", sigma=1.0),
    "complement": lambda ratio: ComplementMask(size=1, ratio=ratio),
    "disjoint": lambda ratio: DisjointMask(size=1, ratio=ratio),
    "hard": lambda ratio: HardMask(size=1, ratio=ratio),
    "guided, reveal": lambda ratio: GuidedMask(size=1, ratio=ratio, reveal=0.1),
}


def complaint(mask: MaskSpec, side: int) -> str:
    try:
        mask.check(side)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", RATIOS)
def test_a_ratio_that_is_named_is_accepted_and_the_next_one_is_not(name: str) -> None:
    make, complaints = RATIOS[name], 0
    least = 0.1 if "reveal" in name else 1e-8
    for side in range(3, 50):
        for ratio, step, said in ((1 - 1e-8, 1e-4, "at most (.*) leaves one"), (least, -1e-4, "; (.*) or more hides")):
            if not (line := complaint(make(ratio), side)):
                continue  # by its count, some masks always hide one, or leave one
            found = re.search(said, line)
            assert found, line
            assert not complaint(make(float(found[1])), side)
            assert "hides" in complaint(make(round(float(found[1]) + step, 4)), side)
            complaints += 1
    assert complaints


def test_the_ratio_of_tokens_that_is_named_by_hand() -> None:
    """400 (1 - 0.9975) is below 1 in floats, which keeps no token; 400 (1 - 0.9974) = 1.04 keeps one."""
    with pytest.raises(ValueError, match=r"ratio 0.9975 hides all 400 units; at most 0.9974 leaves one"):
        TokenMask(size=1, ratio=0.9975).check(20)


def test_the_divisors_that_complaints_name() -> None:
    assert choices(12) == "valid: 1, 2, 3, 4, 6, 12"
    assert choices(12, 4) == "valid: 4, 12"
    assert choices(12, least=2) == "valid: 2, 3, 4, 6, 12"
    assert choices(7, 2) == choices(1, least=2) == "valid: none"


def test_the_largest_ratio_that_is_named_is_accepted() -> None:
    assert pretrain(mask=RandomMask(size=8, ratio=0.9722)).mask.hidden_units(48) == 35


def test_a_target_may_mix_hidden_and_visible_pixels_where_the_loss_is_over_all() -> None:
    swin = Backbone(name="swin", patch_size=4, stride=32)
    fine = {"image_size": 96, "backbone": swin, "mask": RandomMask(size=16, ratio=0.5)}
    coarse = PixelTarget(downsample=32)
    assert pretrain(**fine, target=coarse, loss=Loss(scope="full")).target == coarse


def test_values_that_are_named_as_valid_are_accepted() -> None:
    pretrain(mask=RandomMask(size=16, ratio=0.8888))
    assert [SquareMask(size=8, ratio=ratio).side(48) for ratio in (0.02778, 0.6944)] == [1, 5]
    pretrain(mask=SquareMask(size=8, ratio=0.02778))
    pretrain(mask=SquareMask(size=8, ratio=0.6944))
    pretrain(mask=BlockMask(size=8, ratio=0.05, min_block=0.0555))
    pretrain(mask=BlockMask(size=8, ratio=0.9, min_block=0.6944))


@pytest.mark.parametrize("method", ["replace", "model_copy"])
def test_a_changed_copy_is_validated_and_has_its_own_digest(method: str) -> None:
    run = pretrain()
    before = run.digest

    def change(**changes: Any) -> Pretrain:
        found = run.replace(**changes) if method == "replace" else run.model_copy(update=changes)
        assert isinstance(found, Pretrain)
        return found

    with pytest.raises(ValidationError, match="valid: 4, 8, 12"):
        change(mask=RandomMask(size=20, ratio=0.5))
    with pytest.raises(ValidationError, match="did you mean 'seed'"):
        change(sed=1)
    assert change(seed=1).digest != before == run.digest
    assert change(seed=0).digest == before


SCALED = Augment(scale=(0.5, 2.0))
SGD = recipe(optimizer="sgd")
OWN = recipe(optimizer=CustomOptimiser(function="json:dumps"))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (lambda: Augment().replace(scale=(0.5, 2.0)), SCALED),
        (lambda: Augment(crop_scale=(0.2, 1.0), crop_ratio=(1.0, 1.0)).replace(scale=(0.5, 2.0)), SCALED),
        (lambda: SGD.replace(optimizer="adamw"), recipe()),
        (lambda: SGD.replace(optimizer="lamb", betas=(0.9, 0.95)), recipe(optimizer="lamb", betas=(0.9, 0.95))),
        (lambda: SGD.replace(momentum=0.5, nesterov=False).replace(optimizer="adamw"), recipe()),
        (lambda: SGD.replace(momentum=0.5, nesterov=False).replace(optimizer=OWN.optimizer), OWN),
        (lambda: recipe(betas=(0.9, 0.95), eps=1e-6).replace(optimizer="sgd"), SGD),
        (
            lambda: SGD.replace(momentum=0.5, nesterov=False).replace(optimizer="lars"),
            SGD.replace(optimizer="lars", momentum=0.5),
        ),
        (lambda: recipe(eps=1e-6).replace(optimizer="lamb"), recipe(optimizer="lamb", eps=1e-6)),
    ],
)
def test_a_changed_copy_drops_what_its_new_choice_does_not_read(changed: Callable[[], Spec], expected: Spec) -> None:
    found = changed()
    assert found == expected
    assert found.digest == expected.digest


def test_a_changed_copy_is_refused_what_is_stated_beside_a_choice_that_does_not_read_it() -> None:
    with pytest.raises(ValidationError, match="crop_scale would do nothing beside scale"):
        Augment().replace(scale=(0.5, 2.0), crop_scale=(0.2, 1.0))
    with pytest.raises(ValidationError, match="momentum belongs to lars and sgd, not to adamw"):
        SGD.replace(optimizer="adamw", momentum=0.9)


def test_specs_are_frozen() -> None:
    run = pretrain()
    with pytest.raises(ValidationError, match="frozen"):
        run.seed = 1  # type: ignore[misc]


def test_a_stored_run_that_is_refused_is_named_by_its_kind_and_field() -> None:
    plain = json.loads(json.dumps(pretrain().to_plain()))
    plain["recipe"] |= {"optimizer": "sgd", "momentum": 0.9, "betas": [0.1, 0.2]}
    with pytest.raises(HarnessError, match=r"^pretrain\.recipe: betas belongs to adamw and lamb, not to sgd") as caught:
        run_from_json(json.dumps(plain))
    assert "\n" not in str(caught.value)


def test_text_that_is_no_run_is_refused_in_one_line() -> None:
    for text in ("", "{}", "[1]", '{"kind": "dream"}', '{"kind": "pretrain", "seed": -1}'):
        with pytest.raises(HarnessError) as caught:
            run_from_json(text)
        assert "\n" not in str(caught.value)


def test_an_evaluation_takes_what_its_start_was_trained_on() -> None:
    run = FineTune(start=pretrain(), recipe=recipe())
    assert (run.data, run.image_size) == (Shapes(), 48)
    assert FineTune(start=pretrain(), recipe=recipe(), image_size=96).image_size == 96


def scale(image_size: int, patch: int, name: str = "vit_tiny") -> Scale:
    backbone = Backbone(name=name, patch_size=patch, stride=patch)
    return Scale(
        name="s", data=Shapes(), image_size=image_size, backbone=backbone, pretrain=recipe(), finetune=recipe()
    )


@pytest.mark.parametrize(
    ("image_size", "patch", "length", "expected"),
    [
        (192, 4, 32, 32),
        (48, 4, 32, 8),
        (48, 4, 64, 16),
        (24, 4, 32, 4),
        (96, 4, 8, 4),
        (48, 4, 4, "4 px is 1 px at 48 px, smaller than one 4-px patch of vit_tiny"),
        (24, 4, 4, "4 px is 0.5 px at 24 px, not a whole number"),
        (48, 4, 24, "24 px is 6 px at 48 px, no multiple of the 4-px patch of vit_tiny"),
        (48, 4, 80, "80 px is 20 px at 48 px, which does not divide the image"),
        (28, 7, 32, "32 px is 4.66667 px at 28 px, not a whole number"),
    ],
)
def test_pixels_of_the_paper_on_another_image(image_size: int, patch: int, length: int, expected: int | str) -> None:
    if isinstance(expected, int):
        assert scale(image_size, patch).pixels(length) == expected
    else:
        with pytest.raises(Skip) as caught:
            scale(image_size, patch).pixels(length)
        assert caught.value.reason == expected


@pytest.mark.parametrize(
    "policy", ["rand-x9", "rand-m", "rand-w0", "rand-m9-", "Rand-m9", "rand m9", "nonsense", "rand-m1e9"]
)
def test_a_malformed_augmentation_policy_is_refused(policy: str) -> None:
    with pytest.raises(ValidationError, match="is none of timm's, such as"):
        Augment(rand_augment=policy)


@pytest.mark.parametrize(
    "policy", ["rand-m9-mstd0.5-inc1", "rand-m10-n4-inc1", "rand-mstd1-tweights", "augmix-m5-w4-d2", "v0r"]
)
def test_what_timm_reads_is_none(policy: str) -> None:
    assert Augment(rand_augment=policy).rand_augment == policy


def test_scenes_are_cropped_scaled_and_flipped_only() -> None:
    check_scenes(recipe(augment=Augment(scale=(0.5, 2.0), class_limit=0.75)), "segments")
    check_scenes(recipe(augment=Augment(crop_scale=(0.2, 1.0), repeats=2)), "objects")
    for augment, truth, said in (
        (Augment(mixup=0.8, erasing=0.1), "segments", "erasing, mixup"),
        (Augment(scale=(0.5, 2.0), class_limit=0.75), "objects", "class_limit"),
        (CustomAugment(function="harness.machine:data_location"), "segments", "CustomAugment"),
    ):
        with pytest.raises(ValueError, match=said):
            check_scenes(recipe(augment=augment), truth)  # type: ignore[arg-type]
