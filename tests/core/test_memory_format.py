"""Channels in the last place of memory change nothing but speed."""

from __future__ import annotations

import copy

import pytest
import torch
from test_backbones import BASIC, CONVNEXT, RESNET
from tiny import VIT, pretrain

from harness import audit
from harness.core.model.encoder import build
from harness.core.model.memory_format import to_device, with_channels_last
from harness.core.objective.losses import total
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.weights.checkpoint import weights_of
from harness.spec import AfterStage, Backbone, Corruption, RandomMask

CNNS = pytest.mark.parametrize("backbone", [RESNET, BASIC, CONVNEXT], ids=["bottleneck", "basic", "convnext"])


def strides(model: torch.nn.Module) -> set[bool]:
    """Whether matrices of more than one pixel and channel have their channels last."""
    weights = (p for p in model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1)
    return {weight.stride(1) == 1 for weight in weights}


@CNNS
def test_pre_training_is_the_same_but_for_rounding(backbone: Backbone) -> None:
    run = pretrain(
        backbone=backbone,
        image_size=64,
        mask=RandomMask(size=16, ratio=0.5),
        corruption=Corruption(fill="image-mean", token="gated-add", site=AfterStage(stage=3, stride=16), gate=0.1),
    )
    batch = audit.fixed_batch(run, 4)
    usual = MaskedImageModel(run, 3).double()
    other = with_channels_last(copy.deepcopy(usual))
    assert (strides(usual.encoder), strides(other.encoder)) == ({False}, {True})
    assert weights_of(usual) == weights_of(other)
    for _ in range(2):
        found = []
        for model in (usual, other):
            model.zero_grad()
            loss = total(model.train()(batch.images.double(), batch.units)[1])
            loss.backward()
            found.append((loss, [p.grad for p in model.parameters()]))
            with torch.no_grad():
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(0.1 * parameter.grad)
        torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)
    for name, tensor in usual.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, rtol=1e-5, atol=1e-7)


@CNNS
def test_predictions_are_the_same_but_for_rounding(backbone: Backbone) -> None:
    model = build(backbone, image_size=64, channels=3, num_classes=10, pool="mean").eval()
    images = torch.randn(4, 3, 64, 64)
    wanted = model(images)
    torch.testing.assert_close(with_channels_last(model)(images), wanted, rtol=1e-4, atol=1e-5)


def test_the_cpu_and_transformers_keep_the_usual_order() -> None:
    on_cpu = to_device(build(RESNET, image_size=64, channels=3), torch.device("cpu"))
    assert strides(on_cpu) == {False}
    assert strides(with_channels_last(build(VIT, image_size=32, channels=3))) == {False}
