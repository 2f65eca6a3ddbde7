"""Slurm keeps the contract of executors."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "launch"))

import tiny_program
from executor_contract import ExecutorContract

from harness.launch import Resources
from harness.launch.site import Site, Stage
from harness.launch.slurm.submit import Slurm
from harness.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("empty_cluster")]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "runs").mkdir()
    return Store(tmp_path / "runs")


@pytest.fixture
def executor(tmp_path: Path, store: Store) -> Slurm:
    project = tmp_path / "project"
    project.mkdir()
    (project / "harness.toml").touch()
    shutil.copy(tiny_program.__file__, project)
    site: dict[Stage, Site] = {stage: Site(minutes=10) for stage in ("pretrain", "evaluation")}
    return Slurm(store, "contract", site, Resources(device="cpu"), project, "tiny_program")


class TestContract(ExecutorContract):
    """All of it."""
