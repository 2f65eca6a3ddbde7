"""Keys: what changes them and what does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from harness.spec import (
    AfterStage,
    Augment,
    Average,
    Backbone,
    BeforeBlock,
    BinTarget,
    BlockMask,
    CheckerboardMask,
    Checkpoint,
    ClusterTarget,
    CocoFolder,
    ColourMask,
    ComplementMask,
    Contrastive,
    Corruption,
    Cosine,
    CustomMask,
    DalleTokenizer,
    DecoderHead,
    DisjointMask,
    FeatureTarget,
    FineTune,
    FourierLoss,
    FrequencyMask,
    Garments,
    GridMask,
    GuidedMask,
    HardMask,
    HogTarget,
    ImageFolder,
    Images,
    InverseSwinHead,
    Knn,
    LinearMap,
    LinearProbe,
    LocalMask,
    Loss,
    LossPredictor,
    LowPassTarget,
    MaskFolder,
    MlpHead,
    MomentumEncoder,
    MomentumTarget,
    MultiStep,
    NormPixelTarget,
    PatchWords,
    PixelTarget,
    Poly,
    Pretrain,
    RandomMask,
    Recipe,
    Run,
    Scratch,
    Segment,
    Shapes,
    Slide,
    Spec,
    SquareMask,
    TokenMask,
    TokenTarget,
    TransformerHead,
    UniformMask,
    UPerNet,
    VisibleSquareMask,
    Whole,
    key,
)

BACKBONE = Backbone(name="beit_base_patch16_224", args={"embed_dim": 64, "depth": 3}, patch_size=8)
RECIPE = Recipe(epochs=10, batch_size=8, lr=1e-3)
PRETRAIN = Pretrain(data=Shapes(), image_size=32, backbone=BACKBONE, mask=RandomMask(size=16, ratio=0.5), recipe=RECIPE)
TAUGHT = PRETRAIN.replace(contrastive=Contrastive(), momentum=MomentumEncoder())
FINETUNE = FineTune(start=PRETRAIN, recipe=RECIPE)
TEACHER = Checkpoint(path="", backbone=BACKBONE, image_size=64, sha256="0a")
FEATURES = FeatureTarget(teacher=TEACHER, width=64, downsample=16)
PROBE = LinearProbe(start=PRETRAIN, recipe=RECIPE)
KNN = Knn(start=PRETRAIN)

# One other value of every keyed field. A field that is added without an entry here fails the test below.
OTHER: dict[Spec, dict[str, Any]] = {
    PRETRAIN: {
        "data": Shapes(seed=1),
        "image_size": 64,
        "backbone": BACKBONE.replace(patch_size=4),
        "mask": RandomMask(size=16, ratio=0.25),
        "corruption": Corruption(fill="mean"),
        "head": MlpHead(),
        "target": PixelTarget(downsample=2),
        "loss": Loss(kind="l2"),
        "recipe": RECIPE.replace(lr=2e-3),
        "seed": 1,
        "start": Checkpoint(path="", backbone=BACKBONE, image_size=32, sha256="0a"),
        "fourier": FourierLoss(),
    },
    PRETRAIN.replace(loss_predictor=LossPredictor()): {"loss_predictor": LossPredictor(weight=0.5)},
    LossPredictor(): {"weight": 0.5, "decoder": DecoderHead(depth=1)},
    TAUGHT: {"contrastive": Contrastive(weight=0.5), "momentum": MomentumEncoder(start=0.5)},
    FINETUNE.replace(loss="binary-cross-entropy"): {
        "start": Scratch(backbone=BACKBONE, image_size=32),
        "data": Shapes(seed=1),
        "image_size": 64,
        "crop": 1.0,
        "seed": 1,
        "recipe": RECIPE.replace(lr=2e-3),
        "tested_epochs": 1,
        "pool": "token",
        "backbone": BACKBONE.replace(args={"depth": 4}),
        "loss": "cross-entropy",
        "label_threshold": 0.2,
        "test_size": 48,
        "classifier_std": 2e-5,
    },
    PROBE: {
        "start": Scratch(backbone=BACKBONE, image_size=32),
        "data": Shapes(seed=1),
        "image_size": 64,
        "crop": 1.0,
        "seed": 1,
        "recipe": RECIPE.replace(lr=2e-3),
        "tested_epochs": 1,
        "block": 2,
        "batch_norm": False,
        "pool": "token",
    },
    KNN: {
        "start": Scratch(backbone=BACKBONE, image_size=32),
        "data": Shapes(seed=1),
        "image_size": 64,
        "crop": 1.0,
        "seed": 1,
        "k": 10,
        "temperature": 0.1,
        "block": 2,
    },
    RECIPE.replace(optimizer="sgd"): {"optimizer": "lars", "momentum": 0.5, "nesterov": False},
    RECIPE: {
        "epochs": 11,
        "batch_size": 16,
        "lr": 2e-3,
        "lr_batch": None,
        "betas": (0.9, 0.95),
        "eps": 1e-6,
        "weight_decay": 0.1,
        "no_decay": "mmpretrain",
        "warmup_epochs": 1,
        "warmup_lr": 1e-6,
        "schedule": MultiStep(milestones=(5,)),
        "clip": None,
        "drop_path": 0.1,
        "batch_norm_group": 4,
        "layer_decay": 0.8,
        "token_lr": 0.1,
        "gate_lr": 0.1,
        "precision": "bf16",
        "augment": Augment(flip=0.0),
        "average": Average(decay=0.99),
        "steps": 7,
        "warmup_steps": 2,
    },
    Augment(): {
        "crop_scale": (0.2, 1.0),
        "crop_ratio": (1.0, 1.0),
        "interpolation": "bicubic",
        "flip": 0.0,
        "rand_augment": "rand-m9",
        "color_jitter": 0.4,
        "erasing": 0.25,
        "mixup": 0.8,
        "cutmix": 1.0,
        "smoothing": 0.1,
        "repeats": 3,
    },
    Augment(scale=(0.5, 2.0)): {"scale": (0.1, 2.0), "class_limit": 0.75},
    MaskFolder(name="a", classes=3): {
        "name": "b",
        "content": "0",
        "classes": 4,
        "shift": -1,
        "ignore": None,
        "train_images": 4,
        "split": "validation",
    },
    CocoFolder(name="a"): {
        "name": "b",
        "content": "0",
        "train": "train2014",
        "test": "minival",
        "flat": "drop",
        "train_images": 4,
        "split": "validation",
    },
    Garments(): {
        "image_size": 32,
        "train": 8,
        "test": 8,
        "seed": 1,
        "source": "fashion-mnist",
        "content": "sha256:0",
        "train_images": 4,
        "split": "validation",
    },
    Average(warmup_epochs=1): {"decay": 0.5, "warmup_epochs": 2, "warmup_ratio": 0.5},
    BACKBONE: {
        "name": "vit_small_patch16_224",
        "args": {"depth": 4},
        "patch_size": 4,
        "stride": 32,
        "variant": "simmim",
    },
    RandomMask(size=16, ratio=0.5): {"size": 8, "ratio": 0.6},
    SquareMask(size=16, ratio=0.5): {"size": 8, "ratio": 0.6, "place": "centre"},
    BlockMask(size=16, ratio=0.5): {
        "size": 8,
        "ratio": 0.6,
        "count": "beit",
        "min_block": 0.1,
        "min_aspect": 0.5,
        "max_block": 0.2,
        "ratio_spread": 0.1,
    },
    TokenMask(size=16, ratio=0.5): {"size": 8, "ratio": 0.6, "shared": True},
    VisibleSquareMask(size=16): {"size": 8, "ratio": 0.6, "places": "all"},
    GridMask(size=16): {"size": 8},
    UniformMask(size=16): {"size": 8},
    CheckerboardMask(size=16): {"size": 8, "square": 2, "phase": "both", "strict": True},
    ColourMask(size=16, sigma=1.0, wide=2.0): {
        "size": 8,
        "ratio": 0.6,
        "colour": "purple",
        "sigma": 0.5,
        "wide": 3.0,
    },
    ComplementMask(size=16): {"size": 8, "ratio": 0.6},
    DisjointMask(size=16): {"size": 8, "ratio": 0.7, "shared": True},
    LocalMask(size=16): {"size": 8, "ratio": 0.7, "window": 3, "windows": 2, "shared": False},
    FrequencyMask(): {"radius": 8.0, "low_pass": 0.4},
    GuidedMask(size=16, ratio=0.5, reveal=0.05): {
        "size": 8,
        "ratio": 0.6,
        "hide": "rest",
        "choose": "drawn",
        "ratio_spread": 0.1,
        "reveal": 0.1,
        "reveal_from": 0.2,
    },
    HardMask(size=16): {"size": 8, "ratio": 0.6, "first": 0.1, "last": 1.0},
    MlpHead(): {"layers": 3, "width": 8},
    DecoderHead(): {"depth": 4, "width": 256, "heads": 8, "positions": "learned"},
    Contrastive(): {
        "weight": 0.1,
        "temperature": 0.1,
        "crops": "two",
        "mask": "same",
        "hidden": 8,
        "out": 8,
        "projector_layers": 2,
        "predictor_layers": 1,
    },
    MomentumEncoder(): {"start": 0.9, "end": 0.999, "schedule": "linear", "epochs": 10},
    InverseSwinHead(embed_dim=8, depths=(1, 2), num_heads=(1, 2)): {
        "embed_dim": 16,
        "depths": (2, 2),
        "num_heads": (2, 2),
        "window": 7,
    },
    BinTarget(): {"bins": 256, "downsample": 4},
    ClusterTarget(): {"clusters": 256, "downsample": 4, "images": 8, "per_image": 8, "iterations": 8, "seed": 1},
    PatchWords(): {"vocabulary": 256, "images": 8, "per_image": 8, "iterations": 8, "seed": 1},
    TokenTarget(): {"tokenizer": PatchWords(seed=1), "downsample": 8},
    DalleTokenizer(path="w.pt", sha256="0a"): {"sha256": "0b", "vocabulary": 16},
    Corruption(fill="mean", token="gated-add"): {
        "fill": "none",
        "token": "add",
        "site": AfterStage(stage=3, stride=8),
        "gate": 0.1,
        "detach": True,
    },
    AfterStage(stage=3, stride=8): {"stage": 2, "stride": 16},
    BeforeBlock(block=3, stride=8): {"block": 2, "stride": 16},
    NormPixelTarget(): {"size": 8},
    NormPixelTarget(size=9): {"area": "window"},
    LowPassTarget(): {"radius": 20.0, "patch": 16},
    HogTarget(): {"bins": 6, "cell": 4, "cells": 1, "window": 8},
    FEATURES: {
        "teacher": TEACHER.replace(sha256="0b"),
        "width": 32,
        "block": 2,
        "norm": "layer",
        "downsample": 8,
    },
    FEATURES.replace(mean=(0.5,), std=(0.5,)): {"mean": (0.4,), "std": (0.4,), "precision": "bf16"},
    MomentumTarget(width=64, downsample=8): {
        "width": 32,
        "downsample": 16,
        "blocks": 2,
        "norm": "layer",
        "mean_norm": "layer",
    },
    MlpHead(layers=3): {"depthwise": 5},
    TransformerHead(): {"layers": 1, "width": 64, "num_heads": 4, "depthwise": 5},
    Loss(kind="smooth-l1"): {"kind": "l1", "scope": "full", "beta": 0.5},
    Loss(kind="focal-l1"): {"kind": "l1", "scope": "full", "alpha": 0.5, "gamma": 2.0},
    FourierLoss(): {"variant": "released", "weight": 0.1, "focal": False, "alpha": 2.0},
    FourierLoss(variant="released"): {"unmask_weight": 1e-3, "group": 4},
    FourierLoss(variant="released", focal=False): {"reweight": True},
    FourierLoss(variant="plain"): {"variant": "paper", "alpha": 2.0, "unmask_weight": 0.5},
    Cosine(): {"min_lr": 1e-5, "counted_from": "warm-up", "epochs": 5},
    MultiStep(milestones=(3,)): {"milestones": (4,), "gamma": 0.5, "unit": "steps"},
    Poly(): {"power": 0.9, "min_lr": 1e-5, "counted_from": "warm-up"},
    Segment(start=Scratch(backbone=BACKBONE, image_size=32), data=Shapes(), recipe=RECIPE): {
        "start": Scratch(backbone=BACKBONE, image_size=64),
        "data": Shapes(seed=1),
        "recipe": RECIPE.replace(lr=2e-3),
        "image_size": 64,
        "seed": 1,
        "frozen": True,
        "backbone": BACKBONE.replace(args={"depth": 2}),
        "tested_epochs": None,
        "head": LinearMap(),
        "taps": (1, 2, 3, 4),
        "test": Slide(stride=16),
    },
    UPerNet(): {"width": 64, "pools": (1, 2), "aux": 0.0, "dropout": 0.1, "norm": "layer"},
    LinearMap(): {"batch_norm": False},
    Slide(stride=16): {"stride": 8, "scales": (0.5, 1.0), "flip": True},
    Whole(): {"scales": (2.0,), "flip": True},
    Shapes(): {"train_images": 8, "split": "validation", "image_size": 64, "train": 8, "test": 8, "seed": 1},
}
FIELDS = [(spec, field) for spec, others in OTHER.items() for field in others]


@pytest.mark.parametrize(("spec", "field"), FIELDS, ids=[f"{type(spec).__name__}.{name}" for spec, name in FIELDS])
def test_every_field_changes_the_digest(spec: Spec, field: str) -> None:
    changes = {field: OTHER[spec][field]}
    if isinstance(spec, GuidedMask) and field in ("hide", "choose"):  # reveal belongs to ranked salient units
        spec, changes["reveal"] = spec.replace(reveal=0.0), 0.0
    assert spec.replace(**changes).digest != spec.digest


@pytest.mark.parametrize("kind", dict.fromkeys(type(spec) for spec in OTHER), ids=lambda kind: kind.__name__)
def test_every_field_is_tried(kind: type[Spec]) -> None:
    tried = {field for spec, field in FIELDS if type(spec) is kind}
    follows = {"kind", "hides_nothing"}  # from the type, or from the other fields of a corruption
    assert set(kind.model_fields) - kind.unkeyed - follows <= tried


def test_a_change_deep_inside_reaches_the_key_of_the_evaluation() -> None:
    changed = PRETRAIN.replace(mask=RandomMask(size=8, ratio=0.5))
    assert key(FINETUNE.replace(start=changed)) != key(FINETUNE)


@pytest.mark.parametrize("kind", [RandomMask, Backbone, Recipe, Shapes, Pretrain, FineTune, Augment, Loss])
def test_a_raised_revision_changes_the_keys_of_all_that_contain_it(
    kind: type[Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh() -> Run:
        recipe = Recipe(epochs=10, batch_size=8, lr=1e-3, augment=Augment(flip=0.25))
        backbone = Backbone(name="vit_tiny_patch16_224", patch_size=8)
        mask = RandomMask(size=16, ratio=0.5)
        loss, data = Loss(kind="l2"), Shapes(seed=3)
        start = Pretrain(data=data, image_size=32, backbone=backbone, mask=mask, loss=loss, recipe=recipe)
        return FineTune(start=start, recipe=recipe)

    before = key(fresh())
    assert key(fresh()) == before
    monkeypatch.setattr(kind, "revision", 2)
    assert key(fresh()) != before


def test_a_correction_of_some_values_leaves_the_keys_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def masks() -> tuple[RandomMask, RandomMask]:
        return RandomMask(size=8, ratio=0.5), RandomMask(size=16, ratio=0.5)

    kept, corrected = (mask.digest for mask in masks())
    monkeypatch.setattr(RandomMask, "current_revision", lambda self: 2 if self.size == 16 else 1)
    assert masks()[0].digest == kept
    assert masks()[1].digest != corrected


def test_notes_do_not_change_the_key() -> None:
    assert key(PRETRAIN.replace(assumed=("beta2 is 0.999",))) == key(PRETRAIN)


def test_the_order_of_fields_and_params_does_not_change_the_key() -> None:
    values = {"name": "vit", "args": {"b": 1, "a": (1, 2)}, "patch_size": 8}
    turned = {"patch_size": 8, "args": {"a": (1, 2), "b": 1}, "name": "vit"}
    pairs = {**values, "args": (("b", 1), ("a", (1, 2)))}
    assert Backbone(**values).digest == Backbone(**turned).digest == Backbone(**pairs).digest  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("left", "right"), [(False, 0), (True, 1), (1, 1.0), (1.0, "1.0"), (None, "None"), (0.0, False), ((1,), 1)]
)
def test_params_of_different_type_have_different_digests(left: object, right: object) -> None:
    digests = {Backbone(name="vit", args={"x": value}, patch_size=8).digest for value in (left, right)}
    assert len(digests) == 2


def test_keys_are_the_same_in_another_process() -> None:
    program = (
        "from harness.spec import *\n"
        "backbone = Backbone(name='beit_base_patch16_224', args={'depth': 3, 'embed_dim': 64}, patch_size=8)\n"
        "recipe = Recipe(lr=1e-3, batch_size=8, epochs=10)\n"
        "mask = RandomMask(ratio=0.5, size=16)\n"
        "start = Pretrain(recipe=recipe, mask=mask, backbone=backbone, image_size=32, data=Shapes())\n"
        "print(key(FineTune(recipe=recipe, start=start)))\n"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == key(FINETUNE)


def test_the_digest_is_a_hash_of_documented_json() -> None:
    """Written out by hand: it must not depend on the version of Python or pydantic."""
    import hashlib

    text = '{"fields":{"kind":"random","ratio":0.1,"size":16},"revision":1,"scheme":1,"type":"RandomMask"}'  # sorted
    assert RandomMask(size=16, ratio=0.1).digest == hashlib.sha256(text.encode()).hexdigest()


class Old(Spec):
    size: int


class _Later:
    class Old(Spec):
        size: int
        shape: str = "square"
        strict: Any = 0
        implicit: ClassVar[Mapping[str, object]] = {"shape": "square", "strict": 0}


def test_a_field_added_later_keeps_old_keys_while_it_has_its_old_value() -> None:
    assert _Later.Old(size=3).digest == Old(size=3).digest
    assert _Later.Old(size=3, shape="round").digest != Old(size=3).digest
    assert _Later.Old(size=3, strict=False).digest != Old(size=3).digest


# What lies outside


def checkpoint(path: Path) -> Checkpoint:
    return Checkpoint(path=str(path), backbone=BACKBONE, image_size=32)


def test_a_checkpoint_counts_by_its_bytes_not_by_its_place(tmp_path: Path) -> None:
    first, second, other = (tmp_path / name for name in ("a.pt", "sub/b.pt", "c.pt"))
    second.parent.mkdir()
    first.write_bytes(b"weights")
    shutil.copy(first, second)
    os.utime(second, (1, 1))
    other.write_bytes(b"Weights")
    assert checkpoint(first).digest == checkpoint(second).digest
    assert checkpoint(first).digest != checkpoint(other).digest
    before = checkpoint(first).digest
    first.write_bytes(b"other weights")
    assert checkpoint(first).digest != before


def test_a_replaced_path_is_read_anew(tmp_path: Path) -> None:
    first, other = tmp_path / "a.pt", tmp_path / "b.pt"
    first.write_bytes(b"one")
    other.write_bytes(b"two")
    assert checkpoint(first).replace(path=str(other)).digest == checkpoint(other).digest != checkpoint(first).digest


def test_a_missing_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing-here\.pt"):
        checkpoint(tmp_path / "nothing-here.pt")


def test_a_tokenizer_counts_by_its_bytes_and_reaches_the_key(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.pt", "b.pt", "c.pt")]
    for path, text in zip(paths, (b"one", b"one", b"two"), strict=True):
        path.write_bytes(text)
    targets = [TokenTarget(tokenizer=DalleTokenizer(path=str(path)), downsample=8) for path in paths]
    loss = Loss(kind="cross-entropy")
    keys = [key(PRETRAIN.replace(target=target, loss=loss)) for target in targets]
    assert keys[0] == keys[1] != keys[2]


def paint(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), grey).save(path)


def folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HARNESS_DATA_MY_SET", str(path))
    return ImageFolder(name="my-set").digest


def test_a_folder_counts_by_its_images_not_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val"):
        for number in range(3):
            paint(tmp_path / "a" / split / "cat" / f"{number}.png", 40 * number)
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere")
    for file in (tmp_path / "elsewhere").rglob("*.png"):
        os.utime(file, (1, 1))
    (tmp_path / "elsewhere" / "notes.txt").write_text("not an image")
    before = folder(tmp_path / "a", monkeypatch)
    assert folder(tmp_path / "elsewhere", monkeypatch) == before

    shutil.copytree(tmp_path / "a", tmp_path / "recoloured")
    paint(tmp_path / "recoloured/train/cat/0.png", 99)
    shutil.copytree(tmp_path / "a", tmp_path / "renamed")
    for split in ("train", "val"):
        (tmp_path / "renamed" / split / "cat").rename(tmp_path / "renamed" / split / "dog")
    shutil.copytree(tmp_path / "a", tmp_path / "fewer")
    (tmp_path / "fewer/val/cat/2.png").unlink()
    found = {folder(tmp_path / name, monkeypatch) for name in ("recoloured", "renamed", "fewer")}
    assert len(found) == 3
    assert before not in found


def test_a_folder_that_is_not_here_can_be_named_but_has_no_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_DATA_NOWHERE", raising=False)
    assert ImageFolder(name="nowhere").content is None


def test_a_custom_function_counts_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_masks_a.py").write_text("def one(): return 1\ndef two(): return 2\n")
    (tmp_path / "my_masks_b.py").write_text("def one(): return 1\n")
    mask = CustomMask(function="my_masks_a:one", size=8)
    before = mask.digest
    assert mask.replace(size=8).digest == before
    moved = mask.replace(function="my_masks_b:one")
    assert moved.source == CustomMask(function="my_masks_b:one", size=8).source != mask.source
    (tmp_path / "my_masks_a.py").write_text("def one(): return 3\ndef two(): return 2\n")
    assert CustomMask(function="my_masks_a:one", size=8).digest != before
    (tmp_path / "my_masks_a.py").write_bytes(b"def one(): return 1\r\ndef two(): return 2\r\n")
    assert CustomMask(function="my_masks_a:one", size=8).digest == before


def test_a_set_replaced_by_another_brings_its_own_content() -> None:
    assert Images(name="fashion-mnist").replace(name="cifar10") == Images(name="cifar10")


def test_the_stride_of_a_vit_follows_a_replaced_patch_and_that_of_swin_does_not() -> None:
    assert BACKBONE.replace(patch_size=4).stride == 4
    assert Backbone(name="swin", patch_size=4, stride=32).replace(patch_size=2).stride == 32


def test_the_key_names_the_kind_and_twenty_digits() -> None:
    kind, _, digits = key(PROBE).rpartition("-")
    assert kind == "linear-probe"
    assert digits == PROBE.digest[:20]
    assert json.loads(json.dumps(PROBE.to_plain()))["kind"] == "linear-probe"
