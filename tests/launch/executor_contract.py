"""What every executor has to do, whatever computes: one suite for all of them."""

from __future__ import annotations

import time

from tiny_program import BREAKS, WAITS
from tiny_runs import by_key, finetuning, pretraining

from harness.launch import Executor
from harness.spec import Run, key
from harness.store import Store

PATIENCE = 180.0


def words(executor: Executor, runs: dict[str, Run]) -> list[str]:
    """States of runs as the executor tells them."""
    seen = executor.states(runs)
    assert seen.silent == ""
    return [seen.places[name].word for name in runs]


def settle(executor: Executor, runs: dict[str, Run]) -> list[str]:
    """States of runs when none is queued or at work any more."""
    end = time.monotonic() + PATIENCE
    while {"queued", "running"} & set(found := words(executor, runs)):
        assert time.monotonic() < end, found
        executor.wait(lambda event: None, lambda: False)
    return found


class ExecutorContract:
    """A subclass has a fixture `executor`, whose program is `tiny_program`, and one of its `store`."""

    def test_what_is_submitted_gets_done_once_and_after_what_it_starts_from(
        self, executor: Executor, store: Store
    ) -> None:
        first, other = pretraining(), pretraining(seed=1)
        runs = by_key(finetuning(first), first, other)
        assert words(executor, runs) == ["missing"] * 3
        assert executor.submit(runs).runs == 3
        assert {"queued", "running"} >= set(words(executor, by_key(finetuning(first))))
        executor.submit(runs)  # what waits is not taken again
        assert settle(executor, runs) == ["done"] * 3
        end = time.monotonic() + PATIENCE
        while executor.pending():  # results are there before the process that wrote the last one says so
            assert time.monotonic() < end
            executor.wait(lambda event: None, lambda: False)
        assert executor.submit(runs).runs == 0
        assert [len(store.folder(name).attempts()) for name in runs] == [1, 1, 1]

    def test_a_failure_blocks_what_starts_from_it_and_is_tried_again_on_request_only(
        self, executor: Executor, store: Store
    ) -> None:
        broken, good = pretraining(seed=BREAKS), pretraining()
        runs = by_key(broken, finetuning(broken), good)
        executor.submit(runs)
        assert settle(executor, runs) == ["failed", "blocked", "done"]
        assert executor.states(runs).places[key(broken)].detail == f"ValueError: seed {BREAKS}"
        executor.submit(runs)
        assert settle(executor, runs) == ["failed", "blocked", "done"]
        assert len(store.folder(key(broken)).attempts()) == 1
        executor.submit(runs, retry=True)
        assert settle(executor, runs) == ["failed", "blocked", "done"]
        assert len(store.folder(key(broken)).attempts()) == 2

    def test_what_is_cancelled_saves_and_what_waits_is_not_begun(self, executor: Executor, store: Store) -> None:
        long = pretraining(seed=WAITS)
        runs = by_key(long, finetuning(long))
        executor.submit(runs)
        end = time.monotonic() + PATIENCE

        def at_work() -> bool:  # told from outside, as by `harness cancel`: an executor may compute within `wait`
            return store.state(key(long)).word == "running"

        def cancelling() -> bool:
            if at_work():
                executor.cancel(runs)
            return False

        while not store.folder(key(long)).attempts():
            assert time.monotonic() < end
            executor.wait(lambda event: None, cancelling)
        cancelling()
        assert not {"done", "failed", "blocked"} & set(settle(executor, runs))
        assert [file.step for file in store.folder(key(long)).attempt(1).checkpoints()] == [7]
        assert store.state(key(finetuning(long))).word == "missing"

    def test_what_was_printed_around_runs_is_found(self, executor: Executor) -> None:
        runs = by_key(pretraining(), pretraining(seed=1))
        executor.submit(runs)
        settle(executor, runs)
        found = executor.logs(runs)
        assert set(found) <= set(runs)
        end = time.monotonic() + PATIENCE
        while not all("done" in path.read_text() for path in found.values()):  # a job says so after the result is there
            assert time.monotonic() < end
            time.sleep(0.1)
