"""A search on a real cluster: its coordinator leaves and comes back, jobs are taken away, pruning cancels a job."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "search"))

import toy

from harness.launch import Resources
from harness.launch.executor import overview
from harness.launch.site import Site, Stage
from harness.launch.slurm import questions
from harness.launch.slurm.submit import Slurm
from harness.search.jobs import Jobs
from harness.search.measure import with_starts
from harness.search.session import Opened, history, open_search, run_search
from harness.spec import Run, key
from harness.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("empty_cluster")]
SITE: dict[Stage, Site] = {stage: Site(minutes=10) for stage in ("pretrain", "evaluation")}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "harness.toml").touch()
    shutil.copy(toy.__file__, folder)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "runs").mkdir()
    return Store(tmp_path / "runs")


def cluster_of(store: Store, project: Path) -> Slurm:
    return Slurm(store, "search toy", SITE, Resources(device="cpu"), project, "toy")


def go_on(opened: Opened, project: Path, *, budget: int, seconds: float = 600) -> str:
    """Run the search for so long, by a coordinator of its own; its jobs stay."""
    where, until = cluster_of(opened.store, project), time.monotonic() + seconds
    return run_search(
        opened, where, budget=budget, parallel=4, confirm=False, stopping=lambda: time.monotonic() > until
    )


def test_it_leaves_and_comes_back_and_a_job_is_taken_away(store: Store, project: Path) -> None:
    (store.root / ".seconds").write_text("6 12")
    opened = open_search(toy.toy(sampler="random", trials={"toy": 8}), store)
    assert go_on(opened, project, budget=8, seconds=5) == ""
    running = [trial for trial in history(opened)[0] if trial.state == "running"]
    assert len(running) == 4
    wanted = [run for trial in running for run in opened.measure.wanted(opened.measure.candidate(trial.cell, [0]))]
    runs: dict[str, Run] = with_starts(wanted)
    gone = next(place.job for place in overview(runs, store).places.values() if place.job)
    questions.ask("scancel", gone)
    time.sleep(20)  # the others end while nobody looks
    assert go_on(opened, project, budget=8) == "8 cells are computed"
    found, _ = history(opened)
    assert Counter(trial.state for trial in found) == {"complete": len(found)}
    assert sum(trial.computed for trial in found) == 8
    assert set(Counter(toy.lines(store, "end")).values()) == {1}
    assert len(toy.lines(store, "end")) == 8


def test_dropping_a_run_cancels_its_job(store: Store, project: Path) -> None:
    (store.root / ".seconds").write_text("60")
    run = toy.cell(toy.SCALE, 1, 0.1, 0)["validation"]
    jobs, runs = Jobs(cluster_of(store, project), store, 3), {key(run): run}
    jobs.add(runs)
    end = time.monotonic() + 60
    while overview(runs, store).places[key(run)].word != "running":
        assert time.monotonic() < end
        time.sleep(0.5)
    jobs.drop(runs)
    while questions.jobs_of_user():
        assert time.monotonic() < end + 60
        time.sleep(0.5)
    assert jobs.states(runs)[key(run)].word == "interrupted"
    assert not store.result(key(run))
