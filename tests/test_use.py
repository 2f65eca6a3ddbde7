"""Predictions, reconstructions and exports of runs that were trained here for a few steps."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from timm.layers.drop import DropPath

import harness
from harness import use
from harness.core.data.batches import test_batches as batches_of
from harness.core.data.datasets import NAMES, Facts, facts_of, load
from harness.core.data.pictures import as_tested
from harness.core.masks.masking import make_mask, spread
from harness.core.objective.hard_patches import attention_scores
from harness.core.weights.checkpoint import read_noted, read_weights
from harness.core.weights.export import export
from harness.core.weights.finished_run import Trained, found_key, opened
from harness.core.weights.formats import named_as_timm
from harness.launch import Resources
from harness.launch.job import work
from harness.spec import (
    AfterStage,
    Augment,
    Backbone,
    BinTarget,
    BlockMask,
    Checkpoint,
    ClusterTarget,
    Corruption,
    Cosine,
    DecoderHead,
    FineTune,
    FrequencyMask,
    GuidedMask,
    HardMask,
    HarnessError,
    ImageFolder,
    Images,
    Knn,
    Loss,
    LossPredictor,
    MlpHead,
    MomentumEncoder,
    PixelTarget,
    Pretrain,
    RandomMask,
    Recipe,
    Run,
    Scratch,
    Shapes,
    SquareMask,
    key,
)
from harness.spec.data.datasets import PUBLISHED
from harness.store import Store
from harness.store.cleaning import removable, remove

OFFICIAL = Path(__file__).resolve().parent / "core" / "official"
DATA = Shapes(image_size=40, train=64, test=32)
RECIPE = Recipe(epochs=2, batch_size=16, lr=1e-3, lr_batch=None, augment=Augment(crop_scale=(0.5, 1.0)))
VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 16, "depth": 1, "num_heads": 2}, patch_size=4)
BEIT = VIT.replace(name="beit_base_patch16_224", variant="simmim")
SWIN = Backbone(
    name="swin_tiny_patch4_window7_224",
    args={"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 4), "window_size": 2},
    patch_size=4,
    stride=32,
)

RESNET = Backbone(name="resnet26", args={"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}, patch_size=4, stride=32)
CONVNEXT = Backbone(
    name="convnext_tiny", args={"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}, patch_size=4, stride=32
)
A2MIM = Corruption(fill="image-mean", token="gated-add", site=AfterStage(stage=2, stride=8), gate=0.1)
WINDOWED = SWIN.replace(args={**dict(SWIN.args), "window_size": 3})
CLASSES = Loss(kind="cross-entropy")


def pretraining(backbone: Backbone, **changes: Any) -> Pretrain:
    values: dict[str, Any] = {"mask": RandomMask(size=8, ratio=0.5), "seed": 3, **changes}
    return Pretrain(data=DATA, image_size=32, backbone=backbone, recipe=RECIPE, **values)


def finetuning(start: Pretrain) -> FineTune:
    return FineTune(start=start, recipe=RECIPE, crop=0.9)


PRETRAININGS = {
    "vit": pretraining(VIT),
    "beit": pretraining(BEIT),
    "swin": pretraining(SWIN),
    "mlp": pretraining(SWIN, head=MlpHead(), target=PixelTarget(downsample=2)),
    "windowed": pretraining(WINDOWED),
    "bins": pretraining(SWIN, target=BinTarget(bins=4), loss=CLASSES),
    "clusters": pretraining(VIT, target=ClusterTarget(clusters=8, images=16, downsample=2), loss=CLASSES),
    "block": pretraining(VIT, mask=BlockMask(size=4, ratio=0.4)),
    "resnet": pretraining(RESNET, corruption=A2MIM),
    "convnext": pretraining(CONVNEXT, corruption=A2MIM),
}
FINETUNINGS = {name: finetuning(PRETRAININGS[name]) for name in ("vit", "beit", "swin", "resnet", "convnext")}
LARGER = WINDOWED.replace(args={**dict(WINDOWED.args), "window_size": 4})  # of maps of 8 at 32 px
FINETUNINGS["windowed"] = finetuning(PRETRAININGS["windowed"]).replace(backbone=LARGER)
FINETUNINGS["tested larger"] = finetuning(PRETRAININGS["resnet"]).replace(test_size=64)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("used") / "runs")
    torch.set_num_threads(1)
    runs: list[Run] = [*PRETRAININGS.values(), *FINETUNINGS.values()]
    for run in runs:
        event = work(made, run, torch.device("cpu"), Resources(), report=lambda event: None)
        assert event.kind == "done", event.text
    return made


def pictures() -> NDArray[np.uint8]:
    """The test images, uint8 [N, H, W, C]."""
    found = load(DATA, "test")
    return found.images.permute(0, 2, 3, 1).numpy()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", FINETUNINGS)
def test_predictions_have_the_accuracy_that_the_run_reported(name: str, store: Store) -> None:
    run = FINETUNINGS[name]
    classify = use.Classifier(opened(run, store), torch.device("cpu"))
    labels = load(DATA, "test").labels.tolist()
    found = [classify(picture) for picture in pictures()]
    result = store.result(key(run))
    assert result is not None
    hits = [prediction.pred_label == label for prediction, label in zip(found, labels, strict=True)]
    assert 100 * np.mean(hits) == pytest.approx(result.metrics["top1"])
    five = [label in [one.label for one in each.top5] for each, label in zip(found, labels, strict=True)]
    assert 100 * np.mean(five) == pytest.approx(result.metrics["top5"])
    losses = [-np.log(each.pred_scores[label]) for each, label in zip(found, labels, strict=True)]
    assert np.mean(losses) == pytest.approx(result.metrics["loss"], rel=1e-5)


def test_a_prediction_names_classes_and_ranks_them() -> None:
    names = tuple("abcdefg")
    scores = np.array([0.1, 0.3, 0.05, 0.2, 0.05, 0.25, 0.05], dtype=np.float32)
    found = use.Prediction(scores, 1, 0.3, "b", names)
    assert [one.name for one in found.top5] == ["b", "f", "d", "a", "c"]
    assert [one.label for one in found.top5] == [1, 5, 3, 0, 2]
    assert found.top5[1].score == pytest.approx(0.25)
    assert [one.name for one in use.Prediction(scores, 1, 0.3, None).top5] == [None] * 5


def test_predict_takes_a_file(store: Store, tmp_path: Path) -> None:
    Image.fromarray(pictures()[0]).save(tmp_path / "a.png")
    found = harness.predict(key(FINETUNINGS["vit"]), tmp_path / "a.png", store=store.root)
    assert found.pred_scores.dtype == np.float32
    assert found.pred_scores.sum() == pytest.approx(1, abs=1e-5)
    assert found.pred_class == found.classes[found.pred_label]
    assert found.pred_score == found.pred_scores.max()
    again = harness.predict(FINETUNINGS["vit"], pictures()[0], store=store.root)
    assert (found.pred_scores == again.pred_scores).all()
    with pytest.raises(HarnessError, match=r"score: .* is a finetune, which finds no objects; leave it out"):
        harness.predict(key(FINETUNINGS["vit"]), pictures()[0], score=0.7, store=store.root)


@pytest.mark.parametrize("name", PRETRAININGS)
def test_reconstructions_are_those_the_run_kept(name: str, store: Store) -> None:
    run = PRETRAININGS[name]
    attempt = store.final_attempt(key(run))
    assert attempt is not None
    model = use.Reconstructor(opened(run, store), torch.device("cpu"))
    with np.load(attempt.artefacts / "reconstructions.npz") as kept:
        for position, picture in enumerate(pictures()[: len(kept["original"])]):
            found = model(picture, position=position)
            for part in ("original", "masked", "hidden"):
                assert (getattr(found, part) == kept[part][position]).all()
            # a batch of another size may round differently, by one of 255
            assert np.abs(found.predicted.astype(int) - kept["predicted"][position]).max() <= 1


def test_the_paste_has_the_prediction_in_hidden_places_only(store: Store) -> None:
    mask = RandomMask(size=4, ratio=0.75)
    found = harness.reconstruct(key(PRETRAININGS["vit"]), pictures()[0], mask=mask, seed=7, store=store.root)
    assert found.hidden.sum() == 48 * 16
    assert (found.pasted[found.hidden] == found.predicted[found.hidden]).all()
    assert (found.pasted[~found.hidden] == found.original[~found.hidden]).all()
    assert (found.masked[found.hidden] == 128).all()
    assert (found.mask, found.seed) == (mask, 7)
    other = harness.reconstruct(key(PRETRAININGS["vit"]), pictures()[0], mask=mask, seed=8, store=store.root)
    assert (found.hidden != other.hidden).any()


def test_another_mask_that_looks_at_the_image_looks_its_own_way(tmp_path: Path) -> None:
    """A run with hard patches has predicted losses for its own mask; a guided one follows the attention."""
    predictor = LossPredictor(decoder=DecoderHead(depth=1, width=16, heads=2))
    hard = pretraining(VIT, mask=HardMask(size=4), momentum=MomentumEncoder(), loss_predictor=predictor)
    store, mask = Store(tmp_path), GuidedMask(size=4, ratio=0.5)
    assert work(store, hard, torch.device("cpu"), Resources(), report=lambda event: None).kind == "done"
    found = harness.reconstruct(key(hard), pictures()[0], mask=mask, seed=7, store=store.root)
    momentum: Any = use.Reconstructor(opened(hard, store), torch.device("cpu"))._model.momentum
    images = as_tested(pictures()[0], DATA, facts_of(DATA), image_size=32, crop=1.0)
    attention = attention_scores(momentum.encoder, images)
    position = torch.zeros(1, dtype=torch.int64)
    units = make_mask(mask, image_size=32, seed=7, step=0, steps=1, positions=position, scores=attention)
    assert np.array_equal(found.hidden, spread(units, 32)[0].numpy())


def test_a_reconstruction_is_saved_as_one_picture(store: Store, tmp_path: Path) -> None:
    found = harness.reconstruct(key(PRETRAININGS["vit"]), pictures()[0], store=store.root)
    found.save(tmp_path / "a.png", title="a" * 500)
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    parts = (found.original, found.masked, found.predicted, found.pasted)
    strip = np.concatenate([part.repeat(7, 0).repeat(7, 1) for part in parts], axis=1)  # 32 px, shown as 224
    rows = pixels[-14 - 224 : -14]
    assert (np.concatenate([rows[:, 14 + k * 238 :][:, :224] for k in range(4)], axis=1) == strip).all()


def test_a_picture_is_prepared_with_the_crop_of_the_evaluation_that_is_named(store: Store) -> None:
    picture, facts = pictures()[0], facts_of(DATA)
    found = harness.load_encoder(key(PRETRAININGS["vit"]), store=store.root)
    cropped, whole = (as_tested(picture, DATA, facts, image_size=32, crop=crop) for crop in (0.875, 1.0))
    assert not torch.equal(cropped, whole)
    assert torch.equal(found.prepare(picture, crop=0.875), cropped)
    assert torch.equal(found.prepare(picture), whole)  # a pre-training crops nothing


@pytest.mark.parametrize("name", ["vit", "beit", "swin", "windowed", "resnet", "convnext"])
@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_timm_loads_what_is_exported(name: str, kind: str, store: Store, tmp_path: Path) -> None:
    run: Run = PRETRAININGS[name] if kind == "pretrain" else FINETUNINGS[name]
    found = harness.export_weights(run, tmp_path / "a.safetensors", store=store.root)
    model = eval(found.call, {"timm": timm}).eval()  # loads strictly: no name is missing or left over
    assert not any(isinstance(layer, DropPath) for layer in model.modules())  # nor is anything dropped in training
    picture = pictures()[0]
    with torch.no_grad():
        if isinstance(run, FineTune):
            images = as_tested(picture, DATA, facts_of(DATA), image_size=32, crop=0.9)
            expected = harness.predict(run, picture, store=store.root).pred_scores
            np.testing.assert_allclose(model(images).softmax(1)[0].numpy(), expected, rtol=1e-5)
            again = harness.predict(tmp_path / "a.safetensors", picture)
            assert (again.pred_scores == expected).all()
            assert again.pred_class == again.classes[again.pred_label]
        else:
            images = as_tested(picture, DATA, facts_of(DATA), image_size=32, crop=1.0)
            own = use.Reconstructor(opened(run, store), torch.device("cpu"))._model.encoder(images)
            features = model.forward_features(images)
            if name == "convnext":  # whose last norm timm has behind the pooling
                features = model.head.norm(features)
            elif name != "resnet":
                features = features.permute(0, 3, 1, 2) if features.ndim == 4 else features[:, 1:].mT.reshape(own.shape)
            torch.testing.assert_close(features, own)


@pytest.mark.parametrize("name", ["vit", "beit", "swin", "resnet", "convnext"])
def test_timm_prepares_pictures_for_what_is_exported_as_the_run_does(name: str, store: Store, tmp_path: Path) -> None:
    call = harness.export_weights(FINETUNINGS[name], tmp_path / "a.safetensors", store=store.root).call
    prepare = create_transform(**resolve_model_data_config(eval(call, {"timm": timm})))
    picture = pictures()[0]
    expected = as_tested(picture, DATA, facts_of(DATA), image_size=32, crop=0.9)[0]
    # PIL rounds to 8 bits and cuts overshoots at edges off in between: on average less than a grey level.
    error = (prepare(Image.fromarray(picture)) - expected).abs().mean((1, 2)) * torch.tensor(facts_of(DATA).std)
    assert float(error.max()) < 1 / 255


@pytest.mark.parametrize("name", ["beit", "swin"])
def test_the_released_names_serve_for_prediction_and_reconstruction(name: str, store: Store, tmp_path: Path) -> None:
    picture = pictures()[0]
    harness.export_weights(FINETUNINGS[name], tmp_path / "a.pth", format="official", store=store.root)
    expected = harness.predict(FINETUNINGS[name], picture, store=store.root)
    assert (harness.predict(tmp_path / "a.pth", picture).pred_scores == expected.pred_scores).all()
    harness.export_weights(PRETRAININGS[name], tmp_path / "b.pth", format="official", store=store.root)
    kept = harness.reconstruct(PRETRAININGS[name], picture, store=store.root)
    assert (harness.reconstruct(tmp_path / "b.pth", picture).predicted == kept.predicted).all()
    assert {"encoder.mask_token", "decoder.0.weight", "decoder.0.bias"} <= set(read_weights(tmp_path / "b.pth"))


@pytest.mark.parametrize(
    ("case", "backbone", "size"),
    [
        (
            "swin_window3",
            SWIN.replace(args={"embed_dim": 4, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 4), "window_size": 3}),
            96,
        ),
        (
            "vit",
            Backbone(
                name="beit_base_patch16_224",
                args={"embed_dim": 36, "depth": 3, "num_heads": 3, "init_values": 0.1},
                patch_size=16,
                variant="simmim",
            ),
            80,
        ),
    ],
    ids=["swin", "vit"],
)
def test_a_released_file_comes_back_bit_for_bit_with_its_buffers(
    case: str, backbone: Backbone, size: int, tmp_path: Path
) -> None:
    (tmp_path / "a.pth").write_bytes(lzma.decompress((OFFICIAL / f"{case}.pth.xz").read_bytes()))
    official = read_weights(tmp_path / "a.pth")
    run = Pretrain(data=DATA, image_size=size, backbone=backbone, mask=RandomMask(size=16, ratio=0.5), recipe=RECIPE)
    export(Trained("a", run, named_as_timm(official), facts_of(DATA)), tmp_path / "b.pth", "official")
    back = read_weights(tmp_path / "b.pth")
    assert set(back) == set(official)
    assert all(torch.equal(back[name], official[name]) for name in official)
    assert all(back[name].dtype == official[name].dtype for name in official)


def test_what_the_released_code_cannot_hold_is_said(store: Store, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no VisionTransformer; valid format: timm"):
        harness.export_weights(PRETRAININGS["vit"], tmp_path / "a.pth", format="official", store=store.root)
    for name in ("mlp", "bins"):
        found = harness.export_weights(PRETRAININGS[name], tmp_path / "a.pth", format="official", store=store.root)
        assert "left out" in found.notes[0]
        assert not any(name.startswith("decoder") for name in read_weights(tmp_path / "a.pth"))
    assert "checkpoint_path" not in found.call
    with pytest.raises(HarnessError, match=r"ends in \.safetensors"):
        harness.export_weights(PRETRAININGS["vit"], tmp_path / "a.bin", store=store.root)
    with pytest.raises(HarnessError, match="valid: timm, official"):
        harness.export_weights(PRETRAININGS["vit"], tmp_path / "a.bin", format="onnx", store=store.root)  # type: ignore[arg-type]


def test_an_exported_file_says_where_it_comes_from(store: Store, tmp_path: Path) -> None:
    harness.export_weights(FINETUNINGS["vit"], tmp_path / "a.safetensors", store=store.root)
    notes = read_noted(tmp_path / "a.safetensors")[1]
    assert json.loads(notes["run"]) == json.loads(json.dumps(FINETUNINGS["vit"].to_plain()))
    assert opened(tmp_path / "a.safetensors", Store(tmp_path)).run == FINETUNINGS["vit"]


def test_runs_are_found_by_key_beginning_digits_folder_and_spec(store: Store, tmp_path: Path) -> None:
    run = FINETUNINGS["vit"]
    name, elsewhere = key(run), Store(tmp_path)
    assert found_key(name, store) == name
    assert found_key(name[:15], store) == name
    assert found_key(name.removeprefix("finetune-")[:8], store) == name
    assert opened(run, store).name == name
    assert opened(store.folder(name).path, elsewhere).name == name
    with pytest.raises(HarnessError, match="begins several keys: finetune-"):
        found_key("finetune-", store)
    for text in ("nothing", "", "finetune-zz"):
        with pytest.raises(HarnessError, match="names no run in"):
            found_key(text, store)


def test_the_wrong_kind_of_run_is_one_line(store: Store, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="is a pretrain, which knows no classes"):
        harness.predict(PRETRAININGS["vit"], pictures()[0], store=store.root)
    with pytest.raises(HarnessError, match="is a finetune, which predicts no pixels"):
        harness.reconstruct(FINETUNINGS["vit"], pictures()[0], store=store.root)
    harness.export_weights(PRETRAININGS["vit"], tmp_path / "a.safetensors", store=store.root)
    with pytest.raises(HarnessError, match="holds the encoder only"):
        harness.reconstruct(tmp_path / "a.safetensors", pictures()[0])
    torch.save({"norm.weight": torch.zeros(1)}, tmp_path / "b.pth")
    with pytest.raises(HarnessError, match="does not say which run"):
        harness.predict(tmp_path / "b.pth", pictures()[0])
    store.register(Knn(start=PRETRAININGS["vit"]))
    with pytest.raises(HarnessError, match="is a knn, whose model is not opened here; valid: pretrain, finetune"):
        harness.predict(Knn(start=PRETRAININGS["vit"]), pictures()[0], store=store.root)


def test_weights_that_are_missing_damaged_or_not_there_yet_are_one_line(tmp_path: Path) -> None:
    store, run = Store(tmp_path / "runs"), pretraining(VIT, seed=5)
    with pytest.raises(HarnessError, match=r"is not in .*: it has not been computed there"):
        harness.reconstruct(run, pictures()[0], store=store.root)
    with pytest.raises(HarnessError, match="a trained model is a run, its key, a folder or a file, not a Scratch"):
        harness.load_encoder(Scratch(backbone=VIT, image_size=32), store=store.root)  # type: ignore[arg-type]
    store.register(run)
    with pytest.raises(HarnessError, match="is not done: it is missing"):
        harness.reconstruct(run, pictures()[0], store=store.root)
    work(store, run, torch.device("cpu"), Resources(), report=lambda event: None)
    path = store.weights(key(run))
    assert path is not None
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    with pytest.raises(HarnessError, match="is damaged"):
        harness.reconstruct(run, pictures()[0], store=store.root)
    path.write_bytes(whole)
    harness.reconstruct(run, pictures()[0], store=store.root)
    remove(removable(store, {key(run): run}, weights=True))
    with pytest.raises(HarnessError, match="were cleaned away") as told:
        harness.reconstruct(run, pictures()[0], store=store.root)
    assert "\n" not in str(told.value)


def test_a_pretraining_goes_on_from_a_file(store: Store, tmp_path: Path) -> None:
    first = store.weights(key(PRETRAININGS["vit"]))
    assert first is not None
    start = Checkpoint(path=str(first), backbone=VIT, image_size=32)
    still = RECIPE.replace(lr=1e-12, weight_decay=0.0, warmup_lr=0.0, schedule=Cosine(min_lr=0.0))
    run = Pretrain(
        data=DATA, image_size=32, backbone=VIT, mask=RandomMask(size=8, ratio=0.5), recipe=still, seed=9, start=start
    )
    event = work(Store(tmp_path), run, torch.device("cpu"), Resources(), report=lambda event: None)
    assert event.kind == "done", event.text
    last = Store(tmp_path).weights(key(run))
    assert last is not None
    before, after = read_weights(first), read_weights(last)
    assert {"mask_token", "head.0.weight"} <= set(before)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-9)


def test_a_device_of_another_name_is_refused() -> None:
    for name in ("gpu", "cuda:1"):
        with pytest.raises(HarnessError, match=rf"no device '{name}'; valid: auto, cpu, cuda"):
            use.torch_device(name)  # type: ignore[arg-type]


def test_masks_are_chosen_by_kind_and_take_over_what_is_not_given() -> None:
    own = RandomMask(size=8, ratio=0.5)
    assert use.chosen_mask(own) == own
    assert use.chosen_mask(own, ratio=0.25) == RandomMask(size=8, ratio=0.25)
    assert use.chosen_mask(own, "random", size=4) == RandomMask(size=4, ratio=0.5)
    assert use.chosen_mask(own, "square", ratio=0.25) == SquareMask(size=8, ratio=0.25)
    assert {"random", "tokens", "square", "block", "grid", "checkerboard", "frequency", "custom"} <= set(use.MASKS)
    with pytest.raises(HarnessError, match=r"no mask 'spiral'; valid: .*random"):
        use.chosen_mask(own, "spiral")
    with pytest.raises(HarnessError, match="ratio"):
        use.chosen_mask(own, ratio=1.5)


def test_a_mask_that_does_not_fit_the_model_is_one_line(store: Store) -> None:
    with pytest.raises(HarnessError, match="no multiple of the 4-px patch"):
        harness.reconstruct(PRETRAININGS["vit"], pictures()[0], mask=RandomMask(size=2, ratio=0.5), store=store.root)
    with pytest.raises(HarnessError, match="learnt from hidden patches fills in no frequencies"):
        harness.reconstruct(PRETRAININGS["vit"], pictures()[0], mask=FrequencyMask(radius=4), store=store.root)


GREY = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
RGB = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
WHITE = Facts(3, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def prepared(picture: Any, facts: Facts = WHITE, size: int = 20) -> NDArray[np.float32]:
    return as_tested(picture, DATA, facts, image_size=size, crop=1.0)[0].numpy()


def test_pictures_of_every_mode_are_taken(tmp_path: Path) -> None:
    expected = RGB[:, 5:25].transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_allclose(prepared(RGB), expected, atol=1e-6)
    alpha = np.dstack([RGB, GREY])
    np.testing.assert_allclose(prepared(alpha), expected, atol=1e-6)
    for mode in ("RGB", "RGBA"):
        Image.fromarray(RGB).convert(mode).save(tmp_path / f"{mode}.png")
        np.testing.assert_allclose(prepared(tmp_path / f"{mode}.png"), expected, atol=1e-6)
    grey = np.repeat(GREY[None, :, 5:25], 3, 0) / np.float32(255)
    for mode in ("L", "LA"):
        Image.fromarray(GREY).convert(mode).save(tmp_path / f"{mode}.png")
        np.testing.assert_allclose(prepared(str(tmp_path / f"{mode}.png")), grey, atol=1e-6)
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_allclose(prepared(tmp_path / "deep.png"), grey, atol=1e-6)
    palette = Image.fromarray(RGB).quantize(16)
    flat = np.asarray(palette.convert("RGB"))[:, 5:25].transpose(2, 0, 1) / np.float32(255)
    palette.save(tmp_path / "palette.png", transparency=bytes(range(16)))
    np.testing.assert_allclose(prepared(tmp_path / "palette.png"), flat, atol=1e-6)
    assert prepared(Image.fromarray(RGB).convert("CMYK")).shape == (3, 20, 20)
    assert prepared(Image.fromarray(GREY > 99)).shape == (3, 20, 20)


def test_a_grey_model_takes_colours_and_a_colour_model_grey() -> None:
    one = Facts(1, (0.5,), (0.25,))
    np.testing.assert_allclose(prepared(GREY, one), (GREY[None, :, 5:25] / 255 - 0.5) / 0.25, atol=1e-5)
    assert prepared(RGB, one).shape == (1, 20, 20)
    assert prepared(GREY).shape == (3, 20, 20)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 7), (500, 400)])
def test_pictures_of_every_size_are_taken(shape: tuple[int, int]) -> None:
    assert prepared(np.full(shape, 51, dtype=np.uint8)).shape == (3, 20, 20)
    np.testing.assert_allclose(prepared(np.full(shape, 51, dtype=np.uint8)), 0.2, atol=1e-6)


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (np.zeros((4, 4)), r"uint8 \[H, W\]"),
        (np.zeros((4,), dtype=np.uint8), r"uint8 \[H, W\]"),
        (np.zeros((4, 4, 2), dtype=np.uint8), "2 channels for a model of 3"),
        (Path("/nowhere/a.png"), "cannot read /nowhere/a.png as a picture"),
        (__file__, "as a picture: cannot identify"),
        (torch.zeros(3, 4, 4), "a picture is a file, a PIL image or an array, not a Tensor"),
        (None, "a picture is a file, a PIL image or an array, not a NoneType"),
    ],
)
def test_what_is_no_picture_is_one_line(picture: Any, told: str) -> None:
    with pytest.raises(HarnessError, match=told):
        prepared(picture)


def test_files_of_a_folder_are_prepared_as_its_test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for fold in ("train", "val"):
        for name in ("cat", "ant"):
            (tmp_path / fold / name).mkdir(parents=True)
            Image.fromarray(RGB.repeat(3, 0).repeat(2, 1)).save(tmp_path / fold / name / "a.png")
    monkeypatch.setenv("HARNESS_DATA_ZOO", str(tmp_path))
    data = ImageFolder(name="zoo")
    batch = next(
        batches_of(load(data, "test"), image_size=24, crop=0.875, batch_size=2, device=torch.device("cpu"), workers=0)
    )
    assert facts_of(data).classes == ("ant", "cat")
    found = as_tested(tmp_path / "val" / "ant" / "a.png", data, facts_of(data), image_size=24, crop=0.875)
    assert torch.equal(found[0], batch[0][0])


@pytest.mark.parametrize("name", NAMES)
def test_every_class_of_a_published_set_has_a_name(name: str) -> None:
    assert len(set(NAMES[name])) == PUBLISHED[name].num_classes
    facts = facts_of(Images(name=name))  # type: ignore[arg-type]
    assert facts.classes == NAMES[name]
    assert Facts.from_plain(json.loads(json.dumps(facts.to_plain()))) == facts
