"""The headline of a page: what pre-training gained and which cells differ, in sentences with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_study import finish_all, scope_cell, scope_plan

from harness.report.claims.listing import judged
from harness.report.collect import runs_frame
from harness.report.headline import headline
from harness.report.tables.statistics import summary
from harness.spec import Evaluation, Scale
from harness.store import Store
from harness.study import Plan, Row, axes, claims


def said(path: Path, plan: Plan, value: Callable[[Row], float] | None) -> str:
    store = Store(path)
    if value is not None:
        finish_all(store, plan, value)
    runs = runs_frame(plan, store)
    return headline(plan, summary(plan, runs))


def test_nothing_is_said_of_nothing(tmp_path: Path) -> None:
    assert said(tmp_path, scope_plan(), None) == "The reference has no value yet. Unfinished: 0 of 10 values are there."


def test_gain_over_scratch_and_cells_that_differ(tmp_path: Path) -> None:
    level = {"masked": 84.0, "full": 80.0, "scratch": 70.0}

    def value(row: Row) -> float:
        # Two seeds apart by 2 in every cell: sd sqrt(2), and no residual but what the full cells add.
        return level[str(row.axes["scope"])] + 2 * row.seed + 0.02 * row.seed * (row.axes["scope"] == "full")

    text = said(tmp_path, scope_plan(), value)
    assert text.startswith("Pre-training helps: +14.0 points of top-1 accuracy (95 % interval ")
    assert ", 2 seeds), 85.0 % with the reference (scope masked, mask ratio 0.6), 71.0 % from scratch. " in text
    assert "Worse than the reference: scope full" in text
    assert " by −4.0 (" in text
    assert text.endswith(" One other cell cannot be told from it.")
    assert "Better" not in text


def test_one_seed_names_the_best_cell_and_asks_for_more(tmp_path: Path) -> None:
    level = {"masked": 71.0, "full": 73.0, "scratch": 70.0}
    plan = scope_plan(seeds=1)
    text = said(tmp_path, plan, lambda row: level[str(row.axes["scope"])] + (row.axes["mask_ratio"] == 0.4))
    assert text.startswith("Whether pre-training helps is open: +1.0 points of top-1 accuracy (1 seed), ")
    assert text.endswith(
        " Best so far is scope full, mask ratio 0.4 with 74.0 %. One seed shows no noise: any verdict takes more "
        "(--seeds 5)."
    )
    best = said(tmp_path / "best", plan, lambda row: 90.0 - 10 * (row.axes != plan.study.reference))
    assert " Best so far is the reference with 90.0 %. " in best


def test_an_interval_that_is_wider_says_why(tmp_path: Path) -> None:
    def value(row: Row) -> float:
        noisy = 5 * (row.axes["scope"] == "scratch") * (-1) ** row.seed
        return 80.0 + float(noisy) + 0.1 * math.sin(7 * row.seed + 3 * len(str(dict(row.axes))))

    told = "Intervals with the control from scratch are wider: it varies more than the other cells and keeps its own"
    assert told in said(tmp_path / "noisy", scope_plan(seeds=4), value)
    alike = said(tmp_path / "alike", scope_plan(seeds=4), lambda row: 80.0 + row.seed)
    assert "wider" not in alike


@pytest.mark.parametrize("seeds", [2, 5])
def test_no_difference_says_how_large_one_may_be(tmp_path: Path, seeds: int) -> None:
    def value(row: Row) -> float:
        return 80 + math.sin(7 * row.seed + 3 * len(str(dict(row.axes))))

    text = said(tmp_path, scope_plan(seeds=seeds), value)
    assert text.startswith("Whether pre-training helps is open: ")
    assert "The 3 other cells cannot be told from the reference: a difference of up to " in text
    assert text.endswith(" points either way is still possible.")


def test_without_a_control_the_reference_is_told_with_its_interval(tmp_path: Path) -> None:
    plan = scope_plan(grid=axes(scope=("masked", "full"), mask_ratio=(0.4, 0.6)))
    text = said(tmp_path, plan, lambda row: 84.0 + 2 * row.seed)
    half = 12.706 * math.sqrt(2) / math.sqrt(2)  # t of one degree of freedom, sd sqrt(2), two seeds
    told = f"{85 - half:.1f} to {85 + half:.1f}"
    assert text.startswith(
        f"The reference (scope masked, mask ratio 0.6) has top-1 accuracy 85.0 % (95 % interval {told}, 2 seeds)."
    )


def test_the_control_of_the_references_own_backbone_is_taken(tmp_path: Path) -> None:
    def cell(scale: Scale, backbone: str, start: str, seed: int) -> dict[str, Evaluation]:
        model = scale.backbone.replace(patch_size=4 if backbone == "small" else 8)
        return scope_cell(scale.replace(backbone=model), start, None if start == "scratch" else 0.6, seed)

    grid = axes(backbone=("large", "small"), start=("masked", "scratch"))
    plan = scope_plan(cell=cell, grid=grid, reference={"backbone": "small", "start": "masked"}, paper=None)
    level = {
        ("large", "masked"): 90.0,
        ("large", "scratch"): 80.0,
        ("small", "masked"): 75.0,
        ("small", "scratch"): 70.0,
    }
    text = said(tmp_path, plan, lambda row: level[str(row.axes["backbone"]), str(row.axes["start"])] + row.seed / 7)
    assert text.startswith("Pre-training helps: +5.0 points")


def test_claims_are_told_one_by_its_effect_several_by_their_number(tmp_path: Path) -> None:
    one = claims.better("masked beats full", {"scope": "masked"}, {"scope": "full"}, at={"mask_ratio": 0.6})
    for number, told in (
        (1, "Reproduced: masked beats full, at mask ratio 0.6 (+4.00, 4.00 to 4.00)."),
        (2, "Claims: 2 reproduced."),
    ):
        plan = scope_plan(claims=(one,) * number, seeds=4)
        store = Store(tmp_path / str(number))
        finish_all(store, plan, lambda row: 80.0 + 4 * (row.axes["scope"] == "masked") + row.seed)
        runs = runs_frame(plan, store)
        assert told in headline(plan, summary(plan, runs), judged(plan, runs))


def test_a_reference_from_scratch_is_the_control_itself(tmp_path: Path) -> None:
    grid = axes(scope=("masked", "scratch"))
    plan = scope_plan(
        cell=lambda scale, scope, seed: scope_cell(scale, scope, None if scope == "scratch" else 0.6, seed), grid=grid,
        reference={"scope": "scratch"}, paper=None, seeds=4,
    )  # fmt: skip
    level = {"masked": 0.0, "scratch": 0.0}
    alike = said(tmp_path / "alike", plan, lambda row: 70 + level[str(row.axes["scope"])] + math.sin(row.seed * 5))
    assert alike.startswith("The reference (scope scratch), trained from scratch, has top-1 accuracy ")
    told = "a difference of up to 0.0 points either way is still possible."
    assert f"The one other cell cannot be told from the reference: {told}" in alike
    level["masked"] = 5.0
    better = said(tmp_path / "better", plan, lambda row: 70 + level[str(row.axes["scope"])] + math.sin(row.seed * 5))
    assert "Better than the reference: scope masked by +5.0 (5.0 to 5.0)." in better
    assert "−0.0" not in alike + better


def test_names_keep_their_hyphens(tmp_path: Path) -> None:
    def cell(scale: Scale, model: str, seed: int) -> dict[str, Evaluation]:
        return scope_cell(scale, "masked", {"ViT-S": 0.4, "ResNet-50": 0.6}[model], seed)

    plan = scope_plan(
        cell=cell, grid=axes(model=("ViT-S", "ResNet-50")), reference={"model": "ViT-S"}, paper=None, seeds=4
    )
    text = said(tmp_path, plan, lambda row: 80 - 4 * (row.axes["model"] == "ResNet-50") + row.seed / 9)
    assert "Worse than the reference: model ResNet-50 by −4.0 " in text
