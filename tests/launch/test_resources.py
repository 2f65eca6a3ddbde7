"""What is said beforehand of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.launch import resources
from harness.launch.resources import slow_bf16
from harness.spec import Backbone, Knn, Pretrain, RandomMask, Recipe, Shapes

VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 32, "depth": 2, "num_heads": 2}, patch_size=4)
RECIPE = Recipe(epochs=2, batch_size=16, lr=1e-3, precision="bf16")
FIRST = Pretrain(data=Shapes(), image_size=32, backbone=VIT, mask=RandomMask(size=8, ratio=0.5), recipe=RECIPE)
RUNS = [FIRST, FIRST.replace(seed=1), FIRST.replace(recipe=RECIPE.replace(precision="fp32")), Knn(start=FIRST)]


@pytest.mark.parametrize(
    ("flags", "device", "gpus", "lines"),
    [
        ("flags : fpu avx512f avx512_bf16", "auto", [], 0),
        ("flags : fpu avx2", "auto", ["0"], 0),
        ("flags : fpu avx2", "cuda", [], 0),
        ("flags : fpu avx2", "auto", [], 1),
        ("flags : fpu avx2", "cpu", ["0"], 1),
        ("Features : asimd bf16", "cpu", [], 0),
        ("Features : asimd", "cpu", [], 1),
        (None, "cpu", [], 0),
    ],
)
def test_bf16_on_a_cpu_without_instructions_for_it_is_said(
    flags: str | None, device: str, gpus: list[str], lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = tmp_path / "cpuinfo"
    if flags is not None:
        facts.write_text(f"processor : 0\n{flags}\n")
    monkeypatch.setattr(resources, "CPU_FACTS", facts)
    said = slow_bf16(RUNS, device, lambda: gpus)
    assert len(said) == lines
    assert all(line.startswith("2 runs in bf16, for which this CPU has no instructions") for line in said)
    assert slow_bf16(RUNS[2:], device, lambda: gpus) == []
