"""Multiply-adds against published integers and formulas; memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_published_sizes import VIT_B, swin
from tiny import VIT
from torch import nn

from harness.core.model.complexity import Complexity, classifier, frozen, kept_bytes, multiply_adds, pretraining
from harness.core.model.encoder import build
from harness.spec import Backbone, DecoderHead, LinearHead, MlpHead, PixelTarget


def of_pretraining(backbone: Backbone, image_size: int) -> Complexity:
    return pretraining(backbone, image_size=image_size, channels=3, head=LinearHead(), target=PixelTarget())


def of_classifier(backbone: Backbone, image_size: int) -> Complexity:
    return classifier(backbone, image_size=image_size, channels=3, num_classes=1000)


@pytest.mark.parametrize(
    ("cost", "backbone", "image_size", "published"),
    [
        (of_pretraining, swin("base", 6), 224, 18_832_161_792),
        (of_pretraining, swin("large", 12, always_partition=True), 224, 55_849_130_496),
        (of_classifier, swin("base", 6), 192, 11_303_976_960),
        (of_classifier, swin("base", 7), 224, 15_466_852_352),
        (of_classifier, swin("large", 14, always_partition=True), 224, 38_853_083_136),
    ],
)
def test_published_by_mmpretrain(
    cost: Callable[[Backbone, int], Complexity], backbone: Backbone, image_size: int, published: int
) -> None:
    """The five integers of open-mmlab/mmpretrain, configs/simmim/metafile.yml."""
    found = cost(backbone, image_size)
    assert found.encoder + found.pooling == published


def test_true_cost_of_pretraining_at_192() -> None:
    """11.30 G where 18.83 G is published for window 6 at 224 pixels; the decoder adds 36 x 1024 x 3072."""
    found = of_pretraining(swin("base", 6), 192)
    assert (found.encoder, found.pooling, found.head) == (11_303_940_096, 0, 36 * 1024 * 3072)
    large = of_pretraining(swin("large", 12, always_partition=True), 192)
    assert round(large.encoder / 1e9, 2) == 28.15


@pytest.mark.parametrize("backbone", [Backbone(name="vit_base_patch16_224", patch_size=16), VIT_B], ids=["vit", "beit"])
def test_vit_b_by_hand(backbone: Backbone) -> None:
    tokens, width, hidden = 197, 768, 3072
    linear = tokens * (width * 3 * width + width * width + 2 * width * hidden)
    attention = 2 * tokens * tokens * width
    norms = 2 * 5 * tokens * width
    embedding = 196 * 3 * 16 * 16 * width
    found = of_classifier(backbone, 224)
    assert found.encoder == embedding + 12 * (linear + attention + norms)
    assert (found.pooling, found.head) == (196 * width, 5 * width + 1000 * width)
    final_norm = 5 * tokens * width
    assert of_pretraining(backbone, 224).encoder == found.encoder + final_norm


def test_head_by_hand() -> None:
    """Two 1x1 convolutions 32 -> 7 -> 3 * 2^2 over an 8 x 8 map, for a target of half the resolution."""
    found = pretraining(
        VIT, image_size=32, channels=3, head=MlpHead(layers=2, width=7), target=PixelTarget(downsample=2)
    )
    assert found.head == 64 * (32 * 7 + 7 * 12)


def test_the_mask_token_is_a_parameter() -> None:
    with_token, without = (
        pretraining(VIT, image_size=32, channels=1, head=LinearHead(), target=PixelTarget(), mask_token=token)
        for token in (True, False)
    )
    assert with_token.parameters - without.parameters == 32
    assert with_token.multiply_adds == without.multiply_adds


def test_class_token_instead_of_pooling() -> None:
    found = classifier(VIT, image_size=32, channels=3, num_classes=10, pool="token")
    assert (found.pooling, found.head) == (0, 320)


def test_operations_by_hand() -> None:
    x = torch.zeros(2, 3, 8, 8, device="meta")
    with torch.device("meta"):
        convolution, norm = nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.LayerNorm(8)
    assert multiply_adds(lambda: convolution(x)) == 2 * 5 * 16 * 3 * 9
    assert multiply_adds(lambda: norm(x)) == 5 * x.numel()
    assert multiply_adds(lambda: x @ x) == 6 * 8**3
    assert multiply_adds(lambda: torch.einsum("abcd,abed->abce", x, x)) == 6 * 8**3
    assert multiply_adds(lambda: nn.functional.scaled_dot_product_attention(x, x, x)) == 2 * 6 * 8**3
    assert multiply_adds(lambda: x.relu() + x) == 0


def test_memory() -> None:
    """Weight, gradient and two moments, four bytes each; the weight alone where nothing is trained."""
    assert Complexity(parameters=10, encoder=0, pooling=0, head=0).memory_bytes == 160
    assert Complexity(parameters=10, encoder=0, pooling=0, head=0, trained=False).memory_bytes == 40


def test_a_frozen_encoder_is_counted_up_to_the_block_that_is_probed() -> None:
    """Twelve equal blocks: block 8 costs the embedding and two thirds of the blocks, and has no final norm."""
    whole, part = (frozen(VIT_B, image_size=224, channels=3, block=block) for block in (None, 8))
    embedding, norm = 196 * 768 * 768, 5 * 197 * 768
    assert (part.encoder - embedding) * 12 == (whole.encoder - embedding - norm) * 8
    assert part.pooling == whole.pooling == 196 * 768
    assert not whole.trained


def test_an_encoder_of_visible_tokens_costs_what_they_cost() -> None:
    """ViT of width 32 and depth 2 on 64 patches of 4 px, 16 of them and the class token visible; by hand."""
    found = pretraining(
        VIT, image_size=32, channels=3, head=DecoderHead(depth=1, width=16, heads=2), target=PixelTarget(), visible=16
    )

    def block(tokens: int, width: int) -> int:
        return tokens * 12 * width**2 + 2 * tokens**2 * width + 2 * 5 * tokens * width  # matrices, attention, two norms

    assert found.encoder == 64 * 48 * 32 + 2 * block(17, 32) + 5 * 17 * 32
    assert found.head == 17 * 32 * 16 + block(65, 16) + 5 * 65 * 16 + 64 * 16 * 48


def test_what_a_forward_pass_keeps_by_hand() -> None:
    """A linear layer keeps its input, a GELU its own: [2, 8] and [2, 16] floats; weights are not counted."""
    with torch.device("meta"):
        layer, x = nn.Linear(8, 16), torch.zeros(2, 8)
    assert kept_bytes([layer], lambda: nn.functional.gelu(layer(x))) == 4 * (2 * 8 + 2 * 16)


def test_what_is_kept_on_the_meta_device_is_what_a_cpu_keeps() -> None:
    def kept(device: str) -> int:
        with torch.device(device):
            model = build(VIT_B.replace(args={"depth": 2}), image_size=224, channels=3)
            images = torch.zeros(1, 3, 224, 224)
        return kept_bytes([model], lambda: model(images))

    assert kept("meta") == kept("cpu") > 0
