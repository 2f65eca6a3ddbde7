"""Analyses as runs: what they publish, how they go on after a stop, and what must not change their numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.analysis.fourier import relative_log_amplitude
from harness.core.data.datasets import load
from harness.launch import Event, Local, Queue, Resources, drive
from harness.launch.job import work
from harness.spec import (
    Analysis,
    Backbone,
    FineTune,
    Fourier,
    Interactions,
    Occlusion,
    Pretrain,
    RandomMask,
    Recipe,
    RgbStatistics,
    Run,
    Scratch,
    Shapes,
    key,
)
from harness.store import Store

DATA = Shapes(image_size=16, train=64, test=48)
VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 16, "depth": 2, "num_heads": 2}, patch_size=4)
RECIPE = Recipe(epochs=1, batch_size=16, lr=1e-3, lr_batch=None)
PRETRAIN = Pretrain(data=DATA, image_size=16, backbone=VIT, mask=RandomMask(size=4, ratio=0.5), recipe=RECIPE)
TUNED = FineTune(start=PRETRAIN, recipe=RECIPE.replace(epochs=2, precision="bf16"), crop=1.0)
INTERACTIONS = Interactions(
    start=TUNED, images=3, grid=4, orders=(0.0, 0.25, 0.5, 1.0), pairs=5, contexts=6, band=(0.2, 0.6)
)
OCCLUSION = Occlusion(start=TUNED, size=4, ratios=(0.0, 0.3, 0.6, 1.0), draws=3)
FOURIER = Fourier(start=PRETRAIN, images=40)
RGB = RgbStatistics(start=PRETRAIN, images=40, masks=2, bins=8)
ANALYSES: list[Analysis] = [INTERACTIONS, OCCLUSION, FOURIER, FOURIER.replace(start=TUNED), RGB]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store where the starts are done."""
    found = Store(tmp_path_factory.mktemp("analyses") / "runs")
    for run in (PRETRAIN, TUNED):
        assert computed(found, run).kind == "done"
    return found


@pytest.fixture
def fresh(store: Store, tmp_path: Path) -> Store:
    """A store of its own with the same starts."""
    root = tmp_path / "runs"
    root.mkdir()
    for run in (PRETRAIN, TUNED):
        (root / key(run)).symlink_to(store.root / key(run))
    return Store(root)


def computed(store: Store, run: Run, stopping: Callable[[], bool] = lambda: False, **resources: Any) -> Event:
    torch.set_num_threads(1)
    settings = Resources(**{"device": "cpu", "checkpoint_seconds": 1e6, **resources})
    return work(store, run, torch.device("cpu"), settings, report=lambda event: None, stopping=stopping)


def metrics(store: Store, run: Run) -> dict[str, float]:
    result = store.result(key(run))
    assert result is not None, store.state(key(run))
    return result.metrics


def arrays(store: Store, run: Run) -> dict[str, Any]:
    attempt = store.final_attempt(key(run))
    assert attempt is not None
    with np.load(attempt.artefacts / "analysis.npz", allow_pickle=False) as found:
        return dict(found)


@pytest.mark.parametrize("run", ANALYSES, ids=lambda run: f"{run.kind} of {run.start.kind}")
def test_metrics_and_arrays_of_each(store: Store, run: Analysis) -> None:
    assert computed(store, run).kind == "done"
    found = metrics(store, run)
    assert set(run.metrics) <= set(found)
    assert all(np.isfinite(value) for value in found.values())
    assert arrays(store, run)
    assert store.metrics(key(run))[-1]["step"] == store.metrics(key(run))[-1]["steps"]


@pytest.mark.parametrize("run", [INTERACTIONS, OCCLUSION, FOURIER, RGB], ids=lambda run: run.kind)
def test_stopping_and_slices_change_nothing(store: Store, fresh: Store, run: Analysis) -> None:
    """Stopped after its first part, gone on with, and in smaller batches."""
    computed(store, run)
    assert computed(fresh, run, stopping=lambda: True, micro_batch=16).kind == "interrupted"
    assert [file.step for file in fresh.folder(key(run)).attempt(1).checkpoints()] == [1]
    assert computed(fresh, run, micro_batch=16).kind == "done"
    steps = [line["step"] for line in fresh.metrics(key(run))]
    assert steps == list(range(1, steps[-1] + 1))
    ours, theirs = metrics(fresh, run), metrics(store, run)
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    for name, array in arrays(store, run).items():
        if array.dtype.kind != "U":
            np.testing.assert_allclose(arrays(fresh, run)[name], array, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("other", [15, 32])
@pytest.mark.parametrize("run", [OCCLUSION, FOURIER, RGB], ids=lambda run: run.kind)
def test_going_on_in_batches_of_another_size_counts_every_image_once(
    store: Store, fresh: Store, run: Analysis, other: int
) -> None:
    """Batches of 16 and 15 are three each, so that their arrays have one shape; of 32 they are two."""
    computed(store, run)
    assert computed(fresh, run, stopping=lambda: True, micro_batch=16).kind == "interrupted"
    assert computed(fresh, run, micro_batch=other).kind == "done"
    assert metrics(fresh, run) == pytest.approx(metrics(store, run), rel=1e-4, abs=1e-6)


def test_a_checkpoint_holds_the_metrics_lines(fresh: Store) -> None:
    """On a network disk the file of an attempt that was just interrupted may read as old or empty."""
    assert computed(fresh, RGB, stopping=lambda: True, micro_batch=16).kind == "interrupted"
    fresh.folder(key(RGB)).attempt(1).metrics.write_text("")
    assert computed(fresh, RGB, micro_batch=16).kind == "done"
    assert [line["step"] for line in fresh.metrics(key(RGB))] == [1, 2, 3]


def test_the_ends_of_the_occlusion_curve(store: Store) -> None:
    computed(store, OCCLUSION)
    found, curves = metrics(store, OCCLUSION), arrays(store, OCCLUSION)
    assert found["random(0)"] == found["salient(0)"] == found["nonsalient(0)"] == metrics(store, TUNED)["top1"]
    shares = 100 * torch.bincount(load(DATA, "test").labels).double() / 48
    assert min(abs(shares - found["random(1)"])) < 1e-9  # of one class
    assert found["random(1)"] == pytest.approx(found["salient(1)"])
    curve = curves["random"].mean(axis=1)
    area = (curve[0] + curve[1]) / 2 * 0.3 + (curve[1] + curve[2]) / 2 * 0.3 + (curve[2] + curve[3]) / 2 * 0.4
    assert found["area_random"] == pytest.approx(area)


def test_masked_inputs_need_no_weights(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    queue = Queue({key(RGB): RGB}, store)
    assert queue.take() == key(RGB)
    assert computed(store, RGB).kind == "done"
    found = metrics(store, RGB)
    assert found["mean_shift"] == found["mean_shift(none)"] == 0.0  # SimMIM leaves the pixels to the mask token
    assert found["mean_shift(image-mean)"] < found["mean_shift(mean)"] < found["mean_shift(zero)"]
    assert found["variance_ratio(none)"] == 1.0 > found["variance_ratio(visible-mean)"]
    shares = arrays(store, RGB)["histogram"].sum(axis=2)
    np.testing.assert_allclose(shares, 1.0)


def test_a_model_that_was_never_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, seen = Store(tmp_path / "runs"), list[torch.Tensor]()

    def of_each_image(features: torch.Tensor) -> torch.Tensor:
        seen.append(relative_log_amplitude(features))
        return seen[-1]

    monkeypatch.setattr("harness.analysis.fourier.relative_log_amplitude", of_each_image)
    run = Fourier(start=Scratch(backbone=VIT, image_size=16), data=DATA, images=8)
    assert computed(store, run).kind == "done"
    found = arrays(store, run)
    assert found["names"].tolist() == ["attention 1", "MLP 1", "attention 2", "MLP 2"]
    assert found["amplitude"].shape == (4, 2)
    assert (found["amplitude"][:, 0] == 0).all()
    images = torch.stack(seen).double()  # layers, images, frequencies
    np.testing.assert_allclose(found["amplitude"], images.mean(1), rtol=1e-5)
    np.testing.assert_allclose(found["error"], images.std(1, correction=1) / 8**0.5, rtol=1e-4, atol=1e-7)


def test_an_analysis_of_what_is_not_done_fails_in_words(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    ended = computed(store, OCCLUSION)
    assert ended.kind == "failed"
    assert f"{key(TUNED)}, which this run starts from, has no weights in the store" in ended.text


@pytest.mark.slow
def test_two_processes_find_the_same(store: Store, fresh: Store) -> None:
    runs: list[Analysis] = [INTERACTIONS, OCCLUSION, FOURIER, RGB]
    for run in runs:
        computed(store, run, micro_batch=16)
    for first in (PRETRAIN, TUNED):
        assert fresh.weights(key(first)) is not None
    pair = Resources(device="cpu", processes=2, micro_batch=16, checkpoint_seconds=0.0)
    local = Local(fresh, pair, 1)
    local.submit({key(run): run for run in runs})
    drive(local)
    assert set(local.queue.endings.values()) == {"done"}, [fresh.state(key(run)).error for run in runs]
    for run in runs:
        assert metrics(fresh, run) == pytest.approx(metrics(store, run), rel=1e-3, abs=1e-5)


def test_a_cnn_that_is_tested_at_another_size(tmp_path: Path) -> None:
    """Trained at 32 px and tested at 64, as RSB A3 does at 160 and 224: the analyses see what the test saw."""
    store = Store(tmp_path / "runs")
    resnet = Backbone(name="resnet18", args={"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}, patch_size=4, stride=32)
    tuned = FineTune(start=Scratch(backbone=resnet, image_size=32), data=DATA, recipe=RECIPE, crop=1.0, test_size=64)
    dropped = Occlusion(start=tuned, size=16, ratios=(0.0, 1.0), draws=1)
    spectra = Fourier(start=tuned, images=8)
    assert (dropped.image_size, spectra.image_size) == (64, 64)
    for run in (tuned, dropped, spectra):
        assert computed(store, run).kind == "done", store.state(key(run)).error
    assert metrics(store, dropped)["random(0)"] == metrics(store, tuned)["top1"]
    found = arrays(store, spectra)
    assert found["sides"].tolist() == [16, 16, 8, 4, 2]
    # A side of 2 has frequency zero alone: that map is in no amplitude, and in the variance.
    highest = [row[side // 2 - 1] for row, side in zip(found["amplitude"], (16, 16, 8, 4), strict=False)]
    assert metrics(store, spectra)["high_frequency"] == pytest.approx(sum(highest) / 4)
    assert metrics(store, spectra)["high_frequency_last"] == pytest.approx(highest[3]) != 0
    assert metrics(store, spectra)["variance_last"] == pytest.approx(found["variance"][4])


def test_spectra_of_one_image_have_no_error_and_small_maps_none(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    one = Fourier(start=Scratch(backbone=VIT, image_size=16), data=DATA, images=1)
    assert computed(store, one).kind == "done"
    assert np.isnan(arrays(store, one)["error"]).all()
    large = VIT.replace(patch_size=8)
    tiny = Fourier(start=Scratch(backbone=large, image_size=16), data=DATA, images=1)
    assert "no feature map of 16 px has a frequency besides zero" in computed(store, tiny).text
