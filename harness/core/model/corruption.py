"""Corruption of hidden pixels and hidden features, and the leaks that it leaves by design."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from harness.core.model.backbones import Piece, layers_named, layers_of
from harness.core.model.backbones.custom import build_custom, mixes_before
from harness.core.runtime.drop_path import Place
from harness.core.runtime.randomness import initialised, uniform
from harness.spec import Corruption, CustomBackbone, FrequencyMask, Pretrain, seed_stream
from harness.spec.model.corruption import AtInput, BeforeBlock, Fill

# Names of the leaks; `declared_leaks` says what each means.
IMAGE_MEAN = "image mean"
GATE = "gate"
STEM = "stem receptive field"
BEFORE = "layers before the site"
NOTHING = "nothing hidden"


def declared_leaks(run: Pretrain) -> tuple[str, ...]:
    """Ways in which hidden pixels reach the encoder's output because the spec says so; empty for most.

    `image mean`: hidden pixels contribute to the mean colour that fills them. `gate`: a gated addition lets a part of
    their features through. `stem receptive field`: hidden pixels are not filled, and an overlapping stem mixes them
    into visible neighbours before the token is inserted. `layers before the site`: blocks before the token's site do
    the same. `nothing hidden`: the encoder sees everything (`Corruption.hides_nothing`).

    Raises:
        HarnessError: the backbone's family is not known here.
    """
    corruption = run.corruption
    if isinstance(run.mask, FrequencyMask):
        return ()  # nothing of the corruption is used
    if corruption.hides_nothing:
        return (NOTHING,)
    mixed = _mixed_before(run)
    if corruption.fill != "none":
        covered = corruption.token == "replace" and not mixed  # what fills the pixels is replaced with them
        return (IMAGE_MEAN,) if corruption.fill == "image-mean" and not covered else ()
    return (GATE, *mixed) if corruption.token == "gated-add" else mixed


def _mixed_before(run: Pretrain) -> tuple[str, ...]:
    """Layers that mix hidden pixels into visible positions before the mask token is inserted."""
    if isinstance(run.backbone, CustomBackbone):
        return _measured(run, run.backbone)
    match run.corruption.site:
        case AtInput():
            return () if layers_named(run.backbone.name).cuts_patches(run.backbone) else (STEM,)
        case BeforeBlock(block=1):
            return ()  # of a ViT: positions and class token mix nothing
        case _:
            return (BEFORE,)


def _measured(run: Pretrain, backbone: CustomBackbone) -> tuple[str, ...]:
    """The same, measured on a user's network, whose layers are not known here."""
    sizes = {"image_size": run.image_size, "channels": run.data.channels}
    network = initialised(
        run.seed, "encoder", lambda: build_custom(backbone, num_classes=0, pool="", drop_path=0.0, **sizes)
    )
    sites = [piece.sites for piece in layers_of(network).pieces(network)]
    at = next((place for place, found in enumerate(sites) if run.corruption.site in found), 0)
    if not mixes_before(network, run.image_size, run.data.channels, at):
        return ()
    return (STEM,) if isinstance(run.corruption.site, AtInput) else (BEFORE,)


def noise_stream(seed: int) -> int:
    """Random stream of the noise in hidden pixels of a run."""
    return seed_stream(seed, "fill noise")


def filled(
    images: Tensor, hidden: Tensor, fill: Fill, black: Tensor, *, stream: int | None = None, place: Place | None = None
) -> Tensor:
    """Images with hidden pixels filled, as defined in `harness.spec.Corruption`.

    Args:
        images: float [B, C, S, S], normalised. hidden: bool [B, S, S].
        black: float [C], the pixel value 0 after normalisation.
        stream, place: keys of the noise, the first from `noise_stream`; that of seed 0 unless given. Outside training
            no place is set; images are then numbered from 0 at step 0.

    Raises:
        ValueError: the place is set for another number of images, of which each may have several views.
    """
    where = hidden[:, None]
    match fill:
        case "none":
            return images
        case "zero":
            return torch.where(where, black.to(images.dtype)[:, None, None], images)
        case "mean":
            return images.masked_fill(where, 0.0)  # zero is the mean of a normalised data set
        case "image-mean":
            return torch.where(where, images.mean((2, 3), keepdim=True), images)
        case "visible-mean":
            # At least 1: an image that is hidden altogether is filled with 0 instead of NaN.
            visible = (~where).to(images.dtype)
            mean = (images * visible).sum((2, 3), keepdim=True) / visible.sum((2, 3), keepdim=True).clamp(min=1)
            return torch.where(where, mean, images)
        case "noise":
            return torch.where(where, _noise(images, stream, place).to(images.dtype), images)
        case _:
            assert_never(fill)


def _noise(images: Tensor, stream: int | None, place: Place | None) -> Tensor:
    """Standard normal noise like `images`, by Box and Muller's transform of stateless uniform numbers."""
    step: int | Tensor = 0
    positions = torch.arange(len(images), device=images.device)
    if place is not None and (given := len(place.positions)):
        if len(images) % given:
            raise ValueError(f"{len(images)} images at a place of {given}: move the place before each batch")
        # Keyed by place in the global batch, so that processes and micro-batches do not change the noise.
        step, positions = place.step, place.positions.repeat_interleave(len(images) // given)
    count = images[0].numel()
    stream = noise_stream(0) if stream is None else stream
    draws = uniform(stream, step, positions.to(images.device), 2 * count)
    radius, angle = draws.view(len(images), 2, count).unbind(1)
    # log1p(-u) instead of log(u): the draws include 0 but not 1.
    found = torch.sqrt(-2 * torch.log1p(-radius)) * torch.cos(2 * torch.pi * angle)
    return found.view_as(images)


def combined(
    x: Tensor, hidden: Tensor, mask_token: Tensor, gate: Tensor | None, corruption: Corruption, piece: Piece
) -> Tensor:
    """Features with the mask token inserted at hidden positions (`forward_mask` of A2MIM's MIMResNet).

    Args:
        x: output of `piece`, in its layout. hidden: bool [B, h, w]. mask_token, gate: [C].
    """
    first = piece.layout == "first"
    along = (-1, 1, 1) if first else (-1,)
    weight = hidden[:, None] if first else hidden[..., None]
    if piece.layout == "tokens":
        weight = weight.flatten(1, 2)
    # In the dtype of the features, so that autocast's half precision is not promoted behind the site.
    weight = weight.to(x.dtype)
    token = mask_token.to(x.dtype).view(along)
    factor = None if gate is None else gate.to(x.dtype).view(along)
    if piece.layout != "tokens" or not piece.prefix:
        return _combined(x, weight, token, factor, corruption)
    # Class and register tokens stay in front, unchanged: they are never hidden.
    kept, body = x[:, : piece.prefix], x[:, piece.prefix :]
    return torch.cat((kept, _combined(body, weight, token, factor, corruption)), dim=1)


def _combined(x: Tensor, weight: Tensor, token: Tensor, gate: Tensor | None, corruption: Corruption) -> Tensor:
    """Features with the token at hidden positions. weight: 1 where hidden, else 0, in the layout of x."""
    if corruption.detach:  # the same values, without a gradient into hidden features
        x = x * (1 - weight) + x.detach() * weight
    match corruption.token:
        case "replace":
            return x * (1 - weight) + token * weight
        case "add":
            return x + token * weight
        case "gated-add":
            assert gate is not None, "a gated addition has a gate"
            return x * (1 - weight) + gate * x * weight + token * weight
        case "drop" | "none":
            return x
        case _:
            assert_never(corruption.token)
