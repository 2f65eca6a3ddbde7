"""What a job does with its runs: packs, signals, the cap on attempts, and runs that were given up meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, slurm
from tiny_program import BREAKS, REFUSED, WAITS
from tiny_runs import by_key, finetuning, pretraining

from harness.launch.executor import overview
from harness.launch.slurm.task import Task
from harness.spec import Run, key
from harness.store import Attempt, Store
from harness.store.submissions import Array, Submissions

__all__ = ["slurm"]

MAIN = "import sys; from harness.launch.slurm.task import Task; Task(sys.argv[1], 1, 0, 0)()"
SEVERAL = {"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3", "SLURMD_NODENAME": "n1"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def submitted(store: Store, *runs: Run, slots: int = 2, attempts: int = 20, retry: bool = False) -> Submissions:
    """The log with one job that holds these runs."""
    log = Submissions(store.root)
    names = tuple(store.register(run) for run in runs)
    stage = {"resources": {"device": "cpu"}, "slots": slots, "attempts": attempts, "program": "tiny_program"}
    settings = {"pretrain": stage, "evaluation": stage, "retry": retry}
    kind = "pretrain" if runs[0].kind == "pretrain" else "evaluation"
    assert log.publish(1, "submission", "s", names, [Array("mim-x-0", kind, (names,))], settings)  # type: ignore[arg-type]
    log.record(1, 0, {"id": "12"})
    return log


def started(store: Store, **environment: str) -> subprocess.Popen[str]:
    """The job, as a process."""
    paths = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(Path(__file__).parent)])
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, str(store.root)],
        env=os.environ | {"PYTHONPATH": paths} | SEVERAL | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    text = process.communicate(timeout=60)[0]
    return process.returncode, text


def at_work(store: Store, run: Run) -> None:
    """Wait until a run is at work."""
    for _ in range(3000):
        if store.state(key(run)).word == "running":
            return
        time.sleep(0.01)
    raise AssertionError(store.state(key(run)))


def interrupted(store: Store, run: Run) -> str:
    return store.folder(key(run)).attempts()[-1].interruption.read_text()


def test_one_of_a_pack_fails(store: Store, slurm: FakeSlurm) -> None:
    runs = [pretraining(seed=seed) for seed in (0, BREAKS, 1, 2)]
    submitted(store, *runs)
    code, text = ended(started(store))
    assert code == 0, text
    states = [store.state(key(run)) for run in runs]
    assert [state.word for state in states] == ["done", "failed", "done", "done"]
    assert "Traceback" in states[1].error
    assert f"ValueError: seed {BREAKS}" in states[1].error
    assert slurm.calls("scontrol") == []
    assert f"{key(runs[1])}: failed ValueError: seed {BREAKS}" in text


def test_all_of_a_pack_fail(store: Store, slurm: FakeSlurm) -> None:
    runs = [pretraining(seed=BREAKS + seed) for seed in (0, 1)]
    submitted(store, *runs)
    assert ended(started(store))[0] == 1
    assert [store.state(key(run)).word for run in runs] == ["failed", "failed"]
    code, _ = ended(started(store))  # as after being queued again: not begun a second time
    assert code == 1
    assert [store.state(key(run)).attempt for run in runs] == [1, 1]


@pytest.mark.parametrize("job", ["12_3", "15"])
def test_usr2_saves_and_queues_again(store: Store, slurm: FakeSlurm, job: str) -> None:
    slurm.does("scontrol", "kill -9 $PPID")  # Slurm ends the job
    runs = [pretraining(seed=seed) for seed in (0, WAITS, WAITS + 1)]
    submitted(store, *runs)
    process = started(store) if job == "12_3" else started(store, SLURM_ARRAY_JOB_ID="", SLURM_ARRAY_TASK_ID="")
    at_work(store, runs[1])
    at_work(store, runs[2])
    process.send_signal(signal.SIGUSR2)
    code, text = ended(process)
    assert code == -signal.SIGKILL, text
    assert slurm.calls("scontrol") == [f"requeue {job}"]
    assert store.state(key(runs[0])).word == "done"
    for run in runs[1:]:
        assert store.state(key(run)).word == "interrupted"
        assert [file.step for file in store.folder(key(run)).attempt(1).checkpoints()] == [7]
        assert interrupted(store, run) == "SIGUSR2: time limit or pre-emption, node n1\n"
    assert not store.folder(key(runs[0])).attempt(1).interruption.exists()


def test_no_scontrol_on_the_node(store: Store, slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = [pretraining(seed=WAITS), pretraining(seed=0)]
    submitted(store, *runs, slots=1)
    (tmp_path / "empty").mkdir()
    process = started(store, PATH=str(tmp_path / "empty"))
    at_work(store, runs[0])
    process.send_signal(signal.SIGUSR2)
    code, text = ended(process)
    assert code == 1
    said = [line for line in text.splitlines() if "scontrol" in line]
    assert said == ["there is no scontrol on this node, so the job is not queued again; harness run goes on with it"]
    slurm.says("squeue", "12|FAILED|NonZeroExitCode|12|mim-x-0")
    found = overview(by_key(*runs), store).places
    assert [found[key(run)].word for run in runs] == ["interrupted", "missing"]  # so that `harness run` takes them


def test_scontrol_refuses(store: Store, slurm: FakeSlurm) -> None:
    slurm.fails("scontrol", "Job has JobRequeue disabled")
    submitted(store, run := pretraining(seed=WAITS))
    process = started(store)
    at_work(store, run)
    process.send_signal(signal.SIGUSR2)
    code, text = ended(process)
    assert code == 1
    assert "Job has JobRequeue disabled; harness run goes on with it" in text


def test_term_saves_and_leaves_the_rest_to_slurm(store: Store, slurm: FakeSlurm) -> None:
    submitted(store, run := pretraining(seed=WAITS))
    process = started(store)
    at_work(store, run)
    process.send_signal(signal.SIGTERM)
    code, text = ended(process)
    assert code == 1, text
    assert slurm.calls("scontrol") == []
    assert len(store.folder(key(run)).attempt(1).checkpoints()) == 1
    assert interrupted(store, run).startswith("SIGTERM: cancelled or pre-empted")


def test_a_run_that_never_ends_is_given_up(store: Store, slurm: FakeSlurm) -> None:
    run = pretraining(seed=WAITS)
    submitted(store, run, pretraining(seed=0), attempts=2)
    for reason in ("SIGUSR2: time limit, node n1", "SIGTERM: pre-empted, node n2"):
        attempt = store.acquire(run)
        assert isinstance(attempt, Attempt)
        attempt.files.interruption.write_text(reason + "\n")
        attempt.release()
    code, text = ended(started(store))
    assert code == 0, text  # the other one is done
    state = store.state(key(run))
    assert state.word == "failed"
    reasons = "SIGUSR2: time limit, node n1; SIGTERM: pre-empted, node n2"
    assert state.error == f"begun 2 times without an end ({reasons}): given up"


def test_a_cancelled_run_is_not_begun(store: Store, slurm: FakeSlurm) -> None:
    runs = [pretraining(seed=0), pretraining(seed=WAITS)]
    log = submitted(store, *runs)
    log.publish(2, "cancel", "s", [key(runs[1])])
    log.close(2)
    code, text = ended(started(store))
    assert code == 0, text
    assert [store.state(key(run)).word for run in runs] == ["done", "missing"]


def test_a_run_that_is_cancelled_at_work_saves(store: Store, slurm: FakeSlurm) -> None:
    runs = [pretraining(seed=WAITS), pretraining(seed=0)]
    log = submitted(store, *runs, slots=1)
    process = started(store)
    at_work(store, runs[0])
    log.publish(2, "cancel", "s", [key(runs[0])])
    code, text = ended(process)
    assert code == 0, text
    assert [store.state(key(run)).word for run in runs] == ["interrupted", "done"]
    assert len(store.folder(key(runs[0])).attempt(1).checkpoints()) == 1


def test_an_evaluation_whose_start_is_not_done_is_not_begun_and_not_failed(store: Store, slurm: FakeSlurm) -> None:
    start = pretraining(seed=0)
    run = finetuning(start)
    submitted(store, run)
    assert ended(started(store))[0] == 1
    slurm.says("squeue", "12|FAILED|NonZeroExitCode|12|mim-x-0")
    place = overview(by_key(run), store).places[key(run)]
    assert (place.word, place.detail) == (
        "missing",
        f"waits for {key(start)}, which is not done; harness run goes on with it",
    )


def test_retry_begins_what_failed_before_it_was_submitted(
    store: Store, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pretraining(seed=0)
    attempt = store.acquire(run)
    assert isinstance(attempt, Attempt)
    attempt.fail("ValueError: yesterday")
    attempt.release()
    os.utime(attempt.files.error, (time.time() - 60,) * 2)
    # Of a host whose clock is behind the file server's: times of files alone are compared.
    with monkeypatch.context() as patch:
        now = time.time()
        patch.setattr(time, "time", lambda: now - 300)
        submitted(store, run, retry=True)
    assert ended(started(store))[0] == 0
    assert (store.state(key(run)).word, store.state(key(run)).attempt) == ("done", 2)


def test_what_a_group_shares_stays_writable_for_it(store: Store, slurm: FakeSlurm) -> None:
    store.root.mkdir()
    store.root.chmod(0o2775)
    submitted(store, run := pretraining(seed=0))
    shutil.rmtree(store.folder(key(run)).path)
    store.register(run)
    assert ended(started(store))[0] == 0
    attempt = store.folder(key(run)).attempt(1)
    for path in (attempt.path, attempt.path.parent, attempt.log, attempt.weights, store.folder(key(run)).result):
        assert path.stat().st_mode & 0o020, path


def test_a_task_is_a_place_in_the_log_and_nothing_else() -> None:
    import pickle

    task = Task("/store", 3, 1, 7)
    assert pickle.loads(pickle.dumps(task)) == task
    assert len(pickle.dumps(task)) < 200


def test_an_old_stop_note_is_gone_when_the_job_has_finished(store: Store, slurm: FakeSlurm) -> None:
    log = submitted(store, pretraining(seed=0))
    note = log.folder(1).stopped(0, 0)
    note.write_text("SIGUSR2: time limit or pre-emption\n")
    assert ended(started(store))[0] == 0
    assert not note.exists()


def test_a_disk_that_refuses_leaves_the_run_to_be_gone_on_with(store: Store, slurm: FakeSlurm) -> None:
    log = submitted(store, run := pretraining(seed=REFUSED))
    code, text = ended(started(store))
    assert code == 1, text
    assert store.state(key(run)).word == "interrupted"
    assert log.folder(1).stopped(0, 0).read_text() == "cannot write there: Input/output error\n"
    slurm.says("squeue", "12|FAILED|NonZeroExitCode|12|mim-x-0")
    place = overview(by_key(run), store).places[key(run)]
    assert (place.word, place.detail) == (
        "interrupted",
        "cannot write there: Input/output error; harness run goes on with it",
    )
