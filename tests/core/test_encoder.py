"""Encoders: token replacement, intermediate blocks, initialisation, layer ids, weight decay, published sizes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny import BEIT, SWIN, SWIN_V2, VIT, pretrain
from torch import nn

from harness.core.evaluate.start import _reset
from harness.core.model.encoder import Encoder, build, layer_id
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.train.optimiser import decays, layer_scales, parameter_groups
from harness.spec import Backbone, HarnessError, LinearHead, MlpHead, Recipe

SWIN_B = Backbone(name="swin_base_patch4_window7_224", args={"window_size": 6}, patch_size=4, stride=32)


@pytest.mark.parametrize("backbone", [VIT, BEIT, SWIN, SWIN_V2], ids=["vit", "beit", "swin", "swinv2"])
def test_features_have_the_stated_stride(backbone: Backbone) -> None:
    encoder = Encoder(build(backbone, image_size=64, channels=3))
    assert encoder(torch.randn(2, 3, 64, 64)).shape == (2, encoder.width, 64 // backbone.stride, 64 // backbone.stride)


@pytest.mark.parametrize("backbone", [VIT, BEIT, SWIN, SWIN_V2], ids=["vit", "beit", "swin", "swinv2"])
def test_features_equal_timm_s_own_forward(backbone: Backbone) -> None:
    model: Any = build(backbone, image_size=64, channels=3).eval()
    images = torch.randn(2, 3, 64, 64)
    theirs = model.forward_features(images)
    if theirs.ndim == 3:
        theirs = theirs[:, model.num_prefix_tokens :].transpose(1, 2).reshape(2, -1, 16, 16)
    else:
        theirs = theirs.permute(0, 3, 1, 2)
    assert torch.equal(Encoder(model)(images), theirs)


def test_maps_need_not_be_square() -> None:
    """Features of 32 x 64 pixels lie where timm's own tokens do; a narrow map is no other than a wide one turned."""
    backbone = VIT.replace(args={**dict(VIT.args), "dynamic_img_size": True})
    model: Any = build(backbone, image_size=32, channels=3).eval()
    images = torch.randn(2, 3, 32, 64)
    theirs = model.forward_features(images)[:, 1:]
    found = Encoder(model)(images)
    assert found.shape == (2, 32, 8, 16)
    assert torch.equal(found[:, :, 3, 5], theirs[:, 3 * 16 + 5])
    assert Encoder(model)(images.mT).shape == (2, 32, 16, 8)


@pytest.mark.parametrize(
    ("backbone", "block", "shape"),
    [(VIT, 1, (32, 16)), (SWIN, 1, (16, 16)), (SWIN, 2, (32, 8)), (SWIN, 4, (64, 4)), (SWIN, 5, (128, 2))],
)
def test_intermediate_blocks(backbone: Backbone, block: int, shape: tuple[int, int]) -> None:
    encoder: Any = Encoder(build(backbone, image_size=64, channels=3)).eval()
    images = torch.randn(2, 3, 64, 64)
    found = encoder.features(images, block)
    assert found.shape == (2, shape[0], shape[1], shape[1])
    theirs = encoder.model.forward_intermediates(images, intermediates_only=True)
    last_of_stage = {(id(VIT), 1): 0, (id(SWIN), 1): 0, (id(SWIN), 2): 1, (id(SWIN), 4): 2, (id(SWIN), 5): 3}
    assert torch.allclose(found, theirs[last_of_stage[id(backbone), block]], atol=1e-6)


def test_block_beyond_the_last_is_refused() -> None:
    encoder = Encoder(build(VIT, image_size=32, channels=3))
    with pytest.raises(HarnessError, match="block 3 of a model that has 2"):
        encoder.features(torch.zeros(1, 3, 32, 32), 3)


def test_a_deeper_head_leaves_the_encoder_s_start_unchanged() -> None:
    linear, deep = (MaskedImageModel(pretrain(head=head), 3) for head in (LinearHead(), MlpHead(layers=4, width=7)))
    for name, tensor in linear.encoder.state_dict().items():
        assert torch.equal(tensor, deep.encoder.state_dict()[name])
    assert torch.equal(linear.state_dict()["mask_token"], deep.state_dict()["mask_token"])


def test_seeds_give_different_starts_and_leave_torch_s_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (MaskedImageModel(pretrain(seed=seed), 3) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    name = "encoder.model.blocks.0.attn.qkv.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_swin_b_layer_ids_and_scales() -> None:
    """26 layers: embedding 0, merging with the last block before it, norm and head last (SimMIM, released code)."""
    model = build(SWIN_B, image_size=192, channels=3, num_classes=1000, pool="mean")
    wanted = {
        "patch_embed.proj.weight": 0,
        "layers.0.blocks.0.attn.qkv.weight": 1,
        "layers.0.blocks.1.mlp.fc1.bias": 2,
        "layers.1.downsample.reduction.weight": 2,
        "layers.1.blocks.0.norm1.weight": 3,
        "layers.2.downsample.norm.bias": 4,
        "layers.2.blocks.17.attn.relative_position_bias_table": 22,
        "layers.3.downsample.norm.weight": 22,
        "layers.3.blocks.1.mlp.fc2.weight": 24,
        "norm.weight": 25,
        "head.fc.weight": 25,
    }
    assert {name: layer_id(model, name) for name in wanted} == wanted
    scales = layer_scales(model, 0.9)
    assert scales["patch_embed.proj.weight"] == pytest.approx(0.0718, abs=5e-5)  # published in SimMIM section 3.5
    assert scales["head.fc.weight"] == 1.0


def test_vit_b_patch_embed_scale() -> None:
    args = {"embed_dim": 12, "num_heads": 2}  # depth 12, as ViT-B
    model = build(Backbone(name=VIT.name, args=args, patch_size=16), image_size=32, channels=3)
    scales = layer_scales(model, 0.65)
    assert scales["patch_embed.proj.weight"] == pytest.approx(0.0037, abs=5e-5)
    assert scales["pos_embed"] == scales["cls_token"] == scales["patch_embed.proj.weight"]
    assert scales["blocks.11.attn.qkv.weight"] == pytest.approx(0.65)


def test_weight_decay_membership() -> None:
    assert decays("blocks.0.attn.qkv.weight", torch.zeros(2, 2))
    for name, shape in (
        ("blocks.0.attn.qkv.bias", (2,)),
        ("norm.weight", (2,)),
        ("pos_embed", (1, 2, 2)),
        ("cls_token", (1, 1, 2)),
        ("mask_token", (2,)),
        ("layers.0.blocks.0.attn.relative_position_bias_table", (4, 2)),
    ):
        assert not decays(name, torch.zeros(shape))


def test_groups_hold_every_parameter_once() -> None:
    model = build(VIT, image_size=32, channels=3)
    recipe = Recipe(epochs=1, batch_size=1, lr=1.0)
    groups = parameter_groups(model.named_parameters(), recipe, layer_scales(model, 0.5))
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))
    assert {group["weight_decay"] for group in groups} == {0.0, 0.05}


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (VIT.replace(name="vit_tinny_patch16_224"), "timm has no model 'vit_tinny_patch16_224'; close names: vit_tiny"),
        (
            Backbone(name="resnetv2_50", patch_size=4),
            "resnetv2_50 is of timm's resnetv2; valid families: vision_transformer",
        ),
        (Backbone(name="resnet18", patch_size=2, stride=32), "stem of resnet18 has stride 4, not the stated patch_"),
        (SWIN.replace(stride=16), "has stride 32, not the stated 16"),
        (VIT.replace(args={"deph": 3}), "timm refuses vit_tiny.*deph"),
    ],
)
def test_refused_backbones(backbone: Backbone, message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        build(backbone, image_size=64, channels=3)


def test_classifier_starts_small_and_without_bias() -> None:
    layer = nn.Linear(64, 10)
    _reset(layer)
    assert layer.bias.abs().max() == 0
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.15)
    assert math.isclose(layer.weight.mean().item(), 0.0, abs_tol=0.003)
