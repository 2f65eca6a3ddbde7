"""Where runs stand: files first, then the log, then what Slurm says. Slurm is made of scripts here."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_slurm import FakeSlurm, slurm
from tiny_runs import by_key, finetuning, pretraining

from harness.launch.executor import Overview, overview
from harness.launch.slurm import run_states
from harness.spec import Run, key
from harness.store import Attempt, Store
from harness.store.lease import this_process
from harness.store.records import sealed
from harness.store.submissions import Array, Entry, Submissions

__all__ = ["slurm"]

LONG_AGO = 3600.0
RUNS = [pretraining(seed=seed) for seed in range(3)]
THEN = finetuning(RUNS[0])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def submitted(
    store: Store, *elements: Run, name: str = "mim-x-0", ago: float = LONG_AGO, answer: dict[str, str] | None = None
) -> Entry:
    """An entry of an hour ago with one array, a run an element, and what sbatch said to it."""
    log = Submissions(store.root)
    for run in elements:
        store.register(run)
    stage = "pretrain" if elements[0].kind == "pretrain" else "evaluation"
    array = Array(name, stage, tuple((key(run),) for run in elements))  # type: ignore[arg-type]
    number = log.last() + 1
    entry = log.publish(number, "submission", "s", [key(run) for run in elements], [array])
    assert entry is not None
    if answer != {}:
        log.record(number, 0, answer or {"id": "12"})
    age(log, entry, ago)
    return entry


def age(log: Submissions, entry: Entry, ago: float, **changes: Any) -> None:
    """Make an entry, and what sbatch said to it, older than they are."""
    files = log.folder(entry.number)
    record = json.loads(files.entry.read_text()) | {"time": time.time() - ago} | changes
    files.entry.write_bytes(sealed({name: value for name, value in record.items() if name != "digest"}))
    for path in files.path.iterdir():
        os.utime(path, (time.time() - ago,) * 2)


def begun(store: Store, run: Run, *, ago: float = LONG_AGO / 2, error: str = "") -> Attempt:
    """An attempt whose process ended some time ago."""
    attempt = store.acquire(run, retry=True)
    assert isinstance(attempt, Attempt)
    if error:
        attempt.fail(error)
    attempt.release()
    for path in (attempt.files.path, *attempt.files.path.iterdir()):
        os.utime(path, (time.time() - ago,) * 2)
    return attempt


def seen(store: Store, *runs: Run) -> Overview:
    return overview(by_key(*(runs or RUNS)), store)


def word(store: Store, run: Run = RUNS[0]) -> tuple[str, str]:
    place = seen(store, run).places[key(run)]
    return place.word, place.detail


WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "RESV_DEL_HOLD", "REQUEUE_HOLD", "SPECIAL_EXIT")
WORKING = ("RUNNING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED")


@pytest.mark.parametrize("state", WAITING)
@pytest.mark.parametrize("reason", ["Priority", "Resources", "JobArrayTaskLimit", "BeginTime", "Dependency"])
def test_waiting_with_the_reason(store: Store, slurm: FakeSlurm, state: str, reason: str) -> None:
    submitted(store, RUNS[0])
    slurm.says("squeue", f"12|{state}|{reason}|12|mim-x-0")
    place = seen(store).places[key(RUNS[0])]
    assert (place.word, place.detail) == ("queued", f"job 12: {reason}")
    assert place.job == "12"


@pytest.mark.parametrize("state", WORKING)
def test_at_work(store: Store, slurm: FakeSlurm, state: str) -> None:
    submitted(store, RUNS[0])
    slurm.says("squeue", f"12|{state}|None|12|mim-x-0")
    assert word(store) == ("queued", "job 12 starts")
    attempt = store.acquire(RUNS[0])
    assert isinstance(attempt, Attempt)
    assert word(store)[0] == "running"
    attempt.release()


@pytest.mark.parametrize("state", [*WORKING, "NODE_FAIL", "TIMEOUT"])
def test_slurm_knows_before_the_heartbeat_is_old_that_the_job_of_an_owner_ended(
    store: Store, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    submitted(store, RUNS[0])
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    attempt = store.acquire(RUNS[0])
    assert isinstance(attempt, Attempt)
    slurm.says("squeue", f"12|{state}|None|12|mim-x-0")
    assert word(store)[0] == ("running" if state in WORKING else "interrupted")
    monkeypatch.setenv("SLURM_JOB_ID", "13")  # another job's owner is not judged by this one
    attempt.files.owner.write_bytes(sealed(this_process()))
    assert word(store)[0] == "running"
    attempt.release()


@pytest.mark.parametrize("where", ["squeue", "sacct"])
@pytest.mark.parametrize(
    ("state", "never_begun", "after_beginning"),
    [
        ("COMPLETED", "missing", "failed"),
        ("FAILED", "failed", "failed"),
        ("OUT_OF_MEMORY", "failed", "failed"),
        ("SOMETHING_NEW", "failed", "failed"),
        ("TIMEOUT", "interrupted", "interrupted"),
        ("PREEMPTED", "interrupted", "interrupted"),
        ("NODE_FAIL", "interrupted", "interrupted"),
        ("BOOT_FAIL", "interrupted", "interrupted"),
        ("DEADLINE", "interrupted", "interrupted"),
        ("REVOKED", "interrupted", "interrupted"),
        ("CANCELLED by 0", "cancelled", "cancelled"),
    ],
)
def test_ended(store: Store, slurm: FakeSlurm, where: str, state: str, never_begun: str, after_beginning: str) -> None:
    submitted(store, RUNS[0], RUNS[1])
    begun(store, RUNS[1])
    slurm.says(where, *(f"12_{index}|{state}|1:0|12|mim-x-0" for index in (0, 1)))
    found = seen(store).places
    assert (found[key(RUNS[0])].word, found[key(RUNS[1])].word) == (never_begun, after_beginning)
    for index in (0, 1):
        assert f"job 12_{index}" in found[key(RUNS[index])].detail
        assert found[key(RUNS[index])].job == ""
    if state in ("OUT_OF_MEMORY", "SOMETHING_NEW", "TIMEOUT"):
        assert state in found[key(RUNS[0])].detail


def test_a_result_beats_whatever_slurm_says(store: Store, slurm: FakeSlurm) -> None:
    submitted(store, RUNS[0])
    attempt = store.acquire(RUNS[0])
    assert isinstance(attempt, Attempt)
    attempt.finish({"loss": 0.5}, 1.0, b"weights")
    attempt.release()
    slurm.says("squeue", "12|FAILED|NonZeroExitCode|12|mim-x-0")
    assert word(store) == ("done", "")
    assert slurm.calls("squeue") == []  # no need to ask


def test_a_result_that_comes_while_slurm_is_asked_counts(store: Store, slurm: FakeSlurm, tmp_path: Path) -> None:
    submitted(store, RUNS[0])
    attempt = store.acquire(RUNS[0])
    assert isinstance(attempt, Attempt)
    attempt.finish({"loss": 0.5}, 1.0, b"weights")
    attempt.release()
    result = store.folder(key(RUNS[0])).result
    result.rename(tmp_path / "result.json")
    slurm.does("squeue", f"mv {tmp_path}/result.json {result}")
    slurm.says("squeue", "12|COMPLETED|None|12|mim-x-0")
    assert word(store) == ("done", "")


def test_a_job_that_just_ended_may_have_a_result_that_is_not_seen_yet(store: Store, slurm: FakeSlurm) -> None:
    submitted(store, RUNS[0])
    begun(store, RUNS[0], ago=5)
    slurm.says("squeue", "12|COMPLETED|None|12|mim-x-0")
    assert word(store) == ("queued", "job 12 just ended")


def test_a_failure_is_told_from_its_file(store: Store, slurm: FakeSlurm) -> None:
    submitted(store, RUNS[0])
    begun(store, RUNS[0], error="Traceback:\nValueError: loss is nan\n")
    slurm.says("squeue", "12|COMPLETED|None|12|mim-x-0")
    assert word(store) == ("failed", "ValueError: loss is nan")
    submitted(store, RUNS[0], name="mim-y-0", ago=60)  # tried again
    slurm.says("squeue", "13|PENDING|Priority|12|mim-y-0")
    assert word(store) == ("queued", "job 13: Priority")
    slurm.says("squeue")
    slurm.says("sacct", "13|CANCELLED by 0|0:0|12|mim-y-0")
    assert word(store) == ("failed", "ValueError: loss is nan")  # the retry was cancelled: it still has failed


def test_the_last_attempt_in_accounting_counts(store: Store, slurm: FakeSlurm) -> None:
    submitted(store, RUNS[0])
    slurm.says("sacct", "12|PREEMPTED|0:0|12|mim-x-0", "12|OUT_OF_MEMORY|0:125|12|mim-x-0")
    assert word(store)[0] == "failed"
    asked = slurm.calls("sacct")[-1]
    assert " -D " in asked
    assert " -S 2" in asked


def test_accounting_knows_an_element_that_the_controller_has_forgotten(store: Store, slurm: FakeSlurm) -> None:
    submitted(store, *RUNS)
    slurm.says("squeue", "12_1|PENDING|Resources|12|mim-x-0", "12_2|PENDING|Resources|12|mim-x-0")
    slurm.says("sacct", "12_0|OUT_OF_MEMORY|0:125|12|mim-x-0", "12_1|PREEMPTED|0:0|12|mim-x-0")
    found = seen(store).places
    assert found[key(RUNS[0])].word == "failed"
    assert found[key(RUNS[1])].word == "queued"  # the queue knows better


def test_an_element_that_is_gone_while_its_siblings_are_known_was_cancelled(store: Store, slurm: FakeSlurm) -> None:
    submitted(store, *RUNS)
    slurm.fails("sacct", "Slurm accounting storage is disabled")
    slurm.says("squeue", "12_1|PENDING|Resources|12|mim-x-0", "12_[5-7%1]|PENDING|Resources|12|mim-x-0")
    found = seen(store).places
    assert found[key(RUNS[0])].word == "cancelled"
    begun(store, RUNS[2])  # it was at work, so this is not how it went
    assert seen(store).places[key(RUNS[2])].word == "interrupted"


@pytest.mark.parametrize("accounting", [True, False])
def test_gone_entirely(store: Store, slurm: FakeSlurm, accounting: bool) -> None:
    if not accounting:
        slurm.fails("sacct", "Slurm accounting storage is disabled")
    submitted(store, RUNS[0], ago=5)
    assert word(store) == ("queued", "just left the queue")
    submitted(store, RUNS[1], name="mim-y-0")
    assert word(store, RUNS[1])[0] == "interrupted"
    begun(store, RUNS[1], ago=5)
    assert word(store, RUNS[1]) == ("queued", "just left the queue")
    begun(store, RUNS[1], ago=120)
    assert word(store, RUNS[1])[0] == "interrupted"


def test_squeue_does_not_answer(store: Store, slurm: FakeSlurm) -> None:
    submitted(store, *RUNS)
    begun(store, RUNS[1], error="ValueError: x")
    attempt = store.acquire(RUNS[2])
    slurm.fails("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    found = seen(store)
    assert "Unable to contact slurm controller" in found.silent
    assert [found.places[key(run)].word for run in RUNS] == ["queued", "failed", "running"]
    assert isinstance(attempt, Attempt)
    attempt.release()


def test_sbatch_refused_it(store: Store, slurm: FakeSlurm) -> None:
    submitted(store, RUNS[0], answer={"error": "Invalid qos"})
    assert word(store) == ("missing", "sbatch refused it: Invalid qos")
    slurm.says("squeue", "12|PENDING|Priority|12|mim-x-0")  # as after a time-out of the connection
    assert word(store)[0] == "queued"


def test_between_the_entry_and_sbatch(store: Store, slurm: FakeSlurm) -> None:
    entry = submitted(store, RUNS[0], answer={}, ago=5)
    assert word(store) == ("queued", "being submitted")  # by this very process
    with subprocess.Popen(["sleep", "0"]) as process:
        process.wait()
    dead = dict(entry.owner) | {"pid": process.pid, "started": "1"}
    age(Submissions(store.root), entry, 5, owner=dead)
    assert word(store) == ("missing", "")
    slurm.says("squeue", "12|PENDING|Priority|12|mim-x-0")  # it died after sbatch, before it could note the id
    assert word(store) == ("queued", "job 12: Priority")


def test_a_submission_that_takes_long_on_another_machine_is_alive(store: Store, slurm: FakeSlurm) -> None:
    log = Submissions(store.root)
    entry = submitted(store, RUNS[0], answer={})
    age(log, entry, 600, owner=dict(entry.owner) | {"machine": "another", "host": "another"})
    assert word(store)[0] == "missing"
    second = Array("mim-x-1", "pretrain", ((key(RUNS[1]),),))
    arrays = [*json.loads(log.folder(1).entry.read_text())["arrays"], second.__dict__]
    age(log, entry, 600, owner=dict(entry.owner) | {"machine": "another"}, arrays=arrays)
    log.record(1, 1, {"id": "13"})
    assert word(store) == ("queued", "being submitted")


def test_a_requeued_job_waits_though_its_run_looks_lost(store: Store, slurm: FakeSlurm) -> None:
    submitted(store, RUNS[0])
    begun(store, RUNS[0])
    slurm.says("squeue", "12|PENDING|BeginTime|12|mim-x-0")
    assert word(store) == ("queued", "job 12: BeginTime")


def test_a_job_that_was_told_to_save_says_nothing_against_its_runs(store: Store, slurm: FakeSlurm) -> None:
    submitted(store, RUNS[0], RUNS[1])
    begun(store, RUNS[0])
    slurm.says("squeue", *(f"12_{index}|FAILED|NonZeroExitCode|12|mim-x-0" for index in (0, 1)))
    for index in (0, 1):
        Submissions(store.root).folder(1).stopped(0, index).write_text("SIGUSR2: time limit or pre-emption\n")
    assert word(store)[0] == "interrupted"
    assert word(store, RUNS[1])[0] == "missing"
    assert "SIGUSR2" in word(store)[1]
    slurm.says("squeue", "12_0|CANCELLED|None|12|mim-x-0")
    assert word(store)[0] == "cancelled"


def test_a_result_that_was_put_aside_makes_its_job_no_failure(store: Store, slurm: FakeSlurm) -> None:
    submitted(store, RUNS[0])
    attempt = store.acquire(RUNS[0])
    assert isinstance(attempt, Attempt)
    attempt.finish({"loss": 0.5}, 1.0, b"weights")
    attempt.release()
    store.put_result_aside(key(RUNS[0]))
    slurm.says("sacct", "12|COMPLETED|0:0|12|mim-x-0")
    assert word(store)[0] == "interrupted"


@pytest.mark.parametrize(("line", "with_job"), [("", False), ("13|PENDING|Dependency|12|mim-y-0", True)])
def test_what_waits_for_a_failure_is_blocked(store: Store, slurm: FakeSlurm, line: str, with_job: bool) -> None:
    submitted(store, RUNS[0])
    submitted(store, THEN, name="mim-y-0")
    begun(store, RUNS[0], error="ValueError: x")
    slurm.says("squeue", *([line] if line else ["13|CANCELLED|DependencyNeverSatisfied|12|mim-y-0"]))
    for runs in ((RUNS[0], THEN), (THEN,)):
        place = seen(store, *runs).places[key(THEN)]
        assert (place.word, place.detail) == ("blocked", f"waits for {key(RUNS[0])}, which failed")
        assert bool(place.job) == with_job


def test_a_dependency_that_never_comes_true(store: Store, slurm: FakeSlurm) -> None:
    submitted(store, THEN)
    slurm.says("squeue", "12|PENDING|DependencyNeverSatisfied|12|mim-x-0")
    assert word(store, THEN)[0] == "blocked"


def test_cancelled_by_the_log(store: Store, slurm: FakeSlurm) -> None:
    log = Submissions(store.root)
    submitted(store, *RUNS)
    begun(store, RUNS[1], error="ValueError: x")
    attempt = store.acquire(RUNS[2])
    log.publish(2, "cancel", "s", [key(run) for run in RUNS])
    slurm.says("squeue", "12_0|PENDING|Priority|12|mim-x-0")
    found = seen(store)
    assert [found.places[key(run)].word for run in RUNS] == ["cancelled", "failed", "running"]
    submitted(store, RUNS[0], name="mim-z-0", ago=-1)
    slurm.says("squeue", "14|PENDING|Priority|12|mim-z-0")
    assert word(store)[0] == "queued"
    assert isinstance(attempt, Attempt)
    attempt.release()


def test_one_question_for_all_and_none_without_submissions(store: Store, slurm: FakeSlurm) -> None:
    assert word(store) == ("missing", "")
    begun(store, RUNS[1])
    assert word(store, RUNS[1])[0] == "interrupted"
    assert slurm.calls("squeue") == []
    submitted(store, RUNS[0])
    submitted(store, RUNS[1], RUNS[2], name="mim-y-0")
    seen(store)
    assert len(slurm.calls("squeue")) == 1
    assert "--name=mim-x-0,mim-y-0" in slurm.calls("squeue")[0]


def test_looking_writes_nothing(store: Store, slurm: FakeSlurm) -> None:
    submitted(store, *RUNS)
    begun(store, RUNS[1], error="ValueError: x")
    begun(store, RUNS[2])
    Submissions(store.root).publish(2, "cancel", "s", [key(RUNS[0])])
    slurm.says("squeue", "12_2|COMPLETED|None|12|mim-x-0")

    def tree() -> dict[str, tuple[int, int]]:
        paths = list(store.root.rglob("*"))
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}

    before = tree()
    found = seen(store, *RUNS, THEN)
    assert len(found.places) == 4
    assert tree() == before
    assert replace(found) == found


def test_the_clock_of_the_store_is_read_once_for_all_runs(
    store: Store, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(store, *RUNS)
    slurm.says("squeue", *(f"12_{index}|PENDING|Priority|12|mim-x-0" for index in range(3)))
    read: list[Path] = []

    def clock(root: Path) -> float:
        read.append(root)
        return time.time()

    monkeypatch.setattr(run_states, "clock", clock)
    assert {place.word for place in overview(by_key(*RUNS), store).places.values()} == {"queued"}
    assert read == [store.root]
