"""The model of a masked-image-modelling pre-training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.core.corruption import filled
from harness.core.drop_path import Place
from harness.core.encoder import Encoder, build
from harness.core.facts import facts_of
from harness.core.fourier import fourier_loss
from harness.core.frequencies import without_frequencies
from harness.core.heads import build_head
from harness.core.losses import prediction_loss
from harness.core.mae import encode_visible, visible_map, visible_places
from harness.core.masking import spread
from harness.core.masks_local import predicted_units
from harness.core.momentum import Momentum
from harness.core.randomness import initialised
from harness.core.targets import Targets
from harness.spec import FrequencyMask, Pretrain, target_channels

FOLLOWED = ("encoder", "mask_token", "mask_gate")
"""Parts of the model that the momentum encoder has copies of."""


class MaskedImageModel(nn.Module):
    """Encoder, mask token, head, target and momentum encoder of a pre-training spec.

    mask_token, mask_gate: float [C0], C0 the channels at the token's site; None where the corruption has none.
    colours: float [2, C], mean and deviation that images are normalised with, where frequencies are removed.
    place: where training stands, which noise that fills hidden pixels is drawn for; to be set before a forward pass.
    """

    def __init__(self, run: Pretrain, channels: int) -> None:
        super().__init__()
        self.run = run
        self.encoder = initialised(run.seed, "encoder", lambda: _encoder(run, channels))
        token = initialised(run.seed, "mask token", lambda: _mask_token(run, self.encoder.token_width))
        tokenless = run.corruption.token in ("drop", "none") or isinstance(run.mask, FrequencyMask)
        self.mask_token = None if tokenless else token
        gate = run.corruption.gate
        self.mask_gate = None if gate is None else nn.Parameter(torch.full((self.encoder.token_width,), gate))
        self.place = Place()
        self.black: Tensor
        self.register_buffer("black", _black(run, channels), persistent=False)
        self.colours: Tensor
        self.register_buffer("colours", _colours(run, channels), persistent=False)
        self.head = initialised(
            run.seed,
            "head",
            lambda: build_head(
                run.head,
                width=self.encoder.width,
                channels=target_channels(run.target, channels),
                upscale=run.backbone.stride // run.target.downsample,
                side=run.image_size // run.backbone.stride,
                fills=run.corruption.token == "drop",
            ),
        )
        self.targets = Targets(run.target, run.data, run.image_size)
        self.momentum = None if run.momentum is None else Momentum(run.momentum, self, *FOLLOWED)

    def encode(self, images: Tensor, units: Tensor) -> Tensor:
        """Features [B, C, h, w] of corrupted images; 0 at tokens that are dropped.

        Args:
            images: float [B, C, S, S]. units: bool, from `make_mask`.
        """
        side = images.shape[-1]
        if isinstance(self.run.mask, FrequencyMask):
            features: Tensor = self.encoder(without_frequencies(images, units, *self.colours), None, None, None)
            return features
        if self.run.corruption.token == "drop":
            return visible_map(self.encoder.model, images, self._places(units))
        images = filled(
            images, spread(units, side), self.run.corruption.fill, self.black, seed=self.run.seed, place=self.place
        )
        hidden = None if self.mask_token is None else spread(units, side // self.encoder.token_stride)
        found: Tensor = self.encoder(images, hidden, self.mask_token, self.mask_gate)
        return found

    def predict(self, images: Tensor, units: Tensor) -> Tensor:
        """Prediction [B, K, S / downsample, S / downsample]; arguments as for `encode`."""
        found: Tensor
        if self.run.corruption.token == "drop":
            places = self._places(units)
            found = self.head(encode_visible(self.encoder.model, images, places), places)
        else:
            found = self.head(self.encode(images, units))
        return found

    def _places(self, units: Tensor) -> Tensor:
        return visible_places(spread(units, self.run.image_size // self.run.backbone.patch_size))

    def forward(self, images: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction [B, K, S / downsample, S / downsample], and the loss it has against the clean images.

        The loss is a float32 scalar; or [2], the prediction error and the weighted Fourier loss, which add up to it,
        where the run has one: they are means over different things (`harness.core.losses.loss_weights`).
        """
        run = self.run
        prediction = self.predict(images, units)
        target = self.targets(images)
        scored = predicted_units(run, units, self.place)
        hidden = spread(scored, target.shape[-1]) if run.loss.scope == "masked" or run.fourier is not None else None
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


def _colours(run: Pretrain, channels: int) -> Tensor:
    """Mean and deviation that images are normalised with, float [2, channels]; needed where frequencies are removed."""
    if not isinstance(run.mask, FrequencyMask):
        return torch.zeros(2, channels)
    facts = facts_of(run.data)
    return torch.tensor([facts.mean, facts.std])


def _mask_token(run: Pretrain, width: int) -> nn.Parameter:
    cut = 0.02 if run.backbone.variant == "simmim" else 2.0  # the released ViT cuts its normals at one deviation
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=0.02, a=-cut, b=cut))
