"""Several runs in one process, in turns: each ends as it does alone, bit for bit."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import tiny_program
import torch
from tiny_program import BREAKS, WAITS
from tiny_runs import by_key, compute, finetuning, outcome, pretraining

from harness.launch import Event, Executor, Inline, Local, Resources, drive, job
from harness.launch.flight import Flight
from harness.launch.resources import free_memory
from harness.spec import HarnessError, Run, key
from harness.store import Store

HERE = Path(__file__).parent
TWO = Resources(device="cpu", in_flight=2, checkpoint_seconds=1e6)
EIGHT = Resources(device="cpu", in_flight=8, checkpoint_seconds=1e6)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def driven(executor: Executor, runs: dict[str, Run]) -> list[Event]:
    torch.set_num_threads(1)
    events: list[Event] = []
    executor.submit(runs)
    drive(executor, events.append)
    return events


def most_at_once(events: list[Event]) -> int:
    """Largest number of runs that had begun and not ended."""
    count = most = 0
    for event in events:
        count += {"started": 1, "line": 0}.get(event.kind, -1)
        most = max(most, count)
    return most


def whole(store: Store, *runs: Run) -> Store:
    """A store beside this one, with each run computed alone."""
    found = Store(store.root.with_name("alone"))
    assert {event.kind for event in compute(found, *runs, resources=TWO)} == {"done"}
    return found


def test_two_in_flight_are_each_as_alone(store: Store) -> None:
    first, second = pretraining(epochs=4), pretraining(epochs=3, seed=1)
    runs: list[Run] = [first, second, finetuning(first), finetuning(second)]
    events = driven(Inline(store, TWO), by_key(*runs))
    assert most_at_once(events) == 2
    begun = [event.name for event in events if event.kind == "line"]
    assert begun.index(key(second)) < len(begun) - begun[::-1].index(key(first)) - 1  # in turns
    alone = whole(store, *runs)
    for run in runs:
        assert outcome(store, key(run)) == outcome(alone, key(run))
        assert store.environment(key(run))["in_flight"] == 2
        result = store.result(key(run))
        assert result is not None
        assert result.cpu_seconds is None  # its process computed another run too


def test_a_run_that_waits_for_one_in_flight_does_not_keep_the_process_from_computing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def room(device: torch.device, most: int) -> bool:
        nonlocal looks
        looks += 1
        assert looks < 200, "memory is looked at without end"
        return True

    monkeypatch.setattr(job, "room", room)
    first = pretraining(epochs=3)
    driven(Inline(store, EIGHT), by_key(first, finetuning(first)))
    assert store.state(key(finetuning(first))).word == "done"


@pytest.mark.slow
def test_eight_in_flight_in_a_worker_are_each_as_alone(store: Store) -> None:
    runs = [pretraining(epochs=8, seed=seed) for seed in range(8)]
    events = driven(Local(store, EIGHT, 1), by_key(*runs))
    assert most_at_once(events) == 8
    alone = whole(store, *runs)
    for run in runs:
        assert outcome(store, key(run)) == outcome(alone, key(run))


def test_one_that_diverges_ends_alone(store: Store) -> None:
    good, bad = pretraining(), pretraining(lr=1e30)
    ended = {event.name: event for event in driven(Inline(store, TWO), by_key(good, bad))}
    assert ended[key(bad)].kind == "failed"
    assert ended[key(bad)].text.startswith("Diverged: the loss is ")
    assert outcome(store, key(good)) == outcome(whole(store, good), key(good))


def test_one_that_is_cancelled_saves_alone(store: Store) -> None:
    kept, given_up = pretraining(epochs=6), pretraining(epochs=2000, seed=1)
    local = Local(store, TWO, 1)
    local.submit(by_key(kept, given_up))

    def report(event: Event) -> None:
        if event.kind == "line" and event.name == key(given_up):
            local.cancel(by_key(given_up))

    drive(local, report)
    assert local.queue.endings == {key(kept): "done", key(given_up): "interrupted"}
    assert len(store.folder(key(given_up)).attempt(1).checkpoints()) == 1
    assert outcome(store, key(kept)) == outcome(whole(store, kept), key(kept))


CHILD = """
    import signal, sys
    from pathlib import Path
    import torch
    sys.path.insert(0, {here!r})
    from harness.launch import Inline, Resources, drive
    from harness.store import Store

    torch.set_num_threads(1)
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    store = Store(Path({root!r}))
    inline = Inline(store, Resources(device="cpu", in_flight=3, checkpoint_seconds=1e6))
    inline.submit({{name: store.spec(name) for name in store.keys()}})
    drive(inline, lambda event: print(event.kind, event.name, flush=True), stopping=lambda: bool(asked))
"""


def test_signals_in_the_middle_change_nothing(store: Store, tmp_path: Path) -> None:
    runs = [pretraining(epochs=15, seed=seed) for seed in range(3)]
    for run in runs:
        store.register(run)
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD).format(here=str(HERE), root=str(store.root)))
    for attempt, number in enumerate((signal.SIGTERM, signal.SIGKILL), 1):
        with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            seen: set[str] = set()
            while len(seen) < 3:
                kind, name = child.stdout.readline().split()
                seen |= {name} if kind == "line" else set()
            child.send_signal(number)
            child.communicate(timeout=60)
        assert [store.state(key(run)).word for run in runs] == ["interrupted"] * 3
        saved = [len(store.folder(key(run)).attempt(attempt).checkpoints()) for run in runs]
        assert saved == [number is signal.SIGTERM] * 3
    driven(Inline(store, Resources(device="cpu", in_flight=3)), by_key(*runs))
    alone = whole(store, *runs)
    for run in runs:
        assert outcome(store, key(run)) == outcome(alone, key(run))
        assert store.folder(key(run)).attempts()[-1].number == 3


PRINTING = """
    from tiny_program import *
    from tiny_program import work_in_turns as quiet

    def work_in_turns(store, run, *args, begin, **how):
        def begin_and_say(attempt):
            begin(attempt)
            print("begun", run.seed)

        turns = quiet(store, run, *args, begin=begin_and_say, **how)
        for number in range(3):
            try:
                yield next(turns)
            except StopIteration as last:
                return last.value
            print("turn", number, "of", run.seed)
        return (yield from turns)
"""


def test_what_runs_print_in_turns_goes_each_to_its_own_log(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "printing.py").write_text(textwrap.dedent(PRINTING))
    monkeypatch.syspath_prepend(tmp_path)
    runs = by_key(*(pretraining(seed=WAITS + seed) for seed in range(3)))
    local = Local(store, Resources(device="cpu", in_flight=3), 1, program="printing")
    local.submit(runs)

    def all_have_printed() -> bool:
        logs = [folder.attempt(1).log for folder in map(store.folder, runs)]
        return all(log.is_file() and "turn 2" in log.read_text() for log in logs)

    drive(local, stopping=all_have_printed)
    for name, run in runs.items():
        said = store.folder(name).attempt(1).log.read_text().splitlines()
        assert said == [f"begun {run.seed}", *(f"turn {number} of {run.seed}" for number in range(3))]


def test_no_more_are_let_in_than_there_is_memory_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def room(device: str, most: int) -> bool:
        asked.append(most)
        return most < 2

    monkeypatch.setattr(tiny_program, "room", room)
    stopped: list[bool] = []
    flight = Flight(store, EIGHT, tiny_program, report=lambda event: None, stopping=lambda name: bool(stopped))
    flight.begin(pretraining(seed=WAITS), retry=False)
    assert not flight.room()  # nothing is known before its first turn
    assert asked == []
    flight.turn()
    assert flight.room()
    flight.begin(pretraining(seed=WAITS + 1), retry=False)
    flight.turn()
    assert not flight.room()
    assert asked == [1, 2]
    stopped.append(True)
    assert [event.kind for event in flight.turn()] == ["interrupted"] * 2
    assert flight.room()


def test_memory_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(job, "free_memory", lambda: 0.0)
    assert not job.room(cpu, 1)
    monkeypatch.setattr(job, "free_memory", lambda: 1e15)
    assert job.room(cpu, 1)
    monkeypatch.undo()
    assert 1e6 < free_memory() < 1e15


def test_several_in_flight_have_one_process_each() -> None:
    with pytest.raises(HarnessError, match="--in-flight 2: a run of 4 processes is computed alone"):
        Resources(in_flight=2, processes=4)


def test_a_failure_in_a_flight_of_a_worker_leaves_the_others(store: Store) -> None:
    runs = by_key(*(pretraining(seed=seed) for seed in (0, BREAKS, 1, BREAKS + 1, 2)))
    local = Local(store, Resources(device="cpu", in_flight=3), 1, program="tiny_program")
    driven(local, runs)
    assert [local.queue.endings[name] for name in runs] == ["done", "failed", "done", "failed", "done"]
