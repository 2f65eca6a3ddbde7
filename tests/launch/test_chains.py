"""What starts from an evaluation: pre-training, fine-tuning, analysis, wherever they are computed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, slurm
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import OFTEN, by_key, finetuning, occluding, pretraining

from harness.launch import Event, Local, Queue, drive
from harness.launch.executor import overview
from harness.launch.resources import Resources
from harness.launch.site import Site, Stage
from harness.launch.slurm.arrays import arrays
from harness.launch.slurm.submit import Slurm, wanted
from harness.spec import FineTune, RgbStatistics, Run, Scratch, key, upstream, upstreams
from harness.spec import pretraining as origin
from harness.store import Attempt, Store
from harness.store.cleaning import removable
from harness.store.submissions import Submissions

__all__ = ["slurm"]

FIRST = pretraining()
TUNED, ALSO = finetuning(FIRST, seed=0), finetuning(FIRST, seed=1)
SEEN, AGAIN, OTHER = occluding(TUNED), occluding(TUNED, seed=1), occluding(ALSO)
RUNS = by_key(OTHER, SEEN, FIRST, AGAIN, TUNED, ALSO)  # in no order that helps
W, S, F, A, T, L = RUNS
ALONE = FineTune(start=Scratch(backbone=FIRST.backbone, image_size=16), data=FIRST.data, recipe=FIRST.recipe)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def finish(store: Store, run: Run) -> None:
    attempt = store.acquire(run, retry=True)
    assert isinstance(attempt, Attempt)
    attempt.finish({"loss": 1.0}, 1.0, b"weights")
    attempt.release()


def fail(store: Store, run: Run) -> None:
    attempt = store.acquire(run, retry=True)
    assert isinstance(attempt, Attempt)
    attempt.fail("ValueError: no")
    attempt.release()


def clean(store: Store, name: str) -> None:
    weights = store.weights(name)
    assert weights is not None
    weights.unlink()


def test_what_comes_before() -> None:
    assert upstream(SEEN) == TUNED
    assert upstreams(SEEN) == (FIRST, TUNED)
    assert upstreams(TUNED) == (FIRST,)
    assert upstreams(FIRST) == upstreams(ALONE) == ()
    assert upstreams(occluding(ALONE)) == (ALONE,)
    assert origin(SEEN) == origin(TUNED) == FIRST
    assert origin(occluding(ALONE)) is None
    assert upstreams(RgbStatistics(start=FIRST)) == ()  # no weights are needed of a start whose inputs are looked at


def test_each_goes_after_what_it_starts_from_and_the_furthest_first(store: Store) -> None:
    queue, taken = Queue(RUNS, store), []
    while (name := queue.take()) is not None:
        taken.append(name)
        queue.end(Event("done", name))
    assert taken == [F, T, S, A, L, W]
    assert queue.endings == dict.fromkeys(RUNS, "done")


@pytest.mark.parametrize("failing", [FIRST, TUNED])
@pytest.mark.parametrize("already", [False, True])
def test_a_failure_blocks_all_that_comes_of_it(store: Store, failing: Run, already: bool) -> None:
    runs = by_key(SEEN, AGAIN, TUNED, FIRST)
    if failing is TUNED:
        finish(store, FIRST)
    if already:
        fail(store, failing)
    queue = Queue(runs, store)
    name = key(failing)
    events = queue.blocked() if already else queue.end(Event("failed", queue.take() or ""))
    told = {event.name: event.text for event in events}
    expected = {S: T, A: T} | ({T: F} if failing is FIRST else {})
    assert {event.kind for event in events} == {"blocked"}
    assert set(told) == set(expected)
    assert all(told[blocked].startswith(f"waits for {by}, which ") for blocked, by in expected.items())
    assert queue.endings[name] == "failed"
    assert not queue.open()


def test_an_interruption_reaches_the_end_of_the_chain(store: Store) -> None:
    queue = Queue(RUNS, store)
    events = queue.end(Event("interrupted", queue.take() or ""))
    assert Counter(event.kind for event in events) == {"interrupted": 5}
    assert not queue.open()


def test_weights_that_are_gone_are_made_again_all_the_way_up(store: Store) -> None:
    for run in (FIRST, TUNED, ALSO, SEEN):
        finish(store, run)
    for name in (F, T):
        clean(store, name)
    queue = Queue(RUNS, store, reading=True)
    assert store.result(F) is not None
    assert queue.endings == {L: "done", S: "done"}
    queue = Queue(RUNS, store)
    assert [store.result(name) is None for name in (F, T, L)] == [True, True, False]
    assert queue.take() == W  # its own start is there
    assert queue.take() == F
    assert queue.take() is None


def test_a_start_whose_evaluations_are_done_is_left_alone_where_it_is_a_pretraining(store: Store) -> None:
    finish(store, SEEN)
    runs = by_key(FIRST, TUNED, SEEN)
    assert Queue(runs, store).open() == [F, T]  # a fine-tuning may be a column of its own
    finish(store, TUNED)
    assert Queue(runs, store).open() == []


def test_cleaning_spares_what_is_needed_further_down(store: Store) -> None:
    for run in (FIRST, TUNED, ALSO, OTHER):
        finish(store, run)
    found = {item.path for item in removable(store, RUNS, weights=True)}
    assert found == {store.weights(L), store.weights(W)}


def test_the_local_executor_computes_a_chain(store: Store) -> None:
    start = pretraining(epochs=1)
    tuned = finetuning(start, epochs=1)
    runs = by_key(occluding(tuned), tuned, start)
    local = Local(store, OFTEN, 1)
    local.submit(runs)
    drive(local)
    assert local.queue.endings == dict.fromkeys(runs, "done")
    plain, seen = (store.result(name) for name in (key(tuned), key(occluding(tuned))))
    assert plain is not None
    assert seen is not None
    assert seen.metrics["random(0)"] == plain.metrics["top1"]


STARTS = [pretraining(seed=seed) for seed in range(3)]
TUNINGS = [finetuning(start, seed=seed) for start in STARTS for seed in range(2)] + [ALONE]
LOOKS = [occluding(tuned, seed=seed) for tuned in TUNINGS for seed in range(2)]
TRAININGS: list[Run] = [*STARTS, *TUNINGS]


@given(
    runs=st.lists(st.sampled_from([*TRAININGS, *LOOKS]), unique_by=key),
    queued=st.sets(st.sampled_from([key(run) for run in TRAININGS])),
    packs=st.fixed_dictionaries({"pretrain": st.integers(1, 2), "evaluation": st.integers(1, 4)}),
    largest=st.integers(1, 4),
)
def test_jobs_hold_every_run_once_and_after_what_it_starts_from(
    runs: list[Run], queued: set[str], packs: dict[str, int], largest: int
) -> None:
    chosen = {name: run for name, run in by_key(*runs).items() if name not in queued}
    elsewhere = {name: f"{number}_1" for number, name in enumerate(sorted(queued))}
    found = arrays(chosen, token="t", packs=packs, largest=largest, elsewhere=elsewhere)  # type: ignore[arg-type]
    assert Counter(name for array in found for element in array.elements for name in element) == Counter(list(chosen))
    for array in found:
        above = [set(element) for element in found[array.after].elements] if array.after is not None else []
        for index, element in enumerate(array.elements):
            for place, name in enumerate(element):
                first = upstream(chosen[name])
                start = None if first is None else key(first)
                if start in chosen:
                    assert start in element[:place] or start in above[index]
                elif start in elsewhere:
                    assert array.dependency == f"afterok:{elsewhere[start]}"
            families = {name: upstreams(chosen[name])[-1:] for name in element}
            roots = [name for name in element if not any(key(first) in element for first in families[name])]
            assert len(element) <= packs[array.stage] or len(roots) == 1


def profile(**fields: object) -> dict[Stage, Site]:
    return {"pretrain": Site(**fields), "evaluation": Site(**fields)}  # type: ignore[arg-type]


def queued(store: Store, project: Path, runs: dict[str, Run], *, retry: bool = False) -> int:
    return Slurm(store, "s", profile(), Resources(), project).submit(runs, retry=retry).runs


def listed(slurm: FakeSlurm, store: Store) -> None:
    """Have squeue list all that was submitted as pending."""
    log, lines = Submissions(store.root), []
    for entry in log.entries():
        for place, array in enumerate(entry.arrays):
            job = log.answer(entry.number, place)["id"]
            names = [f"{job}_{index}" for index in range(len(array.elements))] if len(array.elements) > 1 else [job]
            lines += [f"{name}|PENDING|Priority|{name}|{array.name}" for name in names]
    slurm.says("squeue", *lines)


def test_slurm_computes_an_analysis_in_the_job_of_its_fine_tuning(
    store: Store, tmp_path: Path, slurm: FakeSlurm
) -> None:
    (tmp_path / "project").mkdir()
    assert queued(store, tmp_path / "project", RUNS) == 6
    (entry,) = Submissions(store.root).entries()
    assert [array.stage for array in entry.arrays] == ["pretrain", "evaluation", "evaluation"]
    assert [array.after for array in entry.arrays] == [None, 0, 0]
    assert sorted(element for array in entry.arrays[1:] for element in array.elements) == sorted([(T, S, A), (L, W)])
    listed(slurm, store)
    assert queued(store, tmp_path / "project", RUNS) == 0


def test_slurm_an_analysis_waits_for_the_job_that_holds_its_fine_tuning(
    store: Store, tmp_path: Path, slurm: FakeSlurm
) -> None:
    (tmp_path / "project").mkdir()
    queued(store, tmp_path / "project", by_key(FIRST, TUNED))
    listed(slurm, store)
    assert queued(store, tmp_path / "project", by_key(FIRST, TUNED, SEEN)) == 1
    assert (
        "#SBATCH --dependency=afterok:2\n" in next(Submissions(store.root).folder(2).jobs(0).glob("*.sh")).read_text()
    )


def test_slurm_an_analysis_of_what_is_done_waits_for_nothing(store: Store, tmp_path: Path, slurm: FakeSlurm) -> None:
    (tmp_path / "project").mkdir()
    finish(store, FIRST)
    finish(store, TUNED)
    assert queued(store, tmp_path / "project", by_key(FIRST, TUNED, SEEN)) == 1
    (entry,) = Submissions(store.root).entries()
    assert [(array.elements, array.after, array.dependency) for array in entry.arrays] == [(((S,),), None, "")]


def test_what_failed_further_up_blocks_in_the_overview_and_is_not_submitted(
    store: Store, tmp_path: Path, slurm: FakeSlurm
) -> None:
    fail(store, FIRST)
    runs = by_key(SEEN, TUNED, FIRST)
    places = overview(runs, store).places
    assert [places[name].word for name in (F, T, S)] == ["failed", "blocked", "blocked"]
    assert places[S].detail == f"waits for {F}, which failed"
    assert wanted(runs, store)[0] == {}
    assert set(wanted(runs, store, retry=True)[0]) == {F, T, S}
    finish(store, TUNED)  # and the analysis does not need the pre-training any more
    assert overview(runs, store).places[S].word == "missing"


def test_a_run_in_hand_elsewhere_holds_back_all_that_comes_of_it(
    store: Store, tmp_path: Path, slurm: FakeSlurm
) -> None:
    attempt = store.acquire(FIRST)  # at work in a process that no Slurm job is known of
    assert isinstance(attempt, Attempt)
    assert wanted(by_key(SEEN, TUNED, FIRST), store)[0] == {}
    attempt.release()
