"""One run, computed here: what it leaves behind when it ends, and when it does not."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import OFTEN, compute, finetuning, masked_by, outcome, pretraining

from harness.core.evaluate import finetune
from harness.core.model.checkpointing import checkpoint_blocks
from harness.core.pretrain import recipe
from harness.core.runtime.session import Session
from harness.core.weights.checkpoint import Progress, save_state
from harness.launch import Event, Resources, job, provenance
from harness.machine import cache_folder
from harness.spec import CustomHead, HarnessError, key
from harness.store import Attempt, Store, files
from harness.store.lease import this_process
from harness.store.records import sealed

FIRST = pretraining()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture(autouse=True)
def _no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_TROUBLE", raising=False)


def test_the_same_run_twice_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    tuned, other = finetuning(FIRST), pretraining(seed=1)
    stores = [Store(tmp_path / name) for name in ("left", "right")]
    for store in stores:
        events = compute(store, FIRST, tuned, other)
        assert [event.kind for event in events] == ["done"] * 3
    for run in (FIRST, tuned, other):
        assert outcome(stores[0], key(run)) == outcome(stores[1], key(run))
    ours, others = outcome(stores[0], key(FIRST)), outcome(stores[0], key(other))
    assert ours[1] != others[1]
    assert ours[0] != others[0]
    assert [line["step"] for line in ours[2]] == [4, 8, 12]
    result = stores[0].result(key(FIRST))
    assert result is not None
    assert result.cpu_seconds is not None
    assert 0 < result.cpu_seconds < 600
    files = {path.name for path in stores[0].folder(key(FIRST)).attempt(1).path.iterdir()}
    assert files - {"dirty.patch"} == {"owner.json", "env.json", "metrics.jsonl", "weights.safetensors", "artefacts"}


@pytest.mark.parametrize("stop_at", [4, 8])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, stop_at: int) -> None:
    whole, stopped = Store(tmp_path / "whole"), Store(tmp_path / "stopped")
    tuned = finetuning(FIRST)
    compute(whole, FIRST, tuned)
    seldom = Resources(device="cpu", checkpoint_seconds=1e6)
    for run in (FIRST, tuned):
        seen: list[int] = []

        def note(event: Event, seen: list[int] = seen) -> None:
            seen += [event.line["step"]] if event.line else []

        def stopping(seen: list[int] = seen) -> bool:
            return stop_at in seen

        event = job.work(stopped, run, torch.device("cpu"), seldom, report=note, stopping=stopping)
        assert (event.kind, event.text) == ("interrupted", f"stopped at step {stop_at} of 12")
        assert seen[-1] == stop_at
        assert stopped.state(key(run)).word == "interrupted"
        assert [event.kind for event in compute(stopped, run, resources=seldom)] == ["done"]
        assert outcome(stopped, key(run)) == outcome(whole, key(run))
        result = stopped.result(key(run))
        assert result is not None
        assert (result.attempt, result.cpu_seconds) == (2, None)


def test_a_loss_that_is_not_finite_fails_in_one_line(store: Store) -> None:
    run = pretraining(lr=1e30)
    event = compute(store, run)[0]
    assert event.kind == "failed"
    assert event.text.startswith("Diverged: the loss is ")
    assert event.text.endswith(" of 12")
    state = store.state(key(run))
    assert (state.word, state.error) == ("failed", event.text)
    assert compute(store, run)[0].kind == "failed"
    assert len(store.folder(key(run)).attempts()) == 1


def test_predictions_of_one_colour_fail_in_the_second_half(store: Store) -> None:
    run = FIRST.replace(head=CustomHead(function="user_masks:faint"))
    event = compute(store, run)[0]
    assert event.kind == "failed"
    assert event.text.startswith("Diverged: the predictions collapsed to one colour (sd ")
    assert event.text.endswith(" at step 8")  # of 12: the first line after half of them


def test_a_checkpoint_of_another_spec_is_refused_in_one_line(store: Store) -> None:
    other = pretraining(seed=1)
    left, right = store.acquire(FIRST), store.acquire(other)
    assert isinstance(left, Attempt)
    assert isinstance(right, Attempt)
    left.write_checkpoint(4, lambda file: torch.save({"key": left.key, "step": 4}, file))
    strange = next(left.checkpoints()).path
    shutil.copy(strange, right.files.path)
    right.release()
    event = compute(store, other)[0]
    copied = right.files.path / strange.name
    assert event.kind == "failed"
    assert event.text == f"HarnessError: {copied} is a checkpoint of another spec, {key(FIRST)}; move it away"
    assert store.state(key(other)).error == event.text
    copied.unlink()
    retried = job.work(store, other, torch.device("cpu"), OFTEN, retry=True, report=lambda event: None)
    assert retried.kind == "done"
    left.release()


def test_a_folder_of_another_spec_is_refused_in_one_line(store: Store) -> None:
    store.register(FIRST)
    other = store.register(pretraining(seed=1))
    shutil.copy(store.folder(other).spec, store.folder(key(FIRST)).spec)
    event = compute(store, FIRST)[0]
    assert (event.kind, event.name) == ("failed", key(FIRST))
    assert "holds another spec" in event.text


def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_later(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "repository", lambda: ("", ""))  # a large patch would not fit either
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))  # less than a checkpoint takes
    try:
        event = compute(store, FIRST)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert event.kind == "interrupted"
    assert event.text.startswith("cannot write ")
    assert event.text.endswith("/attempts/0001/new: File too large")
    assert store.state(key(FIRST)).word == "interrupted"
    assert [path for path in store.root.rglob("*") if path.suffix in (".tmp", ".pt")] == []
    assert compute(store, FIRST)[0].kind == "done"
    whole = Store(tmp_path / "whole")
    compute(whole, FIRST)
    assert outcome(store, key(FIRST)) == outcome(whole, key(FIRST))


def test_what_the_disk_says_reaches_the_user_through_torch(store: Store) -> None:
    attempt = store.acquire(FIRST)
    assert isinstance(attempt, Attempt)
    model = torch.nn.Linear(300, 300)  # tensors larger than a file's buffer
    optimiser = torch.optim.AdamW(model.parameters())
    session, scaler = Session(attempt, torch.device("cpu")), torch.amp.GradScaler("cpu", enabled=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(HarnessError, match="File too large"):
            save_state(session, Progress(torch.zeros(())), model=model, optimiser=optimiser, scaler=scaler)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(attempt.files.path.glob("*.tmp")) == []
    attempt.release()


def test_an_error_of_torch_itself_is_not_taken_for_the_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = store.acquire(FIRST)
    assert isinstance(attempt, Attempt)
    model = torch.nn.Linear(1, 1)
    optimiser = torch.optim.AdamW(model.parameters())
    session, scaler = Session(attempt, torch.device("cpu")), torch.amp.GradScaler("cpu", enabled=False)

    def refuse(*_: object) -> None:
        raise RuntimeError("no such storage")

    monkeypatch.setattr(torch, "save", refuse)
    with pytest.raises(RuntimeError, match="no such storage"):
        save_state(session, Progress(torch.zeros(())), model=model, optimiser=optimiser, scaler=scaler)
    attempt.release()


def test_what_a_loser_raises_is_no_failure_of_the_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Attempt] = []

    def lose(run: object, session: Session) -> None:
        owner = session.attempt.files.owner
        owner.write_bytes(sealed({**this_process(), "started": "another start"}))
        found = store.acquire(FIRST)
        assert isinstance(found, Attempt)
        taken.append(found)
        raise ValueError("too late")

    monkeypatch.setattr(job, "compute_in_turns", lose)
    event = compute(store, FIRST)[0]
    assert event.kind == "elsewhere"
    assert store.state(key(FIRST)).word == "running"
    assert list(store.root.rglob("error.txt")) == []
    taken[0].release()


def test_a_failure_keeps_its_traceback(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TROUBLE", str(tmp_path))
    (tmp_path / "raise").touch()
    run = masked_by("user_masks:raising")
    event = compute(store, run)[0]
    assert (event.kind, event.text) == ("failed", "ValueError: the mask has a hole")
    error = store.state(key(run)).error
    assert error.startswith("Traceback")
    assert "in raising" in error


def test_an_evaluation_without_its_pretraining_says_so(store: Store) -> None:
    event = compute(store, finetuning(FIRST))[0]
    assert event.kind == "failed"
    assert event.text == f"HarnessError: {key(FIRST)}, which this run starts from, has no weights in the store"


def test_a_metric_is_not_read_from_a_damaged_upstream(store: Store) -> None:
    compute(store, FIRST)
    weights = store.weights(key(FIRST))
    assert weights is not None
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    event = compute(store, finetuning(FIRST))[0]
    assert event.text == f"HarnessError: {weights} is damaged; delete it and run again"


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HarnessError, match="torch sees no GPU here"):
        job.prepare(Resources(device="cuda"))


def test_a_graph_of_steps_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HarnessError, match="only a GPU has graphs of steps"):
        job.prepare(Resources(capture="on"))


def test_kernels_are_kept_in_one_place_unless_the_user_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    job.prepare(Resources())
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) == cache_folder() / "kernels"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    job.prepare(Resources())
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/elsewhere"


def test_a_compiled_run_records_that_and_the_time_to_its_first_step(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # kernels take minutes
    events = compute(store, FIRST, resources=Resources(device="cpu", compile="on"))
    assert events[-1].kind == "done", events[-1].text
    environment = store.environment(key(FIRST))
    assert environment["compiled"] is True
    assert 0 < environment["first_step_seconds"] < 600


def test_activations_that_are_recomputed_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, again = (Store(tmp_path / name) for name in ("kept", "again"))
    tuned = finetuning(FIRST)
    compute(kept, FIRST, tuned)
    changed: list[str] = []

    def noting(model: Any) -> None:
        changed.append("")
        checkpoint_blocks(model)

    for module in (recipe, finetune):
        monkeypatch.setattr(module, "checkpoint_blocks", noting)
    compute(again, FIRST, tuned, resources=Resources(device="cpu", recompute=True))
    for run in (FIRST, tuned):
        assert outcome(kept, key(run)) == outcome(again, key(run))
        assert again.environment(key(run))["recompute"] is True
    assert len(changed) == 2


class Trouble:
    """Takes the place of os.fsync, and refuses some of its calls, counted from 1."""

    def __init__(self, *calls: int, number: int = errno.EIO) -> None:
        self._calls, self._number, self._count, self._real = calls, number, 0, os.fsync

    def __call__(self, descriptor: int) -> None:
        self._count += 1
        if self._count in self._calls:
            raise OSError(self._number, os.strerror(self._number))
        self._real(descriptor)


def test_a_disk_error_that_passes_changes_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(os, "fsync", Trouble(*range(1, 400, 7)))
    assert [event.kind for event in compute(store, FIRST, finetuning(FIRST))] == ["done", "done"]
    monkeypatch.undo()
    whole = Store(tmp_path / "whole")
    compute(whole, FIRST, finetuning(FIRST))
    for run in (FIRST, finetuning(FIRST)):
        assert outcome(store, key(run)) == outcome(whole, key(run))
        assert len(store.folder(key(run)).attempts()) == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_refuses_leaves_the_run_interrupted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(files, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(os, "fsync", Trouble(*range(20, 100), number=number))
    (event,) = compute(store, FIRST)
    assert event.kind == "interrupted"
    assert event.text.startswith("cannot write /")
    assert event.text.endswith(os.strerror(number))
    assert store.state(key(FIRST)).word == "interrupted"
    monkeypatch.undo()
    assert compute(store, FIRST)[0].kind == "done"
    whole = Store(tmp_path / "whole")
    compute(whole, FIRST)
    assert outcome(store, key(FIRST)) == outcome(whole, key(FIRST))


def test_a_run_of_schema_1_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parent.parent / "store" / "files" / "schema1", tmp_path / "old")
    old = Store(tmp_path / "old")
    name = "pretrain-bee03461c34a826683f3"
    assert compute(old, old.spec(name))[0].kind == "done"
    assert old.state(name).attempt == 2
    assert [line["step"] for line in old.metrics(name)] == [2, 4]
