"""Runs of a search as Slurm jobs, as far as that can be seen without a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import toy

sys.path.append(str(Path(__file__).resolve().parent.parent / "launch"))

from fake_slurm import FakeSlurm, slurm

from harness.launch import Resources
from harness.launch.site import Site, Stage
from harness.launch.slurm.submit import Slurm
from harness.search import jobs
from harness.search.jobs import Jobs
from harness.spec import HarnessError, Run, key
from harness.store import Store

__all__ = ["slurm"]  # a fixture


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "runs").mkdir()
    return Store(tmp_path / "runs")


def made(store: Store, tmp_path: Path, **site: Any) -> Jobs:
    (tmp_path / "project").mkdir(exist_ok=True)
    (tmp_path / "project" / "harness.toml").touch()
    sites: dict[Stage, Site] = {stage: Site(minutes=5, **site) for stage in ("pretrain", "evaluation")}
    resources = Resources(device="cpu")
    return Jobs(Slurm(store, "s", sites, resources, tmp_path / "project"), store, 3)


def runs_of(count: int) -> dict[str, Run]:
    found = [toy.cell(toy.SCALE, k, 0.1, 0)["validation"] for k in range(1, count + 1)]
    return {key(run): run for run in found}


def test_a_cluster_that_is_silent_for_a_while_is_waited_for(
    store: Store, tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, runs = made(store, tmp_path), runs_of(1)
    slurm.fails("sinfo", "slurm_load_partitions: Unable to contact slurm controller")
    found.add(runs)
    assert found.states(runs)[next(iter(runs))].word == "interrupted"
    monkeypatch.setattr(jobs, "ASK_SECONDS", 0.0)
    monkeypatch.setattr(jobs, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(HarnessError, match="Unable to contact slurm controller"):
        found.add(runs)
    assert slurm.calls("sbatch") == []


def test_what_sbatch_refuses_ends_the_search(store: Store, tmp_path: Path, slurm: FakeSlurm) -> None:
    slurm.fails("sbatch", "sbatch: error: Batch job submission failed: Invalid account")
    with pytest.raises(HarnessError, match=r"sbatch refused: .*Invalid account"):
        made(store, tmp_path).add(runs_of(1))


def test_a_full_queue_is_asked_again_later(
    store: Store, tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, runs = made(store, tmp_path, submit_limit=2), runs_of(3)
    found.add(dict(list(runs.items())[:2]))
    before = len(slurm.calls("sbatch"))
    slurm.says("squeue", "1", "2")
    rest = dict(list(runs.items())[2:])
    found.add(rest)
    found.add(rest)
    assert len(slurm.calls("sbatch")) == before
    monkeypatch.setattr(jobs, "ASK_SECONDS", 0.0)
    slurm.says("squeue")
    found.add(rest)
    assert len(slurm.calls("sbatch")) == before + 1
