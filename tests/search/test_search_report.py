"""Fresh seeds, intervals and the verdict; the files of a report."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pytest
import scipy.stats
from test_coordinator import run
from toy import FakeJobs, cell, finish, pretrained, score, toy, validation

from harness.report.search.numbers import Confirmed, best_so_far, confirmed, front, interval, paired_p, verdict
from harness.report.search.write import _best_rows, _table, write_search
from harness.search.confirmation import Confirmation, best, candidates
from harness.search.declaration import FIRST_FRESH
from harness.search.session import history, open_search
from harness.search.trials import Trial, importances
from harness.spec import HarnessError, key
from harness.store import Store

Direction = Literal["minimize", "maximize"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def told(number: int, *values: float, **more: Any) -> Trial:
    return Trial(number, "complete", {"k": number}, {"k": number}, tuple(values), **more)


def test_the_best_of_one_metric_and_of_two() -> None:
    trials = [told(0, 3.0), told(1, 5.0), told(2, 5.0, twin=1), Trial(3, "failed", {}, {}), told(4, 4.0)]
    assert [trial.number for trial in best(trials, ["maximize"], 2)] == [1, 4]
    assert [trial.number for trial in best(trials, ["minimize"], 2)] == [0, 4]
    pairs = [told(0, 70.0, 1.0), told(1, 80.0, 2.0), told(2, 75.0, 3.0), told(3, 80.0, 2.0), told(4, 60.0, 0.5)]
    assert {trial.number for trial in front(pairs, ["maximize", "minimize"])} == {0, 1, 3, 4}
    # (80, 2) dominates (75, 3); its equal does not dominate it
    assert [trial.number for trial in best(pairs, ["maximize", "minimize"], 9)] == [1, 3, 0, 4]
    assert best_so_far(trials, "maximize") == [(0, 3.0), (1, 5.0), (2, 5.0), (4, 5.0)]


def test_intervals_and_p_values_are_scipys() -> None:
    values = [70.1, 71.4, 69.8, 72.0, 70.7]
    mean, half = interval(values)
    low, high = scipy.stats.t.interval(0.95, 4, np.mean(values), scipy.stats.sem(values))
    assert mean - half == pytest.approx(low)
    assert mean + half == pytest.approx(high)
    others = [69.0, 71.0, 69.9, 70.5, 69.6]
    differences = [a - b for a, b in zip(values, others, strict=True)]
    assert paired_p(differences) == pytest.approx(scipy.stats.ttest_rel(values, others).pvalue)
    assert paired_p([0.0, 0.0]) == 1.0
    assert math.isnan(paired_p([1.0]))
    assert math.isnan(interval([])[0])


def row(mean: float, difference: float, p: float, *, reference: bool = False) -> Confirmed:
    return Confirmed({"k": 1}, reference, mean, 5, mean, 0.5, difference, 0.4, p, pairs=3)


@pytest.mark.parametrize(
    ("winner", "direction", "says"),
    [
        (row(72, 2.0, 0.01), "maximize", "The winner beats the default beyond noise: +2.00 ± 0.40"),
        (row(72, 2.0, 0.2), "maximize", "The winner cannot be told from the default"),
        (row(68, -2.0, 0.01), "maximize", "The winner is worse than the default beyond noise"),
        (row(68, -2.0, 0.01), "minimize", "The winner beats the default beyond noise"),
    ],
)
def test_the_verdict(winner: Confirmed, direction: str, says: str) -> None:
    said = verdict([row(70, math.nan, math.nan, reference=True), winner], direction)
    assert said.startswith(says)
    assert said.endswith("n = 3).")  # seeds that both have, of the winner's five


def test_nothing_is_said_without_fresh_seeds() -> None:
    assert "not been evaluated with fresh seeds" in verdict([row(70, 0, 0, reference=True)], "maximize")


def test_the_best_cells_are_evaluated_anew_and_so_is_the_default(store: Store) -> None:
    search, jobs = toy(confirmed=2, fresh_seeds=3), FakeJobs(store)
    trials = run(search, store, jobs, budget=12)
    opened = open_search(search, store)
    chosen = candidates(trials, opened.measure)
    assert chosen[0].cell == dict(search.reference)
    assert len(chosen) == 3
    confirmation = Confirmation(chosen, opened.measure, store, jobs)
    assert len(confirmation.undone()) == 3 * 3 * 2  # cells, seeds, validation and test
    while confirmation.step():
        pass
    assert not confirmation.undone()
    found = confirmed(trials, opened.measure, store)
    assert [entry.reference for entry in found] == [True, False, False]
    for entry in found:
        runs = [validation(search, **entry.cell, seed=seed) for seed in range(FIRST_FRESH, FIRST_FRESH + 3)]
        assert (entry.n, entry.pairs) == (3, 0 if entry.reference else 3)
        assert entry.mean == pytest.approx(np.mean([score(run) for run in runs]))
        assert entry.test == pytest.approx(entry.mean - 1)
    assert found[1].difference == pytest.approx(found[1].mean - found[0].mean)


def test_what_fails_in_a_confirmation_is_left_out(store: Store) -> None:
    search, jobs = toy(confirmed=1, fresh_seeds=2), FakeJobs(store)
    trials = run(search, store, jobs, budget=5)
    jobs.fails = lambda run: run.seed == FIRST_FRESH
    opened = open_search(search, store)
    confirmation = Confirmation(candidates(trials, opened.measure), opened.measure, store, jobs)
    while confirmation.step():
        pass
    assert {run.seed for run in confirmation.undone()} == {FIRST_FRESH}
    assert {entry.n for entry in confirmed(trials, opened.measure, store)} == {1}


def test_a_search_by_cost_alone_is_confirmed_too(store: Store) -> None:
    search, jobs = toy(metric="gpu_hours", direction="minimize", confirmed=1, fresh_seeds=2), FakeJobs(store)
    trials = run(search, store, jobs, budget=3)
    opened = open_search(search, store)
    confirmation = Confirmation(candidates(trials, opened.measure), opened.measure, store, jobs)
    assert len(confirmation.undone()) == len(candidates(trials, opened.measure)) * 2 * 2  # seeds, validation and test
    while confirmation.step():
        pass
    assert {entry.n for entry in confirmed(trials, opened.measure, store)} == {2}


@pytest.mark.slow
def test_the_files_of_a_report(store: Store, tmp_path: Path) -> None:
    jobs = FakeJobs(store)
    jobs.fails = lambda run: getattr(run, "k", 0) == 6
    run(toy(sampler="random"), store, jobs, budget=25)
    opened = open_search(toy(sampler="random"), store)
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "search-pareto.png").touch()
    written = write_search(opened, folder)
    names = {path.name for path in folder.iterdir()}
    pictures = {
        f"search-{name}.{end}" for name in ("history", "slice", "importance", "contour") for end in ("png", "pdf")
    }
    assert names == {"trials.csv", "best.csv", "search.md"} | pictures == set(written.files)
    with (folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    trials, _ = history(opened)
    assert len(rows) == len(trials)
    assert sum(line["computed"] == "True" for line in rows) == 25
    assert {line["reason"] for line in rows if line["state"] == "failed" and not line["duplicate of"]} == {
        "ValueError: no"
    }
    assert any(note.startswith("trial ") and "failed: ValueError: no" in note for note in written.notes)
    assert written.rows[0][0] == "default"
    assert written.header[:3] == ("", "k", "temperature")
    assert written.header[3:] == (
        "validation of the trial", "validation, fresh seeds", "n", "difference from default", "p",
        "top-1 accuracy (test)",
    )  # fmt: skip


def test_a_table_is_rounded_and_its_csv_file_is_exact() -> None:
    rows = [
        Confirmed({"mask_ratio": 0.6, "kind": None}, True, math.nan, 2, 46.5, 1.25, test=47.0, test_sd=0.5),
        Confirmed({"mask_ratio": 0.61234567}, False, 49.4, 2, 45.0, 1.0, -1.5, 0.75, 0.0171, 46.0, 0.25, 2),
    ]
    header, table = _table(rows, toy())
    assert header[:4] == ["", "mask ratio", "kind", "validation of the trial"]
    assert table[0] == ["default", "0.6", "–", "–", "46.50 ± 1.25", "2", "–", "–", "47.00 ± 0.50"]
    assert table[1] == ["best 1", "0.6123", "–", "49.40", "45.00 ± 1.00", "2", "−1.50 ± 0.75", "0.017", "46.00 ± 0.25"]
    header, table = _best_rows(rows, toy())
    exact = dict(zip(header, table[1], strict=True))
    assert exact == {
        "row": "best 1", "mask_ratio": "0.61234567", "kind": "", "found": "49.4", "n": "2", "mean": "45.0",
        "half": "1.0", "difference": "-1.5", "difference_half": "0.75", "p": "0.0171",
        "test": "46.0", "test_sd": "0.25", "pairs": "2",
    }  # fmt: skip
    assert table[0][3:] == ["", "2", "46.5", "1.25", "", "", "", "47.0", "0.5", "0"]


def test_accuracy_against_gpu_hours(store: Store, tmp_path: Path) -> None:
    search = toy(
        cell=pretrained,
        metric=("validation", "gpu_hours"),
        direction=("maximize", "minimize"),
        sampler="nsga2",
        reference={"k": 4, "temperature": 0.3},
    )
    for number, temperature in enumerate((0.1, 0.2, 0.3, 0.4, 0.5, 0.6)):
        start = pretrained(search.scales[0], 1, temperature, 0)["validation"].start
        finish(store, start, seconds=3600.0 * (number + 1))
    found = run(search, store, FakeJobs(store), budget=10)
    for trial in (t for t in found if t.twin is None):
        hours = round(trial.cell["temperature"] * 10) + 1  # type: ignore[operator, arg-type]
        assert trial.values[1] == pytest.approx(hours)
    written = write_search(open_search(search, store), tmp_path / "report")
    assert "search-pareto.png" in written.files


def test_importance_counts_a_cell_once(store: Store) -> None:
    run(toy(sampler="random"), store, FakeJobs(store), budget=20)
    opened = open_search(toy(sampler="random"), store)
    before = importances(history(opened)[1])
    assert list(before) in (["k", "temperature"], ["temperature", "k"])
    assert sum(before.values()) == pytest.approx(1.0)
    found = run(toy(sampler="random", duplicates=10_000), store, FakeJobs(store), budget=21)
    run(toy(sampler="random", duplicates=10_000), store, FakeJobs(store), budget=36)
    study = history(opened)[1]
    assert any(trial.twin is not None for trial in found)
    alone = optuna.create_study(direction="maximize")
    alone.add_trials([trial for trial in study.get_trials() if "duplicate of" not in trial.user_attrs])
    assert importances(study) == importances(alone)


@pytest.mark.parametrize("others", [[], ["minimize"]])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_importance_is_about_the_best_trials(direction: Direction, others: list[Direction]) -> None:
    """The best fifth have a > 0.8, whatever b is; among the rest only b matters."""
    sign, study = 1 if direction == "maximize" else -1, optuna.create_study(directions=[direction, *others])
    axis = optuna.distributions.FloatDistribution(0.0, 1.0)
    for a, b in itertools.product(np.linspace(0, 1, 11), repeat=2):
        value = sign * (10.0 if a > 0.85 else b)
        study.add_trial(
            optuna.trial.create_trial(
                params={"a": float(a), "b": float(b)},
                distributions={"a": axis, "b": axis},
                values=[value, *(0.0 for _ in others)],
            )
        )
    found = importances(study)
    assert found["a"] > 2 * found["b"]


def test_a_report_before_anything_was_told(store: Store, tmp_path: Path) -> None:
    opened = open_search(toy(), store)
    with pytest.raises(HarnessError, match="there is no search"):
        write_search(opened, tmp_path / "report")
    run(toy(), store, FakeJobs(store, lazy=True), steps=1)
    written = write_search(opened, tmp_path / "report")
    assert set(written.files) == {"trials.csv", "best.csv", "search.md"}
    assert store.result(key(cell(toy().scales[0], 1, 0.1, 0)["validation"])) is None
