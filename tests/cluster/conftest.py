"""One Slurm cluster for the whole session; with accounting where HARNESS_TEST_ACCOUNTING=1.

The tests of this folder run only where it is named: `pytest tests/cluster`, `nox -s cluster`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import slurm

# read here because the tests' surroundings begin without the variables of the person who runs them
ACCOUNTING = os.environ.get("HARNESS_TEST_ACCOUNTING") == "1"


@pytest.fixture(scope="session")
def cluster() -> Iterator[slurm.Cluster]:
    """A running cluster that every command started from here speaks to."""
    if reason := slurm.missing(accounting=ACCOUNTING):
        pytest.skip(f"no Slurm cluster here: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # pytest's own folders are too deep for Unix sockets
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith(("SLURM", "SBATCH"))]:
        patch.delenv(name)
    with slurm.start(folder, accounting=ACCOUNTING) as cluster:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield cluster
    patch.undo()
    shutil.rmtree(folder)


@pytest.fixture
def empty_cluster(cluster: slurm.Cluster) -> Iterator[slurm.Cluster]:
    """The cluster with four idle nodes and an empty queue, which it returns to after the test."""
    cluster.clear()
    yield cluster
    cluster.clear()
