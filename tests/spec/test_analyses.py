"""Specs of analyses: what changes their keys, what is refused, and that they come back from JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.spec import (
    Analysis,
    Backbone,
    FineTune,
    Fourier,
    FrequencyMask,
    GuidedMask,
    HardMask,
    Interactions,
    Knn,
    Loss,
    LossPredictor,
    MomentumEncoder,
    Occlusion,
    Pretrain,
    RandomMask,
    Recipe,
    RgbStatistics,
    Scratch,
    Shapes,
    key,
    run_from_json,
)

VIT = Backbone(name="vit_tiny_patch16_224", args={"depth": 2}, patch_size=4)
RECIPE = Recipe(epochs=1, batch_size=8, lr=1e-3)
PRETRAIN = Pretrain(
    data=Shapes(image_size=16), image_size=16, backbone=VIT, mask=RandomMask(size=4, ratio=0.5), recipe=RECIPE
)
TUNED = FineTune(start=PRETRAIN, recipe=RECIPE, crop=0.9, backbone=VIT.replace(args={"depth": 3}))
FILTERED = PRETRAIN.replace(mask=FrequencyMask(radius=4.0), loss=Loss(kind="frequency"))
GUIDED = PRETRAIN.replace(mask=GuidedMask(size=4, ratio=0.5), momentum=MomentumEncoder())
HARD = PRETRAIN.replace(mask=HardMask(size=4), momentum=MomentumEncoder(), loss_predictor=LossPredictor())
INTERACTIONS = Interactions(start=TUNED, grid=4, orders=(0.0, 0.5, 1.0))
OCCLUSION = Occlusion(start=TUNED, size=4, ratios=(0.0, 0.5))
FOURIER = Fourier(start=TUNED)
RGB = RgbStatistics(start=PRETRAIN)

# One other value of every keyed field but the size of the image, which is the start's.
COMMON: dict[str, Any] = {"data": Shapes(seed=1), "crop": 1.0, "seed": 1, "images": 9}
OTHER: dict[Analysis, dict[str, Any]] = {
    INTERACTIONS: COMMON
    | {"start": TUNED.replace(seed=1), "grid": 8, "orders": (0.0, 0.4), "pairs": 9, "contexts": 9, "reach": None}
    | {"reward": "logit", "band": (0.0, 1.0)},
    OCCLUSION: COMMON | {"start": TUNED.replace(seed=1), "size": 2, "ratios": (0.0, 1.0), "draws": 9},
    FOURIER: COMMON | {"start": PRETRAIN},
    RGB: COMMON | {"start": PRETRAIN.replace(seed=1), "masks": 9, "bins": 9},
}
FIELDS = [
    (spec, field)
    for spec in OTHER
    for field in type(spec).model_fields
    if field not in ("kind", "assumed", "image_size")
]


@pytest.mark.parametrize(("spec", "field"), FIELDS, ids=[f"{spec.kind}.{field}" for spec, field in FIELDS])
def test_every_field_changes_the_key(spec: Analysis, field: str) -> None:
    assert key(spec.replace(**{field: OTHER[spec][field]})) != key(spec)


@pytest.mark.parametrize("spec", OTHER, ids=lambda spec: spec.kind)
def test_an_analysis_comes_back_from_json(spec: Analysis) -> None:
    found = run_from_json(json.dumps(spec.to_plain()))
    assert found == spec
    assert key(found) == key(spec)
    assert key(spec).startswith(f"{spec.kind}-")
    assert spec.shown_metric in spec.metrics
    assert spec.replace(assumed=("x",)).digest == spec.digest


def test_what_is_not_said_is_taken_from_the_start() -> None:
    assert (INTERACTIONS.data, INTERACTIONS.image_size, INTERACTIONS.crop) == (TUNED.data, 16, 0.9)
    assert RGB.crop == 0.875
    assert Knn(start=PRETRAIN).crop == 0.875
    assert Fourier(start=Scratch(backbone=VIT, image_size=16), data=Shapes()).image_size == 16
    assert (OCCLUSION.encoder, FOURIER.encoder, RGB.encoder) == (TUNED.built, TUNED.built, VIT)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: INTERACTIONS.replace(grid=5), "grid 5 does not divide the image of 16 px; valid: 2, 4, 8, 16"),
        (lambda: INTERACTIONS.replace(orders=(0.0, 0.01)), "different numbers of the 14 other patches, not 0, 0"),
        (lambda: INTERACTIONS.replace(orders=(0.5, 0.1)), "orders should rise"),
        (lambda: INTERACTIONS.replace(orders=()), "not none"),
        (lambda: INTERACTIONS.replace(orders=(0.0, 1.0)), "no order lies in the band from 0.05 to 0.5"),
        (lambda: INTERACTIONS.replace(pairs=91), "pairs 91 is more than the 90 that there are"),
        (lambda: OCCLUSION.replace(size=5), "size 5 does not divide the image of 16 px; valid: 1, 2, 4, 8, 16"),
        (lambda: OCCLUSION.replace(ratios=(0.0, 0.01)), "drop different numbers of the 16 patches of 4 px, not 0, 0"),
        (lambda: OCCLUSION.replace(ratios=(0.5,)), "two or more"),
        (lambda: FOURIER.replace(image_size=32), "image_size 32 differs from the start's 16"),
        (lambda: RgbStatistics(start=TUNED), "start"),  # type: ignore[arg-type]
        (lambda: Interactions(start=PRETRAIN), "start"),  # type: ignore[arg-type]
        (lambda: RGB.replace(start=FILTERED), "a frequency mask hides no places .* valid: .* such as random"),
        (lambda: RGB.replace(start=GUIDED), "a guided mask hides no places"),
        (lambda: RGB.replace(start=HARD), "a hard mask hides no places"),
    ],
)
def test_refusals(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
