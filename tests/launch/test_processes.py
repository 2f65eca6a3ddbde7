"""Several processes a run in worker processes of this machine."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import compute, masked_by, pretraining

from harness.cli import main
from harness.launch import Inline, Resources, default_slots
from harness.launch.local import pool
from harness.launch.local.pool import Worker, _death
from harness.spec import HarnessError, Run, key
from harness.store import Attempt, Store

PAIR = Resources(device="cpu", processes=2, checkpoint_seconds=1e6)
MISSING = "another of the 2 processes ended without a word, perhaps killed for lack of memory"


def ended(worker: Worker, store: Store, run: Run, meanwhile: Callable[[], None] = lambda: None) -> tuple[str, str]:
    """Have a run computed; how it ended. `meanwhile` is called after its first metrics line."""
    worker.give(store.register(run))
    seen = 0
    while True:
        (event,) = worker.receive(store)
        if event.kind not in ("started", "line"):
            return event.kind, event.text
        seen += event.kind == "line"
        if seen == 1 and event.kind == "line":
            meanwhile()


@pytest.mark.slow
def test_a_pair_of_processes_and_the_ends_they_can_come_to(tmp_path: Path) -> None:
    """Done; stopped through the second one, then done; killed; killed while idle; stopped for good."""
    store, alone = Store(tmp_path / "runs"), Store(tmp_path / "alone")
    run, long, other = pretraining(), pretraining(epochs=200, seed=1), pretraining(epochs=2, seed=2)
    store.register(run)
    worker = Worker(0, store.root, PAIR)
    try:
        assert ended(worker, store, run) == ("done", "")
        kind, text = ended(worker, store, long, lambda: worker.processes[1].terminate())
        assert (kind, text[:16]) == ("interrupted", "stopped at step ")
        assert store.state(key(long)).word == "interrupted"
        deadly = masked_by("user_masks:deadly_to_others")
        assert ended(worker, store, deadly) == ("failed", MISSING)
        worker.processes[1].kill()
        worker.processes[1].join()
        assert ended(worker, store, other) == ("done", "")
        processes = list(worker.processes)
        worker.stop()
        processes[0].join(20)
        assert not processes[0].is_alive()
    finally:
        worker.close()
    assert not any(process.is_alive() for process in processes)
    assert [path.name for path in store.root.iterdir() if path.name.startswith(".group")] == []
    compute(alone, run, other)
    for each in (run, other):
        one, two = ([line["loss"] for line in found.metrics(key(each))] for found in (alone, store))
        assert one == pytest.approx(two, rel=1e-5)


STUDY = '''"""One ratio and a control."""

from harness import Augment, Backbone, FineTune, RandomMask, Recipe, Scale, Shapes, Study, axes, simmim

RECIPE = Recipe(epochs=2, batch_size=16, lr=1e-3, lr_batch=None, augment=Augment(crop_scale=(0.67, 1.0)))
VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 16, "depth": 1, "num_heads": 2}, patch_size=4)
SMALL = Scale(
    name="small", data=Shapes(image_size=16, train=32, test=16), image_size=16, backbone=VIT, pretrain=RECIPE,
    finetune=RECIPE,
)


def cell(scale, ratio, seed):
    start = simmim(scale, mask=RandomMask(size=4, ratio=ratio), seed=seed)
    return {"top1": FineTune(start=start, recipe=scale.finetune, seed=seed)}


STUDY = Study(cell=cell, grid=axes(ratio=(0.5,)), scales=(SMALL,), reference={"ratio": 0.5}, seeds=1)
'''


@pytest.mark.slow
def test_the_command_line_with_two_processes_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tmp_path / "study.py"
    (tmp_path / "harness.toml").touch()
    study.write_text(STUDY)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HARNESS_PROJECT", "")
    stores = []
    for processes, on in ((1, "inline"), (2, "local")):
        root = tmp_path / f"runs {processes}"
        arguments = ["run", str(study), "--store", str(root), "--device", "cpu", "--slots", "1"]
        monkeypatch.setattr(sys, "argv", ["harness", *arguments, "--on", on, "--processes", str(processes)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with pytest.raises(SystemExit) as exit_:
                main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        assert not exit_.value.code
        stores.append(Store(root))
    assert stores[0].keys() == stores[1].keys()
    names = stores[0].keys()
    assert len(names) == 2
    for name in names:
        results = [store.result(name) for store in stores]
        assert results[0] is not None
        assert results[1] is not None
        assert results[0].metrics == pytest.approx(results[1].metrics, rel=1e-4)
        assert [store.environment(name)["processes"] for store in stores] == [1, 2]


def test_the_inline_executor_has_one_process(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="--processes 2: runs in this process have 1; use --on local"):
        Inline(Store(tmp_path), PAIR)


def test_slots_are_groups_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)
    assert default_slots(Resources(device="cpu", processes=2, threads=3)) == 2
    assert default_slots(Resources(device="cpu", processes=8, threads=3)) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert default_slots(Resources(processes=2)) == 2
    assert default_slots(Resources(processes=4)) == 1
    with pytest.raises(HarnessError, match="--processes 5: each takes its own GPU, and there are 4 here"):
        default_slots(Resources(processes=5))


def test_a_death_is_told_in_the_words_of_the_process_in_which_it_began(tmp_path: Path) -> None:
    """As when the first process had to be killed, because it waited for one that raised."""
    store, run = Store(tmp_path), pretraining()
    attempt = store.acquire(run)
    assert isinstance(attempt, Attempt)
    attempt.files.rank_error(10).write_text("later")
    attempt.files.rank_error(2).write_text("process 2 of 4:\nTraceback\nValueError: the mask has a hole\n")
    attempt.release()
    event = _death(store, key(run), -9)
    assert (event.kind, event.text) == ("failed", "ValueError: the mask has a hole")
    assert "Traceback" in store.state(key(run)).error


def test_a_first_process_that_does_not_notice_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Process:
        def __init__(self, alive: bool) -> None:
            self.alive, self.killed = alive, False

        def is_alive(self) -> bool:
            return self.alive

        def kill(self) -> None:
            self.killed = True

    worker = object.__new__(Worker)
    first, second = Process(alive=True), Process(alive=True)
    worker.names, worker.processes, worker._lost_since = ["a"], [first, second], None  # type: ignore[list-item]
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    worker.mourn()
    second.alive = False
    worker.mourn()
    now[0] += pool.MOURNING_SECONDS - 1
    worker.mourn()
    assert not first.killed
    now[0] += 2
    worker.mourn()
    assert first.killed
