"""Published parameter counts, to the last one (papers: SimMIM; microsoft/SimMIM's modules; open-mmlab/mmpretrain)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.core.model.encoder import Encoder, build
from harness.core.model.heads import build_head
from harness.spec import Backbone, Head, LinearHead, MlpHead


def swin(size: str, window: int, *, always_partition: bool = False) -> Backbone:
    args = {"window_size": window} | ({"always_partition": True} if always_partition else {})
    return Backbone(name=f"swin_{size}_patch4_window7_224", args=args, patch_size=4, stride=32)


VIT_B = Backbone(name="beit_base_patch16_224", patch_size=16, variant="simmim")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("backbone", "image_size", "head", "published"),
    [
        (swin("base", 6), 192, LinearHead(), 89_874_104),
        (swin("base", 6), 192, MlpHead(layers=2), 90_923_704),
        (swin("large", 12, always_partition=True), 192, LinearHead(), 199_920_372),
        (swin("large", 12), 192, LinearHead(), 199_881_204),
        (VIT_B, 224, LinearHead(), 86_256_720),
    ],
    ids=["swin-b", "swin-b, 2-layer head", "swin-l of mmpretrain", "swin-l", "vit-b"],
)
def test_pretraining(backbone: Backbone, image_size: int, head: Head, published: int) -> None:
    with torch.device("meta"):
        encoder = Encoder(build(backbone, image_size=image_size, channels=3))
        side = image_size // backbone.stride
        prediction = build_head(head, width=encoder.width, channels=3, upscale=backbone.stride, side=side)
    mask_token = encoder.token_width
    assert count(encoder) + mask_token + count(prediction) == published


@pytest.mark.parametrize(
    ("backbone", "image_size", "published"),
    [
        (swin("base", 6), 192, 87_750_176),
        (swin("base", 7), 224, 87_768_224),
        (swin("large", 14, always_partition=True), 224, 196_848_316),
        (swin("large", 14), 224, 196_794_556),
        (VIT_B, 224, 86_530_984),
    ],
    ids=["swin-b at 192", "swin-b at 224", "swin-l of mmpretrain", "swin-l", "vit-b"],
)
def test_classifiers(backbone: Backbone, image_size: int, published: int) -> None:
    with torch.device("meta"):
        model = build(backbone, image_size=image_size, channels=3, num_classes=1000, pool="mean")
    assert count(model) == published


@pytest.mark.parametrize(
    ("backbone", "millions"),
    [
        (Backbone(name="swin_tiny_patch4_window7_224", patch_size=4, stride=32), 28.3),  # Swin, table 1: 29M
        (Backbone(name="swin_base_patch4_window7_224", patch_size=4, stride=32), 87.8),  # Swin, table 1: 88M
        (Backbone(name="vit_small_patch16_224", patch_size=16), 22.1),  # DeiT-S, 22M
        (Backbone(name="vit_base_patch16_224", patch_size=16), 86.6),  # DeiT-B, 86M
    ],
)
def test_usual_sizes(backbone: Backbone, millions: float) -> None:
    with torch.device("meta"):
        model = build(backbone, image_size=224, channels=3, num_classes=1000, pool="mean")
    assert count(model) / 1e6 == pytest.approx(millions, abs=0.05)
