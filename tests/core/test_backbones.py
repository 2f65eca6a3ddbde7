"""Families of backbones: forward passes, sites of the mask token, layer ids, loading into fine-tuning, sizes."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import pytest
import timm
import torch
from tiny import BEIT, SWIN, SWIN_V2, VIT, pretrain

from harness.core.model.backbones import layers_named, layers_of
from harness.core.model.complexity import classifier
from harness.core.model.encoder import Encoder, build, depth, layer_id
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.train.optimiser import layer_scales
from harness.core.weights.checkpoint import load_encoder
from harness.spec import AfterStage, AtInput, Backbone, BeforeBlock, Corruption, HarnessError

RESNET = Backbone(name="resnet26", args={"layers": (1, 2, 1, 1), "channels": (8, 16, 24, 32)}, patch_size=4, stride=32)
BASIC = Backbone(
    name="resnet18",
    args={"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32), "stem_type": "deep", "stem_width": 4},
    patch_size=4,
    stride=32,
)
CONVNEXT = Backbone(
    name="convnext_tiny", args={"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}, patch_size=4, stride=32
)
CNNS = pytest.mark.parametrize("backbone", [RESNET, BASIC, CONVNEXT], ids=["bottleneck", "basic", "convnext"])
ALL = pytest.mark.parametrize(
    "backbone",
    [VIT, BEIT, SWIN, SWIN_V2, RESNET, BASIC, CONVNEXT],
    ids=["vit", "beit", "swin", "swinv2", "bottleneck", "basic", "convnext"],
)


@CNNS
def test_features_are_timm_s_own(backbone: Backbone) -> None:
    model: Any = build(backbone, image_size=64, channels=3).eval()
    images = torch.randn(2, 3, 64, 64)
    theirs = model.forward_features(images)
    if backbone is CONVNEXT:
        theirs = model.head.norm(theirs)
    encoder = Encoder(model)
    assert theirs.shape == (2, encoder.width, 2, 2)
    assert torch.equal(encoder(images), theirs)


@CNNS
def test_intermediate_blocks_are_timm_s_own(backbone: Backbone) -> None:
    encoder: Any = Encoder(build(backbone, image_size=64, channels=3)).eval()
    images = torch.randn(2, 3, 64, 64)
    theirs = encoder.model.forward_intermediates(images, intermediates_only=True)[-4:]
    ends = itertools.accumulate(layers_of(encoder.model).depths(encoder.model))
    for number, wanted in zip(ends, theirs, strict=True):
        assert torch.equal(encoder.features(images, number), wanted)
    with pytest.raises(HarnessError, match=f"block 9 of a model that has {depth(encoder.model)}"):
        encoder.features(images, 9)


@ALL
def test_every_site_says_what_comes_through_it(backbone: Backbone) -> None:
    model = build(backbone, image_size=64, channels=3).eval()
    images, x = torch.randn(2, 3, 64, 64), None
    pieces = layers_of(model).pieces(model)
    for piece in pieces:
        x = piece.run(model, images if x is None else x, layers_of(model).shared(model))
        side = 64 // piece.stride
        shapes = {
            "tokens": (2, piece.prefix + side**2, piece.width),
            "last": (2, side, side, piece.width),
            "first": (2, piece.width, side, side),
        }
        assert x.shape == shapes[piece.layout]
        for site in piece.sites:
            assert isinstance(site, AtInput) or site.stride == piece.stride
    sites = [site for piece in pieces for site in piece.sites]
    assert len(sites) == len(set(sites))
    assert [piece.block for piece in pieces if piece.block] == list(range(1, depth(model) + 1))
    assert pieces[-1].stride == backbone.stride
    assert pieces[0].stride == backbone.patch_size


def test_the_sites_of_the_paper_and_of_the_released_code() -> None:
    """A2MIM's layer 3 is 1024 x 14 x 14 in a ResNet-50 and 768 x 7 x 7 in a ConvNeXt-T; a ViT's layer 8 is block 8."""
    with torch.device("meta"):
        resnet = build(Backbone(name="resnet50", patch_size=4, stride=32), image_size=224, channels=3)
        found = Encoder(resnet, Corruption(site=AfterStage(stage=3, stride=16)))
        assert (found.token_width, found.token_stride) == (1024, 16)
        assert Encoder(resnet).token_width == 64
        convnext = build(Backbone(name="convnext_tiny", patch_size=4, stride=32), image_size=224, channels=3)
        found = Encoder(convnext, Corruption(site=BeforeBlock(block=16, stride=32)))
        assert (found.token_width, found.token_stride) == (768, 32)
        assert Encoder(convnext).token_width == 96
        deit = build(Backbone(name="deit_small_patch16_224", patch_size=16), image_size=192, channels=3)
        assert Encoder(deit, Corruption(site=BeforeBlock(block=8, stride=16))).token_width == 384


@pytest.mark.parametrize(
    ("backbone", "site", "message"),
    [
        (VIT, AfterStage(stage=1, stride=4), r"no site after stage 1 \(stride 4\); valid: the input, before block 1"),
        (VIT, BeforeBlock(block=3, stride=4), r"valid: the input, before block 1 \(stride 4\), before block 2"),
        (RESNET, AfterStage(stage=3, stride=8), r"valid: the input, after stage 1 \(stride 4\), before block 3"),
        (RESNET, AfterStage(stage=4, stride=32), r"after stage 3 \(stride 16\)$"),
        (RESNET, BeforeBlock(block=1, stride=4), "no site before block 1"),
        (CONVNEXT, BeforeBlock(block=5, stride=16), r"after stage 3 \(stride 16\), before block 5 \(stride 32\)$"),
    ],
)
def test_a_site_that_is_not_there_is_refused(backbone: Backbone, site: AfterStage | BeforeBlock, message: str) -> None:
    model = build(backbone, image_size=64, channels=3)
    with pytest.raises(HarnessError, match=message):
        Encoder(model, Corruption(site=site))


@CNNS
@pytest.mark.parametrize("token", ["replace", "gated-add"])
def test_an_encoder_loads_into_fine_tuning_with_no_missing_key(
    backbone: Backbone, token: Literal["replace", "gated-add"]
) -> None:
    run = pretrain(backbone=backbone, image_size=64, corruption=Corruption(fill="mean", token=token))
    tensors = {
        name: torch.randn_like(t.float()).to(t.dtype)
        for name, t in MaskedImageModel(run, 3).encoder.model.state_dict().items()
    }
    tuned = build(backbone, image_size=96, channels=3, num_classes=10, pool="mean")
    before = {name: tensor.clone() for name, tensor in tuned.state_dict().items()}
    load_encoder(tuned, tensors, "here")
    for name, tensor in tuned.state_dict().items():
        if name in tensors:
            assert torch.equal(tensor, tensors[name])
        else:
            assert name.startswith(("fc.", "head.fc."))
            assert torch.equal(tensor, before[name])
    assert set(tensors) < set(before)
    for name in tensors:
        with pytest.raises(HarnessError, match=f"lacks {name}"):
            load_encoder(tuned, {n: t for n, t in tensors.items() if n != name}, "here")
    assert tuned(torch.randn(2, 3, 96, 96)).shape == (2, 10)


@ALL
def test_the_classifier_is_where_its_family_says(backbone: Backbone) -> None:
    model = build(backbone, image_size=64, channels=3, num_classes=7, pool="mean")
    assert model.state_dict()[layers_of(model).classifier].shape[0] == 7
    assert type(layers_of(model)) is type(layers_named(backbone.name))


@CNNS
def test_a_class_token_is_refused(backbone: Backbone) -> None:
    with pytest.raises(HarnessError, match="has no class token; set pool='mean'"):
        build(backbone, image_size=64, channels=3, num_classes=7, pool="token")


@pytest.mark.parametrize(
    ("backbone", "wanted"),
    [
        (
            RESNET,
            {
                "conv1.weight": 0,
                "bn1.bias": 0,
                "layer1.0.conv1.weight": 1,
                "layer2.0.downsample.0.weight": 2,
                "layer2.1.bn3.weight": 3,
                "layer3.0.conv2.weight": 4,
                "layer4.0.conv3.weight": 5,
                "fc.weight": 6,
            },
        ),
        (
            CONVNEXT,
            {
                "stem.0.weight": 0,
                "stem.1.bias": 0,
                "stages.0.blocks.0.gamma": 1,
                "stages.1.downsample.1.weight": 1,
                "stages.1.blocks.0.norm.weight": 2,
                "stages.2.downsample.0.weight": 2,
                "stages.2.blocks.1.mlp.fc1.weight": 4,
                "stages.3.downsample.1.bias": 4,
                "stages.3.blocks.0.conv_dw.weight": 5,
                "head.norm.weight": 6,
                "head.fc.bias": 6,
            },
        ),
    ],
    ids=["resnet", "convnext"],
)
def test_layer_ids(backbone: Backbone, wanted: dict[str, int]) -> None:
    model = build(backbone, image_size=64, channels=3, num_classes=10, pool="mean")
    assert {name: layer_id(model, name) for name in wanted} == wanted
    scales = layer_scales(model, 0.5)
    assert {name: scales[name] for name in wanted} == {name: 0.5 ** (6 - number) for name, number in wanted.items()}


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet50", 25.6),
        ("resnet101", 44.5),
        ("resnet152", 60.2),
        ("resnet200", 64.7),
        ("convnext_tiny", 28.6),
        ("convnext_small", 50.2),
        ("convnext_base", 88.6),
    ],
)
def test_published_parameters(name: str, published: float) -> None:
    """Westlake-AI/A2MIM README, and ConvNeXt (Liu et al., CVPR 2022) table 1 for ConvNeXt-T."""
    with torch.device("meta"):
        model = build(
            Backbone(name=name, patch_size=4, stride=32), image_size=224, channels=3, num_classes=1000, pool="mean"
        )
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == published


def test_every_resnet_and_convnext_of_timm_belongs_to_its_family() -> None:
    for name in (
        "resnext50_32x4d",
        "wide_resnet50_2",
        "seresnet50",
        "resnet50d",
        "convnextv2_tiny",
        "convnext_femto_ols",
    ):
        assert name in timm.list_models()
        with torch.device("meta"):
            model = build(Backbone(name=name, patch_size=4, stride=32), image_size=64, channels=3)
            assert Encoder(model).width == model.num_features


@pytest.mark.parametrize(
    ("name", "published"), [("resnet50", 4.09), ("resnet101", 7.80), ("convnext_tiny", 4.5), ("convnext_base", 15.4)]
)
def test_published_multiply_adds(name: str, published: float) -> None:
    """torchvision's model tables (ResNet), and ConvNeXt (Liu et al., CVPR 2022) table 1, in units of 1e9 at 224 px."""
    backbone = Backbone(name=name, patch_size=4, stride=32)
    found = classifier(backbone, image_size=224, channels=3, num_classes=1000)
    assert found.multiply_adds / 1e9 == pytest.approx(published, rel=0.015)
    width = 2048 if name.startswith("resnet") else 768 if name.endswith("tiny") else 1024
    norm = 0 if name.startswith("resnet") else 5 * width  # behind the pooling
    assert found.head == 1000 * width + norm
    assert found.pooling == 49 * width
