"""A scale of one's own goes with every shipped study: cells run, or are left out for a reason that is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_golden import surroundings_kept

from harness.spec import Backbone, Recipe, Scale, Shapes
from harness.study import expand, load

STUDIES = Path(__file__).parents[1] / "studies"
NAMES = [path.stem for path in sorted(STUDIES.glob("*.py")) if "\nSTUDY" in path.read_text(encoding="utf-8")]
RECIPE = Recipe(epochs=2, batch_size=16, lr=1e-3, lr_batch=None)
DATA = Shapes(image_size=64, train=64, test=32)
VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 32, "depth": 3, "num_heads": 2}, patch_size=8)
BACKBONES = {
    "ViT": (VIT, 64),
    "ViT as timm has it": (Backbone(name="vit_tiny_patch16_224", patch_size=16), 96),
    "ResNet as timm has it": (Backbone(name="resnet18", patch_size=4, stride=32), 64),
    "Swin as timm has it": (Backbone(name="swin_tiny_patch4_window7_224", patch_size=4, stride=32), 96),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_scale_of_ones_own(name: str) -> None:
    with surroundings_kept():
        study = load(STUDIES / f"{name}.py")
        for backbone, size in BACKBONES.values():
            scale = Scale(
                name="mine",
                data=DATA,
                labelled=DATA,
                image_size=size,
                backbone=backbone,
                pretrain=RECIPE,
                finetune=RECIPE,
            )
            for scales in ((scale,), (*study.scales, scale)):
                rows = expand(replace(study, scales=scales), scale="mine", seeds=1).rows
                assert len(rows) == len(study.cells)
            for claim in study.claims:
                assert claim.margin is None or not isinstance(claim.margin, dict) or "*" in claim.margin


def test_heads_that_need_a_swin_say_so() -> None:
    with surroundings_kept():
        study = load(STUDIES / "simmim_head.py")
        scale = study.scales[0].replace(name="mine", backbone=VIT, image_size=96)
        rows = expand(replace(study, scales=(scale,)), seeds=1).rows
    assert [row.excluded for row in rows] == [
        "",
        "",
        *["this study sizes its models by depths, which args of vit_tiny_patch16_224 do not state"] * 2,
    ]
