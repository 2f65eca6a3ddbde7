"""`harness models`, `plan --describe`, and the lines on cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from test_commands import begin, evaluation, finish, first, plan, store

from harness.cli.launch.costs import cost_text, hours, model_lines, peak_lines, short, target_lines
from harness.launch.cost import Answer, Cost, ModelCost
from harness.spec import (
    Backbone,
    BinTarget,
    ClusterTarget,
    FineTune,
    HogTarget,
    Loss,
    PixelTarget,
    Pretrain,
    RandomMask,
    Recipe,
    Shapes,
)
from harness.spec.model.described import costed_models
from harness.store import Store
from harness.study import Plan

__all__ = ["plan", "store"]  # fixtures


def test_published_models_at_80_columns(harness: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.cli.common.console.width", 80)
    ended = harness("models")
    assert ended.code == 0
    assert max(map(len, ended.out.splitlines())) <= 80
    lines = [line.split() for line in ended.out.splitlines()]
    for row in (
        "simmim/swin-b-800e-224 224 87.77 M 15.47 G 84.0 800 + 100",
        "mmpretrain/swin-b-100e 192 89.87 M 11.30 G 100",
        "mmpretrain/swin-l-800e-224 224 196.85 M 38.85 G 84.8 800 + 100",
        "simmim/swin-t-100e 192 29.88 M 3.28 G 100*",
        "simmim/vit-b-800e-probe 224 85.67 M 11.76 G 56.7? 800 + 100",
        "a2mim/r50-300e-rsb-a2 224 25.56 M 4.09 G 80.4 300 + 300",
        "mae/vit-l-1600e-224 224 304.33 M 61.60 G 85.9 1600 + 50",
        "swin-base-w6_simmim-100e-pre_8xb256-coslr-100e_in1k-192px",
    ):
        assert row.split() in lines


def test_one_paper_and_one_model(harness: Command) -> None:
    found = harness("models", "mae").out
    assert found.startswith("MAE\n")
    assert "swin" not in found
    assert "facebookresearch/mae README.md and FINETUNE.md" in harness("models", "mae", "--wide").out
    found = harness("models", "simmim_swin-base-w6_8xb256-amp-coslr-100e_in1k-192px").out
    for words in (
        "mmpretrain/swin-b-100e", "11,303,940,096 at 192 px", "18,832,161,792 multiply-adds at 224 px",
        "pretrain 100 epochs at 192 px, 2,048 images a step, adamw, rate 0.0002 for 512, random mask, pixels, l1",
        "weights/simmim_swin-base_8xb256-amp-coslr-100e_in1k-192_20220829-0e15782d.pth",
    ):  # fmt: skip
        assert words in found
    ended = harness("models", "mae/vit-x")
    assert (ended.code, ended.err.count("\n")) == (2, 1)


def test_plan_counts_models_once_and_remembers(harness: Command, study: Path) -> None:
    assert "models" not in harness("plan", study).out
    counted = harness("plan", study, "--describe").out
    line = next(line for line in counted.splitlines() if "models" in line)
    assert "vit_tiny_patch16_224 at 16 px" in line
    assert "parameters" in line
    assert line in harness("plan", study).out.splitlines()


def test_the_memory_of_targets_by_hand() -> None:
    """SimMIM Table 5 at 192 px: an image of 256 bins is 192 * 192 * (2 * 768 * 4 + 3 * 8) bytes."""
    recipe = Recipe(epochs=1, batch_size=16, lr=1e-3)
    swin = Backbone(name="swin", patch_size=4, stride=32)
    common: dict[str, Any] = {"data": Shapes(), "image_size": 192, "backbone": swin, "recipe": recipe}
    runs = [
        Pretrain(mask=RandomMask(size=32, ratio=0.5), target=target, loss=loss, **common)
        for target, loss in (
            (PixelTarget(), Loss()),
            (BinTarget(bins=256), Loss(kind="cross-entropy")),
            (ClusterTarget(clusters=512, downsample=4), Loss(kind="cross-entropy")),
            (HogTarget(), Loss(kind="l2")),
        )
    ]
    sizes = (36864 * 6168, 48 * 48 * (2 * 512 * 4 + 8), 36864 * 36, 12 * 12 * 108 * 12)
    kinds = ("bins of 256 classes at 192 x 192", "clusters of 512 classes at 48 x 48", "pixels at 192 x 192")
    wanted = [
        f"{kind}: at least {short(size)}B an image for prediction, its gradient and target"
        for kind, size in zip((*kinds, "hog at 12 x 12"), sizes, strict=True)
    ]
    assert target_lines([*runs, runs[0].replace(seed=1), FineTune(start=runs[0], recipe=recipe)]) == wanted
    assert wanted[0].startswith("bins of 256 classes at 192 x 192: at least 227.38 MB")


def test_plan_describes_the_memory_of_the_bins_and_clusters(harness: Command, tmp_path: Path) -> None:
    """The arms of SimMIM Table 5, as they would be trained at the paper's size."""
    study = Path(__file__).resolve().parents[2] / "studies" / "simmim_target.py"
    ended = harness("plan", study, "--scale", "tiny", "--seeds", "1", "--describe", "--store", tmp_path)
    found = " ".join(ended.out.split())
    for kind in ("bins of 256 classes", "bins of 8 classes", "clusters of "):
        assert f"{kind}" in found
    assert "B an image for prediction, its gradient and target" in found


def test_plan_and_status_say_what_is_done_and_to_do(harness: Command, study: Path, plan: Plan, store: Store) -> None:
    assert "cost unknown until a run is done" in " ".join(harness("plan", study).out.split())
    finish(store, first(evaluation(plan, "random", 0.5, 0)))
    for command in ("plan", "status"):
        text = " ".join(harness(command, study).out.split())
        assert "cost 0.00028 hours done at least 0.00083 to do" in text
        assert "6 runs unknown until one of the kind is done" in text


def test_status_says_what_was_compiled_and_captured(harness: Command, study: Path, plan: Plan, store: Store) -> None:
    lamb = "the optimiser's rate is a number of the host (lamb)"
    noted: list[dict[str, Any]] = [
        {"compiled": True, "first_step_seconds": 31.4, "captured": True},
        {"compiled": True, "first_step_seconds": 88.6, "captured": False, "not captured": lamb},
        {},
    ]
    runs = [run for run in plan.runs().values() if isinstance(run, Pretrain)]
    for run, facts in zip(runs, noted, strict=False):
        attempt = begin(store, run)
        attempt.write_environment({"device": "NVIDIA H200"}, "")
        attempt.note(facts)
        attempt.finish({"loss": 1.0}, seconds=1.0, weights=b"weights")
        attempt.release()
    lines = harness("status", study).out.splitlines()
    begun = lines.index("  compiled  2 of 3 trainings: first step after 60 s, 0.033 h in all")
    assert lines[begun + 1 : begun + 3] == ["  captured  1 of 3 trainings", f"            1 not: {lamb}"]
    assert max(map(len, lines[begun : begun + 3])) <= 80


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (Cost(0.0, None, "2 runs unknown", unknown=2), "unknown until a run is done"),
        (
            Cost(3.14, 0.81, "from 20 finished runs on cpu", "cpu", 0.081),
            "3.1 CPU-hours done   0.81 to do   (from 20 finished runs on cpu, +-8 %)",
        ),
        (Cost(1234.5, 99.0, "", "NVIDIA H100"), "1,234 GPU-hours done   99.0 to do"),
        (Cost(1.0, 2.0, "x", unknown=1), "1 hours done   at least 2 to do   (x)"),
    ],
)
def test_cost_in_words(cost: Cost, text: str) -> None:
    assert cost_text(cost) == text


def test_numbers() -> None:
    assert [hours(value) for value in (0.0, 9.7e-5, 0.014, 12.34, 250.6)] == ["0.0", "0.000097", "0.014", "12.3", "251"]
    assert [short(value) for value in (999, 1_000, 89_874_104, 11_303_940_096)] == [
        "999 ",
        "1.00 k",
        "89.87 M",
        "11.30 G",
    ]


def test_models_that_were_not_counted(plan: Plan) -> None:
    some, other = costed_models(plan.runs())
    assert model_lines([Answer(some, None), Answer(other, None)]) == []
    found = model_lines([Answer(some, ModelCost(1_000, 2_000_000, 16_000, 500)), Answer(other, None)])
    assert found[0].endswith(
        "1.00 k parameters, 2.00 M multiply-adds an image, 16.00 kB of weights and optimiser state"
    )
    assert found[1] == "1 not counted yet; --describe counts them"
    assert model_lines([Answer(some, None, "timm refuses it")])[0].endswith("timm refuses it")


def test_peak_memory_by_hand(plan: Plan) -> None:
    """Weights and optimiser, an image's activations times the batch, halved in 16 bits, and the targets' part."""
    runs = plan.runs()
    answers = [Answer(model, ModelCost(1_000, 2_000_000, 16_000, 500)) for model in costed_models(runs)]
    run = next(run for run in runs.values() if isinstance(run, Pretrain))
    size = run.recipe.batch_size
    (line, note) = peak_lines([run], answers)
    whole = short(16_000 + 500 * size + run.target_memory)
    assert line.endswith(f", fp32: about {whole}B for a batch of {size}, 500 B an image of activations")
    assert "estimates" in note
    half = run.replace(recipe=run.recipe.replace(precision="bf16"))
    assert f"about {short(16_000 + 250 * size + run.target_memory)}B" in peak_lines([half], answers)[0]
    assert peak_lines([run], []) == []
