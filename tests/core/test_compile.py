"""Models that torch.compile can trace: one graph, no recompilation from step to step, and every bit as in eager mode.

The backend "eager" runs what was traced as it is, so that differences are those of tracing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_backbones import CONVNEXT, RESNET
from tiny import BEIT, BINS, CLUSTERS, INVERSE, RECIPE, SWIN, SWIN_V2, VIT, WORDS, pretrain

from harness.core.masks.masking import in_views
from harness.core.model.encoder import build
from harness.core.objective.contrastive import SECOND, has_second_crop
from harness.core.pretrain.draws import FIRST, draw_masks, masks_of, pairs_of
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.runtime.drop_path import Place, key_drop_paths
from harness.papers import a2mim, mae, released_simmim_cnn, simmim, simmim_cnn, symmim
from harness.spec import (
    AnyBackbone,
    Contrastive,
    Corruption,
    DecoderHead,
    HardMask,
    HogTarget,
    LocalMask,
    Loss,
    LossPredictor,
    LowPassTarget,
    MlpHead,
    MomentumEncoder,
    MomentumTarget,
    NormPixelTarget,
    Pretrain,
    Scale,
    Shapes,
    TransformerHead,
)

STEPS, BATCH = 5, 4


def scale(backbone: AnyBackbone) -> Scale:
    """A small stand-in for a paper's scale, with drop path."""
    recipe = RECIPE.replace(batch_size=BATCH, drop_path=0.2)
    data = Shapes(image_size=96, train=64, test=32)
    return Scale(
        name="small", data=data, image_size=96, paper_image_size=96, backbone=backbone, pretrain=recipe, finetune=recipe
    )


DEEPER = VIT.replace(args={"embed_dim": 32, "depth": 3, "num_heads": 2})
CONTRAST = Contrastive(hidden=8, out=8, crops="swapped")
PRESETS: dict[str, Callable[[], Pretrain]] = {
    "simmim, vit": lambda: simmim(scale(VIT)),
    "simmim, beit": lambda: simmim(scale(BEIT)),
    "simmim, swin": lambda: simmim(scale(SWIN)),
    "simmim, swinv2": lambda: simmim(scale(SWIN_V2)),
    "simmim, inverse swin head": lambda: simmim(scale(VIT), head=INVERSE),
    "simmim, mlp head": lambda: simmim(scale(VIT), head=MlpHead(layers=2)),
    "simmim, transformer head": lambda: simmim(scale(VIT), head=TransformerHead(layers=1, num_heads=2)),
    "simmim, bins": lambda: simmim(scale(VIT), target=BINS),
    "simmim, clusters": lambda: simmim(scale(VIT), target=CLUSTERS),
    "simmim, words": lambda: simmim(scale(VIT), target=WORDS),
    "simmim_cnn, resnet": lambda: simmim_cnn(scale(RESNET)),
    "released_simmim_cnn, convnext": lambda: released_simmim_cnn(scale(CONVNEXT)),
    "a2mim, resnet": lambda: a2mim(scale(RESNET)),
    "a2mim, resnet, released": lambda: a2mim(scale(RESNET), variant="released"),
    "a2mim, convnext": lambda: a2mim(scale(CONVNEXT)),
    "a2mim, convnext, released": lambda: a2mim(scale(CONVNEXT), variant="released"),
    "a2mim, vit": lambda: a2mim(scale(DEEPER)),
    "a2mim, vit, released": lambda: a2mim(scale(DEEPER), variant="released"),
    "a2mim, swin": lambda: a2mim(scale(SWIN)),
    "mae": lambda: mae(scale(VIT), head=DecoderHead(depth=1, width=32, heads=2)),
    "symmim": lambda: symmim(scale(VIT)),
    "local windows": lambda: simmim(scale(VIT), mask=LocalMask(size=4, window=7, windows=2)),
    "noise": lambda: simmim(scale(VIT)).replace(corruption=Corruption(fill="noise")),
    "histograms of gradients": lambda: pretrain(target=HogTarget(cell=2, window=4)),
    "normalised pixels": lambda: pretrain(target=NormPixelTarget(size=4)),
    "low pass": lambda: pretrain(target=LowPassTarget(radius=4.0)),
    "momentum target": lambda: pretrain(
        target=MomentumTarget(width=32, downsample=4, blocks=1), momentum=MomentumEncoder(), loss=Loss(kind="l2")
    ),
    "hard patches": lambda: pretrain(
        mask=HardMask(size=8),
        momentum=MomentumEncoder(),
        loss_predictor=LossPredictor(decoder=DecoderHead(depth=1, width=32, heads=2)),
    ),
    "swapped crops": lambda: pretrain(contrastive=CONTRAST, momentum=MomentumEncoder()),
}  # fmt: skip


class Traced:
    """A model compiled without a graph break by a backend that counts the graphs it is given."""

    def __init__(self, model: torch.nn.Module) -> None:
        torch._dynamo.reset()
        self.graphs = 0

        def backend(graph: Any, inputs: Any) -> Any:
            del inputs
            self.graphs += 1
            return graph.forward

        self.model: Any = torch.compile(model, fullgraph=True, backend=backend)


def twin(model: torch.nn.Module) -> Any:
    """A copy with weights and state of its own, and the same place."""
    again = copy.deepcopy(model)
    for one, other in zip(model.modules(), again.modules(), strict=True):
        if hasattr(one, "place"):
            other.place = one.place
    return again


def assert_equal_gradients(model: torch.nn.Module, other: torch.nn.Module) -> None:
    """Equal to the bit; they are cleared."""
    for (name, mine), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), name
        assert mine.grad is None or torch.equal(mine.grad, theirs.grad), name  # type: ignore[arg-type]
        mine.grad = theirs.grad = None


def assert_one_graph(run: Pretrain) -> None:
    model: Any = MaskedImageModel(run, 3).train()
    model.place = key_drop_paths(model, run.seed, BATCH)
    eager, traced, positions = twin(model), Traced(model), torch.arange(BATCH)
    for step in range(STEPS):
        model.place.move(step, positions)
        first = torch.randn(BATCH, 3, run.image_size, run.image_size)
        second = torch.randn_like(first) if has_second_crop(run.contrastive) else None
        scores = {FIRST: eager.scores(first), SECOND: None if second is None else eager.scores(second)}
        masks = draw_masks(run, masks_of(run), step=step, steps=STEPS, positions=positions, scores=scores)
        inputs = in_views(run.mask, first), masks[FIRST], pairs_of(run, second, masks)
        (prediction, losses), (wanted, theirs) = traced.model(*inputs), eager(*inputs)
        assert torch.equal(prediction, wanted)
        assert {name: loss.item() for name, loss in losses.items()} == {n: loss.item() for n, loss in theirs.items()}
        for found in (losses, theirs):
            torch.stack([*found.values()]).sum().backward()
        assert_equal_gradients(model, eager)
    assert traced.graphs == 1


def test_a_pretraining_is_one_graph() -> None:
    assert_one_graph(PRESETS["simmim, vit"]())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PRESETS if name != "simmim, vit"])
def test_every_preset_is_one_graph(name: str) -> None:
    assert_one_graph(PRESETS[name]())


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [VIT, BEIT, SWIN, SWIN_V2, RESNET, CONVNEXT], ids=lambda found: found.name)
def test_a_classifier_is_one_graph(backbone: AnyBackbone) -> None:
    model: Any = build(backbone, image_size=64, channels=3, num_classes=5, pool="mean", drop_path=0.2).train()
    place: Place = key_drop_paths(model, 0, BATCH)
    eager, traced = twin(model), Traced(model)
    for step in range(STEPS):
        place.move(step, torch.arange(BATCH))
        images = torch.randn(BATCH, 3, 64, 64)
        logits, wanted = traced.model(images), eager(images)
        assert torch.equal(logits, wanted)
        for found in (logits, wanted):
            found.square().sum().backward()
        assert_equal_gradients(model, eager)
    assert traced.graphs == 1
