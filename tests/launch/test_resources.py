"""What is said beforehand of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.launch import resources
from harness.launch.resources import COMPILE_STEPS, Resources, slow_bf16, steps_of
from harness.spec import Backbone, FineTune, ImageFolder, Knn, Pretrain, RandomMask, Recipe, Run, Shapes

VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 32, "depth": 2, "num_heads": 2}, patch_size=4)
RECIPE = Recipe(epochs=2, batch_size=16, lr=1e-3, precision="bf16")
FIRST = Pretrain(data=Shapes(), image_size=32, backbone=VIT, mask=RandomMask(size=8, ratio=0.5), recipe=RECIPE)
RUNS: list[Run] = [
    FIRST,
    FIRST.replace(seed=1),
    FIRST.replace(recipe=RECIPE.replace(precision="fp32")),
    Knn(start=FIRST),
]


@pytest.mark.parametrize(
    ("flags", "device", "gpus", "lines"),
    [
        ("flags : fpu avx512f avx512_bf16", "auto", [], 1),
        ("flags : fpu avx2", "auto", ["0"], 0),
        ("flags : fpu avx2", "cuda", [], 0),
        ("flags : fpu avx2", "auto", [], 1),
        ("flags : fpu avx2", "cpu", ["0"], 1),
        ("Features : asimd bf16", "cpu", [], 1),
        ("Features : asimd", "cpu", [], 1),
        (None, "cpu", [], 0),
    ],
)
def test_bf16_on_a_cpu_is_said(
    flags: str | None, device: str, gpus: list[str], lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = tmp_path / "cpuinfo"
    if flags is not None:
        facts.write_text(f"processor : 0\n{flags}\n")
    monkeypatch.setattr(resources, "CPU_FACTS", facts)
    said = slow_bf16(RUNS, device, lambda: gpus)
    assert len(said) == lines
    assert all(line.startswith("2 runs in bf16") for line in said)
    assert all(("no instructions" in line) == ("bf16" not in str(flags)) for line in said)
    assert slow_bf16(RUNS[2:], device, lambda: gpus) == []


def lasting(steps: int) -> Pretrain:
    """A pre-training of so many steps, of one epoch."""
    return FIRST.replace(data=Shapes(train=16 * steps + 3), recipe=RECIPE.replace(epochs=1))


def test_steps_are_whole_batches_times_epochs() -> None:
    assert steps_of(FIRST) == 2 * 256  # 4,096 images in batches of 16
    assert steps_of(lasting(100)) == 100
    assert steps_of(FIRST.replace(data=ImageFolder(name="somewhere"))) is None
    stated = FIRST.recipe.replace(steps=7)
    assert steps_of(FIRST.replace(recipe=stated)) == 7
    assert steps_of(FIRST.replace(recipe=stated, data=ImageFolder(name="somewhere"))) == 7


@pytest.mark.parametrize(
    ("said", "steps", "gpu", "deterministic", "compiled"),
    [
        ("auto", COMPILE_STEPS, True, False, True),
        ("auto", COMPILE_STEPS - 1, True, False, False),
        ("auto", COMPILE_STEPS, False, False, False),
        ("auto", COMPILE_STEPS, True, True, False),
        ("on", 1, False, True, True),
        ("off", COMPILE_STEPS, True, False, False),
    ],
)
def test_a_model_is_compiled_as_asked_for_else_where_it_pays(
    said: resources.Choice, steps: int, gpu: bool, deterministic: bool, compiled: bool
) -> None:
    asked = Resources(compile=said, deterministic=deterministic)
    assert asked.compiled(lasting(steps), gpu=gpu) is compiled
    tuned = FineTune(start=FIRST, data=Shapes(train=16 * steps), recipe=RECIPE.replace(epochs=1), image_size=32)
    assert asked.compiled(tuned, gpu=gpu) is compiled
    assert not asked.compiled(Knn(start=FIRST), gpu=gpu), "nothing is trained"


def test_a_folder_is_taken_to_be_large_enough_to_compile_for() -> None:
    assert Resources().compiled(FIRST.replace(data=ImageFolder(name="somewhere")), gpu=True)


@pytest.mark.parametrize(("said", "gpu", "captured"), [("on", True, True), ("on", False, False), ("off", True, False)])
def test_a_step_is_captured_as_asked_for_on_a_gpu(said: resources.Choice, gpu: bool, captured: bool) -> None:
    assert Resources(capture=said).captured(gpu=gpu) is captured
    assert Resources().captured(gpu=gpu) is (gpu and resources.CAPTURES)


def test_steps_capture_themselves_only_with_a_measurement_that_passed() -> None:
    measured = Path(__file__).resolve().parents[2] / "results" / "bench" / "gpu.json"
    assert measured.is_file() or not resources.CAPTURES
