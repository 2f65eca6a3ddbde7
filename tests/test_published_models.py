"""Published models by name: the labels and scores of timm's own model on the same weights; and mistakes in one line.

The fast tests shrink the presets' Swins, so that weights of mmpretrain's names are made in no time; the slow one has
weights of the published shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor
from torchvision import transforms

import harness
from harness import HarnessError
from harness.core.model.encoder import build
from harness.core.weights.checkpoint import checkpoint_weights
from harness.papers.models import named, published_models
from harness.papers.simmim import recipes
from harness.spec import Backbone, Checkpoint, FineTune

TINY = {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4)}
NAMES = {  # name: size of the Swin, side of the image, window
    "swin-base-w6_simmim-100e-pre_8xb256-coslr-100e_in1k-192px": ("base", 192, 6),
    "swin-base-w7_simmim-100e-pre_8xb256-coslr-100e_in1k": ("base", 224, 7),
    "swin-base-w6_simmim-800e-pre_8xb256-coslr-100e_in1k-192px": ("base", 224, 7),
    "swin-large-w14_simmim-800e-pre_8xb256-coslr-100e_in1k": ("large", 224, 14),
}
FIRST = next(iter(NAMES))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The presets with tiny Swins."""

    def tiny(size: str, args: dict[str, Any]) -> Backbone:
        whole = tuple({**TINY, **args}.items())
        return Backbone(name=f"swin_{size}_patch4_window7_224", args=whole, patch_size=4, stride=32)

    monkeypatch.setattr(recipes, "_swin", tiny)
    published_models.cache_clear()  # models keep their runs
    yield
    published_models.cache_clear()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(drawn).resize((330, 270)).save(tmp_path / "bird.png")
    return tmp_path / "bird.png"


def as_mmpretrain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A Swin classifier of timm with the names, and the order of merged neighbours, of mmpretrain."""
    pairs = (
        (r"^patch_embed\.proj\.", "patch_embed.projection."), (r"^layers\.", "stages."), (r"\.attn\.", ".attn.w_msa."),
        (r"\.mlp\.fc1\.", ".ffn.layers.0.0."), (r"\.mlp\.fc2\.", ".ffn.layers.1."), (r"^norm\.", "norm3."),
    )  # fmt: skip
    found = {}
    for name, tensor in tensors.items():
        if name.startswith("head."):
            found[name] = tensor
            continue
        for old, new in pairs:
            name = re.sub(old, new, name)
        if merging := re.match(r"stages\.(\d)\.downsample\.(.*)", name):
            name = f"stages.{int(merging[1]) - 1}.downsample.{merging[2]}"
            *others, length = tensor.shape
            tensor = tensor.reshape(*others, 2, 2, length // 4).transpose(-1, -3).reshape(*others, length)
        found[f"backbone.{name}"] = tensor
    return found


def written(model: torch.nn.Module, path: Path) -> Path:
    """A file of weights as mmpretrain's training loop saves it."""
    path.parent.mkdir(exist_ok=True)
    torch.save({"meta": {"epoch": 100}, "state_dict": as_mmpretrain(model.state_dict())}, path)
    return path


def timms(name: str, **args: Any) -> torch.nn.Module:
    """The model of a name, built by timm alone, with weights that no initialisation gives."""
    size, side, window = NAMES[name]
    small_maps: dict[str, Any] = {"always_partition": True} if size == "large" else {}
    torch.manual_seed(0)
    model: torch.nn.Module = timm.create_model(
        f"swin_{size}_patch4_window7_224", img_size=side, window_size=window, num_classes=1000, **small_maps, **args
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


@torch.no_grad()
def expected(model: torch.nn.Module, picture: Path, side: int) -> Tensor:
    """Scores by torchvision's preparation, as mmpretrain states it: short side 219 or 256, bicubic, centre."""
    prepare = transforms.Compose([
        transforms.Resize({192: 219, 224: 256}[side], transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(side), transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    scores: Tensor = model(prepare(Image.open(picture))[None]).softmax(1)[0]
    return scores


def assert_same(found: harness.use.Prediction, scores: Tensor) -> None:
    np.testing.assert_allclose(found.pred_scores, scores.numpy(), rtol=1e-4, atol=1e-7)
    assert found.pred_label == int(scores.argmax())
    assert found.pred_class == ImageNetInfo().index_to_description(found.pred_label)
    assert [one.label for one in found.top5] == scores.topk(5).indices.tolist()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", NAMES)
def test_labels_and_scores_are_those_of_the_weights(name: str, picture: Path, tmp_path: Path) -> None:
    model, side = timms(name, **TINY), NAMES[name][1]
    path = written(model, tmp_path / "swin.pth")
    found = harness.predict(name, picture, weights=path, device="cpu")
    assert_same(found, expected(model, picture, side))
    # As before, by way of the checkpoint: the same model loaded by hand.
    run = named(name).run
    assert isinstance(run, FineTune)
    tensors = checkpoint_weights(Checkpoint(path=str(path), backbone=run.built, image_size=side)).encoder
    by_hand = build(run.built, image_size=side, channels=3, num_classes=1000, pool="mean").eval()
    by_hand.load_state_dict(tensors)
    logits = harness.load_classifier(name, weights=path, device="cpu")
    with torch.no_grad():
        assert torch.equal(by_hand(logits.prepare(picture)), logits(logits.prepare(picture)))
        assert np.array_equal(by_hand(logits.prepare(picture)).softmax(1)[0].numpy(), found.pred_scores)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_weights_of_the_published_shapes(name: str, picture: Path, tmp_path: Path) -> None:
    model = timms(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == named(name).size.parameters
    found = harness.predict(name, picture, weights=written(model, tmp_path / "swin.pth"), device="cpu")
    assert_same(found, expected(model, picture, NAMES[name][1]))


@pytest.mark.usefixtures("small")
def test_where_weights_lie(picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In weights/ of the project, where [weights] of harness.toml says, or in a folder or file that is given."""
    project, elsewhere, file = tmp_path / "project", tmp_path / "models", named(FIRST).file
    (project / "weights").mkdir(parents=True)
    profile = project / "harness.toml"
    profile.touch()
    monkeypatch.chdir(project)
    monkeypatch.setenv("HARNESS_PROJECT", "")
    model = timms(FIRST, **TINY)
    with pytest.raises(HarnessError, match=f"are not here: put {file} into {project / 'weights'}, or say where"):
        harness.predict(FIRST, picture)
    score = harness.predict(FIRST, picture, weights=written(model, elsewhere / file)).pred_score
    assert harness.predict(FIRST, picture, weights=elsewhere).pred_score == score
    for line in (f'{FIRST} = "../models/{file}"', f'{FIRST} = "../models"', 'folder = "../models"'):
        profile.write_text(f"[weights]\n{line}\n")
        assert harness.predict("mmpretrain/swin-b-100e-192", picture).pred_score == score
    profile.write_text("[weights]\nfolder = 3\n")
    with pytest.raises(HarnessError, match=r"\[weights\] should hold lines like folder = "):
        harness.predict(FIRST, picture)
    profile.write_text("")
    written(model, project / "weights" / file)
    assert harness.predict(FIRST, picture).pred_score == score


@pytest.mark.usefixtures("small")
def test_wrong_weights_are_refused_in_one_line(picture: Path, tmp_path: Path) -> None:
    path = written(timms(FIRST, **{**TINY, "embed_dim": 12}), tmp_path / "wide.pth")
    with pytest.raises(
        HarnessError, match=r"wide.pth do not fit its own model: it has in another shape head"
    ) as caught:
        harness.predict(FIRST, picture, weights=path)
    assert "\n" not in str(caught.value)
    path = written(timms(FIRST, **{**TINY, "depths": (1, 1, 1, 1)}), tmp_path / "flat.pth")
    with pytest.raises(HarnessError, match=r"flat.pth do not fit its own model: it lacks layers.2.blocks.1."):
        harness.predict(FIRST, picture, weights=path)
    model = timms(FIRST, **TINY)
    torch.save({"state_dict": {k: v for k, v in as_mmpretrain(model.state_dict()).items() if "head" not in k}}, path)
    with pytest.raises(HarnessError, match=r"flat.pth holds an encoder without a classifier"):
        harness.predict(FIRST, picture, weights=path)
    path.write_bytes(b"no weights")
    with pytest.raises(HarnessError, match=r"flat.pth does not read as a file of tensors"):
        harness.predict(FIRST, picture, weights=path)
    with pytest.raises(HarnessError, match=r"weights of swin-base.* are not at .*absent.pth"):
        harness.predict(FIRST, picture, weights=tmp_path / "absent.pth")


def test_names_that_are_not_models_for_this(picture: Path, tmp_path: Path) -> None:
    for name, complaint in (
        ("simmim/swin-b-100e-19", "names none; did you mean 'simmim/swin-b-100e-192'"),
        ("mae/vit-b-1600e-probe", "is a linear-probe, whose model is not opened here"),
    ):
        with pytest.raises(HarnessError, match=complaint):
            harness.predict(name, picture, weights=tmp_path)


@pytest.mark.usefixtures("small")
def test_an_encoder_by_name(picture: Path, tmp_path: Path) -> None:
    path = written(timms(FIRST, **TINY), tmp_path / "swin.pth")
    encoder = harness.load_encoder(FIRST, weights=path)
    assert encoder.strides == (4, 8, 16, 32)
    assert [tuple(found.shape[1:]) for found in encoder(encoder.prepare(picture))] == [
        (8, 48, 48), (16, 24, 24), (32, 12, 12), (64, 6, 6),
    ]  # fmt: skip
