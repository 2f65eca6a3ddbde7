"""One pass after another: what is asked, computed, told; with jobs that compute at once or when told to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from toy import SCALE, FakeJobs, finish, pretrained, score, space, toy, validation

from harness.search.coordinator import Coordinator
from harness.search.declaration import Search
from harness.search.measure import gpu_hours
from harness.search.sampling import Proposals, sampler_of
from harness.search.session import coordinating, open_search
from harness.search.space import Stepped
from harness.search.storage import require_held
from harness.search.trials import Trial, plain
from harness.spec import HarnessError, Knn, Run, key, upstream
from harness.store import Attempt, Store
from harness.study import Grid, Study


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def run(
    search: Search,
    store: Store,
    jobs: FakeJobs,
    *,
    budget: int = 12,
    parallel: int = 1,
    steps: int = 10_000,
    **how: Any,
) -> list[Trial]:
    """A search until it ends, or for so many passes; every call is a process of its own."""
    opened = open_search(search, store)
    with coordinating(opened, seed=how.get("seed"), new=how.get("new", False)) as (study, seed, lease):
        coordinator = Coordinator(
            study,
            opened.measure,
            store,
            jobs,
            Proposals(opened.search.sampler, seed, opened.space),
            budget=budget,
            parallel=parallel,
            check=lambda: require_held(lease),
        )
        for _ in range(steps):
            if not coordinator.step():
                break
        return [plain(trial) for trial in study.get_trials()]


def one_process(search: Search, trials: int, seed: int = 0) -> list[dict[str, Any]]:
    """The proposals of a plain loop of ask and tell with the same re-seeding."""
    study = optuna.create_study(direction="maximize")
    for number in range(trials):
        study.sampler = sampler_of(search.sampler, seed, number)
        trial = study.ask()
        found = validation(search, **search.space(trial), seed=0)
        study.tell(trial, score(found))
    return [dict(trial.params) for trial in study.get_trials()]


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_proposals_are_those_of_a_plain_loop(store: Store, sampler: str) -> None:
    search = toy(sampler=sampler)
    found = run(search, store, FakeJobs(store))
    assert sum(trial.computed for trial in found) == 12
    assert [trial.params for trial in found] == one_process(search, len(found))


def numbers(trial: Any) -> dict[str, Any]:
    return {"k": trial.suggest_int("k", 1, 30), "temperature": trial.suggest_float("temperature", 0.05, 0.6)}


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow), "cmaes", "nsga2"])
def test_a_coordinator_that_begins_anew_at_every_pass_proposes_the_same(store: Store, sampler: str) -> None:
    search, jobs = toy(sampler=sampler, space=numbers), FakeJobs(store, lazy=True)
    for _ in range(100):
        found = run(search, store, jobs, steps=1)
        jobs.compute()
        if sum(trial.computed for trial in found) == 12 and found[-1].state == "complete":
            break
    assert len(jobs.added) == 12
    assert [trial.params for trial in found] == one_process(search, len(found))


class Killed(Exception):
    """In place of SIGKILL."""


@pytest.mark.parametrize("after", ["ask", "first parameter", "all parameters"])
def test_killed_while_it_asks(store: Store, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    search = toy(trials={"toy": 15})
    run(search, store, FakeJobs(store), budget=11)

    def dies(trial: Any) -> dict[str, Any]:
        if isinstance(trial, Stepped):
            if after == "ask":
                raise Killed
            trial.suggest_int("k", 1, 6)
            if after == "first parameter":
                raise Killed
            space(trial)
            raise Killed
        return space(trial)

    with pytest.raises(Exception, match="Killed"):
        run(toy(space=dies), store, FakeJobs(store), budget=15)
    found = run(search, store, FakeJobs(store), budget=15)
    assert [trial.params for trial in found] == one_process(search, len(found))
    assert sum(trial.computed for trial in found) == 15


def test_thirty_six_cells_are_all_there_is(store: Store) -> None:
    jobs = FakeJobs(store)
    found = run(toy(sampler="random", duplicates=10_000), store, jobs, budget=1000, parallel=4)
    assert len(jobs.added) == len(set(jobs.added)) == 36
    assert len(found) > 36
    assert {trial.state for trial in found} == {"complete"}
    values = {(trial.params["k"], trial.params["temperature"]): trial.values for trial in found}
    assert all(values[tuple(trial.params.values())] == trial.values for trial in found)


def test_it_ends_after_duplicates_in_a_row(store: Store) -> None:
    found = run(toy(duplicates=3), store, FakeJobs(store), budget=1000)
    assert [trial.twin is not None for trial in found[-3:]] == [True] * 3
    assert len(found) < 200


def test_it_ends_where_no_cell_of_an_endless_space_can_run(store: Store) -> None:
    def refused(trial: Any) -> dict[str, Any]:
        return {"k": 0, "temperature": trial.suggest_float("temperature", 0.1, 0.9)}

    opened = open_search(toy(space=refused, duplicates=5), store)
    with coordinating(opened, seed=0, new=False) as (study, seed, _):
        proposals = Proposals("random", seed, opened.space)
        coordinator = Coordinator(study, opened.measure, store, FakeJobs(store), proposals, budget=3, parallel=1)
        assert not coordinator.step()
        assert [plain(trial).state for trial in study.get_trials()] == ["excluded"] * 5
        assert coordinator.ending().startswith("none of the last 5 proposals was a new cell that can run: ")
        assert "k" in coordinator.ending()


def test_what_the_store_has_costs_nothing(store: Store) -> None:
    search = toy()
    for k in (1, 2):
        finish(store, validation(search, k=k, temperature=0.3, seed=0))
    jobs = FakeJobs(store)
    found = run(search, store, jobs, budget=5)
    assert [(trial.imported, trial.state) for trial in found[:2]] == [(True, "complete")] * 2
    assert len(jobs.added) == 5
    assert sum(trial.computed for trial in found) == 5
    assert not {key(validation(search, k=k, temperature=0.3, seed=0)) for k in (1, 2)} & set(jobs.added)


def continuing(first_seed: int, **changes: Any) -> Search:
    """A search that continues a study whose seeds begin so."""
    search = toy()
    study = Study(cell=search.cell, grid=Grid([search.reference]), scales=(SCALE,), reference=search.reference)
    return toy(study=replace(study, first_seed=first_seed), **changes)


def seeds_of(store: Store, jobs: FakeJobs) -> list[int]:
    """The seed of each run that was submitted, ascending."""
    return sorted(store.spec(name).seed for name in jobs.added)


def test_trials_have_the_seeds_of_the_study_that_they_continue(store: Store) -> None:
    search = continuing(10, seeds=2)
    for seed in (10, 11):
        finish(store, validation(search, **search.reference, seed=seed))
    jobs = FakeJobs(store)
    found = run(search, store, jobs, budget=3)
    assert [trial.imported for trial in found[:2]] == [True, False]
    assert seeds_of(store, jobs) == [10] * 3 + [11] * 3
    with pytest.raises(HarnessError, match="trials need seeds below 1,000"):
        continuing(999, seeds=2)


def test_further_seeds_of_a_promising_trial_follow_its_first(store: Store) -> None:
    jobs = FakeJobs(store)
    (trial,) = run(continuing(10, promising_seeds=3), store, jobs, budget=1)  # the first trial always is promising
    assert seeds_of(store, jobs) == [10, 11, 12]
    runs = [validation(toy(), **trial.params, seed=seed) for seed in (10, 11, 12)]
    assert trial.per_seed[0] == pytest.approx([score(run) for run in runs])


def test_a_failing_cell_fails_its_trial_alone(store: Store) -> None:
    jobs = FakeJobs(store)
    jobs.fails = lambda run: getattr(run, "k", 0) == 4
    found = run(toy(sampler="random"), store, jobs, budget=20, parallel=3)
    failed = [trial for trial in found if trial.state == "failed"]
    assert failed
    assert {trial.params["k"] for trial in failed} == {4}
    assert {trial.error for trial in failed if trial.twin is None} == {"ValueError: no"}
    assert sum(trial.computed for trial in found) == len(jobs.added) == 20


def test_jobs_that_die_are_begun_again_for_the_same_trial(store: Store) -> None:
    jobs = FakeJobs(store, lazy=True)
    found = run(toy(), store, jobs, parallel=3, steps=1)
    assert [trial.state for trial in found] == ["running"] * 3
    before = list(jobs.added)
    jobs.vanish()
    found = run(toy(), store, jobs, parallel=3, steps=1)
    assert jobs.added == before * 2
    assert [trial.state for trial in found] == ["running"] * 3
    jobs.lazy = False
    jobs.vanish()
    found = run(toy(), store, jobs, parallel=3)
    assert sum(trial.computed for trial in found) == 12
    assert {trial.state for trial in found} == {"complete"}


def test_a_run_whose_process_dies_every_time_fails_in_the_end(store: Store) -> None:
    jobs = FakeJobs(store, lazy=True)
    died = "its process was killed by SIGKILL"
    for number in range(3):
        found = run(toy(), store, jobs, steps=1)
        assert [trial.state for trial in found] == ["running"], number
        from toy import broken

        broken(store, next(iter(jobs.open.values())), died)
        jobs.vanish()
    found = run(toy(), store, jobs, steps=1)
    assert found[0].state == "failed"
    assert found[0].error == f"3 times {died}"
    assert found[1].state == "running"


def test_a_slow_cell_holds_nobody_up(store: Store) -> None:
    jobs = FakeJobs(store, lazy=True)
    run(toy(sampler="random"), store, jobs, parallel=4, steps=1)
    slow = next(iter(jobs.open))
    for _ in range(30):
        jobs.compute(lambda run: key(run) != slow)
        found = run(toy(sampler="random"), store, jobs, parallel=4, steps=1)
    assert sum(trial.computed for trial in found) == 12
    assert [trial.state for trial in found if trial.twin is None].count("running") == 1


def test_seeds_are_averaged_and_promising_cells_get_more(store: Store) -> None:
    jobs = FakeJobs(store)
    found = run(toy(seeds=2, promising_seeds=5, sampler="random"), store, jobs, budget=12)
    told = [trial for trial in found if trial.twin is None]
    counts = {len(trial.per_seed[0]) for trial in told}
    assert counts == {2, 5}
    for trial in told:
        search = toy()
        seeds = range(len(trial.per_seed[0]))
        runs: list[Run] = [validation(search, **trial.params, seed=seed) for seed in seeds]
        assert trial.per_seed[0] == pytest.approx([score(run) for run in runs])
        assert trial.values[0] == pytest.approx(sum(map(score, runs)) / len(runs))
    for place, trial in enumerate(told):  # among the best third of those told before it, by its first two seeds
        first = sum(trial.per_seed[0][:2]) / 2
        better = sum(other.values[0] > first for other in told[:place])
        assert len(trial.per_seed[0]) == (5 if better < (place + 1) / 3 else 2)
    best = max(told, key=lambda trial: trial.values[0])
    assert len(best.per_seed[0]) == 5
    assert len(jobs.added) == sum(len(trial.per_seed[0]) for trial in told)


def test_what_another_trial_needs_goes_on_when_one_fails(store: Store) -> None:
    """Two cells share their pre-trainings, one a seed; the evaluation of seed 0 fails for one of the cells."""
    two = toy(cell=pretrained, seeds=2, space=lambda trial: {"k": trial.suggest_int("k", 1, 2), "temperature": 0.3})
    jobs = FakeJobs(store, lazy=True)
    jobs.fails = lambda run: isinstance(run, Knn) and run.k == 2
    for _ in range(40):
        found = run(two, store, jobs, budget=2, parallel=2, steps=1)
        if len({trial.cell["k"] for trial in found}) == 2:
            jobs.compute(lambda run: run.seed == 0 or isinstance(run, Knn))
        if any(trial.state == "failed" for trial in found):
            break
    shared, own = (key(run) for run in _of(two, 2, seed=1))
    assert shared in jobs.open
    assert jobs.dropped == [own]
    jobs.compute()
    told = {trial.cell["k"]: trial.state for trial in run(two, store, jobs, budget=2) if trial.twin is None}
    assert told == {1: "complete", 2: "failed"}
    assert len(jobs.added) == len(set(jobs.added))


def _of(search: Search, k: int, seed: int) -> tuple[Run, Run]:
    evaluation = validation(search, k=k, temperature=0.3, seed=seed)
    first = upstream(evaluation)
    assert first is not None
    return first, evaluation


def test_gpu_hours_count_every_process_of_every_run_once(store: Store) -> None:
    """A pre-training of 2 h on 4 devices, and two evaluations of it of 1 h on one each: 10."""
    evaluations = [pretrained(SCALE, k, 0.3, 0)["validation"] for k in (1, 2)]
    (first,) = {upstream(run) for run in evaluations}
    assert first is not None
    for spec, seconds, processes in ((first, 7200.0, 4), *((run, 3600.0, 1) for run in evaluations)):
        attempt = store.acquire(spec)
        assert isinstance(attempt, Attempt)
        attempt.write_environment({"processes": processes}, "")
        attempt.finish({"top1": 1.0}, seconds, b"weights" if spec is first else None)
        attempt.release()
    assert gpu_hours(evaluations, store) == pytest.approx(10.0)
