"""Trainings on a real cluster: whatever happens to their jobs, results equal the undisturbed ones bit for bit."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.slurm import Cluster
from cluster.waiting import wait, words

from harness.launch.executor import overview
from harness.launch.slurm import questions
from harness.spec import Run
from harness.store import Store, open_store
from harness.study import expand, load

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
TIMES = ("seconds", "images_per_second")

STUDY = '''"""Two ratios, three seeds: long enough to be disturbed."""

from harness import Augment, Backbone, FineTune, RandomMask, Recipe, Scale, Shapes, Study, axes, simmim

VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 32, "depth": 2, "num_heads": 2}, patch_size=4)
PRETRAIN = Recipe(epochs=40, batch_size=16, lr=1e-3, lr_batch=None, drop_path=0.2)
FINETUNE = Recipe(
    epochs=40, batch_size=16, lr=1e-3, lr_batch=None, layer_decay=0.8, augment=Augment(mixup=0.8, cutmix=1.0)
)
SCALE = Scale(
    name="small", data=Shapes(image_size=32, train=128, test=32), image_size=32, backbone=VIT,
    pretrain=PRETRAIN, finetune=FINETUNE,
)


def cell(scale, mask_ratio, seed):
    start = simmim(scale, mask=RandomMask(size=8, ratio=mask_ratio), seed=seed)
    return {"top1": FineTune(start=start, data=scale.data, recipe=scale.finetune, tested_epochs=1, seed=seed)}


STUDY = Study(cell=cell, grid=axes(mask_ratio=(0.4, 0.6)), scales=(SCALE,), seeds=3, reference={"mask_ratio": 0.6})
'''


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study in a project with a site profile."""
    (tmp_path / "harness.toml").write_text('[slurm]\nminutes = 30\nsetup = ["export HARNESS_HEARTBEAT_LIMIT=15"]\n')
    path = tmp_path / "study.py"
    path.write_text(STUDY)
    return path


def command(*words: str, check: bool = True) -> str:
    done = subprocess.run([sys.executable, "-m", "harness.cli", *words], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def runs_of(study: Path, store: Path | None = None) -> tuple[dict[str, Run], Store]:
    loaded = load(study)
    return expand(loaded, scale=None, where={}, seeds=None).runs(), open_store(store, loaded.root)


def outcome(store: Store, name: str) -> Any:
    """Everything of a finished run that must be equal bit for bit."""
    result = store.result(name)
    assert result is not None, store.state(name)
    lines = [{field: value for field, value in line.items() if field not in TIMES} for line in store.metrics(name)]
    return result.metrics, result.weights, lines


def jobs_at_work() -> Iterator[tuple[str, str]]:
    for line in questions.ask("squeue", "-h", "-r", "-t", "R", "-o", "%i %N").splitlines():
        job, _, node = line.partition(" ")
        yield job, node


def test_disturbed_runs_equal_undisturbed_ones(empty_cluster: Cluster, study: Path, tmp_path: Path) -> None:
    """Five requeues, three scancels with retry, a node and the controller restarted, two submitters at once."""
    both = [
        subprocess.Popen([sys.executable, "-m", "harness.cli", "run", str(study), "--on", "slurm"]) for _ in range(2)
    ]
    assert [process.wait(60) for process in both] == [0, 0]
    runs, store = runs_of(study)
    assert len(questions.ask("squeue", "-h", "-r", "-o", "%i").splitlines()) == 12

    def begun() -> list[tuple[str, str]]:
        """Jobs whose run has reached a checkpoint or at least a metrics line."""
        places = overview(runs, store).places.values()
        ready = {p.job for p in places if p.job and p.word == "running" and p.state.progress}
        return [job for job in jobs_at_work() if job[0] in ready]

    for round_ in range(5):
        job, _ = wait(begun, 90)[0]
        if round_ % 2:
            questions.ask("scontrol", "requeue", job)  # TERM, then KILL: as Slurm pre-empts
        else:
            questions.ask("scancel", "--signal=USR2", job)  # as before the time limit: it saves and requeues itself
        time.sleep(1)
    _, node = wait(begun, 90)[0]
    empty_cluster.kill_node(node)
    empty_cluster.start_node(node)
    for _ in range(3):
        job, _ = wait(begun, 90)[0]
        questions.ask("scancel", job)
        time.sleep(1)
    wait(lambda: words(runs, store)["cancelled"] >= 1, 30)
    empty_cluster.restart_controller()
    for _ in range(6):
        command("retry", str(study), "--on", "slurm")
        wait(lambda: not (words(runs, store)["queued"] or words(runs, store)["running"]), 300)
        if words(runs, store) == {"done": 12}:
            break
    assert words(runs, store) == {"done": 12}
    command("run", str(study), "--on", "local", "--slots", "2", "--store", str(tmp_path / "undisturbed"))
    _, quiet = runs_of(study, tmp_path / "undisturbed")
    for name in runs:
        assert outcome(store, name) == outcome(quiet, name)
        assert len(list(store.folder(name).path.glob("result*.json"))) == 1


def test_frozen_code_a_preempted_job_and_the_same_table(empty_cluster: Cluster, study: Path, tmp_path: Path) -> None:
    """Edits after submission change nothing; a job that is pre-empted goes on where it was."""
    command("run", str(study), "--on", "slurm", "--seeds", "1")
    runs, store = runs_of(study)
    mine = {name: run for name, run in runs.items() if run.seed == 0}
    for copy in (store.root / ".snapshots").glob("*/project/study.py"):
        assert copy.read_text() == study.read_text()
    wait(lambda: any(p.word == "running" and p.state.progress for p in overview(mine, store).places.values()), 90)
    urgent = ("sbatch", "--parsable", "-p", "urgent", "-N4", "--exclusive", "-o", "/dev/null", "--wrap=sleep 2")
    questions.ask(*urgent)
    wait(lambda: words(mine, store) == {"done": 4}, 240)
    assert max(len(store.folder(name).attempts()) for name in mine) >= 2
    command("run", str(study), "--on", "local", "--slots", "2", "--seeds", "1", "--store", str(tmp_path / "quiet"))
    _, quiet = runs_of(study, tmp_path / "quiet")
    for name in mine:
        assert outcome(store, name) == outcome(quiet, name)
    command("report", str(study), "--seeds", "1", "--out", str(tmp_path / "a"))
    command("report", str(study), "--seeds", "1", "--out", str(tmp_path / "b"), "--store", str(tmp_path / "quiet"))
    for name in ("table.md", "table.csv", "table.tex"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
