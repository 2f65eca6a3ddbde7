"""Pieces that a plan states many times: one object, validated once, and the same keys as without."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from harness import Backbone, FineTune, FourierLoss, Loss, RandomMask, Recipe, Scale, Shapes, Study, axes, simmim
from harness.spec import CustomMask, Evaluation, Pretrain
from harness.spec.base import shared_pieces
from harness.spec.geometry import check_mask
from harness.study import expand

RECIPE = Recipe(epochs=1, batch_size=8, lr=1e-3)
BACKBONE = Backbone(name="vit_tiny_patch16_224", patch_size=4)
TINY = Scale(
    name="tiny", data=Shapes(image_size=192), image_size=192, backbone=BACKBONE, pretrain=RECIPE, finetune=RECIPE
)


def cell(scale: Scale, drop_path: float, ratio: float, seed: int) -> dict[str, FineTune]:
    mask = RandomMask(size=32, ratio=ratio)
    recipe = scale.finetune.replace(drop_path=drop_path)
    return {"top1": FineTune(start=simmim(scale, mask=mask, seed=seed), recipe=recipe, seed=seed)}


STUDY = Study(
    cell=cell,
    grid=axes(drop_path=(0.0, 0.1, 0.2, 0.3), ratio=(0.4, 0.5, 0.6)),
    scales=(TINY,),
    reference={"drop_path": 0.0, "ratio": 0.6},
    seeds=2,
)


def test_a_pretraining_that_cells_share_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[object] = []

    def noting(mask: Any, run: Any) -> None:
        checked.append(run)
        check_mask(mask, run)

    monkeypatch.setattr("harness.spec.run.check_mask", noting)
    plan = expand(STUDY)
    assert len(checked) == 3 * 2  # ratios and seeds
    starts = [row.evaluations["top1"].start for row in plan.rows]
    assert len({id(start) for start in starts}) == len(set(plan.runs())) - len(plan.rows) == 3 * 2
    assert len({id(row.evaluations["top1"].recipe) for row in plan.rows}) == 4  # type: ignore[union-attr]


def test_the_source_of_a_function_is_read_once_for_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def noting(function: str) -> str:
        read.append(function)
        return "0a"

    monkeypatch.setattr("harness.spec.user_code.source_digest", noting)
    with shared_pieces():
        for _ in range(3):
            CustomMask(function="here:there", size=4)
    CustomMask(function="here:there", size=4)  # later it may be another
    assert len(read) == 2


def stated() -> Iterator[Pretrain]:
    """Runs of pieces that are equal to Python and differ, or that vanish once a run is made of them."""
    for ratio in (0.5, 0.25):
        for seed in (0, 1):
            yield simmim(TINY, mask=RandomMask(size=32, ratio=ratio), seed=seed)
    for value in (0, 0.0, -0.0, False, None, "", "''", "None", (1, 2), (1, True), (1.0, 2)):
        mask = CustomMask(function="f:g", source="0a", size=4, params={"value": value})
        yield simmim(TINY, mask=mask)
    for weight in (0.5, 0.1, 0.2, 0.3):
        kept = simmim(TINY)
        yield kept.replace(
            fourier=FourierLoss(variant="released", group=8, weight=weight), loss=Loss(kind="l1", scope="masked")
        )
        yield kept.replace(fourier=FourierLoss(variant="released", group=4, weight=weight))
        yield kept.replace(assumed=(f"weight {weight}",), data=Shapes(image_size=192, seed=int(10 * weight)))


def test_sharing_changes_no_key() -> None:
    alone = [(run.digest, run.to_plain()) for run in stated()]
    with shared_pieces():
        shared = [(run.digest, run.to_plain()) for _ in range(2) for run in stated()]
    assert shared == alone + alone


def test_what_is_refused_is_refused_again() -> None:
    with shared_pieces():
        for _ in range(2):
            with pytest.raises(ValueError, match="does not divide"):
                simmim(TINY, mask=RandomMask(size=36, ratio=0.5))


def test_pieces_are_shared_within_a_plan_only() -> None:
    with shared_pieces():
        assert RandomMask(size=4, ratio=0.5) is RandomMask(size=4, ratio=0.5)
        assert RandomMask(size=4, ratio=0.5) is not RandomMask(size=4, ratio=0.25)
    assert RandomMask(size=4, ratio=0.5) is not RandomMask(size=4, ratio=0.5)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_plan_leaves_pythons_collector_as_it_was(enabled: bool) -> None:
    def fails(scale: Scale, **cell: object) -> dict[str, Evaluation]:
        raise RuntimeError

    (gc.enable if enabled else gc.disable)()
    try:
        expand(STUDY)
        broken = Study(cell=fails, grid=STUDY.grid, scales=(TINY,), reference=STUDY.reference)
        with pytest.raises(Exception, match="RuntimeError"):
            expand(broken)
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
