"""SimMIM's ViT: a BEiT whose blocks share a relative position table in pre-training only."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny import BEIT, DATA, RECIPE, VIT, pretrain

from harness.core.evaluate.start import _reset, classifier_scale
from harness.core.model.encoder import SHARED_BIAS, Encoder, build, layer_id, own_biases
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.weights.checkpoint import load_encoder
from harness.core.weights.formats.weights import below
from harness.spec import Backbone, FineTune, Scratch


def parameters(backbone: Backbone, pool: str) -> dict[str, torch.Tensor]:
    model = build(backbone, image_size=32, channels=3, num_classes=10 if pool else 0, pool=pool)
    return dict(model.named_parameters())


def test_one_table_in_pre_training_and_one_a_block_in_fine_tuning() -> None:
    """(2 * 8 - 1)^2 + 3 rows: all distances in an 8 x 8 grid, and the three of the class token."""
    encoder, classifier = parameters(BEIT, ""), parameters(BEIT, "mean")
    tables = {name: tuple(p.shape) for name, p in encoder.items() if "relative_position" in name}
    assert tables == {SHARED_BIAS: (228, 2)}
    tables = {name: tuple(p.shape) for name, p in classifier.items() if "relative_position" in name}
    assert tables == {f"blocks.{k}.attn.relative_position_bias_table": (228, 2) for k in range(2)}
    assert "norm.weight" in encoder
    assert "fc_norm.weight" not in encoder
    assert "fc_norm.weight" in classifier
    assert "norm.weight" not in classifier
    assert "pos_embed" not in encoder
    assert "cls_token" in encoder
    assert encoder["blocks.0.gamma_1"].unique().tolist() == [pytest.approx(0.1)]


def test_fine_tuning_starts_with_a_copy_of_the_shared_table_in_every_block() -> None:
    weights = below(MaskedImageModel(pretrain(backbone=BEIT), 3).state_dict(), "encoder.model.")
    weights[SHARED_BIAS] = torch.randn(228, 2)
    model: Any = build(BEIT, image_size=32, channels=3, num_classes=10, pool="mean")
    load_encoder(model, weights, "the pre-training")
    state = model.state_dict()
    for block in range(2):
        assert torch.equal(state[f"blocks.{block}.attn.relative_position_bias_table"], weights[SHARED_BIAS])
        assert torch.equal(state[f"blocks.{block}.attn.qkv.weight"], weights[f"blocks.{block}.attn.qkv.weight"])
    with torch.no_grad():
        model.blocks[0].attn.relative_position_bias_table.zero_()
    assert model.blocks[1].attn.relative_position_bias_table.abs().sum() > 0, "blocks must not share memory"


def test_copying_the_table_leaves_the_features_as_they_were() -> None:
    encoder: Any = build(BEIT, image_size=32, channels=3).eval()
    torch.nn.init.normal_(encoder.rel_pos_bias.relative_position_bias_table)
    model = build(BEIT, image_size=32, channels=3, num_classes=10, pool="mean").eval()
    load_encoder(model, encoder.state_dict(), "the encoder")
    images = torch.randn(2, 3, 32, 32)
    shared, own = (Encoder(each).features(images, block=2) for each in (encoder, model))
    assert torch.allclose(shared, own, atol=1e-6)


def test_a_frozen_encoder_keeps_the_shared_table() -> None:
    tensors = {SHARED_BIAS: torch.randn(228, 2)}
    assert own_biases(build(BEIT, image_size=32, channels=3), tensors) is tensors


def test_hidden_tokens_are_replaced_and_the_class_token_is_not() -> None:
    """With every token hidden, the image no longer matters; with none hidden, the mask token does not."""
    encoder = Encoder(build(BEIT, image_size=32, channels=3)).eval()
    first, second = torch.randn(2, 1, 3, 32, 32)
    every, none = torch.ones(1, 8, 8, dtype=torch.bool), torch.zeros(1, 8, 8, dtype=torch.bool)
    token = torch.randn(32)
    assert torch.equal(encoder(first, every, token), encoder(second, every, token))
    assert torch.equal(encoder(first, none, token), encoder(first))
    assert not torch.equal(encoder(first, every, token), encoder(first, every, 2 * token))


def test_layer_ids() -> None:
    """As microsoft/SimMIM's get_vit_layer: a shared table counts with the last layer."""
    model = build(BEIT, image_size=32, channels=3)
    wanted = {
        "cls_token": 0,
        "patch_embed.proj.weight": 0,
        "blocks.0.gamma_1": 1,
        "blocks.1.attn.q_bias": 2,
        "norm.weight": 3,
        SHARED_BIAS: 3,
    }
    assert {name: layer_id(model, name) for name in wanted} == wanted
    assert layer_id(model, "fc_norm.weight") == layer_id(model, "head.weight") == 3


@pytest.mark.parametrize(("pool", "cut"), [("", 0.02), ("mean", math.inf)])
def test_first_weights(pool: str, cut: float) -> None:
    """Normal of deviation 0.02, cut at one deviation in pre-training; a block's last matrices over sqrt(2 k).

    A normal cut at one deviation has deviation 0.53956 times its own (1 - 2 phi(1) / (2 Phi(1) - 1), square root).
    """
    backbone = BEIT.replace(args={"embed_dim": 128, "depth": 2, "num_heads": 2})
    found = parameters(backbone, pool)
    sd = 0.02 * (0.53956 if pool == "" else 1.0)
    assert found["blocks.1.attn.qkv.weight"].std().item() == pytest.approx(sd, rel=0.03)
    assert found["patch_embed.proj.weight"].std().item() == pytest.approx(sd, rel=0.05)
    assert found["blocks.1.mlp.fc2.weight"].std().item() == pytest.approx(sd / 2, rel=0.03)
    assert found["blocks.0.attn.proj.weight"].std().item() == pytest.approx(sd / math.sqrt(2), rel=0.03)
    assert found["blocks.1.attn.qkv.weight"].abs().max().item() <= cut
    assert found["patch_embed.proj.bias"].abs().max() == 0


@pytest.mark.parametrize(
    ("backbone", "stated", "deviation"), [(BEIT, None, 2e-5), (VIT, None, 0.02), (VIT, 2e-5, 2e-5), (BEIT, 0.01, 0.01)]
)
def test_the_deviation_of_a_new_classifier(backbone: Backbone, stated: float | None, deviation: float) -> None:
    """0.02; a thousandth of it for a BEiT, and in MAE's released main_finetune.py."""
    run = FineTune(start=Scratch(backbone=backbone, image_size=32), data=DATA, recipe=RECIPE, classifier_std=stated)
    layer = torch.nn.Linear(64, 10)
    torch.manual_seed(0)
    _reset(layer, classifier_scale(run))
    assert layer.weight.std().item() == pytest.approx(deviation, rel=0.15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "vit_base_patch16_224"}, "variant 'simmim' is a BEiT's"),
        ({"args": {"use_rel_pos_bias": True}}, "args may not set use_rel_pos_bias: variant 'simmim' does"),
    ],
)
def test_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BEIT.replace(**changes)


def test_the_variant_left_as_it_was_changes_no_key() -> None:
    plain = Backbone(name="vit_tiny_patch16_224", patch_size=16)
    assert "variant" not in plain._canonical()
    assert BEIT.digest != BEIT.replace(variant="timm").digest
