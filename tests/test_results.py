"""The tidy table by itself: from a study or its file, at any scale, from any store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import harness
from harness.spec import HarnessError, key
from harness.spec.scale import Skip
from harness.store import Attempt, Store
from harness.study import load

STUDY = """
from harness import Backbone, FineTune, Recipe, Scale, Scratch, Shapes, Study, axes

SMALL = Scale(
    name="small", data=Shapes(image_size=32), image_size=32, backbone=Backbone(name="vit_tiny", patch_size=4),
    pretrain=Recipe(epochs=1, batch_size=8, lr=1e-3), finetune=Recipe(epochs=1, batch_size=8, lr=1e-3),
)


def cell(scale, lr, seed):
    start = Scratch(backbone=scale.backbone, image_size=scale.image_size)
    return {"top1": FineTune(start=start, data=scale.data, recipe=scale.finetune.replace(lr=lr), seed=seed)}


STUDY = Study(
    cell=cell, grid=axes(lr=(0.1, 0.2)), scales=(SMALL, SMALL.replace(name="large")), seeds=2, reference={"lr": 0.1}
)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "harness.toml").touch()
    path = tmp_path / "rates.py"
    path.write_text(STUDY)
    return path


def test_from_a_file_or_a_study_with_the_store_beside_it(file: Path) -> None:
    frame = harness.results_frame(file)
    assert list(frame[["lr", "seed", "state"]].itertuples(index=False, name=None)) == [
        (0.1, 0, "missing"), (0.1, 1, "missing"), (0.2, 0, "missing"), (0.2, 1, "missing"),
    ]  # fmt: skip
    store = Store(file.parent / "runs")
    study = load(file)
    runs = study.cell(study.scales[0], lr=0.2, seed=1)
    assert not isinstance(runs, Skip)
    attempt = store.acquire(runs["top1"])
    assert isinstance(attempt, Attempt)
    attempt.finish({"top1": 12.5}, seconds=1.0)
    attempt.release()
    frame = harness.results_frame(study, "small")
    assert list(frame["value"].dropna()) == [12.5]
    for other in (store, store.root, str(store.root)):
        pd.testing.assert_frame_equal(harness.results_frame(str(file), store=other), frame)
    assert harness.results_frame(file, store=file.parent / "elsewhere")["value"].isna().all()
    assert len(harness.results_frame(file, seeds=3)) == 6


def test_what_does_not_exist_is_one_line(file: Path) -> None:
    with pytest.raises(HarnessError, match="no scale 'huge'"):
        harness.results_frame(file, "huge")
    with pytest.raises(HarnessError, match="there is no study file"):
        harness.results_frame(file.parent / "nothing.py")


def test_a_run_that_is_refused_leaves_results_whose_weights_are_gone(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be computed again for what starts from them, which is not begun."""
    scratch = "Scratch(backbone=scale.backbone, image_size=scale.image_size)"
    masked = STUDY.replace(scratch, "simmim(scale, mask=RandomMask(size=8, ratio=0.5), seed=seed)")
    file.write_text(masked.replace("import ", "import RandomMask, simmim, ", 1))
    found = harness.results(file)
    start = found.run(lr=0.1)
    attempt = found.store.acquire(start)
    assert isinstance(attempt, Attempt)
    attempt.finish({"loss": 1.0}, 1.0, b"weights")
    attempt.release()
    weights = found.store.weights(key(start))
    assert weights is not None
    weights.unlink()

    def refuse(runs: object, store: Store) -> None:
        raise HarnessError("data set my-net is not here")

    monkeypatch.setattr("harness.api.check_runs", refuse)
    with pytest.raises(HarnessError, match="my-net is not here"):
        found.compute(on="inline")
    assert found.store.result(key(start)) is not None


def test_runs_in_this_process_have_no_slots(file: Path) -> None:
    with pytest.raises(HarnessError, match="--slots: runs in this process are computed one by one"):
        harness.results(file).compute(on="inline", slots=4)


def test_it_needs_no_torch(file: Path) -> None:
    code = f"import sys, harness; harness.results_frame({str(file)!r}); print({{'torch', 'timm'}} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "set()"
