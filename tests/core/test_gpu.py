"""On a GPU: precisions, resuming, processes, captured and compiled steps, and a host that does not wait.

Skipped where there is no GPU. HARNESS_GPU_TESTS=cpu runs what a CPU can run of it, to try the tests themselves out.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file
from tiny import BEIT, DATA, MAE, RECIPE, SWIN, pretrain
from torch._C._distributed_c10d import FileStore
from torch.nn.parallel import DistributedDataParallel

from harness.core.data.batches import training_batches
from harness.core.data.datasets import load
from harness.core.data.packing import pack
from harness.core.runtime.distributed import Group
from harness.core.runtime.session import Session
from harness.launch.job import work
from harness.launch.resources import Resources
from harness.runs import compute
from harness.spec import (
    Augment,
    BlockMask,
    FineTune,
    GuidedMask,
    ImageFolder,
    MomentumEncoder,
    Pretrain,
    Run,
    Scratch,
    key,
)
from harness.spec.data.datasets import planned_manifest
from harness.store import Attempt, Store

TRIED_ON_CPU = os.environ.get("HARNESS_GPU_TESTS") == "cpu"
pytestmark = pytest.mark.skipif(not (torch.cuda.is_available() or TRIED_ON_CPU), reason="needs a GPU")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = pytest.mark.skipif(DEVICE.type == "cpu", reason="needs a GPU")

SHORT = RECIPE.replace(epochs=2, batch_size=16, precision="fp32")
RUNS = {
    "vit": pretrain(recipe=SHORT.replace(drop_path=0.1)),
    "beit": pretrain(recipe=SHORT, backbone=BEIT),
    "swin": pretrain(recipe=SHORT, backbone=SWIN),
    "mae": pretrain(recipe=SHORT, **MAE),
    "blocks": pretrain(recipe=SHORT, mask=BlockMask(size=4, ratio=0.5)),
    "guided": pretrain(recipe=SHORT, mask=GuidedMask(size=8, ratio=0.5), momentum=MomentumEncoder()),
}


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_files_and_packs_arrive_whole_beside_the_steps(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied on another stream while a step runs: none is overwritten before it has been read."""
    draw = np.random.default_rng(0)
    for number in range(48):
        path = tmp_path / "pets" / "train" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (90, 80, 3), dtype=np.uint8)).save(path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HARNESS_DATA_PETS", str(tmp_path / "pets"))
    pack("pets", tmp_path / "pets.pack", side=64, decoder="pil", threads=1)

    def sums(device: torch.device, **how: Any) -> torch.Tensor:
        planned_manifest.cache_clear()
        source, busy, found = load(ImageFolder(name="pets", **how), "train"), torch.ones(1024, 1024, device=device), []
        batches = training_batches(
            source, Augment(), image_size=48, batch_size=16, seed=0, first_step=0, steps=30, device=device,
            workers=workers,
        )  # fmt: skip
        for batch in batches:
            if device.type == "cuda":
                for _ in range(20):
                    busy = busy @ busy / 1024  # the step, which runs on while the next batch is copied
            found.append(batch.images.double().sum((1, 2, 3)) + batch.labels)
        return torch.stack(found).cpu()

    torch.testing.assert_close(sums(DEVICE), sums(torch.device("cpu")), rtol=1e-6, atol=1e-3)
    monkeypatch.setenv("HARNESS_DATA_PETS", str(tmp_path / "pets.pack"))
    load.cache_clear()
    torch.testing.assert_close(sums(DEVICE), sums(torch.device("cpu")), rtol=1e-6, atol=1e-3)
    alone = sums(torch.device("cpu"))
    # A pixel in some hundred is rounded the other way, by 1 of 255.
    torch.testing.assert_close(sums(DEVICE, crops="batch"), alone, rtol=1e-3, atol=20.0)


def computed(run: Run, folder: Path, **options: Any) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Metrics lines without times, and weights, of a run computed on the device.

    options: fields of the session, or deterministic=True for only deterministic algorithms.
    """
    deterministic = options.pop("deterministic", False)
    store = Store(folder)
    attempt = store.acquire(run)
    assert isinstance(attempt, Attempt)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=deterministic)
    try:
        compute(run, Session(attempt, DEVICE, **options))
    finally:
        torch.use_deterministic_algorithms(mode=before)
        attempt.release()
    times = {"seconds", "images_per_second"}
    lines = [{name: value for name, value in line.items() if name not in times} for line in store.metrics(key(run))]
    weights = store.weights(key(run))
    assert weights is not None
    return lines, load_file(weights)


def option(name: str) -> pytest.MarkDecorator:
    """Skips the test where sessions have no such option."""
    known = {field.name for field in dataclasses.fields(Session)}
    return pytest.mark.skipif(name not in known, reason=f"sessions have no {name}")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that differ in any bit."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.fixture(autouse=True)
def _deterministic_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=ON_GPU), pytest.param("tf32", marks=ON_GPU)])
@pytest.mark.parametrize("name", ["vit", "swin"])
def test_a_lower_precision_learns_as_fp32_does(name: str, precision: str, tmp_path: Path) -> None:
    run = RUNS[name]
    expected, _ = computed(run, tmp_path / "fp32")
    assert isinstance(run, Pretrain)
    found, _ = computed(run.replace(recipe=run.recipe.replace(precision=precision)), tmp_path / precision)
    for one, other in zip(expected, found, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.05)


@ON_GPU
def test_a_gpu_learns_as_a_cpu_does(tmp_path: Path) -> None:
    lines, _ = computed(RUNS["vit"], tmp_path / "gpu")
    store = Store(tmp_path / "cpu")
    work(store, RUNS["vit"], torch.device("cpu"), Resources(), report=lambda event: None)
    for one, other in zip(lines, store.metrics(key(RUNS["vit"])), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_repeats_to_the_bit_with_deterministic_algorithms(name: str, tmp_path: Path) -> None:
    first = computed(RUNS[name], tmp_path / "1", deterministic=True)
    second = computed(RUNS[name], tmp_path / "2", deterministic=True)
    assert first[0] == second[0]
    assert not equal(first[1], second[1])


def stopping_after(steps: int) -> Callable[[], bool]:
    done = 0

    def stop() -> bool:
        nonlocal done
        done += 1
        return done == steps

    return stop


@pytest.mark.parametrize("name", ["vit", "guided"])
@pytest.mark.parametrize(
    "extra", [{}, pytest.param({"capture": True}, marks=option("capture"))], ids=["eager", "captured"]
)
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(name: str, extra: dict[str, Any], tmp_path: Path) -> None:
    run = RUNS[name]
    _, whole = computed(run, tmp_path / "whole", deterministic=True, **extra)
    with pytest.raises(Exception, match="stopped at step 3"):
        computed(run, tmp_path / "parts", deterministic=True, stopping=stopping_after(3), **extra)
    _, resumed = computed(run, tmp_path / "parts", deterministic=True, **extra)
    assert not equal(whole, resumed)


def test_fine_tuning_is_computed(tmp_path: Path) -> None:
    tuned = FineTune(start=Scratch(backbone=SWIN, image_size=32), data=DATA, recipe=SHORT, image_size=32)
    lines, _ = computed(tuned, tmp_path)
    assert 0 <= lines[-1]["test_top1"] <= 100


@pytest.mark.parametrize("name", RUNS)
@option("capture")
@ON_GPU
def test_a_captured_step_equals_an_eager_one_to_the_bit(name: str, tmp_path: Path) -> None:
    eager, captured = (
        computed(RUNS[name], tmp_path / str(capture), deterministic=True, capture=capture) for capture in (False, True)
    )
    assert eager[0] == captured[0]
    assert not equal(eager[1], captured[1])


@ON_GPU
@pytest.mark.parametrize("name", RUNS)
def test_the_host_waits_only_where_a_line_is_written(name: str, tmp_path: Path) -> None:
    run = RUNS[name]
    assert isinstance(run, Pretrain)
    run = run.replace(data=DATA.replace(train=16 * 8), recipe=run.recipe.replace(epochs=1))
    done = 0

    def strict() -> bool:
        nonlocal done
        done += 1
        # Between steps 2 and 7 of 8 the host must not wait; a line follows the last.
        torch.cuda.set_sync_debug_mode("error" if 2 <= done < 7 else "default")
        return False

    try:
        computed(run, tmp_path, stopping=strict)
    finally:
        torch.cuda.set_sync_debug_mode("default")


class OfOne(Group):
    """A group of one rank that replicates its model as larger ones do."""

    def replicate(self, model: torch.nn.Module, *, may_skip: bool = False) -> torch.nn.Module:
        return DistributedDataParallel(model, find_unused_parameters=may_skip)


def test_distributed_data_parallel_on_one_device_computes_what_a_process_alone_does(tmp_path: Path) -> None:
    options = {"deterministic": True, "micro_batch": 4}
    alone, weights = computed(RUNS["vit"], tmp_path / "alone", **options)
    meeting = FileStore(str(tmp_path / "meeting"), 1)
    dist.init_process_group("nccl" if DEVICE.type == "cuda" else "gloo", store=meeting, rank=0, world_size=1)
    try:
        lines, joined = computed(RUNS["vit"], tmp_path / "joined", group=OfOne(), **options)
    finally:
        dist.destroy_process_group()
    assert lines == alone
    assert not equal(weights, joined)


@pytest.mark.parametrize("name", ["vit", "swin"])
@option("compile")
@ON_GPU
def test_a_compiled_model_learns_as_an_eager_one_does(name: str, tmp_path: Path) -> None:
    eager, _ = computed(RUNS[name], tmp_path / "eager")
    compiled, _ = computed(RUNS[name], tmp_path / "compiled", compile=True)
    for one, other in zip(eager, compiled, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.01)
