"""Checkpoints of the released SimMIM and of mmpretrain, against what their own code computes from them.

The files in official/ and mmpretrain/ were written by those codes: tools/make_official_fixtures.py and
tools/make_mmpretrain_fixtures.py.
"""

from __future__ import annotations

import argparse
import io
import lzma
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.interpolate import RectBivariateSpline
from timm.models.swin_transformer import PatchMerging
from tiny import VIT as PLAIN
from tiny import pretrain

from harness.core.model.encoder import build
from harness.core.objective.losses import total
from harness.core.pretrain.mim import MaskedImageModel, load_pretraining_start
from harness.core.weights.checkpoint import load_encoder, read_weights
from harness.core.weights.formats import Weights, named_as_timm, recognise, resized_table, to_official
from harness.core.weights.formats.positions import geometric_places, ratio
from harness.spec import Backbone, Checkpoint, HarnessError, Pretrain, RandomMask

HERE = Path(__file__).resolve().parent


def swin(window: int, embed_dim: int, depths: tuple[int, ...], heads: tuple[int, ...], **more: Any) -> Backbone:
    args = {"embed_dim": embed_dim, "depths": depths, "num_heads": heads, "window_size": window, **more}
    return Backbone(name="swin_base_patch4_window7_224", args=args, patch_size=4, stride=32)


VIT = Backbone(
    name="beit_base_patch16_224",
    args={"embed_dim": 36, "depth": 3, "num_heads": 3, "init_values": 0.1},
    patch_size=16,
    variant="simmim",
)
WINDOW3 = swin(3, 4, (1, 2, 1, 1), (1, 2, 2, 4))
WINDOW4 = swin(4, 6, (2, 2, 1, 1), (1, 2, 3, 6))
PADDED = swin(5, 4, (1, 1, 1, 1), (1, 2, 2, 4), always_partition=True)

PRETRAININGS = [
    ("official/swin_window3", WINDOW3),
    ("official/swin_window4", WINDOW4),
    ("official/vit", VIT),
    ("mmpretrain/swin_window3", WINDOW3),
    ("mmpretrain/swin_window5_padded", PADDED),
]
CLASSIFIERS = [
    ("official/swin_classifier", WINDOW3),
    ("official/vit_classifier", VIT),
    ("mmpretrain/swin_classifier", WINDOW3),
]


def unpacked(case: str, folder: Path) -> Path:
    """The checkpoint of a case, as its author's code wrote it."""
    path = folder / f"{Path(case).name}.pth"
    path.write_bytes(lzma.decompress((HERE / f"{case}.pth.xz").read_bytes()))
    return path


def arrays(case: str) -> dict[str, torch.Tensor]:
    with np.load(HERE / f"{case}.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def going_on(path: Path, backbone: Backbone, size: int, **changes: Any) -> Pretrain:
    start = Checkpoint(path=str(path), backbone=backbone, image_size=size)
    return pretrain(backbone=backbone, image_size=size, mask=RandomMask(size=16, ratio=0.5), start=start, **changes)


def started(run: Pretrain) -> MaskedImageModel:
    model = MaskedImageModel(run, 3).eval()
    assert run.start is not None
    load_pretraining_start(run.start, model)
    return model


@pytest.mark.parametrize(("case", "backbone"), PRETRAININGS, ids=[case for case, _ in PRETRAININGS])
def test_a_pretraining_computes_what_its_authors_code_computes(case: str, backbone: Backbone, tmp_path: Path) -> None:
    given = arrays(case)
    images = given["images"]
    model = started(going_on(unpacked(case, tmp_path), backbone, images.shape[-1]))
    units = given["mask"][:, :: 16 // backbone.patch_size, :: 16 // backbone.patch_size]
    prediction, losses = model(images, units)
    loss = total(losses)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    torch.testing.assert_close(loss.double(), given["loss"].double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(prediction[..., ::5, ::5], given["reconstruction"], rtol=1e-5, atol=1e-5)
    if "grad_norm" in given:
        torch.testing.assert_close(norm.double(), given["grad_norm"], rtol=1e-5, atol=0)


@pytest.mark.parametrize(("case", "backbone"), CLASSIFIERS, ids=[case for case, _ in CLASSIFIERS])
def test_a_classifier_computes_what_its_authors_code_computes(case: str, backbone: Backbone, tmp_path: Path) -> None:
    given = arrays(case)
    model = build(backbone, image_size=given["images"].shape[-1], channels=3, num_classes=7, pool="mean").eval()
    model.load_state_dict(named_as_timm(read_weights(unpacked(case, tmp_path))).encoder)
    with torch.no_grad():
        torch.testing.assert_close(model(given["images"]), given["logits"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "source", "backbone", "size"),
    [
        ("official/swin_window3_to_4", "official/swin_window3", swin(4, 4, (1, 2, 1, 1), (1, 2, 2, 4)), 128),
        ("official/vit_80_to_128", "official/vit", VIT, 128),
    ],
)
def test_tables_for_another_window_are_the_released_codes(
    case: str, source: str, backbone: Backbone, size: int, tmp_path: Path
) -> None:
    model = build(backbone, image_size=size, channels=3, num_classes=7, pool="mean")
    load_encoder(model, named_as_timm(read_weights(unpacked(source, tmp_path))).encoder, source)
    own = model.state_dict()
    for name, table in arrays(case).items():
        torch.testing.assert_close(own[name], table, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["swin_window3", "swin_window4", "vit"])
def test_the_released_names_survive_a_round_trip(case: str, tmp_path: Path) -> None:
    official = read_weights(unpacked(f"official/{case}", tmp_path))
    back = to_official(named_as_timm(official), pretraining=True)
    kept = {name for name in official if not name.endswith(("relative_position_index", "attn_mask"))}
    assert set(back) == kept
    assert all(torch.equal(back[name], official[name]) for name in kept)


@pytest.mark.parametrize("case", ["swin_classifier", "vit_classifier"])
def test_a_classifiers_names_survive_a_round_trip(case: str, tmp_path: Path) -> None:
    official = read_weights(unpacked(f"official/{case}", tmp_path))
    back = to_official(named_as_timm(official), pretraining=False)
    kept = {name for name in official if not name.endswith(("relative_position_index", "attn_mask"))}
    assert set(back) == kept
    assert all(torch.equal(back[name], official[name]) for name in kept)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("encoder.model.norm.weight", "mask_token"), "harness"),
        (("encoder.norm.weight", "encoder.mask_token"), "official"),
        (("layers.0.downsample.reduction.weight", "head.weight"), "official"),
        (("backbone.norm3.weight",), "mmpretrain"),
        (("layers.1.downsample.reduction.weight", "head.fc.weight"), "timm"),
        (("blocks.0.attn.q_bias",), "timm"),
        (("patch_embed.proj.weight", "mask_token", "decoder_pred.weight"), "mae"),
        (("patch_embed.proj.weight", "blocks.0.attn.qkv.bias"), "timm"),  # of the released MAE without its decoder
    ],
)
def test_formats_are_told_by_their_names(names: tuple[str, ...], found: str) -> None:
    assert recognise(dict.fromkeys(names, torch.zeros(1))) == found


def test_unfolded_merging_is_put_into_timms_order() -> None:
    """mmpretrain unfolds 2 x 2 neighbours; both orders must give the same output of the same image."""
    image, norm = torch.randn(1, 6, 6, 5), torch.nn.LayerNorm(20)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    reduction = torch.nn.Linear(20, 10, bias=False)
    unfolded = torch.nn.functional.unfold(image.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)
    names = {"reduction.weight": reduction.weight, "norm.weight": norm.weight, "norm.bias": norm.bias}
    given = {f"backbone.stages.0.downsample.{name}": tensor.detach() for name, tensor in names.items()}
    merging = PatchMerging(5, 10)
    found = named_as_timm(given).encoder
    merging.load_state_dict({name.removeprefix("layers.1.downsample."): tensor for name, tensor in found.items()})
    torch.testing.assert_close(merging(image).flatten(1, 2), reduction(norm(unfolded)))


def test_geometric_places_of_the_published_windows() -> None:
    assert ratio(11, 13) == pytest.approx(1.09128, abs=1e-5)
    assert geometric_places(11, 13)[5:].tolist() == pytest.approx([0, 1, 2.0913, 3.2822, 4.5818, 6.0], abs=1e-4)
    assert ratio(23, 27) == pytest.approx(1.03289, abs=1e-5)


@pytest.mark.parametrize(("source", "target"), [(11, 13), (23, 27), (5, 9), (13, 7), (7, 31), (5, 5)])
def test_resizing_is_scipys_bicubic_spline(source: int, target: int) -> None:
    table = np.random.default_rng(source).normal(size=(source * source + 3, 2))
    places, wanted = geometric_places(source, target).numpy(), np.arange(target) - target // 2
    found = resized_table(torch.from_numpy(table), target * target + 3).numpy()
    assert (found[-3:] == table[-3:]).all()
    for head in range(2):
        grid = table[:-3, head].reshape(source, source)
        spline = RectBivariateSpline(places, places, grid.T, kx=3, ky=3)
        np.testing.assert_allclose(found[:-3, head].reshape(target, target), spline(wanted, wanted).T, atol=1e-12)


def test_tables_that_cannot_be_resized_are_refused() -> None:
    with pytest.raises(HarnessError, match="3 x 3 is too small"):
        resized_table(torch.zeros(9, 1), 25)
    with pytest.raises(HarnessError, match="class token"):
        resized_table(torch.zeros(25 + 3, 1), 49)
    with pytest.raises(HarnessError, match="50 rows"):
        resized_table(torch.zeros(50, 1), 49)


class _Touch:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [False, True], ids=["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(legacy: bool, tmp_path: Path) -> None:
    marker, file = tmp_path / "marker", tmp_path / "evil.pth"
    content = {"model": {"a": torch.zeros(1)}, "args": argparse.Namespace(config=_Touch(marker))}
    if legacy:
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file)
    with pytest.raises(HarnessError, match=r"evil\.pth") as refused:
        read_weights(file)
    assert "\n" not in str(refused.value)
    assert not marker.exists()
    pickle.loads(pickle.dumps(_Touch(marker)))
    assert marker.exists()  # the file would have done it


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no tensors", b"PK\x03\x04" + bytes(64)])
def test_a_damaged_file_is_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HarnessError, match="does not read") as refused:
        read_weights(tmp_path / name)
    assert "\n" not in str(refused.value)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    torch.save({"model": {"a": 1.0}}, file)
    (tmp_path / "a.pth").write_bytes(file.getvalue())
    with pytest.raises(HarnessError, match="no dict of tensors"):
        read_weights(tmp_path / "a.pth")


def test_the_arguments_of_a_script_are_read_as_data(tmp_path: Path) -> None:
    torch.save(
        {"model": {"a": torch.ones(1)}, "args": argparse.Namespace(lr=0.1, pin_mem=True, resume="")}, tmp_path / "a.pth"
    )
    assert read_weights(tmp_path / "a.pth") == {"a": torch.ones(1)}


@pytest.mark.parametrize(
    ("backbone", "prefix"), [(PLAIN, 1), (PLAIN.replace(args={**dict(PLAIN.args), "reg_tokens": 2}), 3)]
)
def test_absolute_positions_of_another_image_size_are_resized(backbone: Backbone, prefix: int) -> None:
    """A ramp stays one, in pixels: at half the distance inside; what is in front of the patches keeps its own."""
    given = build(backbone, image_size=32, channels=3).state_dict()
    ramp = torch.arange(8.0).view(8, 1) + torch.arange(8.0) * 10
    given["pos_embed"][0, -64:] = ramp.reshape(64, 1)
    given["pos_embed"][0, :-64] = 5.0
    model = build(backbone, image_size=64, channels=3, num_classes=7, pool="mean")
    load_encoder(model, given, "a file")
    found = model.state_dict()["pos_embed"][0]
    assert len(found) == prefix + 256
    assert found[:prefix].unique().tolist() == [5.0]
    fine = (torch.arange(16.0) - 0.5) / 2
    wanted = fine.view(16, 1) + fine * 10
    torch.testing.assert_close(found[-256:, 0].view(16, 16)[4:-4, 4:-4], wanted[4:-4, 4:-4])


def test_what_does_not_fit_a_pretraining_begins_anew_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = unpacked("official/swin_classifier", tmp_path)  # has an encoder and no more
    run = going_on(path, WINDOW3, 96)
    model, fresh = started(run), MaskedImageModel(run, 3)
    assert [record.message.count(str(path)) for record in caplog.records] == [1, 1]
    assert "mask token" in caplog.text
    assert "prediction head" in caplog.text
    assert model.mask_token is not None
    assert fresh.mask_token is not None
    assert torch.equal(model.mask_token, fresh.mask_token)
    expected = named_as_timm(read_weights(path)).encoder["norm.weight"]
    assert torch.equal(model.encoder.model.state_dict()["norm.weight"], expected)


def test_a_start_with_another_backbone_is_refused(tmp_path: Path) -> None:
    start = Checkpoint(path="a", backbone=WINDOW3, image_size=96, sha256="0a")
    with pytest.raises(ValueError, match=r"start\.backbone differs"):
        pretrain(backbone=WINDOW4, image_size=96, start=start)


def test_an_encoder_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    path = unpacked("official/swin_window3", tmp_path)
    with pytest.raises(HarnessError, match=r"do not fit the backbone: it has in another shape"):
        started(going_on(path, swin(3, 8, (1, 2, 1, 1), (1, 2, 2, 4)), 96))


def test_weights_without_a_mask_token_export_none() -> None:
    assert set(to_official(Weights({"norm.weight": torch.zeros(1)}), pretraining=True)) == {"encoder.norm.weight"}
