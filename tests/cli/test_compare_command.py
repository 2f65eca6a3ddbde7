"""`harness compare`, `harness metrics` and --strict on stores made by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import Command, tree
from test_commands import begin, evaluation, finish, first, plan, store

from harness.cli.finished.compare import _texts
from harness.report.compare import Change
from harness.store import Store
from harness.study import Plan

__all__ = ["plan", "store"]  # fixtures


def fill(store: Store, plan: Plan, change: float = 0.0) -> None:
    """Two seeds of the arm `random 0.5`, and of 0.75, which alone changes."""
    for ratio, values in ((0.5, (60.0, 60.2)), (0.75, (70.0 + change, 70.1 + change))):
        for seed, value in enumerate(values):
            run = evaluation(plan, "random", ratio, seed)
            finish(store, first(run))
            finish(store, run, value + 0.01 * seed * (1 + bool(change)))


def commit(store: Store, name: str, text: str) -> None:
    attempt = store.final_attempt(name)
    assert attempt is not None
    attempt.environment.write_text(f'{{"commit": "{text}", "device": "cpu"}}')


def test_compare_names_what_changed(harness: Command, study: Path, plan: Plan, project: Path) -> None:
    for name, change in (("a", 0.0), ("b", 5.0)):
        fill(Store(project / name), plan, change)
        assert harness("report", study, "--store", project / name, "--out", project / f"results-{name}").code == 0
    before = tree(project)
    ended = harness("compare", project / "results-a", project / "results-b" / "runs.csv")
    assert ended.code == 0
    # What does not fit eighty columns follows below, with the arm again.
    lines = [line for line in ended.out.splitlines() if line.startswith("random")]
    assert "changed" in lines[0].split()
    assert {line.split()[1] for line in lines} == {"0.75"}
    assert "+5.0" in ended.out
    same = harness("compare", project / "a", project / "results-a", "--study", study, "--all", "--strict")
    assert same.code == 0
    assert same.out.count("identical") >= 2
    assert re.search(r"\d+ values: \d+ identical", same.out)
    assert tree(project) == before
    wrong = harness("compare", project / "a", project / "b")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "--study" in wrong.err
    wrong = harness("compare", project / "results-a", project / "results-a", "--scale", "tiny")
    assert (wrong.code, "--scale belongs to --study" in wrong.err) == (2, True)


@pytest.mark.parametrize(("p", "text"), [(0.0004, "< 0.001"), (0.004, "0.004"), (0.21, "0.210"), (float("nan"), "–")])
def test_a_p_value_is_shown_to_three_digits(p: float, text: str) -> None:
    change = Change(axes=(), evaluation="top1", n=3, difference=1.0, low=0.5, high=1.5, p=p, verdict="within noise")
    assert _texts(change)[-2] == text


def test_strict_refuses_mixed_commits(harness: Command, study: Path, plan: Plan, store: Store, project: Path) -> None:
    fill(store, plan)
    for number, name in enumerate(store.keys()):
        commit(store, name, f"{number % 2}" * 40)
    before = tree(project)
    ended = harness("report", study, "--strict")
    assert ended.code == 2
    assert "--strict refuses mixed results: Mixed commit:" in ended.err
    assert tree(project) == before
    assert harness("report", study).code == 0
    results = next((project / "results").glob("*/*/runs.csv"))
    ended = harness("compare", results, results, "--strict")
    assert ended.code == 2
    assert "before: Mixed commit:" in ended.err
    assert "Mixed commit" in results.with_name("table.md").read_text()
    assert "Mixed commit" in results.with_name("report.html").read_text()
    for name in sorted(store.keys()):
        commit(store, name, "0" * 40)
    assert harness("report", study, "--strict").code == 0
    assert harness("compare", results, results, "--strict").code == 0
    later = project / "later"
    for name in sorted(store.keys()):
        commit(store, name, "1" * 40)
    assert harness("report", study, "--strict", "--out", later).code == 0
    ended = harness("compare", results, later, "--strict")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"commit: before {'0' * 40}; after {'1' * 40}." in ended.err


def test_metrics_asks_where_to(harness: Command, study: Path) -> None:
    ended = harness("metrics", study)
    assert ended.code == 2
    assert "--tensorboard DIR, --wandb DIR" in ended.err


def test_metrics_to_tensorboard(harness: Command, study: Path, plan: Plan, store: Store, project: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    attempt = begin(store, first(evaluation(plan, "random", 0.5, 0)))
    attempt.log({"step": 1, "loss": 2.0})
    attempt.release()
    ended = harness("metrics", study, "--tensorboard", project / "logs")
    assert ended.code == 0
    assert "wrote 1 run to" in ended.out
    assert len(list((project / "logs").glob("*/events*"))) == 1
