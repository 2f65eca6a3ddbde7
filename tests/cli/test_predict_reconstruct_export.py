"""`harness predict`, `reconstruct` and `export` on a study that was run here."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FILE, Command, Ended
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from timm.data.config import resolve_model_data_config

from harness import use
from harness.store import Store

ONE = "--where", "mask=random", "--where", "ratio=0.5", "--seeds", "1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the study of two ratios, and pictures."""
    made = tmp_path_factory.mktemp("using")
    (made / "studies").mkdir()
    (made / "harness.toml").touch()
    (made / "studies" / "ratios.py").write_text(FILE)
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for folder in ("a", "b"):
        (made / folder).mkdir()
        Image.fromarray(noise).save(made / folder / "photo.png")
    return made


@pytest.fixture
def ran(root: Path, harness: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That project, its first cell computed once, as the current folder."""
    monkeypatch.chdir(root)
    torch.set_num_threads(1)
    ended = harness("run", "studies/ratios.py", *ONE, "--on", "inline", "--device", "cpu")
    assert ended.code == 0, ended.err
    return root


def key_of(root: Path, kind: str) -> str:
    return next(name for name in Store(root / "runs").keys() if name.startswith(kind))  # noqa: SIM118


def one_line(ended: Ended, *words: str) -> None:
    assert ended.code == 2
    assert ended.err.startswith("harness: ")
    assert ended.err.count("\n") == 1
    for word in words:
        assert word in ended.err


def test_predict_prints_a_line_a_picture(ran: Path, harness: Command) -> None:
    ended = harness("predict", key_of(ran, "finetune"), "a/photo.png", "b/photo.png")
    assert ended.code == 0, ended.err
    first, second = ended.out.splitlines()
    assert first.startswith("a/photo.png   ")
    assert second.startswith("b/photo.png   ")
    assert first.count("%") == 5


def test_predict_as_json_is_read_by_a_program(ran: Path, harness: Command) -> None:
    named = harness("predict", key_of(ran, "finetune")[:12], "a/photo.png", "--json")
    selected = harness("predict", "studies/ratios.py", "a/photo.png", "--json", *ONE)
    assert named.out == selected.out
    (found,) = json.loads(named.out)
    assert set(found) == {"image", "pred_label", "pred_score", "pred_class", "top5", "pred_scores"}
    assert sum(found["pred_scores"]) == pytest.approx(1, abs=1e-5)
    assert found["pred_score"] == max(found["pred_scores"]) == found["top5"][0]["score"]
    assert found["pred_class"] in ("circle", "square", "triangle", "diamond", "cross", "ring")


def test_reconstruct_writes_a_picture_for_each(ran: Path, harness: Command) -> None:
    ended = harness("reconstruct", "studies/ratios.py", "a/photo.png", "b/photo.png", "--out", "seen", *ONE)
    assert ended.code == 0, ended.err
    names = ["photo-2-reconstruction.png", "photo-reconstruction.png"]
    assert sorted(path.name for path in (ran / "seen").iterdir()) == names
    with Image.open(ran / "seen" / names[0]) as image:
        assert image.width > 4 * 224


def test_reconstruct_takes_another_mask(ran: Path, harness: Command) -> None:
    key = key_of(ran, "pretrain")
    files = {}
    for name, options in {
        "own": (),
        "same": ("--mask", "random", "--size", 4, "--ratio", 0.5, "--seed", 0),
        "more": ("--ratio", 0.75),
        "large": ("--mask", "random", "--size", 8),
        "seed": ("--seed", 5),
    }.items():
        ended = harness("reconstruct", key, "a/photo.png", "--out", name, *options)
        assert ended.code == 0, ended.err
        files[name] = (ran / name / "photo-reconstruction.png").read_bytes()
    assert files["own"] == files["same"]
    assert len(set(files.values())) == 4


def test_export_writes_what_its_line_loads(ran: Path, harness: Command) -> None:
    ended = harness("export", "studies/ratios.py", "e.safetensors", "--kind", "pretrain", *ONE)
    assert ended.code == 0, ended.err
    call = ended.out.splitlines()[-1]
    assert f"({Path('e.safetensors').stat().st_size / 1000:.0f} kB)" in ended.out  # the disk's bytes, rounded
    assert call.startswith("timm.create_model('vit_tiny_patch16_224', pretrained=False, checkpoint_path=")
    import timm

    model = eval(call, {"timm": timm})
    weights = load_file("e.safetensors")
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == {
        name: tuple(tensor.shape) for name, tensor in weights.items()
    }
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    with safe_open("e.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["facts"])
    assert resolve_model_data_config(model) == {
        "input_size": (3, 16, 16),
        "mean": tuple(facts["mean"]),
        "std": tuple(facts["std"]),
        "crop_pct": 0.875,
        "crop_mode": "center",
        "interpolation": "bicubic",
    }


def test_what_cannot_be_is_one_line(ran: Path, harness: Command) -> None:
    pretrain, finetune = key_of(ran, "pretrain"), key_of(ran, "finetune")
    one_line(harness("predict", pretrain, "a/photo.png"), pretrain, "knows no classes")
    one_line(harness("reconstruct", finetune, "a/photo.png"), finetune, "predicts no pixels")
    one_line(harness("reconstruct", finetune, "a/photo.png", "--ratio", 0.5), finetune, "predicts no pixels")
    one_line(harness("predict", "finetune-zz", "a/photo.png"), "names no run")
    one_line(harness("predict", finetune, "none.png"), "cannot read none.png")
    one_line(harness("predict", finetune, "harness.toml"), "harness.toml as a picture")
    one_line(harness("reconstruct", pretrain, "a/photo.png", "--mask", "spiral"), "valid: ", "random")
    one_line(harness("reconstruct", pretrain, "a/photo.png", "--size", 3), "multiple")
    one_line(harness("reconstruct", pretrain, "a/photo.png", "--ratio", 2), "ratio")
    one_line(harness("export", pretrain, "e.bin"), ".safetensors")
    one_line(harness("export", pretrain, "e.pth", "--format", "official"), "VisionTransformer")
    one_line(harness("predict", finetune, "a/photo.png", "--where", "ratio=0.5"), "name a study's file")
    one_line(
        harness("export", "studies/ratios.py", "e.safetensors", *ONE), "2 runs are done", pretrain, finetune, "--kind"
    )
    one_line(harness("predict", "studies/ratios.py", "a/photo.png", "--where", "ratio=0.75"), "is done")


def test_weights_that_were_cleaned_are_one_line(root: Path, ran: Path, harness: Command) -> None:
    assert harness("clean", "studies/ratios.py", *ONE, "--weights", "--yes").code == 0
    try:
        one_line(harness("reconstruct", key_of(ran, "pretrain"), "a/photo.png"), "were cleaned away")
    finally:  # the next test computes them again
        shutil.rmtree(root / "runs")


def test_the_store_of_the_profile_is_used(
    ran: Path, harness: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HARNESS_PROJECT", raising=False)  # that of a study loaded before would be the project
    finetuned, pretrained = key_of(ran, "finetune"), key_of(ran, "pretrain")
    (tmp_path / "harness.toml").write_text('store = "elsewhere"')
    shutil.copytree(ran / "runs", tmp_path / "elsewhere")
    shutil.copytree(ran / "a", tmp_path / "a")
    os.chdir(tmp_path)  # `ran` puts the current folder back
    for command in (
        ("predict", finetuned, "a/photo.png"),
        ("reconstruct", pretrained, "a/photo.png"),
        ("export", pretrained, "encoder.safetensors"),
        ("analyse", "rgb", pretrained, "--set", "images=2", "--device", "cpu"),
    ):
        ended = harness(*command)
        assert ended.code == 0, (command, ended.err)
    assert use.predict(finetuned, "a/photo.png").pred_label >= 0
    assert use.reconstruct(pretrained, "a/photo.png").run == pretrained
    assert use.export_weights(pretrained, "again.safetensors").path.is_file()
    assert not (tmp_path / "runs").exists()
