"""Inline and local: the same numbers, and trouble in one run is no trouble for the others."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_runs import OFTEN, by_key, compute, finetuning, masked_by, outcome, pretraining

from harness.launch import Event, Inline, Local, Queue, Resources, drive
from harness.launch.local.pool import Worker, _death, default_slots, forked
from harness.launch.local.worker import STOPPED
from harness.spec import Augment, Run, key, upstream
from harness.store import Attempt, Store

SELDOM = Resources(device="cpu", checkpoint_seconds=1e6)
HERE = Path(__file__).parent


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "trouble"
    folder.mkdir()
    monkeypatch.setenv("TEST_TROUBLE", str(folder))
    return folder


def local(
    store: Store, runs: dict[str, Run], slots: int, resources: Resources = OFTEN, *, retry: bool = False
) -> tuple[Queue, list[Event]]:
    events: list[Event] = []
    executor = Local(store, resources, slots)
    executor.submit(runs, retry=retry)
    drive(executor, events.append)
    return executor.queue, events


@pytest.mark.slow
def test_executors_and_slots_and_loader_workers_change_nothing(tmp_path: Path) -> None:
    first, second = pretraining(epochs=2, seed=0), pretraining(epochs=2, seed=1)
    loaded = first.replace(recipe=first.recipe.replace(augment=Augment(rand_augment="rand-m9-mstd0.5-inc1")))
    runs = by_key(first, second, loaded, finetuning(first, epochs=2), finetuning(second, epochs=2))
    stores = {name: Store(tmp_path / name) for name in ("inline", "one", "two")}

    torch.set_num_threads(1)
    events: list[Event] = []
    executor = Inline(stores["inline"], OFTEN)
    executor.submit(runs)
    drive(executor, events.append)
    queue = executor.queue
    assert queue.endings == dict.fromkeys(runs, "done")
    ended = [event.name for event in events if event.kind == "done"]
    assert sorted(ended) == sorted(runs)
    for tuned in list(runs)[3:]:
        start = upstream(runs[tuned])
        assert start is not None
        assert ended.index(key(start)) < ended.index(tuned)

    with_workers = Resources(device="cpu", workers=1, checkpoint_seconds=1e6)
    for slots, resources, name in ((1, OFTEN, "one"), (2, with_workers, "two")):
        queue, events = local(stores[name], runs, slots, resources)
        assert queue.endings == dict.fromkeys(runs, "done"), [event.text for event in events]
        for run in runs:
            assert outcome(stores[name], run) == outcome(stores["inline"], run)
            assert len(stores[name].folder(run).attempts()) == 1
    again = local(stores["one"], runs, 2)
    assert again[1] == []
    assert again[0].endings == dict.fromkeys(runs, "done")


@pytest.mark.slow
def test_one_run_that_raises_and_one_that_dies_leave_the_others_running(store: Store, trouble: Path) -> None:
    raising, deadly = masked_by("user_masks:raising"), masked_by("user_masks:deadly")
    good = [pretraining(epochs=1, seed=seed) for seed in (0, 1)]
    blocked, tuned = finetuning(raising, epochs=1), finetuning(good[0], epochs=1)
    runs = by_key(deadly, raising, *good, blocked, tuned)
    (trouble / "raise").touch()
    (trouble / "kill").touch()

    queue, events = local(store, runs, 2)
    done = dict.fromkeys(by_key(*good, tuned), "done")
    assert queue.endings == done | {key(deadly): "failed", key(raising): "failed", key(blocked): "blocked"}
    texts = {event.name: event.text for event in events if event.kind in ("failed", "blocked")}
    assert texts[key(deadly)] == "its process was killed by SIGKILL, perhaps for lack of memory"
    assert texts[key(raising)] == "ValueError: the mask has a hole"
    assert key(raising) in texts[key(blocked)]
    assert "in raising" in store.state(key(raising)).error
    assert store.state(key(deadly)).error == texts[key(deadly)]

    for name in ("raise", "kill"):
        (trouble / name).unlink()
    plain = Queue(runs, store)
    assert len(plain) == 1  # what is blocked; failed runs are left alone
    assert [event.name for event in plain.blocked()] == [key(blocked)]
    inline = Inline(store, OFTEN)
    inline.submit(runs, retry=True)
    drive(inline)
    assert inline.queue.endings == dict.fromkeys(runs, "done")
    whole = Store(store.root.with_name("whole"))
    compute(whole, raising, deadly, blocked)
    for run in (raising, deadly, blocked):
        assert outcome(store, key(run)) == outcome(whole, key(run))
    assert len(store.folder(key(deadly)).attempts()) == 2


@pytest.mark.slow
def test_stopping_saves_and_the_next_start_goes_on(store: Store) -> None:
    long, waiting = pretraining(epochs=50), pretraining(epochs=2, seed=1)
    runs = by_key(long, waiting, finetuning(long, epochs=2))
    events: list[Event] = []
    executor = Local(store, SELDOM, 1)
    executor.submit(runs)

    def stopping() -> bool:
        return any(event.kind == "line" for event in events)

    drive(executor, events.append, stopping=stopping)
    assert executor.queue.endings == dict.fromkeys(runs, "interrupted")
    ended = [event for event in events if event.kind == "interrupted"]
    assert [event.name for event in ended] == [key(long)]
    step = int(ended[0].text.split()[3])
    assert 0 < step < 200
    assert [file.step for file in store.folder(key(long)).attempt(1).checkpoints()] == [step]
    assert store.state(key(long)).word == "interrupted"
    assert store.state(key(waiting)).word == "missing"

    assert [event.kind for event in compute(store, long)] == ["done"]
    whole = Store(store.root.with_name("whole"))
    compute(whole, long)
    assert outcome(store, key(long)) == outcome(whole, key(long))


def test_a_worker_that_died_idle_is_replaced(store: Store) -> None:
    run = pretraining(epochs=1)
    store.register(run)
    worker = Worker(0, store.root, OFTEN)
    worker.process.kill()
    worker.process.join()
    worker.give(key(run))
    kinds = []
    while worker.names:
        kinds += [event.kind for event in worker.receive(store)]
    assert (kinds[0], kinds[-1]) == ("started", "done")
    worker.stop()
    worker.process.join(timeout=10)
    assert worker.process.exitcode == STOPPED
    worker.connection.close()


TELLING = """
    import os
    from pathlib import Path

    def prepare(resources):
        file = Path("told")
        file.with_suffix(".tmp").write_text(f"{os.getppid()} {os.environ['SAID']} {__file__}")
        file.with_suffix(".tmp").rename(file)
"""
ASKING = """
    import os, sys
    from pathlib import Path
    from harness.launch import Resources
    from harness.launch.local.pool import Worker

    if __name__ == "__main__":
        sys.path.insert(0, sys.argv[1])
        for os.environ["SAID"] in ("first", "second"):
            worker = Worker(0, Path(), Resources(device="cpu"), program="telling")
            while not Path("told").exists():
                assert worker.process.is_alive()
            worker.close()
            print(os.getpid(), Path("told").read_text())
            Path("told").unlink()
        assert "PYTHONSAFEPATH" not in os.environ
"""


def test_workers_are_forks_of_one_process_with_the_environment_and_code_of_the_caller(tmp_path: Path) -> None:
    frozen, working, script = tmp_path / "frozen", tmp_path / "working", tmp_path / "asking.py"
    script.write_text(textwrap.dedent(ASKING))
    for folder in (frozen, working):  # the code of the first is asked for; a working folder must not come before it
        folder.mkdir()
        (folder / "telling.py").write_text(textwrap.dedent(TELLING))
    command = [sys.executable, str(script), str(frozen)]
    done = subprocess.run(command, cwd=working, capture_output=True, text=True, check=False)
    assert not done.stderr
    (own, parent, said, file), (_, same, said_then, file_then) = map(str.split, done.stdout.splitlines())
    assert parent == same != own
    assert (said, said_then) == ("first", "second")
    assert {file, file_then} == {str(frozen / "telling.py")}


def test_what_uses_a_gpu_starts_afresh() -> None:
    assert forked(Resources(device="cpu"), ["0"]) is (sys.platform == "linux")
    assert forked(Resources(), []) is (sys.platform == "linux")
    assert not forked(Resources(device="cuda"), ["0"])
    assert not forked(Resources(), ["0"])


def test_what_a_death_means_is_what_the_store_says(store: Store) -> None:
    run = pretraining()
    name = store.register(run)
    assert _death(store, name, -9).kind == "failed"
    assert store.state(name).word == "missing"
    attempt = store.acquire(run)
    assert isinstance(attempt, Attempt)
    assert _death(store, name, -9).kind == "elsewhere"
    assert store.state(name).word == "running"
    attempt.release()
    for stopped in (STOPPED, -15):
        assert _death(store, name, stopped) == Event("interrupted", name)
        assert store.state(name).word == "interrupted"
    assert _death(store, name, -11) == Event("failed", name, "its process was killed by SIGSEGV")
    assert (store.state(name).word, store.state(name).error) == ("failed", "its process was killed by SIGSEGV")
    again = store.acquire(run, retry=True)
    assert isinstance(again, Attempt)
    again.finish({"loss": 1.0}, 1.0)
    again.release()
    assert _death(store, name, -9).kind == "done"


PARENT = """
    import signal, sys
    from pathlib import Path
    sys.path.insert(0, {here!r})
    from harness.launch import Local, Resources, drive
    from harness.store import Store

    def main():
        asked = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: asked.append(True))
        store = Store(Path({root!r}))
        local = Local(store, Resources(device="cpu", checkpoint_seconds=1e6), 1)
        local.submit({{name: store.spec(name) for name in store.keys()}})
        report = lambda event: print(event.kind, flush=True)
        print("ready", flush=True)
        drive(local, report, stopping=lambda: bool(asked))
        print(*local.queue.endings.values(), flush=True)

    if __name__ == "__main__":
        main()
"""


@pytest.fixture
def parent(store: Store, tmp_path: Path) -> Callable[[], subprocess.Popen[str]]:
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT).format(here=str(HERE), root=str(store.root)))

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


def test_workers_save_and_end_when_their_parent_is_killed(
    store: Store, parent: Callable[[], subprocess.Popen[str]]
) -> None:
    run = pretraining(epochs=5000)
    name = store.register(run)
    with parent() as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "line":
            assert process.poll() is None
        owner = store.state(name).owner
        assert owner is not None
        worker = os.pidfd_open(owner["pid"])
        process.kill()
        ended = select.select([worker], [], [], 30)[0]
        os.close(worker)
        assert ended, "the worker lives on"
    assert store.state(name).word == "interrupted"
    (checkpoint,) = store.folder(name).attempt(1).checkpoints()
    assert checkpoint.step < 20_000
    assert 0 <= checkpoint.step - store.metrics(name)[-1]["step"] < 4  # a line is written every four steps


def importing(pid: int) -> bool:
    """Whether the process that workers are forked from has begun to import. Before its exec it is like its parent."""
    try:
        process = Path(f"/proc/{pid}")
        started = "forkserver" in (process / "cmdline").read_text()
        return started and "pydantic_core" in (process / "maps").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_workers_start_leaves_no_traceback(
    store: Store, parent: Callable[[], subprocess.Popen[str]], number: signal.Signals
) -> None:
    store.register(pretraining(epochs=5000))
    with parent() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not any(importing(int(child)) for child in children.read_text().split()):
            assert process.poll() is None
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.splitlines()[-1] == "interrupted"
    assert errors == ""


def test_slots_follow_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    assert default_slots(Resources(device="cpu")) == 6
    assert default_slots(Resources(device="cpu", threads=4)) == 1
    assert default_slots(Resources(device="cpu", threads=8)) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,GPU-12")
    assert default_slots(Resources()) == 3
    assert default_slots(Resources(device="cpu")) == 6
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert default_slots(Resources()) == 6
