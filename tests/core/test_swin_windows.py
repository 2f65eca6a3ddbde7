"""Position biases of a Swin V2 stay what they were where its windows become larger or smaller."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny import DATA, RECIPE, pretrain
from torch import Tensor

from harness.core.data.datasets import facts_of
from harness.core.evaluate import start as starting
from harness.core.model.backbones import layers_of
from harness.core.model.encoder import build
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.weights.export import export
from harness.core.weights.finished_run import Trained
from harness.core.weights.formats import Weights
from harness.spec import (
    Backbone,
    Checkpoint,
    Detect,
    FineTune,
    Garments,
    Knn,
    LinearProbe,
    LogisticProbe,
    Pretrain,
    Scratch,
    Segment,
    Snapshot,
)
from harness.spec.model.windows import scales, windows

STILL = RECIPE.replace(weight_decay=0.0)
"""With which no weights decay, so that no other correction raises the revision."""


def swin(window: Any, **args: Any) -> Backbone:
    """A Swin V2 of two stages, of strides 4 and 8."""
    given = {"embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": window, **args}
    return Backbone(name="swinv2_tiny_window8_256", args=given, patch_size=4, stride=8)


def started(window: int, size: int, **changes: Any) -> Pretrain:
    return pretrain(backbone=swin(window), image_size=size, recipe=STILL, **changes)


def attentions(model: Any) -> list[Any]:
    """The attention of each block."""
    return [block.attn for block in layers_of(model).blocks(model)]


@torch.no_grad()
def biases(model: Any) -> list[Tensor]:
    """Bias of each offset in each block, [2 rows - 1, 2 columns - 1, heads]: 16 * sigmoid of the network."""
    return [(16 * attention.cpb_mlp(attention.relative_coords_table).sigmoid())[0] for attention in attentions(model)]


def common(found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps of biases at the offsets that both have."""
    side = min(len(found), len(wanted))
    edges = [(len(one) - side) // 2 for one in (found, wanted)]
    left, right = (
        one[edge : edge + side, edge : edge + side] for one, edge in zip((found, wanted), edges, strict=True)
    )
    return left, right


def learnt(backbone: Backbone, size: int) -> Any:
    """A model whose networks of positions give biases that differ from offset to offset."""
    torch.manual_seed(0)
    model = build(backbone, image_size=size, channels=3)
    for attention in attentions(model):
        for layer in attention.cpb_mlp[::2]:
            torch.nn.init.normal_(layer.weight, std=0.3)
    assert all(found.std() > 0.5 for found in biases(model))
    return model


class Session:
    """As much of a session as loading a start takes: one file of weights, whatever the run."""

    def __init__(self, folder: Path, model: Any) -> None:
        self.path, self.device, self.attempt, self.store = folder / "a.safetensors", torch.device("cpu"), self, self
        save_file({f"encoder.model.{name}": tensor for name, tensor in model.state_dict().items()}, self.path)

    def upstream_weights(self, name: str) -> Path:
        return self.path


def dense(kind: type[Segment] | type[Detect]) -> Callable[[Pretrain, Any, int, Any], Any]:
    """Loads the encoder of such an evaluation."""

    def loaded(start: Pretrain, backbone: Any, size: int, session: Any) -> Any:
        run = kind(start=start, backbone=backbone, image_size=size, data=Garments(image_size=size), recipe=STILL)
        return starting.dense_encoder(run, session, channels=3).model

    return loaded


LOADED: dict[str, Callable[[Pretrain, Any, int, Any], Any]] = {
    "finetune": lambda start, backbone, size, session: starting.classifier(
        FineTune(start=start, backbone=backbone, image_size=size, recipe=STILL), session, channels=3, num_classes=4
    ),
    "segment": dense(Segment),
    "detect": dense(Detect),
    "frozen segment, opened": lambda start, backbone, size, session: (
        starting.encoder_below(
            SimpleNamespace(
                run=Segment(
                    start=start,
                    backbone=backbone,
                    image_size=size,
                    data=Garments(image_size=size),
                    recipe=STILL,
                    frozen=True,
                ),
                facts=facts_of(DATA),
                store=session,
            ),  # type: ignore[arg-type]
            session.device,
        ).model
    ),
}


@pytest.mark.parametrize("place", LOADED)
@pytest.mark.parametrize(("window", "size"), [(7, 112), (16, 256)])
def test_biases_of_other_windows_are_those_of_the_start(place: str, window: int, size: int, tmp_path: Path) -> None:
    """SimMIM's windows: 6 in pre-training, 7 or 16 behind it."""
    model = learnt(swin(6), 96)
    loaded = LOADED[place](started(6, 96), swin(window), size, Session(tmp_path, model))
    assert [attention.window_size for attention in attentions(loaded)] == 3 * [(window, window)]
    for found, wanted in zip(biases(loaded), biases(model), strict=True):
        torch.testing.assert_close(*common(found, wanted), atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [Knn, LogisticProbe, partial(LinearProbe, recipe=STILL)])
def test_biases_at_a_smaller_image_whose_last_windows_shrink(make: Any, tmp_path: Path) -> None:
    model = learnt(swin(8), 128)
    session: Any = Session(tmp_path, model)
    run = make(start=started(8, 128), image_size=32)
    loaded = starting.frozen_encoder(run, session, channels=3).model
    assert [attention.window_size for attention in attentions(loaded)] == [(8, 8), (4, 4), (4, 4)]
    for found, wanted in zip(biases(loaded), biases(model), strict=True):
        torch.testing.assert_close(*common(found, wanted), atol=1e-5, rtol=0)


def test_a_start_whose_last_windows_were_small_says_so_of_these_alone(tmp_path: Path) -> None:
    model = learnt(swin(8), 32)  # windows of 8 and 4
    run = FineTune(start=started(8, 32), image_size=64, recipe=STILL)
    assert dict(run.built.args)["pretrained_window_sizes"] == (8, 4)
    session: Any = Session(tmp_path, model)
    loaded = starting.classifier(run, session, channels=3, num_classes=4)
    for found, wanted in zip(biases(loaded), biases(model), strict=True):
        torch.testing.assert_close(*common(found, wanted), atol=1e-5, rtol=0)


def test_nothing_changes_where_windows_are_those_of_the_start(tmp_path: Path) -> None:
    model = learnt(swin(4), 64)
    start, session = started(4, 64), Session(tmp_path, model)
    runs: list[Any] = [
        FineTune(start=start, recipe=STILL),
        FineTune(start=start, image_size=128, recipe=STILL),  # more windows of 4
        Knn(start=start, image_size=32),
        FineTune(start=Scratch(backbone=swin(6), image_size=96), data=DATA, backbone=swin(7), recipe=STILL),
    ]
    assert [run.encoder for run in runs] == [swin(4), swin(4), swin(4), swin(7)]
    assert [run.current_revision() for run in runs] == [1, 1, 1, 1]
    loaded = LOADED["finetune"](start, swin(4), 64, session)
    assert all(torch.equal(found, wanted) for found, wanted in zip(biases(loaded), biases(model), strict=True))


def test_scales_that_are_stated_are_kept() -> None:
    own, half = swin(7, pretrained_window_sizes=(0, 0)), swin(7, pretrained_window_sizes=(3, 3))
    for backbone in (own, half):
        run = FineTune(start=started(6, 96), backbone=backbone, image_size=112, recipe=STILL)
        assert (run.built, run.current_revision()) == (backbone, 1)
    # Those of the start are what its weights were trained with.
    start = pretrain(backbone=swin(6, pretrained_window_sizes=(3, 4)), image_size=96, recipe=STILL)
    built = FineTune(start=start, backbone=swin(7), image_size=112, recipe=STILL).built
    assert dict(built.args)["pretrained_window_sizes"] == (3, 4)


def test_every_start_with_weights_gives_its_scales() -> None:
    file = Checkpoint(path="a", sha256="0a", backbone=swin(6), image_size=96)
    starts: list[Any] = [started(6, 96), Snapshot(pretrain=started(6, 96), epoch=1), file]
    for start in starts:
        run = FineTune(start=start, data=DATA, backbone=swin(7), image_size=112, recipe=STILL)
        assert dict(run.built.args)["pretrained_window_sizes"] == (6, 6)
        assert run.current_revision() == 3


def test_a_pretraining_goes_on_with_the_biases_of_its_start_and_hands_them_on(tmp_path: Path) -> None:
    model = learnt(swin(8), 32)  # windows of 8 and 4
    path = Session(tmp_path, model).path
    run = started(8, 64, start=Checkpoint(path=str(path), backbone=swin(8), image_size=32))
    on = MaskedImageModel(run, 3).encoder.model
    for attention, own in zip(attentions(on), attentions(model), strict=True):
        attention.load_state_dict(own.state_dict())
    for found, wanted in zip(biases(on), biases(model), strict=True):
        torch.testing.assert_close(*common(found, wanted), atol=1e-5, rtol=0)
    assert (run.current_revision(), run.replace(start=None).current_revision()) == (9, 1)
    opened = starting.encoder_of(trained(run, on), torch.device("cpu")).model
    assert all(torch.equal(found, wanted) for found, wanted in zip(biases(opened), biases(on), strict=True))
    assert dict(Knn(start=run).encoder.args)["pretrained_window_sizes"] == (8, 4)


def trained(run: Any, model: Any) -> Trained:
    return Trained("a", run, Weights(model.state_dict()), facts_of(DATA))


def test_a_fine_tuned_model_has_its_biases_wherever_it_is_built(tmp_path: Path) -> None:
    """Of an analysis of it, opened by name, and of the call of an export."""
    run = FineTune(start=started(6, 96), backbone=swin(7), image_size=112, recipe=STILL)
    session: Any = Session(tmp_path, learnt(swin(6), 96))
    model = starting.classifier(run, session, channels=3, num_classes=4).eval()
    images = torch.rand(2, 3, 112, 112)
    # The file of the classifier, whose number of classes `fine_tuned` reads.
    save_file(model.state_dict(), session.path)
    exported = export(trained(run, model), tmp_path / "b.safetensors", "timm")
    made = {
        "analysed": starting.fine_tuned(run, session, channels=3),
        "opened": starting.classifier_of(trained(run, model), torch.device("cpu")),
        "exported": eval(exported.call, {"timm": timm}).eval(),
    }
    for place, found in made.items():
        with torch.no_grad():
            assert torch.equal(found(images), model(images)), place
    assert exported.arguments["pretrained_window_sizes"] == (6, 6)


@pytest.mark.parametrize("size", [32, 64, 96, 128, 192])
@pytest.mark.parametrize(
    "args",
    [
        {"window_size": 4},
        {"window_size": 7},
        {"window_size": (6, 3)},
        {"window_size": 6, "always_partition": True},
        {"window_size": 6, "pretrained_window_sizes": (3, 0)},
        {},  # the default of the name
    ],
    ids=str,
)
def test_windows_are_those_of_the_model_that_timm_builds(args: dict[str, Any], size: int) -> None:
    # The first block of a stage is not shifted: timm 1.0.21 refuses shifted windows that do not divide a map.
    given = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), **args}
    check(Backbone(name="swinv2_tiny_window16_256", args=given, patch_size=4, stride=8), size)


@pytest.mark.parametrize("name", [name for name in timm.list_models("swinv2_*") if "_cr_" not in name])
def test_windows_of_each_of_timms_names_are_those_of_its_model(name: str) -> None:
    small = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
    check(Backbone(name=name, args=small, patch_size=4, stride=32), 256)


def check(backbone: Backbone, size: int) -> None:
    """Compare with the first block of each stage."""
    model: Any = build(backbone, image_size=size, channels=3)
    firsts = [stage.blocks[0].attn for stage in model.layers]
    assert windows(backbone, size) == tuple(block.window_size for block in firsts)
    # What positions are divided by is the largest offset, 1 at least.
    read = [own if own[0] else block.window_size for block in firsts for own in (block.pretrained_window_size,)]
    assert scales(backbone, size) == tuple((max(rows, 2), max(columns, 2)) for rows, columns in read)


@pytest.mark.parametrize(
    "args",
    [
        {"window_size": "large"},
        {"window_size": (4, 4, 4)},
        {"window_size": (4, (4, 4, 4))},
        {"depths": 2},
        {"window_size": None},
        {"pretrained_window_sizes": 6},
        {"pretrained_window_sizes": (6,)},
    ],
    ids=str,
)
def test_arguments_that_timm_refuses_are_left_to_timm(args: dict[str, Any]) -> None:
    backbone = swin(7).replace(args={**dict(swin(7).args), **args})
    start = started(6, 96).replace(backbone=backbone)
    assert FineTune(start=start, backbone=swin(7), image_size=112, recipe=STILL).built == swin(7)
    assert FineTune(start=started(6, 96), backbone=backbone, image_size=112, recipe=STILL).built == backbone
