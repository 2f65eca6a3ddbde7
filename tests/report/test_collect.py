"""Rows for every cell, seed and evaluation, whatever became of them."""

from __future__ import annotations

import math
from pathlib import Path

from fake_study import (
    ENVIRONMENT,
    SCALE,
    begin,
    evaluation,
    finish,
    finish_all,
    finish_upstream,
    half_finished,
    scope_cell,
    scope_plan,
)

from harness.report.collect import arms, axes_of, axis_columns, runs_frame
from harness.spec import Evaluation, FineTune, Knn, Scale, Skip, key, upstream
from harness.store import Store


def test_half_finished_study_keeps_every_row(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    half_finished(store, plan)
    run = evaluation(plan, 0, scope="full", mask_ratio=0.4)
    finish_upstream(store, run)
    attempt = begin(store, run)
    frame = runs_frame(plan, store)
    attempt.release()
    found = [list(frame.loc[frame["cell"] == number, "state"]) for number in range(7)]
    assert found == [
        ["done", "failed"], ["done", "done"], ["excluded", "excluded"], ["running", "missing"],
        ["blocked", "interrupted"], ["excluded", "excluded"], ["done", "done"],
    ]  # fmt: skip
    reasons = dict(zip(frame["state"], frame["reason"], strict=True))
    assert reasons["failed"] == "RuntimeError: out of memory"
    assert reasons["blocked"] == "its pre-training failed: ValueError: loss is nan"
    assert reasons["excluded"] == "0.99 hides all 16 units"


def test_axis_that_does_not_apply_stays_none_and_numbers_keep_their_type(tmp_path: Path) -> None:
    frame = runs_frame(scope_plan(), Store(tmp_path))
    assert axes_of(frame) == ["scope", "mask_ratio"]
    assert frame["mask_ratio"].iloc[-1] is None
    assert frame["mask_ratio"].iloc[0] == 0.4
    assert set(frame["state"]) == {"missing", "excluded"}
    assert frame["value"].isna().all()
    assert set(frame.loc[frame["state"] == "missing", "reason"]) == {""}  # nothing of it was begun: no reason to tell


def test_provenance_of_both_stages(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    finish_all(store, plan, environment={**ENVIRONMENT, "dirty": True, "commit": "abc"})
    first = runs_frame(plan, store).iloc[0]
    run = evaluation(plan, 0, scope="masked", mask_ratio=0.4)
    start = upstream(run)
    assert start is not None
    assert (first["key"], first["pretrain_key"]) == (key(run), key(start))
    assert (first["commit"], first["device"], first["torch"]) == ("abc-dirty", "cpu", "2.6.0")
    assert (first["pretrain_commit"], first["pretrain_timm"], first["threads"]) == ("abc-dirty", "1.0.20", 1)
    assert (first["seconds"], first["pretrain_seconds"]) == (10.0, 10.0)
    assert math.isnan(first["cpu_seconds"])
    assert (first["value"], first["metric.top1"], first["metric.loss"]) == (80.0, 80.0, 1.0)


def test_environment_may_lack_anything(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan(seeds=3)
    odd: list[object] = [[], {"versions": "none"}, {"commit": None, "threads": "many", "versions": {"torch": 2}}]
    for seed, environment in enumerate(odd):
        finish(store, evaluation(plan, seed, scope="scratch"), {"top1": 70.0}, environment=environment)
    frame = runs_frame(plan, store)
    done = frame[frame["state"] == "done"]
    assert list(done["commit"]) == ["", "", ""]
    assert list(done["torch"]) == ["", "", "2"]
    assert done["threads"].isna().all()


def test_result_without_the_shown_metric_says_so(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    finish(store, evaluation(plan, 0, scope="scratch"), {"loss": 1.0})
    row = runs_frame(plan, store).iloc[-2]
    assert row["state"] == "done"
    assert math.isnan(row["value"])
    assert row["reason"] == "its result has no finite top1"


def test_an_axis_may_be_named_like_a_column() -> None:
    assert axis_columns(["value", "scope", "metric.top1", "mean"]) == {
        "value": "axis.value", "scope": "scope", "metric.top1": "axis.metric.top1", "mean": "axis.mean",
    }  # fmt: skip


def test_a_plan_without_any_evaluation_has_rows(tmp_path: Path) -> None:
    def nothing_fits(scale: Scale, scope: str, mask_ratio: float | None, seed: int) -> Skip:
        return Skip("too small")

    frame = runs_frame(scope_plan(cell=nothing_fits), Store(tmp_path))
    assert len(frame) == 14
    assert set(frame["state"]) == {"excluded"}


def test_arms_are_the_distinct_pre_trainings() -> None:
    def two(scale: Scale, scope: str, mask_ratio: float | None, seed: int) -> dict[str, Evaluation]:
        found = scope_cell(scale, "masked", mask_ratio, seed)
        tuned = found["top1"]
        assert isinstance(tuned, FineTune)
        return {**found, "knn": Knn(start=tuned.start, data=SCALE.data, image_size=32, seed=seed)}

    found = arms(scope_plan(cell=two))
    assert [arm.axes for arm in found] == [
        {"scope": "masked", "mask_ratio": 0.4},
        {"scope": "masked", "mask_ratio": 0.6},
    ]
    assert [len(arm.keys) for arm in found] == [2, 2]
