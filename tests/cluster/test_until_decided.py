"""The coordinator of `harness run --until-decided` on a real cluster, stopped while it waits and begun again."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from cluster import sleeper

from harness import claims
from harness.api import results
from harness.cli.launch import run as command
from harness.launch import Resources
from harness.launch.executor import Submitted
from harness.launch.site import Site, Stage
from harness.launch.slurm.submit import Slurm
from harness.spec import Knn, Recipe, Scale, Scratch
from harness.store import Store
from harness.study import Study, axes, expand

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("empty_cluster")]
RECIPE = Recipe(epochs=1, batch_size=16, lr=1e-3)
SCALE = Scale(name="tiny", data=sleeper.DATA, image_size=16, backbone=sleeper.VIT, pretrain=RECIPE, finetune=RECIPE)


def cell(scale: Scale, k: int, seed: int) -> dict[str, Knn]:
    """Evaluations that a program which only sleeps can compute; both have the seed as their result."""
    return {"knn": Knn(start=Scratch(backbone=scale.backbone, image_size=16), data=scale.data, k=k, seed=seed)}


STUDY = Study(
    cell=cell,
    grid=axes(k=(5, 10, 20)),
    scales=(SCALE,),
    reference={"k": 20},
    seeds=2,
    looks=(2, 3, 5),
    claims=(claims.better("20 beats 5", {"k": 20}, {"k": 5}),),
    name="neighbours",
)


def test_a_coordinator_stops_and_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, store = tmp_path / "project", Store(tmp_path / "runs")
    project.mkdir()
    store.root.mkdir()
    (project / "harness.toml").touch()
    shutil.copy(sleeper.__file__, project)
    sleeper.take(store, 2.0)
    asked: list[int] = []

    class Counted(Slurm):
        def submit(self, runs: Any, *, retry: bool = False) -> Submitted:
            asked.append(len(runs))
            return super().submit(runs, retry=retry)

    def wait(seconds: float) -> None:
        if len(asked) == 2 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        asleep(seconds)

    stopped: list[bool] = []
    asleep = time.sleep
    monkeypatch.setattr(command, "POLL_SECONDS", 0.5)
    monkeypatch.setattr(time, "sleep", wait)
    site: dict[Stage, Site] = {stage: Site(minutes=20) for stage in ("pretrain", "evaluation")}
    found, where = results(STUDY, store=store), Counted(store, "one", site, Resources(device="cpu"), project, "sleeper")
    with pytest.raises(KeyboardInterrupt):
        command.follow(found, command.on_cluster(where))
    command.follow(found, command.on_cluster(where))
    # 3 cells of 2 seeds; then a third seed, and two more, of the two cells that are compared.
    assert asked[:2] == [6, 8]
    assert asked[-1] == 12
    runs = expand(STUDY, seeds=5).runs()
    attempts = {name: len(store.folder(name).attempts()) for name in runs if store.result(name)}
    assert len(attempts) == 12
    assert set(attempts.values()) == {1}
