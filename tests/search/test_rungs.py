"""Rungs: snapshots of the one full-length run are evaluated, hopeless trials are stopped, nothing is trained twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_coordinator import continuing, run
from toy import DATA, RECIPE, SCALE, FakeJobs, finish, pretrained, score, toy, validation

from harness.search import Rungs
from harness.search.session import history, open_search
from harness.spec import HarnessError, Knn, Pretrain, Run, key, snapshot_epoch, upstream
from harness.store import Attempt, Store
from harness.store.snapshots import epochs_asked_for

HELD_OUT = DATA.replace(split="validation")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def rung(scale: Any, start: Any, seed: int) -> Knn:
    """With the mask's ratio as temperature, so that snapshots of different masks differ."""
    return Knn(start=start, data=HELD_OUT, k=4, temperature=start.pretrain.mask.ratio, seed=seed)


def space(trial: Any) -> dict[str, Any]:
    """One pre-training a cell."""
    return {"k": 4, "temperature": trial.suggest_categorical("temperature", tuple(n / 20 for n in range(1, 19)))}


def searched(pruner: str = "median", **changes: Any) -> Any:
    return toy(
        cell=pretrained,
        space=space,
        rungs=Rungs(epochs={"toy": (2, 6)}, evaluation=rung),
        pruner=pruner,
        sampler="random",
        reference={"k": 4, "temperature": 0.3},
        **changes,
    )


class Training(FakeJobs):
    """Pre-trainings go on epoch by epoch, two a pass, and write the snapshots that were asked for."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, lazy=True)
        self.attempts: dict[str, Attempt] = {}
        self.epochs: dict[str, int] = {}

    def go_on(self) -> None:
        for name, spec in list(self.open.items()):
            if isinstance(spec, Pretrain):
                if name not in self.attempts:
                    attempt = self.store.acquire(spec)
                    assert isinstance(attempt, Attempt)
                    self.attempts[name], self.epochs[name] = attempt, 0
                self._train(name)
        self.compute(lambda run: not isinstance(run, Pretrain))

    def _train(self, name: str) -> None:
        attempt = self.attempts[name]
        for epoch in range(self.epochs[name] + 1, self.epochs[name] + 3):
            if epoch in epochs_asked_for(self.store.folder(name)):
                attempt.write_snapshot(epoch, b"weights")
        self.epochs[name] += 2
        if self.epochs[name] == 8:
            attempt.finish({"loss": 1.0}, 3600.0, b"weights")
            attempt.release()
            del self.open[name]

    def drop(self, runs: Any) -> None:
        for name in runs:
            if name in self.attempts and self.store.result(name) is None:
                self.attempts.pop(name).release()
        super().drop(runs)


def search(search: Any, store: Store, jobs: Training, budget: int) -> Any:
    for _ in range(400):
        found = run(search, store, jobs, budget=budget, steps=1)
        if sum(t.computed for t in found) == budget and all(t.state != "running" for t in found):
            return found
        jobs.go_on()
    raise AssertionError("it does not end")


@pytest.mark.parametrize("pruner", ["median", "halving", "hyperband"])
def test_hopeless_trials_are_stopped_and_dropped(store: Store, pruner: str) -> None:
    jobs = Training(store)
    found = [trial for trial in search(searched(pruner), store, jobs, 10) if trial.twin is None]
    pruned = [trial for trial in found if trial.state == "pruned"]
    told = [trial for trial in found if trial.state == "complete"]
    assert pruned
    assert told
    assert len(pruned) + len(told) == 10
    best = max(told, key=lambda trial: trial.values[0])
    assert best.values[0] > max(trial.rungs[max(trial.rungs)] for trial in pruned)
    starts = [name for name in jobs.added if name.startswith("pretrain")]
    assert len(starts) == len(set(starts)) == 10  # no pre-training was begun twice, for a rung or else
    unfinished = [name for name in starts if store.result(name) is None]
    assert len(unfinished) == len(pruned)
    assert set(unfinished) <= set(jobs.dropped)
    for trial in told:
        assert set(trial.rungs) == {2, 6}
        rows = searched().cell(searched().scales[0], **trial.cell, seed=0)
        first = upstream(rows["validation"])
        assert first is not None
        assert epochs_asked_for(store.folder(key(first))) == {2, 6}


def test_a_rung_is_the_metric_of_its_snapshot(store: Store) -> None:
    found = search(searched(), store, Training(store), 3)
    for trial in (t for t in found if t.state == "complete" and t.twin is None):
        value = 80 - 100 * (trial.cell["temperature"] - 0.3) ** 2
        assert trial.rungs == {2: pytest.approx(value / 4), 6: pytest.approx(value * 3 / 4)}
        assert trial.values == (pytest.approx(value),)


def test_only_rungs_start_from_snapshots(store: Store) -> None:
    jobs = Training(store)
    search(searched(), store, jobs, 4)
    runs: list[Run] = [store.spec(name) for name in jobs.added]
    assert {snapshot_epoch(run) for run in runs if not isinstance(run, Pretrain)} == {None, 2, 6}


def test_wilcoxon_compares_seeds(store: Store) -> None:
    jobs = FakeJobs(store, lazy=True)
    wilcoxon = toy(pruner="wilcoxon", seeds=6, sampler="random")
    for _ in range(200):
        found = run(wilcoxon, store, jobs, budget=6, steps=1)
        if sum(t.computed for t in found) == 6 and all(t.state != "running" for t in found):
            break
        waiting = list(jobs.open)
        jobs.compute(lambda run: key(run) == waiting[0])  # noqa: B023
    own = [trial for trial in found if trial.twin is None]
    pruned = [trial for trial in own if trial.state == "pruned"]
    told = [trial for trial in own if trial.state == "complete"]
    assert pruned
    assert told
    assert all(len(trial.rungs) < 6 for trial in pruned)
    assert all(len(trial.rungs) == 6 for trial in told)
    assert len(jobs.added) - len(jobs.dropped) == sum(len(trial.rungs) for trial in own)


def test_wilcoxon_pairs_new_trials_with_imported_ones_by_their_seeds(store: Store) -> None:
    wilcoxon, seeds = continuing(10, pruner="wilcoxon", seeds=5), (10, 11, 12, 13, 14)
    known = {seed: validation(wilcoxon, **wilcoxon.reference, seed=seed) for seed in seeds}
    for evaluation in known.values():
        finish(store, evaluation)
    found = run(wilcoxon, store, FakeJobs(store), budget=1)
    assert [(trial.imported, tuple(trial.rungs)) for trial in found] == [(True, seeds), (False, seeds)]
    assert found[0].rungs == pytest.approx({seed: score(evaluation) for seed, evaluation in known.items()})


def test_a_rung_may_be_the_last_epoch_and_none_comes_later(store: Store) -> None:
    last = replace(searched(), rungs=Rungs(epochs={"toy": (4, 8)}, evaluation=rung))
    measure = open_search(last, store).measure
    candidate = measure.candidate({"k": 4, "temperature": 0.3}, [0])
    ((first, evaluation),) = measure.rung(candidate, 8)
    assert (first.recipe.epochs, snapshot_epoch(evaluation)) == (8, 8)
    assert measure.rung(candidate, 9) == []


def test_a_pretraining_of_a_length_in_steps_has_no_rungs(store: Store) -> None:
    with pytest.raises(HarnessError, match="rungs compare after epochs: state the pre-training's length in epochs"):
        open_search(searched(scales=(SCALE.replace(pretrain=RECIPE.replace(steps=8)),)), store)


def test_rungs_that_end_between_two_passes_are_judged_one_by_one(store: Store) -> None:
    """Each competes with what others had at the same rung, also where a coordinator was away for several."""
    jobs, halving = Training(store), searched("halving")
    run(halving, store, jobs, budget=1, steps=1)
    while jobs.epochs.get(jobs.added[0], 0) < 6:  # nobody looks on until both snapshots are there
        jobs.go_on()
    run(halving, store, jobs, budget=1, steps=1)
    jobs.compute(lambda run: not isinstance(run, Pretrain))  # both rungs
    opened = open_search(halving, store)
    run(halving, store, jobs, budget=1, steps=1)
    (trial, *_), study = history(opened)
    assert set(trial.rungs) == {2, 6}
    noted = study.trials[trial.number].system_attrs
    assert [noted[f"completed_rung_{number}"] for number in (0, 1)] == [trial.rungs[2], trial.rungs[6]]


def test_a_later_rung_waits_for_an_earlier_one(store: Store) -> None:
    jobs, halving = Training(store), searched("halving")
    run(halving, store, jobs, budget=1, steps=1)
    while jobs.epochs.get(jobs.added[0], 0) < 6:
        jobs.go_on()
    run(halving, store, jobs, budget=1, steps=1)
    jobs.compute(lambda run: snapshot_epoch(run) == 6)
    assert run(halving, store, jobs, budget=1, steps=1)[0].rungs == {}
    jobs.compute(lambda run: snapshot_epoch(run) == 2)
    assert set(run(halving, store, jobs, budget=1, steps=1)[0].rungs) == {2, 6}


def test_a_twin_shows_the_pruner_the_rungs_of_its_trial(store: Store) -> None:
    """Three cells, six asked for at a time: some are proposed twice."""

    def three(trial: Any) -> dict[str, Any]:
        return {"k": 4, "temperature": trial.suggest_categorical("temperature", (0.3, 0.4, 0.5))}

    few = replace(searched(), space=three)
    jobs = Training(store)
    for _ in range(60):
        found = run(few, store, jobs, budget=4, parallel=6, steps=1)
        jobs.go_on()
    twins = [trial for trial in found if trial.twin is not None]
    assert twins
    for trial in twins:
        assert trial.twin is not None
        assert set(trial.rungs) == {2, 6}
        assert trial.rungs == found[trial.twin].rungs
