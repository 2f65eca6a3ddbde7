"""The executors of this machine, and a cluster made up here, keep the contract; Slurm does in tests/cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from executor_contract import ExecutorContract
from fake_cluster import FakeCluster

from harness.launch import Executor, Inline, Local, Resources
from harness.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture(params=["inline", "local", "cluster"])
def executor(request: pytest.FixtureRequest, store: Store) -> Iterator[Executor]:
    resources, program = Resources(device="cpu"), "tiny_program"
    match request.param:
        case "inline":
            made: Executor = Inline(store, resources, program=program)
        case "local":
            made = Local(store, resources, 2, program=program)
        case _:
            made = FakeCluster(store)  # type: ignore[assignment]
    yield made
    made.close(lambda event: None)
    if isinstance(made, FakeCluster):
        for process in made.jobs.values():
            process.terminate()
            process.wait()


class TestContract(ExecutorContract):
    """All of it."""
