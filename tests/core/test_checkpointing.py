"""Blocks that are computed again in the backward pass: every number as it was, and less memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from test_backbones import ALL, RESNET
from tiny import INVERSE, RECIPE, VIT, pretrain
from torch import Tensor

from harness.core.model.batchnorm import GroupBatchNorm, group_batch_norms
from harness.core.model.checkpointing import checkpoint_blocks
from harness.core.model.encoder import build
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.runtime.drop_path import key_drop_paths
from harness.core.runtime.session import Session
from harness.spec import Backbone, Corruption, DecoderHead, Pretrain, RandomMask, TokenMask, TransformerHead

DECODER = DecoderHead(depth=2, width=32, heads=2)


def kept_bytes(model: torch.nn.Module, *inputs: Tensor) -> tuple[Tensor, int]:
    """Loss of a model after its backward pass, and the bytes kept for that pass, weights left out."""
    weights = {weight.data_ptr() for weight in (*model.parameters(), *model.buffers())}
    found = dict[int, int]()

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            found[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(0)  # for dropout
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = model(*inputs)
        loss = result.square().mean() if isinstance(result, Tensor) else torch.stack([*result[1].values()]).sum()
    kept = sum(found.values())
    loss.backward()
    return loss.detach(), kept


def assert_the_same(model: torch.nn.Module, *inputs: Tensor) -> None:
    """Losses, gradients and buffers are equal to the bit with and without checkpointing, which keeps less."""
    again = copy.deepcopy(model)
    for layer, other in zip(model.modules(), again.modules(), strict=True):
        if hasattr(layer, "place"):
            other.place = layer.place  # one place for both
    checkpoint_blocks(again)
    assert model.state_dict().keys() == again.state_dict().keys()
    (loss, kept), (same, fewer) = kept_bytes(model, *inputs), kept_bytes(again, *inputs)
    assert torch.equal(loss, same)
    assert fewer < 0.9 * kept
    for (name, mine), theirs in zip(model.named_parameters(), again.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), name
        assert mine.grad is None or torch.equal(mine.grad, theirs.grad), name  # type: ignore[arg-type]
    for (name, buffer), copied in zip(model.named_buffers(), again.buffers(), strict=True):
        assert torch.equal(buffer, copied), name
    for layer, other in zip(model.modules(), again.modules(), strict=True):
        if isinstance(layer, GroupBatchNorm):
            torch.testing.assert_close(layer.seen, other.seen, rtol=0, atol=0)


def masked(run: Pretrain) -> tuple[MaskedImageModel, Tensor, Tensor]:
    model = MaskedImageModel(run, 3).train()
    model.place = key_drop_paths(model, run.seed, 8).move(3, torch.arange(8))
    side = run.image_size // run.mask.size
    units = torch.zeros(8, side * side, dtype=torch.bool)
    units[:, : run.mask.hidden_units(run.image_size)] = True
    return model, torch.randn(8, 3, run.image_size, run.image_size), units.view(8, side, side)


@ALL
def test_encoders(backbone: Backbone) -> None:
    mask, recipe = RandomMask(size=32, ratio=0.5), RECIPE.replace(drop_path=0.3)
    assert_the_same(*masked(pretrain(backbone=backbone, image_size=64, mask=mask, recipe=recipe)))


@ALL
def test_classifiers_with_drop_path(backbone: Backbone) -> None:
    model: Any = build(backbone, image_size=64, channels=3, num_classes=5, pool="mean", drop_path=0.3).train()
    key_drop_paths(model, 1, 8).move(3, torch.arange(8))
    assert_the_same(model, torch.randn(8, 3, 64, 64))


@pytest.mark.parametrize("head", [TransformerHead(layers=2, num_heads=2), INVERSE, DECODER])
def test_heads(head: Any) -> None:
    assert_the_same(*masked(pretrain(head=head)))


def test_dropped_tokens() -> None:
    run = pretrain(head=DECODER, corruption=Corruption(token="drop"), mask=TokenMask(size=4, ratio=0.75))
    assert_the_same(*masked(run))


def test_dropout_draws_the_same_numbers_again() -> None:
    backbone = VIT.replace(args={**dict(VIT.args), "proj_drop_rate": 0.4})
    assert_the_same(*masked(pretrain(backbone=backbone)))


def test_batch_norms_over_groups_note_each_batch_once() -> None:
    model: Any = build(RESNET, image_size=64, channels=3, num_classes=5, pool="mean").train()
    place = key_drop_paths(model, 1, 8).move(3, torch.arange(8))
    session: Any = Session(None, torch.device("cpu"))  # type: ignore[arg-type]
    group_batch_norms(model, RECIPE.replace(batch_size=8, batch_norm_group=4), session, place)
    assert_the_same(model, torch.randn(8, 3, 64, 64))
