"""Maps of an encoder at several depths, for heads that predict at every pixel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_backbones import CONVNEXT, RESNET
from tiny import BEIT, SWIN, VIT

from harness.core.model.encoder import Encoder, build
from harness.core.model.taps import Taps
from harness.spec import Backbone, HarnessError

STAGES = pytest.mark.parametrize("backbone", [SWIN, CONVNEXT, RESNET], ids=["swin", "convnext", "resnet"])
ALL = pytest.mark.parametrize(
    "backbone", [VIT, BEIT, SWIN, CONVNEXT, RESNET], ids=["vit", "beit", "swin", "convnext", "resnet"]
)


def taps_of(backbone: Backbone, blocks: tuple[int, ...] | None = None) -> Taps:
    return Taps(Encoder(build(backbone, image_size=64, channels=3)), blocks)


@STAGES
def test_ends_of_stages_are_timm_s_own_features(backbone: Backbone) -> None:
    taps = taps_of(backbone).eval()
    assert taps.strides == (4, 8, 16, 32)
    with torch.no_grad():
        images = torch.randn(2, 3, 64, 64)
        model: Any = taps.encoder.model
        theirs = model.forward_intermediates(images, intermediates_only=True)[-4:]
        found = taps(images)
        for mine, its, norm, width in zip(found, theirs, taps.norms, taps.widths, strict=True):
            assert mine.shape[1] == width
            assert torch.allclose(mine, norm(its), atol=1e-5)
    assert len(list(taps.norms.parameters())) == (0 if backbone is RESNET else 8)


def test_a_vit_gives_the_quarters_of_its_depth() -> None:
    deep = VIT.replace(args={**dict(VIT.args), "depth": 12})
    taps = taps_of(deep).eval()
    assert (taps.blocks, taps.strides, taps.widths) == ((3, 6, 9, 12), (4,) * 4, (32,) * 4)
    images = torch.randn(1, 3, 64, 64)
    model: Any = taps.encoder.model
    theirs = model.forward_intermediates(images, indices=[2, 5, 8, 11], intermediates_only=True)
    assert all(torch.equal(mine, its) for mine, its in zip(taps(images), theirs, strict=True))
    assert taps_of(VIT).blocks == (1, 1, 2, 2)
    assert taps_of(deep, (12,)).strides == (4,)


@pytest.mark.parametrize("blocks", [(), (0, 1), (2, 1), (1, 3)])
def test_blocks_that_are_not_there_are_refused(blocks: tuple[int, ...]) -> None:
    with pytest.raises(HarnessError, match="ascending blocks of the encoder, from 1 to 2"):
        taps_of(VIT, blocks)


@ALL
def test_only_what_the_maps_depend_on_is_trained(backbone: Backbone) -> None:
    """Every parameter that is left to train gets a gradient, and those of a last norm or block are left out."""
    taps = taps_of(backbone, (1,)).train()
    buffers = [buffer.clone() for buffer in taps.buffers()]
    taps.train_what_is_reached(torch.zeros(1, 3, 64, 64))
    assert taps.training
    assert taps.encoder.training
    assert all(torch.equal(*pair) for pair in zip(buffers, taps.buffers(), strict=True))
    sum(made.sum() for made in taps(torch.randn(2, 3, 64, 64))).backward()
    assert all(parameter.requires_grad == (parameter.grad is not None) for parameter in taps.parameters())
    *_, last = taps.encoder.layers.blocks(taps.encoder.model)
    assert not any(parameter.requires_grad for parameter in last.parameters())


def test_a_frozen_encoder_is_no_part_of_the_module() -> None:
    encoder = Encoder(build(SWIN, image_size=64, channels=3)).eval().requires_grad_(False)
    taps = Taps(encoder).train()
    assert not encoder.training
    assert {name.partition(".")[0] for name in taps.state_dict()} == {"norms"}
    assert [made.shape[2] for made in taps(torch.zeros(1, 3, 64, 64))] == [16, 8, 4, 2]


def test_maps_need_not_be_square_nor_whole_strides() -> None:
    assert [tuple(made.shape[2:]) for made in taps_of(CONVNEXT)(torch.zeros(1, 3, 90, 150))] == [
        (22, 37), (11, 18), (5, 9), (2, 4),
    ]  # fmt: skip
    wide = VIT.replace(args={**dict(VIT.args), "dynamic_img_size": True})
    assert taps_of(wide)(torch.zeros(1, 3, 32, 64))[0].shape == (1, 32, 8, 16)
