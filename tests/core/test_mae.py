"""Masked autoencoders: the loss against the definition, written with plain loops; hidden tokens are not computed."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from overfit import LEARNT, overfit
from safetensors.torch import load_file
from scipy.special import erf
from tiny import BEIT, DATA, RECIPE, SWIN, VIT, pretrain
from torch import Tensor

from harness import audit
from harness.core.model.encoder import build
from harness.core.model.mae import Decoder, encode_visible, sincos_positions, visible_places
from harness.core.pretrain.mim import MaskedImageModel, load_pretraining_start
from harness.core.weights.formats import named_as_timm
from harness.launch import Resources
from harness.launch.job import work
from harness.spec import (
    Backbone,
    BlockMask,
    Checkpoint,
    Corruption,
    CustomMask,
    DecoderHead,
    FineTune,
    HarnessError,
    Knn,
    LinearHead,
    LinearProbe,
    Loss,
    NormPixelTarget,
    PixelTarget,
    Pretrain,
    RandomMask,
    Target,
    key,
)
from harness.store import Store

Array = NDArray[np.float64]
MAE_VIT = VIT.replace(variant="mae")
SMALL = DecoderHead(depth=2, width=16, heads=2)


def masked_autoencoder(**changes: Any) -> Pretrain:
    """Encoder of width 32, decoder of width 16, two blocks each, 64 tokens of 4 px, a quarter of them visible."""
    values = {
        "backbone": MAE_VIT,
        "mask": RandomMask(size=4, ratio=0.75),
        "corruption": Corruption(token="drop"),
        "head": SMALL,
        "loss": Loss(kind="l2"),
    }
    return pretrain(**{**values, **changes})


# The definition (He et al., CVPR 2022, section 3), one image and one token after the other, in double precision


def linear(x: Array, weights: dict[str, Array], name: str) -> Array:
    return x @ weights[f"{name}.weight"].reshape(len(weights[f"{name}.weight"]), -1).T + weights[f"{name}.bias"]


def layer_norm(x: Array, weights: dict[str, Array], name: str) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    scaled: Array = centred / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return scaled


def block(x: Array, weights: dict[str, Array], name: str, heads: int) -> Array:
    """A pre-norm transformer block. x: [tokens, C]."""
    width = x.shape[1] // heads
    queries, keys, values = np.split(linear(layer_norm(x, weights, f"{name}.norm1"), weights, f"{name}.attn.qkv"), 3, 1)
    parts = []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        scores = queries[:, own] @ keys[:, own].T / math.sqrt(width)
        chances = np.exp(scores - scores.max(1, keepdims=True))
        parts.append(chances / chances.sum(1, keepdims=True) @ values[:, own])
    x = x + linear(np.concatenate(parts, 1), weights, f"{name}.attn.proj")
    inner = linear(layer_norm(x, weights, f"{name}.norm2"), weights, f"{name}.mlp.fc1")
    return x + linear(inner * (1 + erf(inner / math.sqrt(2))) / 2, weights, f"{name}.mlp.fc2")


def positions(side: int, width: int) -> Array:
    """Sines and cosines of the column in the first half of the channels, of the row in the second."""
    found = np.zeros((side * side, width))
    quarter = width // 4
    for row in range(side):
        for column in range(side):
            for i in range(quarter):
                rate = 1 / 10000 ** (i / quarter)
                found[row * side + column, i] = math.sin(column * rate)
                found[row * side + column, quarter + i] = math.cos(column * rate)
                found[row * side + column, 2 * quarter + i] = math.sin(row * rate)
                found[row * side + column, 3 * quarter + i] = math.cos(row * rate)
    return found


def patches(image: Array, patch: int) -> Array:
    """[C, S, S] -> [tokens, C * patch * patch], channel by channel and row by row."""
    side = image.shape[1] // patch
    cut = [
        image[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch].reshape(-1)
        for row in range(side)
        for column in range(side)
    ]
    return np.stack(cut)


def reference(
    model: MaskedImageModel, images: Tensor, noise: Tensor, ratio: float, *, normalised: bool = False
) -> tuple[float, NDArray[np.bool_]]:
    """The loss of a batch, and what is hidden: those of the highest noise, int(tokens * (1 - ratio)) stay."""
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    encoder = {name.removeprefix("encoder.model."): w for name, w in weights.items() if name.startswith("encoder.")}
    decoder = {name.removeprefix("head."): w for name, w in weights.items() if name.startswith("head.")}
    total = count = 0.0
    masks = []
    for image, drawn in zip(images.double().numpy(), noise.numpy(), strict=True):
        cut = patches(image, 4)
        kept = int(len(cut) * (1 - ratio))
        visible = np.argsort(drawn)[:kept]
        tokens = linear(cut, encoder, "patch_embed.proj") + positions(8, 32)
        x = np.concatenate([encoder["cls_token"][0], tokens[visible]])
        for number in range(2):
            x = block(x, encoder, f"blocks.{number}", heads=2)
        x = linear(layer_norm(x, encoder, "norm"), decoder, "embed")
        full = np.tile(decoder["mask_token"], (len(cut), 1))
        for token, place in zip(x[1:], visible, strict=True):
            full[place] = token
        x = np.concatenate([x[:1], full + positions(8, 16)])
        for number in range(2):
            x = block(x, decoder, f"blocks.{number}", heads=2)
        prediction = linear(layer_norm(x, decoder, "norm"), decoder, "predict")[1:]
        hidden = np.ones(len(cut), dtype=bool)
        hidden[visible] = False
        for patch, found in zip(cut[hidden], prediction[hidden], strict=True):
            wanted = (patch - patch.mean()) / math.sqrt(patch.var(ddof=1) + 1e-6) if normalised else patch
            total, count = total + ((found - wanted) ** 2).mean(), count + 1
        masks.append(hidden)
    return total / count, np.stack(masks)


@pytest.mark.parametrize("target", [PixelTarget(), NormPixelTarget(size=4)], ids=["pixels", "normalised"])
def test_the_loss_is_the_definition_s(target: Target) -> None:
    run = masked_autoencoder(target=target)
    model = MaskedImageModel(run, 3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # nothing that a wrong term could hide behind
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    images, noise = torch.randn(3, 3, 32, 32, generator=generator), torch.rand(3, 64, generator=generator)
    expected, hidden = reference(model, images, noise, 0.75, normalised=isinstance(target, NormPixelTarget))
    _, losses = model(images, torch.from_numpy(hidden).view(3, 8, 8))
    assert losses["prediction"].item() == pytest.approx(expected, rel=1e-5)


# Files of the released code


def released() -> dict[str, Tensor]:
    """A pre-training as facebookresearch/mae names and lays out its weights: width 32, decoder 16, patches of 4 px."""
    generator = torch.Generator().manual_seed(4)

    def linear(name: str, out: int, into: int) -> dict[str, Tensor]:
        weight, bias = (torch.randn(shape, generator=generator) * 0.15 for shape in ((out, into), (out,)))
        return {f"{name}.weight": weight, f"{name}.bias": bias}

    def norm(name: str, width: int) -> dict[str, Tensor]:
        return {key: value[0] + 1 for key, value in linear(name, 1, width).items() if key.endswith("weight")} | {
            f"{name}.bias": torch.randn(width, generator=generator) * 0.15
        }

    def block(name: str, width: int) -> dict[str, Tensor]:
        return {
            **norm(f"{name}.norm1", width),
            **linear(f"{name}.attn.qkv", 3 * width, width),
            **linear(f"{name}.attn.proj", width, width),
            **norm(f"{name}.norm2", width),
            **linear(f"{name}.mlp.fc1", 4 * width, width),
            **linear(f"{name}.mlp.fc2", width, 4 * width),
        }

    def places(width: int) -> Tensor:
        return torch.from_numpy(np.concatenate([np.zeros((1, width)), positions(8, width)])).float()[None]

    kernel = linear("patch_embed.proj", 32, 48)
    return {
        "cls_token": torch.randn(1, 1, 32, generator=generator),
        "pos_embed": places(32),
        "mask_token": torch.randn(1, 1, 16, generator=generator),
        "decoder_pos_embed": places(16),
        **kernel,
        "patch_embed.proj.weight": kernel["patch_embed.proj.weight"].view(32, 3, 4, 4),
        **block("blocks.0", 32),
        **block("blocks.1", 32),
        **norm("norm", 32),
        **linear("decoder_embed", 16, 32),
        **block("decoder_blocks.0", 16),
        **block("decoder_blocks.1", 16),
        **norm("decoder_norm", 16),
        **linear("decoder_pred", 48, 16),
    }


def released_picture(tensors: dict[str, Tensor], image: Tensor, hidden: NDArray[np.bool_]) -> Array:
    """What the weights predict of an image, [3, 32, 32]; a value of a patch is told by row, column and channel."""
    weights = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    tokens = linear(patches(image.double().numpy(), 4), weights, "patch_embed.proj") + positions(8, 32)
    x = np.concatenate([weights["cls_token"][0], tokens[~hidden]])
    for number in range(2):
        x = block(x, weights, f"blocks.{number}", heads=2)
    x = linear(layer_norm(x, weights, "norm"), weights, "decoder_embed")
    full = np.tile(weights["mask_token"][0], (64, 1))
    full[~hidden] = x[1:]
    x = np.concatenate([x[:1], full + positions(8, 16)])
    for number in range(2):
        x = block(x, weights, f"decoder_blocks.{number}", heads=2)
    values = linear(layer_norm(x, weights, "decoder_norm"), weights, "decoder_pred")[1:]
    picture = np.zeros((3, 32, 32))
    for place in range(64):
        for row in range(4):
            for column in range(4):
                for channel in range(3):
                    value = values[place, (row * 4 + column) * 3 + channel]
                    picture[channel, place // 8 * 4 + row, place % 8 * 4 + column] = value
    return picture


def released_file(path: Path) -> Checkpoint:
    """A checkpoint as the released training script leaves it, with optimiser, epoch and the script's arguments."""
    args = argparse.Namespace(batch_size=64, blr=1e-3, mask_ratio=0.75, norm_pix_loss=False, resume="", device="cuda")
    optimiser = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    torch.save({"model": released(), "optimizer": optimiser, "epoch": 3, "scaler": {}, "args": args}, path)
    return Checkpoint(path=str(path), backbone=MAE_VIT, image_size=32)


def test_a_released_checkpoint_predicts_what_its_definition_does(tmp_path: Path) -> None:
    run = masked_autoencoder(start=released_file(tmp_path / "checkpoint-3.pth"))
    model = MaskedImageModel(run, 3).eval()
    assert run.start is not None
    load_pretraining_start(run.start, model)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, 32, 32, generator=generator)
    hidden = torch.rand(2, 64, generator=generator).argsort(1).argsort(1) >= 16
    found = model(images, hidden.view(2, 8, 8))[0].detach().numpy()
    for image, mask, prediction in zip(images, hidden.numpy(), found, strict=True):
        np.testing.assert_allclose(prediction, released_picture(released(), image, mask), rtol=1e-4, atol=1e-4)


def test_released_weights_are_evaluated_at_their_own_and_at_a_larger_size(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    start = released_file(tmp_path / "checkpoint-3.pth")
    recipe = RECIPE.replace(epochs=1)
    for run in (
        Knn(start=start, data=DATA),
        FineTune(start=start, data=DATA, recipe=recipe, image_size=48),
        FineTune(start=start, data=DATA, recipe=recipe, image_size=24, pool="token"),
    ):
        event = work(Store(tmp_path / "runs"), run, torch.device("cpu"), Resources(), report=lambda event: None)
        assert event.kind == "done", event.text


def test_a_decoder_of_other_values_is_refused() -> None:
    tensors = released() | {"decoder_pred.weight": torch.zeros(50, 16)}
    with pytest.raises(HarnessError, match="predicts 50 values a patch, not 48 pixels"):
        named_as_timm(tensors)


def test_random_masks_keep_as_many_as_the_definition() -> None:
    for ratio in (0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.8, 0.9):
        for side in (7, 8, 14, 16):
            kept = side**2 - RandomMask(size=16, ratio=ratio).hidden_units(side * 16)
            assert kept == int(side**2 * (1 - ratio) + 1e-9)


def test_positions_are_those_of_the_formula() -> None:
    np.testing.assert_allclose(sincos_positions(5, 12).numpy(), positions(5, 12), atol=1e-6)


def test_the_first_weights_are_the_released_ones() -> None:
    model: Any = build(MAE_VIT, image_size=32, channels=3)
    assert not model.pos_embed.requires_grad
    np.testing.assert_allclose(model.pos_embed[0, 1:].numpy(), positions(8, 32), atol=1e-6)
    assert not model.pos_embed[0, 0].any()
    for weight, inputs, outputs in (
        (model.patch_embed.proj.weight, 48, 32),  # not 48 and 32 * 16, as of a convolution
        (model.blocks[0].attn.qkv.weight, 32, 96),
        (model.blocks[1].mlp.fc1.weight, 32, 128),
    ):
        limit = math.sqrt(6 / (inputs + outputs))
        assert 0.95 * limit < weight.abs().max() <= limit
    for layer in (model.blocks[0].attn.qkv, model.blocks[1].mlp.fc2):
        assert not layer.bias.any()
    assert 0.01 < model.cls_token.std() < 0.03
    classifier: Any = build(MAE_VIT, image_size=32, channels=3, num_classes=4, pool="mean")
    assert classifier.pos_embed.requires_grad


# Dropping


def test_places_are_those_that_are_not_hidden() -> None:
    order = torch.rand(5, 16).argsort(dim=1).argsort(dim=1)
    hidden = (order >= 6).view(5, 4, 4)
    found = visible_places(hidden)
    for row, mask in zip(found, hidden, strict=True):
        assert row.tolist() == (~mask.flatten()).nonzero()[:, 0].tolist()


def test_masks_of_varying_counts_are_refused() -> None:
    hidden = torch.zeros(2, 4, 4, dtype=torch.bool)
    hidden[0, 0] = True
    with pytest.raises(HarnessError, match="as many visible tokens in every image, not 12 to 16 of 16"):
        visible_places(hidden)
    with pytest.raises(HarnessError, match="hides whole images"):
        visible_places(torch.ones(2, 4, 4, dtype=torch.bool))
    run = masked_autoencoder(mask=CustomMask(function="gang_pieces:ragged", size=4))
    with pytest.raises(HarnessError, match="as many visible tokens in every image"):
        audit.first_step(run)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"mask": BlockMask(size=4, ratio=0.5, count="beit")},
            "as many hidden units in every image; this block mask varies",
        ),
        ({"head": LinearHead()}, "holes that a linear head cannot fill; valid heads: decoder"),
        ({"backbone": BEIT}, "needs a plain ViT"),
        ({"backbone": SWIN, "mask": RandomMask(size=4, ratio=0.75)}, "needs a plain ViT"),
    ],
)
def test_what_cannot_drop_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        masked_autoencoder(**changes)


def test_impossible_pieces_are_refused() -> None:
    with pytest.raises(ValueError, match="fill='mean' does nothing to tokens that are dropped"):
        Corruption(fill="mean", token="drop")
    with pytest.raises(ValueError, match="3 heads do not divide the width 16"):
        DecoderHead(width=16, heads=3)
    with pytest.raises(ValueError, match="a width that 4 divides, not 18"):
        DecoderHead(width=18, heads=2)
    with pytest.raises(ValueError, match="variant 'mae' is a ViT's"):
        Backbone(name="swin_tiny_patch4_window7_224", patch_size=4, stride=32, variant="mae")


def test_hidden_pixels_reach_nothing_and_targets_are_clean() -> None:
    run = masked_autoencoder()
    batch = audit.fixed_batch(run, 4)
    assert audit.is_masked(run, batch)
    assert audit.is_clean(run, batch)
    features = MaskedImageModel(run, 3).encode(batch.images, batch.units)
    assert torch.equal((features == 0).all(1), batch.units)


@pytest.mark.parametrize("head", [SMALL, SMALL.replace(positions="learned", depth=1, width=20)])
@pytest.mark.parametrize("token", ["drop", "replace"])
def test_everything_is_trained_and_a_batch_can_be_learnt(head: DecoderHead, token: Any) -> None:
    run = masked_autoencoder(head=head, corruption=Corruption(token=token), mask=RandomMask(size=8, ratio=0.5))
    assert audit.dead_parameters(run) == []
    batch = audit.fixed_batch(run, 2)
    assert overfit(run, batch)[0] <= LEARNT


def test_the_order_of_visible_tokens_does_not_matter() -> None:
    run = masked_autoencoder()
    model = MaskedImageModel(run, 3).eval()
    batch = audit.fixed_batch(run, 4)
    places = visible_places(batch.units)
    turned = places.flip(1)
    with torch.no_grad():
        one, other = (model.head(encode_visible(model.encoder.model, batch.images, p), p) for p in (places, turned))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_decoder_of_whole_maps_has_no_mask_token() -> None:
    decoder = Decoder(SMALL, width=8, channels=3, upscale=4, side=4)
    assert decoder(torch.randn(2, 8, 4, 4)).shape == (2, 3, 16, 16)
    assert decoder.mask_token is None


def test_published_sizes() -> None:
    """MAE's ViT-B with its decoder: 111.9M parameters (111,907,840 in the released code, fixed positions included)."""
    backbone = Backbone(name="vit_base_patch16_224", patch_size=16, variant="mae")
    run = masked_autoencoder(
        backbone=backbone, image_size=224, head=DecoderHead(), mask=RandomMask(size=16, ratio=0.75), data=DATA
    )
    with torch.device("meta"):
        encoder = build(backbone, image_size=224, channels=3)
        decoder = Decoder(run.head, width=768, channels=3, upscale=16, side=14, fills=True)  # type: ignore[arg-type]
    found = sum(parameter.numel() for module in (encoder, decoder) for parameter in module.parameters())
    assert found + decoder.pos_embed.numel() + 512 == 111_907_840  # the class token's position, all zeros there


def test_a_pretraining_is_fine_tuned_and_probed_by_its_class_token(tmp_path: Path) -> None:
    """Through the store; positions are trained in fine-tuning, and the probe's features are the class token's."""
    torch.set_num_threads(1)
    start = masked_autoencoder()
    probe = LinearProbe(
        start=start, recipe=RECIPE.replace(optimizer="lars", momentum=0.9, lr=0.1, weight_decay=0.0), pool="token"
    )
    tuned = FineTune(start=start, recipe=RECIPE)
    store = Store(tmp_path)
    for run in (start, probe, tuned):
        event = work(store, run, torch.device("cpu"), Resources(), report=lambda event: None)
        assert event.kind == "done", event.text
    weights = {run.kind: load_file(path) for run in (start, tuned) if (path := store.weights(key(run))) is not None}
    begun, ended = weights["pretrain"]["encoder.model.pos_embed"], weights["finetune"]["pos_embed"]
    np.testing.assert_allclose(begun[0, 1:].numpy(), positions(8, 32), atol=1e-6)
    assert not torch.equal(begun, ended)


def test_the_class_token_of_a_block() -> None:
    encoder = MaskedImageModel(pretrain(), 3).eval().encoder
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    vit: Any = encoder.model
    with torch.no_grad():
        x = vit.blocks[0](vit._pos_embed(vit.patch_embed(images)))
        torch.testing.assert_close(encoder.class_token(images, 1), x[:, 0])
        torch.testing.assert_close(encoder.class_token(images), vit.norm(vit.blocks[1](x))[:, 0])
    swin = MaskedImageModel(pretrain(backbone=SWIN, image_size=32, mask=RandomMask(size=16, ratio=0.5)), 3).encoder
    with pytest.raises(HarnessError, match="has no class token here; set pool='mean'"):
        swin.class_token(images)
