"""Masked-image-modelling pre-training, from spec to weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from harness.core.batches import Batch, steps_per_epoch, training_batches
from harness.core.batchnorm import group_batch_norms
from harness.core.checkpoint import weights_of
from harness.core.datasets import load
from harness.core.drop_path import key_drop_paths
from harness.core.encoder import Encoder, build
from harness.core.heads import build_head
from harness.core.loop import train
from harness.core.losses import loss_weight, prediction_loss
from harness.core.masking import make_mask, spread
from harness.core.optimiser import parameter_groups
from harness.core.precision import require
from harness.core.randomness import initialised
from harness.core.reconstruct import write_reconstructions
from harness.core.session import Diverged, Session
from harness.core.start import load_pretraining_start
from harness.core.targets import Targets
from harness.spec import CustomHead, PixelTarget, Pretrain, target_channels

COLLAPSED = 1e-3
"""Predicted pixels whose standard deviation is below this, in units of the data set's, show one colour everywhere."""


class MaskedImageModel(nn.Module):
    """Encoder, mask token, head and target of a pre-training spec."""

    def __init__(self, run: Pretrain, channels: int) -> None:
        super().__init__()
        self.run = run
        self.encoder = initialised(run.seed, "encoder", lambda: _encoder(run, channels))
        token = initialised(run.seed, "mask token", lambda: _mask_token(run, self.encoder.token_width))
        self.mask_token = token if run.corruption.token == "replace" else None
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
        if self.run.corruption.fill == "mean":  # zero is the mean of a normalised data set
            images = images.masked_fill(spread(units, side)[:, None], 0.0)
        found: Tensor = self.encoder(images, spread(units, side // self.run.backbone.patch_size), self.mask_token)
        return found

    def forward(self, images: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction [B, K, S / downsample, S / downsample], and the loss it has against the clean images."""
        prediction = self.head(self.encode(images, units))
        target = self.targets(images)
        hidden = spread(units, target.shape[-1]) if self.run.loss.scope == "masked" else None
        return prediction, prediction_loss(self.run.loss, prediction, target, hidden)


def _encoder(run: Pretrain, channels: int) -> Encoder:
    return Encoder(build(run.backbone, image_size=run.image_size, channels=channels, drop_path=run.recipe.drop_path))


def _mask_token(run: Pretrain, width: int) -> nn.Parameter:
    cut = 0.02 if run.backbone.variant == "simmim" else 2.0  # the released ViT cuts its normals at one deviation
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=0.02, a=-cut, b=cut))


def pretrain(run: Pretrain, session: Session) -> None:
    """Pre-train, show reconstructions of test images, publish the weights.

    Raises:
        Diverged: the loss is not finite, or in the second half of training the predictions are one flat colour.
    """
    device = session.device
    require(run.recipe, device)
    images = load(run.data, "pretrain").to(device)
    per_epoch = steps_per_epoch(images, run.recipe.batch_size)
    steps = run.recipe.epochs * per_epoch
    model = MaskedImageModel(run, images.channels)
    if run.start is not None:
        load_pretraining_start(run.start, model)
    model = model.to(device).train()
    place = key_drop_paths(model, run.seed)
    group_batch_norms(model, run.recipe, session, place)
    replica = session.group.replicate(model, may_skip=isinstance(run.head, CustomHead))

    def batches(first: int) -> Iterator[Batch]:
        return training_batches(
            images,
            run.recipe.augment,
            image_size=run.image_size,
            batch_size=run.recipe.batch_size,
            seed=run.seed,
            first_step=first,
            steps=steps,
            device=device,
            workers=session.workers,
            rows=session.group.rows(run.recipe.batch_size),
        )

    def hidden(batch: Batch) -> Tensor:
        return make_mask(
            run.mask,
            image_size=run.image_size,
            seed=run.seed,
            step=batch.step,
            steps=steps,
            positions=batch.positions,
        )

    contrast = torch.zeros((), device=device)

    def loss_of(batch: Batch) -> Tensor:
        place.step, place.positions = batch.step, batch.positions
        prediction: Tensor
        loss: Tensor
        prediction, loss = replica(batch.images, hidden(batch))
        contrast.copy_(prediction.detach().float().std())
        return loss

    for line in train(
        session,
        seed=run.seed,
        model=replica,
        groups=parameter_groups(model.named_parameters(), run.recipe),
        recipe=run.recipe,
        steps_per_epoch=per_epoch,
        batches=batches,
        loss_of=loss_of,
        weight_of=lambda batch: loss_weight(run.loss, hidden(batch)),
    ):
        line["contrast"] = session.group.mean(contrast).item()
        if isinstance(run.target, PixelTarget) and line["step"] * 2 > steps and line["contrast"] < COLLAPSED:
            raise Diverged(
                f"the predictions collapsed to one colour (sd {line['contrast']:.1e}) at step {line['step']}"
            )

    write_reconstructions(run, model.eval(), session)
    last = session.attempt.lines()[-1]
    session.attempt.finish({"loss": last["loss"]}, last["seconds"], weights_of(model))
