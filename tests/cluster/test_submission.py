"""Submission, status, failure and cancelling on a real cluster, with runs that compute nothing."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from cluster import sleeper
from cluster.waiting import words

from harness.launch import Resources
from harness.launch.executor import Submitted, overview
from harness.launch.site import Site, Stage
from harness.launch.slurm import questions
from harness.launch.slurm.submit import Slurm
from harness.spec import HarnessError, Run, key
from harness.store import Store
from harness.store.records import sealed
from harness.store.submissions import Array, Submissions

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("empty_cluster")]
Runs = dict[str, Run]


def by_key(*runs: Run) -> Runs:
    return {key(run): run for run in runs}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose copy holds the program that jobs run."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "harness.toml").touch()
    shutil.copy(sleeper.__file__, folder)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "runs").mkdir()
    return Store(tmp_path / "runs")


def submit(
    runs: Mapping[str, Run], store: Store, project: Path, *, study: str = "one", retry: bool = False, **own: int | str
) -> Submitted:
    site: dict[Stage, Site] = {stage: Site(**{"minutes": 20, **own}) for stage in ("pretrain", "evaluation")}  # type: ignore[arg-type]
    resources = Resources(device="cpu")
    return Slurm(store, study, site, resources, project, "sleeper").submit(runs, retry=retry)


def settle(runs: Mapping[str, Run], store: Store, seconds: float = 180) -> Counter[str]:
    """How runs stand once none is queued or at work."""
    end = time.monotonic() + seconds
    while (found := words(runs, store))["queued"] or found["running"]:
        assert time.monotonic() < end, [
            place for place in overview(runs, store).places.values() if place.word != "done"
        ]
        time.sleep(0.5)
    return found


def attempts(runs: Mapping[str, Run], store: Store) -> set[int]:
    return {len(store.folder(name).attempts()) for name in runs}


def test_sixty_runs_in_two_arrays_each_computed_once(store: Store, project: Path) -> None:
    runs = by_key(*map(sleeper.evaluation, range(60)))
    begun = time.monotonic()
    done = submit(runs, store, project, pack=2)
    assert time.monotonic() - begun < 10
    assert (done.runs, done.jobs, done.arrays, done.refused) == (60, 30, 2, "")
    assert submit(runs, store, project, pack=2).runs == 0
    assert settle(runs, store) == {"done": 60}
    assert attempts(runs, store) == {1}


def test_evaluations_wait_for_their_own_pretraining_alone(store: Store, project: Path) -> None:
    starts = [sleeper.pretraining(seed) for seed in range(3)]
    probes = {start.seed: [sleeper.probe(start, k) for k in (5, 10)[: 1 + start.seed % 2]] for start in starts}
    runs = by_key(*starts, *(run for many in probes.values() for run in many))
    sleeper.fail(store, starts[1])
    submit(runs, store, project)
    assert settle(runs, store) == {"done": 4, "failed": 1, "blocked": 2}
    places = overview(runs, store).places
    assert places[key(starts[1])].detail == "RuntimeError: run of seed 1 was told to fail"
    assert all(places[key(run)].detail == f"waits for {key(starts[1])}, which failed" for run in probes[1])
    assert submit(runs, store, project).runs == 0
    sleeper.fail(store)
    assert submit(runs, store, project, retry=True).runs == 3
    assert settle(runs, store) == {"done": 7}
    assert {name for name in runs if len(store.folder(name).attempts()) == 2} == {key(starts[1])}


def test_a_pack_of_four_where_one_raises(store: Store, project: Path) -> None:
    made = [sleeper.evaluation(seed) for seed in range(4)]
    runs = by_key(*made)
    sleeper.fail(store, made[2])
    assert submit(runs, store, project, pack=4, slots=2).jobs == 1
    assert settle(runs, store) == {"done": 3, "failed": 1}
    state = store.state(key(made[2]))
    assert state.error.startswith("Traceback")
    assert state.error.rstrip().endswith("RuntimeError: run of seed 2 was told to fail")
    for name in runs:
        assert store.folder(name).attempt(1).log.read_text() == f"computing {name}\n"


def test_a_pretraining_that_another_study_queued_is_waited_for(store: Store, project: Path) -> None:
    start = sleeper.pretraining(0)
    sleeper.take(store, 4)
    first, second = by_key(start, sleeper.probe(start, 5)), by_key(start, sleeper.probe(start, 10))
    submit(first, store, project, study="first")
    done = submit(second, store, project, study="second")
    assert (done.runs, done.waiting) == (1, 1)
    both = {**first, **second}
    assert settle(both, store) == {"done": 3}
    assert attempts(both, store) == {1}


def test_cancel_spares_what_another_study_waits_for(store: Store, project: Path) -> None:
    start = sleeper.pretraining(0)
    sleeper.take(store, 6)
    own, other = sleeper.probe(start, 5), sleeper.probe(start, 10)
    first, second = by_key(start, own), by_key(start, other)
    submit(first, store, project, study="first")
    submit(second, store, project, study="second")
    gone, spared = Slurm(store, "first").cancel(first)
    assert (gone, spared) == ([key(own)], [key(start)])
    assert settle({**first, **second}, store) == {"done": 2, "cancelled": 1}


def test_cancel_stops_runs_at_work_and_leaves_the_rest_of_their_job(store: Store, project: Path) -> None:
    made = [sleeper.evaluation(seed) for seed in range(3)]
    runs = by_key(*made)
    sleeper.take(store, 12)
    submit(runs, store, project, pack=3, slots=2)
    end = time.monotonic() + 30
    while words(runs, store)["running"] < 2:
        assert time.monotonic() < end
        time.sleep(0.2)
    sleeper.take(store, 1)
    gone, spared = Slurm(store, "one").cancel(by_key(made[0]))
    assert (gone, spared) == ([key(made[0])], [])
    assert settle(runs, store) == {"done": 2, "cancelled": 1}
    assert submit(runs, store, project).runs == 1
    assert settle(runs, store) == {"done": 3}


def test_jobs_cancelled_behind_its_back_are_cancelled_and_run_again(store: Store, project: Path) -> None:
    runs = by_key(*map(sleeper.evaluation, range(8)))
    sleeper.take(store, 20)
    submit(runs, store, project)
    job = overview(runs, store).places[list(runs)[7]].job
    questions.ask("scancel", job)  # one that waits: it vanishes from the queue, its siblings stay
    assert job.endswith("_7")
    time.sleep(1)
    assert words(runs, store)["cancelled"] == 1
    sleeper.take(store, 0)
    assert submit(runs, store, project).runs == 1
    assert settle(runs, store) == {"done": 8}


def test_a_process_that_died_before_or_after_sbatch(store: Store, project: Path) -> None:
    runs = by_key(*map(sleeper.evaluation, range(2)))
    log = Submissions(store.root)
    assert log.publish(1, "submission", "one", runs, [Array("mim-dead-0", "evaluation", (tuple(runs),))], {})
    assert words(runs, store) == {"queued": 2}  # its owner, this process, lives: it may be about to call sbatch
    entry = log.folder(1).entry
    record = json.loads(entry.read_text())
    del record["digest"]
    record["owner"]["pid"] = 99999999
    entry.write_bytes(sealed(record))
    assert words(runs, store) == {"missing": 2}
    sleeper.take(store, 3)
    assert submit(runs, store, project).runs == 2
    for array in range(2):
        log.folder(2).answer(array).unlink(missing_ok=True)  # it died before it could write down the job id
    assert words(runs, store)["missing"] == 0
    assert submit(runs, store, project).runs == 0
    assert settle(runs, store) == {"done": 2}
    assert attempts(runs, store) == {1}


def test_what_sbatch_refuses_is_said_and_not_counted_as_queued(store: Store, project: Path) -> None:
    runs = by_key(*map(sleeper.evaluation, range(2)))
    done = submit(runs, store, project, minutes=20, partition="nowhere")
    assert done.runs == 0
    assert "Invalid partition" in done.refused
    assert words(runs, store) == {"missing": 2}


def test_a_queue_with_little_room_takes_what_fits(store: Store, project: Path) -> None:
    runs = by_key(*map(sleeper.evaluation, range(24)))
    done = submit(runs, store, project, submit_limit=22)
    assert (done.runs, done.left) == (20, 4)
    end = time.monotonic() + 180
    while words(runs, store)["done"] < 20:
        assert time.monotonic() < end
        time.sleep(0.5)
    assert submit(runs, store, project, submit_limit=22).runs == 4
    assert settle(runs, store) == {"done": 24}


def test_a_store_that_cannot_be_written(store: Store, project: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HarnessError, match="cannot write"):
        submit(by_key(sleeper.evaluation(0)), Store(tmp_path / "file" / "runs"), project)
