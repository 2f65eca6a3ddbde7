"""Prediction heads: published sizes, shapes at every stride and resolution, and that places stay where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SWIN, VIT, pretrain
from torch import nn

from harness.core.model.encoder import build
from harness.core.model.heads import build_head
from harness.core.pretrain.mim import MaskedImageModel
from harness.spec import (
    Backbone,
    CustomHead,
    HarnessError,
    Head,
    InverseSwinHead,
    LinearHead,
    MlpHead,
    PixelTarget,
    RandomMask,
    TransformerHead,
)

SMALL = InverseSwinHead(embed_dim=4, depths=(2, 1, 1, 2), num_heads=(1, 1, 2, 2), window=2)
DEPTHWISE = MlpHead(depthwise=5)
TRANSFORMERS = (TransformerHead(num_heads=2), TransformerHead(layers=1, width=8, num_heads=4, depthwise=3))
HEADS = [LinearHead(), MlpHead(), MlpHead(layers=4, width=5), SMALL, DEPTHWISE, *TRANSFORMERS]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def swin_b() -> int:
    """Parameters of Swin-B with window 6 at 192 px, and its mask token."""
    backbone = Backbone(name="swin_base_patch4_window7_224", args={"window_size": 6}, patch_size=4, stride=32)
    return parameters(build(backbone, image_size=192, channels=3)) + 128


def inverse(head: InverseSwinHead, width: int, channels: int) -> int:
    """Parameters of an inverse head at stride 32 and full resolution, by hand."""
    c0, span = head.embed_dim, (2 * 6 - 1) ** 2  # positions within a window of 6, relative to each other
    total = width * 8 * c0 + 8 * c0
    for stage, (depth, heads) in enumerate(zip(head.depths, head.num_heads, strict=True)):
        c = c0 * 2**stage
        attention = 3 * c * c + 3 * c + c * c + c + span * heads
        mlp = 4 * c * c + 4 * c + 4 * c * c + c
        total += depth * (attention + mlp + 4 * c)  # two LayerNorms
        if stage:
            total += 2 * c + 2 * c * c  # LayerNorm and C -> 2C
    return total + 2 * c0 + 16 * c0 * c0 + c0 * channels + channels


@pytest.mark.parametrize(
    ("head", "total"),
    [(LinearHead(), 89_874_104), (MlpHead(), 90_923_704), (MlpHead(layers=3), 90_923_704 + 1024 * 1024 + 1024)],
    ids=["linear", "mlp", "mlp of three layers"],
)
def test_published_totals_of_the_light_heads(swin_b: int, head: Head, total: int) -> None:
    assert swin_b + parameters(build_head(head, width=1024, channels=3, upscale=32, side=6)) == total


@pytest.mark.parametrize(
    ("head", "printed"), [(InverseSwinHead.tiny(), "115.2M"), (InverseSwinHead.base(), "174.8M")], ids=["tiny", "base"]
)
def test_published_totals_of_the_inverse_heads(swin_b: int, head: InverseSwinHead, printed: str) -> None:
    """SimMIM Table 2 prints one decimal."""
    found = parameters(build_head(head, width=1024, channels=3, upscale=32, side=6))
    assert found == inverse(head, 1024, 3)
    assert f"{(swin_b + found) / 1e6:.1f}M" == printed


@pytest.mark.parametrize(
    "head",
    HEADS,
    ids=["linear", "mlp", "deep mlp", "inverse swin", "depth-wise", "transformer", "transformer with convolutions"],
)
@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16, 32])
def test_shapes_at_every_stride_and_resolution(head: Head, stride: int) -> None:
    for downsample in (1, 2, 4, 8, 16, 32):
        if stride % downsample == 0:
            upscale = stride // downsample
            made = build_head(head, width=6, channels=5, upscale=upscale, side=3)
            assert made(torch.randn(2, 6, 3, 3)).shape == (2, 5, 3 * upscale, 3 * upscale)


@pytest.mark.parametrize(("upscale", "stages", "last"), [(1, 1, 0), (2, 2, 0), (4, 3, 0), (8, 4, 0), (32, 4, 4)])
def test_an_inverse_head_has_the_stages_that_its_target_needs(upscale: int, stages: int, last: int) -> None:
    made: Any = build_head(SMALL, width=6, channels=3, upscale=upscale, side=2)
    kinds = [type(layer).__name__ for layer in made.layers]
    assert kinds.count("SwinTransformerStage") == stages
    assert kinds.count("PatchSplitting") == stages - 1 + bool(last)
    depths = [len(layer.blocks) for layer in made.layers if hasattr(layer, "blocks")]
    assert depths == [2, 1, 1, 2][:stages]  # the deepest first
    if last:
        assert made.layers[-1].scale == last


@pytest.mark.parametrize(
    "head",
    [*HEADS[:3], SMALL.replace(window=1)],
    ids=["linear", "mlp", "deep mlp", "inverse swin"],
)
def test_a_feature_reaches_its_own_pixels_only(head: Head) -> None:
    """All these heads are local but for attention; with windows of one token the inverse one is, too."""
    made = build_head(head, width=6, channels=2, upscale=16, side=4).eval()
    features = torch.randn(1, 6, 4, 4)
    other = features.clone()
    other[:, :, 2, 1] += 1.0
    changed = (made(features) - made(other)).abs().sum((0, 1)) > 0
    assert changed[32:48, 16:32].all()
    assert changed.sum() == 16 * 16


def test_windows_mix_neighbours() -> None:
    made = build_head(SMALL, width=6, channels=2, upscale=4, side=4).eval()
    features = torch.randn(1, 6, 4, 4)
    other = features.clone()
    other[:, :, 0, 0] += 1.0
    changed = (made(features) - made(other)).abs().sum((0, 1)) > 0
    assert changed[:8, :8].all()  # the window of 2 x 2 tokens


@pytest.mark.parametrize("backbone", [VIT, VIT.replace(patch_size=16), SWIN], ids=["vit/4", "vit/16", "swin"])
@pytest.mark.parametrize("downsample", [1, 4])
def test_an_inverse_head_fits_encoders(backbone: Backbone, downsample: int) -> None:
    run = pretrain(
        backbone=backbone,
        mask=RandomMask(size=16, ratio=0.5),
        head=SMALL,
        target=PixelTarget(downsample=downsample),
    )
    units = torch.tensor([[[True, False], [True, False]]])
    prediction = MaskedImageModel(run, 3)(torch.randn(1, 3, 32, 32), units)[0]
    assert prediction.shape == (1, 3, 32 // downsample, 32 // downsample)


def test_a_heavier_head_leaves_the_start_of_the_encoder_as_it_was() -> None:
    light, heavy = (MaskedImageModel(pretrain(head=head), 3).encoder.state_dict() for head in (LinearHead(), SMALL))
    assert all(torch.equal(light[name], heavy[name]) for name in light)


# Depth-wise convolutions and transformer blocks


def test_the_depthwise_mlp_by_hand() -> None:
    """One 5x5 convolution a channel without bias, LayerNorm over channels, GELU, the 1x1 predictor."""
    width, channels, upscale = 6, 3, 4
    made: Any = build_head(DEPTHWISE, width=width, channels=channels, upscale=upscale, side=3)
    out = channels * upscale**2
    assert parameters(made) == width * 25 + 2 * width + width * out + out
    convolution, norm, _, predictor = made[0]
    x = torch.randn(2, width, 3, 3)
    padded = nn.functional.pad(x, (2, 2, 2, 2))
    around = torch.stack(
        [
            (padded[:, :, i : i + 5, j : j + 5] * convolution.weight[:, 0]).sum((2, 3))
            for i in range(3)
            for j in range(3)
        ],
        dim=-1,
    ).view(2, width, 3, 3)
    centred = around - around.mean(1, keepdim=True)
    normal = centred / (around.var(1, correction=0, keepdim=True) + norm.eps).sqrt()
    active = nn.functional.gelu(normal)
    wanted = torch.einsum("oc,bchw->bohw", predictor.weight[:, :, 0, 0], active) + predictor.bias[:, None, None]
    assert torch.allclose(made(x), nn.functional.pixel_shuffle(wanted, upscale), atol=1e-5)


def test_parameters_of_a_transformer_head() -> None:
    """ViT blocks by hand: attention 4 c^2 + 4 c, MLP 8 c^2 + 5 c, two norms 4 c."""
    plain, wide = TRANSFORMERS
    made = build_head(plain, width=6, channels=3, upscale=4, side=3)
    blocks = 2 * (12 * 6 * 6 + 13 * 6)
    assert parameters(made) == 6 * 9 + blocks + 2 * 6 + 6 * 48 + 48
    made = build_head(wide, width=6, channels=3, upscale=4, side=3)
    assert parameters(made) == (6 * 8 + 8) + 8 * 9 + (8 * 9 + 8) + 12 * 64 + 13 * 8 + 2 * 8 + 8 * 48 + 48


def test_places_see_each_other_in_a_transformer_head_and_their_neighbours_in_a_depthwise_one() -> None:
    x = torch.zeros(1, 8, 7, 7, requires_grad=True)
    for head, reach in ((LinearHead(), 1), (DEPTHWISE, 5), (MlpHead(layers=3, depthwise=3), 5), (TRANSFORMERS[0], 7)):
        made = build_head(head, width=8, channels=1, upscale=1, side=7)
        for parameter in made.parameters():
            nn.init.normal_(parameter)
        shifted = x + torch.randn(1, 8, 7, 7)
        (seen,) = torch.autograd.grad(made(shifted)[0, 0, 3, 3], x)
        rows = seen.abs().sum((0, 1, 3)).nonzero().flatten()
        assert len(rows) == reach, head


def test_positions_tell_places_apart() -> None:
    made = build_head(TRANSFORMERS[0], width=8, channels=1, upscale=1, side=3)
    even = made(torch.ones(1, 8, 3, 3))
    assert len(even.flatten().unique()) > 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("grey", r"own_heads:grey should map \[1, 8, 4, 4\] to \[1, 48, 4, 4\], not \[1, 16, 4, 4\]"),
        ("tokens", "not list"),
    ],
)
def test_a_head_of_one_s_own_of_another_shape_is_refused(
    function: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One channel instead of three would be broadcast against the target."""
    (tmp_path / "own_heads.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(HarnessError, match=said):
        build_head(CustomHead(function=f"own_heads:{function}"), width=8, channels=3, upscale=4, side=4)


OWN = """
from torch import nn

def grey(width, out):
    return nn.Conv2d(width, out // 3, 1)

class Tokens(nn.Module):
    def forward(self, x):
        return [x]

def tokens(width, out):
    return Tokens()
"""


def test_heads_that_do_not_divide_the_encoders_channels_are_refused() -> None:
    with pytest.raises(HarnessError, match="4 heads do not divide the encoder's 6 channels; valid: 1, 2, 3, 6"):
        build_head(TransformerHead(num_heads=4), width=6, channels=3, upscale=4, side=3)
