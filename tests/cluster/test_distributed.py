"""One run in four processes on four nodes against one process."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster.slurm import Cluster
from cluster.waiting import wait, words

from harness.launch import Local, Resources, drive
from harness.launch.executor import overview
from harness.launch.site import Site, Stage
from harness.launch.slurm import questions
from harness.launch.slurm.submit import Slurm
from harness.spec import Backbone, Pretrain, RandomMask, Recipe, Run, Shapes, key
from harness.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def pretraining(epochs: int, seed: int = 0) -> Pretrain:
    """One step an epoch, so that every step's loss is in the metrics."""
    return Pretrain(
        data=Shapes(image_size=32, train=32, test=16),
        image_size=32,
        backbone=Backbone(
            name="vit_tiny_patch16_224", args={"embed_dim": 32, "depth": 2, "num_heads": 2}, patch_size=4
        ),
        mask=RandomMask(size=8, ratio=0.6),
        recipe=Recipe(epochs=epochs, batch_size=32, lr=1e-3, lr_batch=None, drop_path=0.1),
        seed=seed,
    )


def submit(runs: dict[str, Run], store: Store, project: Path) -> None:
    site: dict[Stage, Site] = {stage: Site(minutes=20, nodes=4) for stage in ("pretrain", "evaluation")}
    Slurm(store, "ddp", site, Resources(device="cpu"), project).submit(runs)


def test_four_nodes_against_one_process(empty_cluster: Cluster, tmp_path: Path) -> None:
    """Losses of 20 steps, and of 200 with a time limit's signal in between."""
    project, store, alone = tmp_path / "project", Store(tmp_path / "runs"), Store(tmp_path / "alone")
    for folder in (project, store.root, alone.root):
        folder.mkdir()
    (project / "harness.toml").touch()
    short, long = pretraining(20), pretraining(200, seed=1)
    runs: dict[str, Run] = {key(short): short, key(long): long}
    submit(runs, store, project)

    def at_work() -> bool:
        place = overview(runs, store).places[key(long)]
        return place.word == "running" and bool(place.state.progress)

    wait(at_work, 120)
    job = overview(runs, store).places[key(long)].job
    questions.ask("scancel", "--signal=USR2", job)
    wait(lambda: words(runs, store) == {"done": 2}, 180)
    assert len(store.folder(key(long)).attempts()) == 2
    assert store.environment(key(short))["processes"] == 4
    local = Local(alone, Resources(device="cpu"), 1)
    local.submit(runs)
    drive(local)
    for name, steps in ((key(short), 20), (key(long), 20)):
        ours, theirs = store.metrics(name)[:steps], alone.metrics(name)[:steps]
        assert [line["step"] for line in ours] == list(range(1, steps + 1))
        assert [line["loss"] for line in ours] == pytest.approx([line["loss"] for line in theirs], rel=1e-5)
    last = store.metrics(key(long))[-1], alone.metrics(key(long))[-1]
    assert last[0]["step"] == last[1]["step"] == 200
    assert last[0]["loss"] == pytest.approx(last[1]["loss"], rel=1e-2)
