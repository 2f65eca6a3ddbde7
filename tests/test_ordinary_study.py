"""A study as a new user writes it: two backbones, a folder of RGB images, ratio x unit size, a Skip, a control, three
evaluations. The audit names what is not declared, with a remedy that can be pasted, and then passes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.audit import Finding, audit
from harness.spec import HarnessError
from harness.study import Plan, expand, load

STUDY = '''"""Does a higher ratio or a larger unit help, for a CNN and a ViT?"""

from harness import (
    Augment, Backbone, FineTune, ImageFolder, Knn, LinearProbe, RandomMask, Recipe, Scale, Scratch, Skip, Study, axes,
    simmim,
)

DATA = ImageFolder(name="insects")
BACKBONES = {
    "resnet18": Backbone(name="resnet18", patch_size=4, stride=32),
    "vit": Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 48, "depth": 3, "num_heads": 3}, patch_size=8),
}
RECIPE = Recipe(epochs=2, batch_size=16, lr=1e-3, lr_batch=None, augment=Augment(crop_scale=(0.67, 1.0)))
SMALL = Scale(name="small", data=DATA, image_size=64, backbone=BACKBONES["resnet18"], pretrain=RECIPE, finetune=RECIPE)


def cell(scale, backbone, ratio, unit, seed):
    model = BACKBONES[backbone]
    if ratio is None:
        start = Scratch(backbone=model, image_size=scale.image_size)
        return {"finetune": FineTune(start=start, data=DATA, recipe=scale.finetune, seed=seed)}
    if backbone == "resnet18" and unit == 16 and ratio == 0.75:
        return Skip("too fine for the CNN's last map")
    start = simmim(scale.replace(backbone=model), mask=RandomMask(size=unit, ratio=ratio), seed=seed)
    return {
        "finetune": FineTune(start=start, recipe=scale.finetune, seed=seed),
        "probe": LinearProbe(start=start, recipe=scale.finetune, seed=seed),
        "knn": Knn(start=start, k=5),
    }


STUDY = Study(
    cell=cell,
    grid=axes(backbone=tuple(BACKBONES), ratio=(0.5, 0.75), unit=(16, 32)) | axes(backbone=tuple(BACKBONES)),
    scales=(SMALL,),
    reference={"backbone": "vit", "ratio": 0.5, "unit": 16},
    seeds=2,
)
'''


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The study in a project of its own, whose images are noise with a tint of their class."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 8)):
        for tint, name in enumerate(("ants", "bees", "cats")):
            folder = tmp_path / "pictures" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                pixels[..., tint] //= 3
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "harness.toml").write_text('[data]\ninsects = "pictures"\n')
    path = tmp_path / "studies" / "ordinary.py"
    path.parent.mkdir()
    path.write_text(STUDY)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HARNESS_PROJECT", os.environ.get("HARNESS_PROJECT", ""))
    return path


def failed(plan: Plan) -> dict[str, list[Finding]]:
    """What fails, by text."""
    found: dict[str, list[Finding]] = {}
    for finding in audit(plan):
        if finding.verdict == "failed":
            found.setdefault(finding.text, []).append(finding)
    return found


@pytest.mark.slow
def test_the_audit_names_what_is_not_declared_and_passes_with_its_remedy(study: Path) -> None:
    (text,) = found = failed(expand(load(study), seeds=1))
    assert text.startswith("backbone also changes start.backbone.")
    remedy = text.rpartition("say so: ")[2]
    assert remedy == 'factors={"backbone": ("start.backbone",)}'
    assert {finding.arm for finding in found[text]} == {"resnet18 0.5 16", "resnet18 0.5 32", "resnet18 0.75 32"}
    study.write_text(STUDY.replace("    seeds=2,", f"    seeds=2,\n    {remedy},"))
    assert failed(expand(load(study), seeds=1)) == {}


def test_its_plan_is_as_written(study: Path) -> None:
    plan = expand(load(study))
    assert len(plan.rows) == 2 * (2 * 2 * 2 + 2)
    assert {row.text: row.excluded for row in plan.rows if row.excluded} == {
        "resnet18 0.75 16": "too fine for the CNN's last map"
    }
    kinds = [run.kind for run in plan.runs().values()]
    counts = {kind: kinds.count(kind) for kind in kinds}
    assert counts == {"pretrain": 14, "finetune": 18, "linear-probe": 14, "knn": 14}


def test_a_class_removed_from_val_is_refused(study: Path) -> None:
    shutil.rmtree(study.parents[1] / "pictures" / "val" / "bees")
    with pytest.raises(HarnessError, match="bees"):
        expand(load(study)).runs()
