"""Segmentation: heads, windows, and runs that do not depend on how they are computed."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from test_backbones import CONVNEXT, RESNET
from tiny import BEIT, SWIN, VIT
from torch import Tensor, nn
from whole_runs import Computed, computed_in

from harness.core.data import scenes
from harness.core.data.scenes import load_scenes, scene_batches
from harness.core.evaluate import segment as recipe_of_segment
from harness.core.evaluate.segment import losses, predicted
from harness.core.model.complexity import segmentation
from harness.core.model.encoder import Encoder, build
from harness.core.model.segmenter import Segmenter, build_segment_head, slide
from harness.core.model.taps import Taps
from harness.core.model.upernet import pooled
from harness.core.runtime.drop_path import KeyedChannelDropout, Place
from harness.core.runtime.randomness import initialised
from harness.core.runtime.session import Session
from harness.core.train.optimiser import scales_with_heads
from harness.launch import Resources
from harness.launch.job import work
from harness.papers.protocol import protocol_of
from harness.spec import (
    Augment,
    Backbone,
    Garments,
    LinearMap,
    Recipe,
    Scratch,
    Segment,
    Shapes,
    Slide,
    UPerNet,
    Whole,
    key,
)
from harness.spec.dense.segment import SegmentHead
from harness.spec.model.described import Described
from harness.store import Store

DATA = Shapes(image_size=32, train=16, test=8)
CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, batch_size=8, lr=1e-3, lr_batch=None, augment=Augment(crop_scale=(0.5, 1.0)))
SMALL = VIT.replace(args={"embed_dim": 16, "depth": 2, "num_heads": 2})
UPER = UPerNet(width=8, pools=(1, 2))
FAMILIES = {"vit": VIT, "beit": BEIT, "swin": SWIN, "convnext": CONVNEXT, "resnet": RESNET}


def segmentation_of(**changes: Any) -> Segment:
    """A segmentation of a few steps."""
    start = Scratch(backbone=changes.pop("start", SMALL), image_size=32)
    return Segment(**{"start": start, "data": DATA, "recipe": RECIPE, "head": UPER, **changes})


def segmenter(head: SegmentHead, backbone: Backbone = SMALL, size: int = 32, place: Place | None = None) -> Segmenter:
    """A model of 7 classes with new weights."""
    encoder = Encoder(initialised(0, "encoder", lambda: build(backbone, image_size=size, channels=3)))
    taps = Taps(encoder)
    return Segmenter(taps, initialised(0, "head", lambda: build_segment_head(head, taps, 7, 0, place or Place())))


# The pieces


@pytest.mark.parametrize(
    ("backbone", "width", "millions"),
    [
        (Backbone(name="beit_base_patch16_224", patch_size=16), 768, 163),
        (Backbone(name="vit_base_patch16_224", patch_size=16), 768, 163),
        (Backbone(name="swin_tiny_patch4_window7_224", patch_size=4, stride=32), 512, 60),
        (Backbone(name="swin_base_patch4_window7_224", patch_size=4, stride=32), 512, 121),
    ],
    ids=lambda value: value.name if isinstance(value, Backbone) else None,
)
def test_parameters_are_those_that_were_published(backbone: Backbone, width: int, millions: int) -> None:
    """ADE20K's 150 classes at 512 px: README of BEiT's segmentation, and of Swin's, without ever training."""
    model = Described(
        stage="segment",
        backbone=backbone,
        image_size=512,
        channels=3,
        num_classes=150,
        segment_head=UPerNet(width=width),
    )
    found = segmentation(model)
    assert round(found.parameters / 1e6) == millions
    # Swin's README has 945G and 1188G for 512 x 2048 pixels, four times as many as here.
    published = {60: 945, 121: 1188}.get(millions)
    if published:
        assert 4 * found.multiply_adds / 1e9 == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_pooling_is_torchs(side: int) -> None:
    x = torch.randn(2, 3, 7, 10)
    torch.testing.assert_close(pooled(x, side), F.adaptive_avg_pool2d(x, side))


@pytest.mark.parametrize("backbone", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize(
    "head", [UPER, UPER.replace(norm="layer", aux=0.0), LinearMap()], ids=["batch", "layer", "linear"]
)
def test_every_family_gives_every_pixel_a_class(backbone: Backbone, head: SegmentHead) -> None:
    model = segmenter(head, backbone, 64)
    logits, extra = model(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 7, 64, 64)
    assert (extra is not None) == (head == UPER)
    assert extra is None or extra.shape == logits.shape
    assert model.eval()(torch.randn(1, 3, 64, 64))[1] is None


class Pointwise(nn.Module):
    """Logits of each pixel by itself."""

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        return torch.cat([images, images.square()], dim=1), None


def test_windows() -> None:
    """A single window is the whole picture; where logits depend on their pixel alone, any windows are."""
    model, images = segmenter(UPER).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(slide(model, images, 32, 20), model(images)[0])
    wide = torch.randn(1, 3, 40, 70)
    torch.testing.assert_close(slide(Pointwise(), wide, 32, 20), Pointwise()(wide)[0])


class Known(nn.Module):
    """Two classes, of which the first has the logit 2 column / width - log(width), and the other 0."""

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        wide = images.shape[-1]
        first = (2 * torch.arange(wide) / wide - math.log(wide)).expand(len(images), 1, *images.shape[2:])
        return torch.cat([first, torch.zeros_like(first)], dim=1), None


def test_probabilities_of_several_views_are_averaged_by_hand() -> None:
    """At half and full size, each mirrored too; of the half, a column stands between two of the whole picture."""
    test = Whole(scales=(0.5, 1.0), flip=True)
    run, truth = segmentation_of(test=test, start=RESNET), torch.zeros(1, 8, 8)
    views = [scenes.TestScenes(torch.tensor([0]), torch.zeros(1, 3, side, side), (side, side)) for side in (4, 8)]
    model: Any = Known()
    found = predicted(run, model, views, truth).exp()
    assert found.shape == (1, 2, 8, 8)
    column = torch.arange(8)
    half = ((column + 0.5) / 2 - 0.5).clamp(0, 3)  # where the columns of the small picture are
    logits = [2 * half / 4 - math.log(4), 2 * column / 8 - math.log(8)]
    by_hand = sum(one.sigmoid() + one.flip(0).sigmoid() for one in logits) / 4
    torch.testing.assert_close(found[0, 0], torch.as_tensor(by_hand).expand(8, 8))
    torch.testing.assert_close(found.sum(1), torch.ones(1, 8, 8))
    (one,) = {tuple(predicted(run.replace(test=Whole()), model, views[1:], truth)[0, 0, 0].tolist())}
    assert one == pytest.approx(logits[1].tolist())


def test_a_picture_that_is_smaller_than_its_window_is_seen_in_a_whole_one() -> None:
    shapes = []

    class Seen(Pointwise):
        def forward(self, images: Tensor) -> tuple[Tensor, None]:
            shapes.append(tuple(images.shape[-2:]))
            return super().forward(images)

    small = torch.randn(1, 3, 16, 40)
    torch.testing.assert_close(slide(Seen(), small, 32, 20), Pointwise()(small)[0])
    assert shapes == [(32, 32), (32, 32)]


def test_a_test_in_several_views_is_another_run_and_says_so() -> None:
    one, many = segmentation_of(), segmentation_of(test=Whole(scales=(0.5, 1.0), flip=True))
    assert key(one) == key(segmentation_of(test=Whole(scales=(1,), flip=False)))
    assert key(one) != key(many)
    assert many.caption == f"{one.caption}, tested at scales 0.5, 1, mirrored too"
    protocols = [protocol_of(run) for run in (one, one.replace(test=Whole(flip=True)), many)]
    assert [getattr(found, "test", None) for found in protocols] == ["whole", "whole, mirrored too", "several scales"]
    for scales in ((), (1.0, 0.5), (1.0, 1.0)):
        with pytest.raises(ValidationError, match="ascending order"):
            Whole(scales=scales)


def test_a_mirrored_picture_has_mirrored_logits_by_a_linear_head() -> None:
    """Where the maps are mirrored too: those of a network without padding and positions, here of single pixels."""
    widths, maps = (3, 3), [torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)]
    taps: Any = type("Maps", (nn.Module,), {"widths": widths, "forward": lambda self, x: x})()
    model = build_segment_head(LinearMap(), taps, 7, 0, Place()).eval()
    found = F.interpolate(model(maps)[0], (32, 32), mode="bilinear")
    mirrored = F.interpolate(model([x.flip(3) for x in maps])[0], (32, 32), mode="bilinear")
    torch.testing.assert_close(mirrored, found.flip(3))


def mirror_symmetric(model: nn.Module) -> None:
    """Make a ViT or a ConvNeXt compute of a mirrored picture the mirrored maps: their kernels and positions are."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name == "pos_embed":
                side = math.isqrt(weight.shape[1] - 1)
                places = weight[:, 1:].view(1, side, side, -1)
                places.copy_((places + places.flip(2)) / 2)
            elif weight.ndim == 4:
                weight.copy_((weight + weight.flip(3)) / 2)


@pytest.mark.parametrize("backbone", [VIT, CONVNEXT], ids=["vit", "convnext"])
def test_a_frozen_encoder_sees_of_a_flipped_scene_the_flipped_truth(backbone: Backbone) -> None:
    """Of scenes as they are trained on, flipped or not: the logits are mirrored and the losses the same."""
    run = segmentation_of(start=backbone, head=LinearMap(), frozen=True, data=Garments(image_size=32, train=8))
    encoder = Encoder(initialised(0, "encoder", lambda: build(run.built, image_size=32, channels=3)))
    mirror_symmetric(encoder.model)
    taps = Taps(encoder.eval().requires_grad_(False))
    head = initialised(0, "head", lambda: build_segment_head(run.head, taps, 11, 0, Place()))
    model = Segmenter(taps, head).train()
    found = []
    for flip in (0.0, 1.0):
        recipe = RECIPE.replace(augment=RECIPE.augment.replace(flip=flip))
        here = Session(attempt=None, device=CPU)  # type: ignore[arg-type]
        batch = next(scene_batches(run.replace(recipe=recipe), load_scenes(run.data, "train"), here, "segments", 0))
        logits = model(batch.images)[0]
        found.append((logits, losses(run, logits, None, batch.segments)["classes"]))
    (plain, loss), (flipped, same) = found
    torch.testing.assert_close(flipped, plain.flip(3))
    torch.testing.assert_close(same, loss)
    assert not torch.allclose(flipped, plain)


def test_channel_dropout_is_a_function_of_stream_step_and_position() -> None:
    place = Place()
    drop, x = KeyedChannelDropout(5, 0.25, place), torch.ones(8, 400, 2, 2)
    place.move(3, torch.arange(8))
    whole = drop(x)
    assert whole.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(whole, whole[:, :, :1, :1].expand_as(whole)), "whole channels"
    assert (whole == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    place.move(3, torch.tensor([6, 2]))
    assert torch.equal(drop(x[:2]), whole[[6, 2]])
    place.move(4, torch.arange(8))
    assert not torch.equal(drop(x), whole)
    assert drop.eval()(x) is x


def test_learning_rates_fall_towards_the_input_and_the_head_has_the_full_one() -> None:
    model = segmenter(UPER)
    scales = scales_with_heads(model, model.taps.encoder.model, 0.5)
    assert {scale for name, scale in scales.items() if name.startswith("head.")} == {1.0}
    found = {
        name: scales[f"taps.encoder.model.{name}"]
        for name in ("blocks.1.norm1.bias", "blocks.0.norm1.bias", "cls_token")
    }
    assert list(found.values()) == [0.5, 0.25, 0.125]


def test_losses_by_hand_and_without_a_known_pixel() -> None:
    run, logits = segmentation_of(head=UPER.replace(aux=0.5)), torch.randn(2, 7, 4, 4)
    truth = torch.randint(0, 7, (2, 4, 4))
    truth[0, :2] = 255
    found = losses(run, logits, 2 * logits, truth)
    assert found["classes"].item() == pytest.approx(F.cross_entropy(logits, truth, ignore_index=255).item(), rel=1e-5)
    extra = F.cross_entropy(2 * logits, truth, ignore_index=255)
    assert found["auxiliary"].item() == pytest.approx(0.5 * extra.item(), rel=1e-5)
    assert losses(run, logits, None, torch.full_like(truth, 255)) == {"classes": 0.0}


# Whole runs


@pytest.fixture
def computed(tmp_path: Path) -> Computed:
    """Compute a run in a fresh store."""
    return computed_in(tmp_path)


def test_a_run_repeats_to_the_bit_whatever_torchs_seed_and_resumes_to_the_bit(computed: Computed) -> None:
    run = segmentation_of(recipe=RECIPE.replace(drop_path=0.2), head=UPER.replace(dropout=0.2))
    first = computed(run)
    assert set(run.metrics) == set(first["metrics"])
    torch.manual_seed(1)
    assert computed(run) == first
    assert computed(run, stop=3) == first
    assert computed(run.replace(seed=1))["weights"] != first["weights"]


@pytest.mark.parametrize(
    "head", [UPER.replace(norm="layer", dropout=0.2), LinearMap(batch_norm=False)], ids=["uper", "linear"]
)
def test_micro_batches_change_rounding_alone(
    computed: Computed, head: SegmentHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where pictures differ in how many pixels are known."""
    real = scenes.segments_of

    def patchy(slots: Tensor, classes: Tensor) -> Tensor:
        found = real(slots, classes)
        return torch.where((found == 0) & (classes[:, :1, None] % 2 == 0), 255, found)

    monkeypatch.setattr(scenes, "segments_of", patchy)
    run = segmentation_of(recipe=RECIPE.replace(epochs=1), data=DATA.replace(train=8), head=head)  # one step
    (whole,), (cut,) = computed(run)["lines"], computed(run, micro_batch=3)["lines"]
    assert cut["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert cut["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-5)
    assert cut["test_miou"] == pytest.approx(whole["test_miou"], rel=1e-3)


def test_a_frozen_encoder_is_not_saved_and_windows_test_as_the_whole(computed: Computed) -> None:
    run = segmentation_of(frozen=True, head=LinearMap(), data=Garments(image_size=32, train=8, test=4))
    found = computed(run)
    windows = computed(run.replace(test=Slide(stride=20)))
    assert found["metrics"] == pytest.approx(windows["metrics"])
    assert 0 <= found["metrics"]["miou"] <= 100


def test_a_model_of_a_fixed_size_is_refused_before_it_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def wider(*args: Any, **named: Any) -> Any:
        for one in scenes.test_scenes(*args, **named):
            yield one._replace(images=F.pad(one.images, (0, 16)))

    monkeypatch.setattr(recipe_of_segment, "test_scenes", wider)
    store, run = Store(tmp_path), segmentation_of()
    event = work(store, run, CPU, Resources(), report=lambda event: None)
    assert event.kind == "failed"
    assert "cannot be tested on whole pictures" in event.text
    assert "test=Slide(stride=...)" in event.text
    assert store.metrics(key(run)) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("too wide"), r"cannot be tested in windows of 32 px \(too wide\)"),
        (torch.OutOfMemoryError("out of memory"), "out of memory"),
    ],
)
def test_a_failure_in_windows_is_not_called_one_of_whole_pictures(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr(recipe_of_segment, "predicted", fails)
    event = work(Store(tmp_path), segmentation_of(test=Slide(stride=20)), CPU, Resources(), report=lambda event: None)
    assert event.kind == "failed"
    assert re.search(said, event.text)
    assert "whole pictures" not in event.text
    assert ("cannot be tested" in event.text) == (type(error) is RuntimeError)


@pytest.mark.parametrize(
    ("start", "test"),
    [(SMALL, Slide(stride=20, scales=(0.5, 1.0, 1.25), flip=True)), (RESNET, Whole(scales=(1.0, 2.0)))],
    ids=["slide", "whole"],
)
def test_a_run_is_tested_in_several_views(computed: Computed, start: Backbone, test: Slide | Whole) -> None:
    """The model is the same as with one view, its scores are others."""
    run = segmentation_of(start=start, test=test, head=LinearMap(), data=DATA.replace(train=8))
    found, single = computed(run), computed(run.replace(test=Whole()))
    assert found["weights"] == single["weights"]
    assert found["metrics"]["loss"] != single["metrics"]["loss"]
    assert found["metrics"]["miou_one_class"] == single["metrics"]["miou_one_class"]


def fitted(computed: Computed, monkeypatch: pytest.MonkeyPatch, steps: int, lr: float, **changes: Any) -> float:
    """The mIoU of 16 pictures after training on them."""
    monkeypatch.setattr(recipe_of_segment, "load_scenes", lambda data, part: load_scenes(data, "train"))
    still = Augment(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0)
    recipe = Recipe(steps=steps, batch_size=16, lr=lr, lr_batch=None, weight_decay=0.0, warmup_steps=10, augment=still)
    data = Garments(image_size=32, train=16, test=16)
    found: float = computed(segmentation_of(data=data, recipe=recipe, **changes))["metrics"]["miou"]
    return found


def test_sixteen_pictures_are_learnt_by_heart(computed: Computed, monkeypatch: pytest.MonkeyPatch) -> None:
    """88 is what 200 steps gave; who says background everywhere has 5."""
    assert fitted(computed, monkeypatch, 150, 1e-2, start=RESNET, head=LinearMap()) > 60


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_sixteen_pictures_by_heart(
    family: str, computed: Computed, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = UPerNet(width=16, pools=(1, 2))
    assert fitted(computed, monkeypatch, 600, 5e-3, start=FAMILIES[family], head=head) > 60
