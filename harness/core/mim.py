"""The model of a masked-image-modelling pre-training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.core.corruption import filled
from harness.core.drop_path import Place
from harness.core.encoder import Encoder, build
from harness.core.facts import facts_of
from harness.core.fourier import fourier_loss
from harness.core.heads import build_head
from harness.core.losses import prediction_loss
from harness.core.masking import spread
from harness.core.randomness import initialised
from harness.core.targets import Targets
from harness.spec import Pretrain, target_channels


class MaskedImageModel(nn.Module):
    """Encoder, mask token, head and target of a pre-training spec.

    mask_token, mask_gate: float [C0], C0 the channels at the token's site; None where the corruption has none.
    place: where training stands, which noise that fills hidden pixels is drawn for; to be set before a forward pass.
    """

    def __init__(self, run: Pretrain, channels: int) -> None:
        super().__init__()
        self.run = run
        self.encoder = initialised(run.seed, "encoder", lambda: _encoder(run, channels))
        token = initialised(run.seed, "mask token", lambda: _mask_token(run, self.encoder.token_width))
        self.mask_token = None if run.corruption.token == "none" else token
        gate = run.corruption.gate
        self.mask_gate = None if gate is None else nn.Parameter(torch.full((self.encoder.token_width,), gate))
        self.place = Place()
        self.black: Tensor
        self.register_buffer("black", _black(run, channels), persistent=False)
        self.head = initialised(
            run.seed,
            "head",
            lambda: build_head(
                run.head,
                width=self.encoder.width,
                channels=target_channels(run.target, channels),
                upscale=run.backbone.stride // run.target.downsample,
                side=run.image_size // run.backbone.stride,
            ),
        )
        self.targets = Targets(run.target, run.data, run.image_size)

    def encode(self, images: Tensor, units: Tensor) -> Tensor:
        """Features [B, C, h, w] of corrupted images. images: float [B, C, S, S]; units: bool, from `make_mask`."""
        side = images.shape[-1]
        images = filled(
            images, spread(units, side), self.run.corruption.fill, self.black, seed=self.run.seed, place=self.place
        )
        hidden = None if self.mask_token is None else spread(units, side // self.encoder.token_stride)
        found: Tensor = self.encoder(images, hidden, self.mask_token, self.mask_gate)
        return found

    def forward(self, images: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction [B, K, S / downsample, S / downsample], and the loss it has against the clean images.

        The loss is a float32 scalar; or [2], the prediction error and the weighted Fourier loss, which add up to it,
        where the run has one: they are means over different things (`harness.core.losses.loss_weights`).
        """
        run = self.run
        prediction = self.head(self.encode(images, units))
        target = self.targets(images)
        hidden = spread(units, target.shape[-1]) if run.loss.scope == "masked" or run.fourier is not None else None
        error = prediction_loss(run.loss, prediction, target, hidden)
        if run.fourier is None or hidden is None:
            return prediction, error
        return prediction, torch.stack([error, run.fourier.weight * fourier_loss(run, prediction, target, hidden)])


def _encoder(run: Pretrain, channels: int) -> Encoder:
    model = build(run.backbone, image_size=run.image_size, channels=channels, drop_path=run.recipe.drop_path)
    return Encoder(model, run.corruption)


def _black(run: Pretrain, channels: int) -> Tensor:
    """The pixel value 0 after normalisation, float [channels]; zeros where nothing is filled with it."""
    if run.corruption.fill != "zero":
        return torch.zeros(channels)
    facts = facts_of(run.data)
    return -torch.tensor(facts.mean) / torch.tensor(facts.std)


def _mask_token(run: Pretrain, width: int) -> nn.Parameter:
    cut = 0.02 if run.backbone.variant == "simmim" else 2.0  # the released ViT cuts its normals at one deviation
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=0.02, a=-cut, b=cut))
