"""Model of a masked-image-modelling pre-training."""

from __future__ import annotations

import logging
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from harness.core.data.datasets import facts_of
from harness.core.masks.frequencies import without_frequencies
from harness.core.masks.local import predicted_units, window_streams
from harness.core.masks.masking import in_views, spread
from harness.core.model.corruption import filled, noise_stream
from harness.core.model.encoder import Encoder, build
from harness.core.model.heads import build_head
from harness.core.model.mae import Decoder, encode_visible, visible_map, visible_places
from harness.core.objective.contrastive import Pairs, info_nce_over_views, mlp, of_all
from harness.core.objective.fourier import fourier_loss
from harness.core.objective.hard_patches import attention_of, attention_scores, patch_errors, ranking_loss
from harness.core.objective.losses import prediction_loss
from harness.core.objective.targets import Targets
from harness.core.pretrain.momentum import Momentum
from harness.core.runtime.distributed import Group
from harness.core.runtime.drop_path import Place
from harness.core.runtime.randomness import initialised
from harness.core.weights.checkpoint import checkpoint_weights, load_encoder, load_own
from harness.core.weights.finished_run import Trained
from harness.core.weights.formats import below
from harness.spec import Checkpoint, FrequencyMask, HarnessError, LocalMask, Mask, Pretrain
from harness.spec.objective.loss import needs_hidden

LOG = logging.getLogger(__name__)
FOLLOWED = ("encoder", "mask_token", "mask_gate", "projector", "loss_predictor")
"""Parts of the model of which the momentum encoder holds averages."""


class MaskedImageModel(nn.Module):
    """Encoder, mask token, head, target and momentum encoder of a pre-training spec.

    mask_token, mask_gate: float [C0], C0 the channels at the token's site; None if the corruption has none.
    projector, predictor: of the contrastive loss; None without one. loss_predictor: of hard masks; None without.
    colours: float [2, C], mean and deviation of the images' normalisation, used where frequencies are removed.
    place: current step and positions, which key the noise in hidden pixels; move it before each forward pass.
    processes: those that compute the run; the contrastive loss compares the keys of all of them.
    """

    def __init__(self, run: Pretrain, channels: int) -> None:
        super().__init__()
        self.run = run
        self.encoder = initialised(run.seed, "encoder", lambda: _encoder(run, channels))
        # Each part is initialised from its own stream, so that changing one leaves the others' initial weights.
        token = initialised(run.seed, "mask token", lambda: _mask_token(run, self.encoder.token_width))
        tokenless = run.corruption.token in ("drop", "none") or isinstance(run.mask, FrequencyMask)
        self.mask_token = None if tokenless else token
        gate = run.corruption.gate
        self.mask_gate = None if gate is None else nn.Parameter(torch.full((self.encoder.token_width,), gate))
        self.place = Place()
        # Computed once: torch.compile does not trace hashing.
        self.noise = noise_stream(run.seed)
        self.windows = window_streams(run.mask, run.seed) if isinstance(run.mask, LocalMask) else []
        self.colours: Tensor
        self.register_buffer("colours", _colours(run, channels), persistent=False)
        self.black: Tensor
        self.register_buffer("black", _black(run, channels), persistent=False)
        self.head = initialised(
            run.seed,
            "head",
            lambda: build_head(
                run.head,
                width=self.encoder.width,
                channels=run.target.prediction_channels(channels),
                upscale=run.backbone.stride // run.target.downsample,
                side=run.image_size // run.backbone.stride,
                fills=run.corruption.token == "drop",
            ),
        )
        self.targets = Targets(run.target, run.data, run.image_size)
        self.processes = Group()
        self.projector: Any
        self.predictor: Any
        self.projector, self.predictor = _projections(run, self.encoder.width)
        self.loss_predictor: Any = _loss_predictor(run, self.encoder.width)
        if run.mask.scored_by == "attention":  # refused now, and not at the first step
            attention_of(self.encoder)
        # Last, as it copies the parts that were made above.
        self.momentum = None if run.momentum is None else Momentum(run.momentum, self, *FOLLOWED)

    def encode(self, images: Tensor, units: Tensor) -> Tensor:
        """Features [B, C, h, w] of corrupted images; 0 at dropped tokens.

        Args:
            images: float [B, C, S, S]. units: bool, from `make_mask`.
        """
        found = self._encoded(self, images, units, self.run.mask)
        if len(found) == 1:
            return found[0]
        tokens, places = found
        return visible_map(tokens, places, images.shape[-1] // self.run.backbone.stride)

    def _encoded(self, parts: Any, images: Tensor, units: Tensor | None, mask: Mask) -> tuple[Tensor, ...]:
        """Arguments of the head: a feature map, or visible tokens and their places if hidden ones are dropped.

        Args:
            parts: the model itself, or its momentum encoder. units: bool, True = hidden; None hides nothing.
            mask: what the units were drawn from.
        """
        if units is None:
            return (parts.encoder(images),)
        run, side = self.run, images.shape[-1]
        if isinstance(run.mask, FrequencyMask):
            return (parts.encoder(without_frequencies(images, units, *self.colours)),)
        if run.corruption.token == "drop":
            # In training the mask's kind tells their number; else a caller may show masks of its own.
            count = run.visible_under(mask) if self.training else None
            places = visible_places(spread(units, side // run.backbone.patch_size), count)
            return encode_visible(parts.encoder.model, images, places), places
        if run.corruption.fill != "none":
            pixels = spread(units, side)
            images = filled(images, pixels, run.corruption.fill, self.black, stream=self.noise, place=self.place)
        # The token comes in at the resolution of its site, pixels are filled at that of the image.
        hidden = None if parts.mask_token is None else spread(units, side // self.encoder.token_stride)
        return (parts.encoder(images, hidden, parts.mask_token, parts.mask_gate),)

    def forward(self, images: Tensor, units: Tensor, pairs: Pairs | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Predictions for masked images, and their losses against the targets of the clean images.

        Args:
            images: float [B, C, S, S], clean. units: bool [B, units, units], True = hidden.
            pairs: second crops and masks of the contrastive loss; None leaves that loss out.

        Returns:
            The prediction [B, K, S / downsample, S / downsample], and its weighted losses by name, float32 scalars:
            prediction, and where the run has them fourier, contrastive and ranking. They are means over different
            things (`harness.core.objective.losses.loss_denominators`).
        """
        run, drops = self.run, self.run.corruption.token == "drop"
        # Through `encode`, so that a subclass that overrides it (a faulty encoder, say) changes the loss too.
        encoded = self._encoded(self, images, units, run.mask) if drops else (self.encode(images, units),)
        prediction = self.head(*encoded)
        parts: Any = self.momentum
        target = self.targets(images, None if parts is None else parts.encoder)
        scored = predicted_units(run, units, self.place, self.windows)
        # Losses over the full image need no mask; a mask of frequencies may not even fit the target.
        hidden = spread(scored, target.shape[-1]) if needs_hidden(run.loss) or run.fourier is not None else None
        losses = {"prediction": prediction_loss(run.loss, prediction, target, hidden)}
        if run.fourier is not None and hidden is not None:
            losses["fourier"] = run.fourier.weight * fourier_loss(run, prediction, target, hidden)
        if run.contrastive is not None and pairs is not None:
            losses["contrastive"] = run.contrastive.weight * self._contrastive(encoded, images, units, pairs)
        if run.loss_predictor is not None:
            losses["ranking"] = run.loss_predictor.weight * self._ranking(encoded, prediction, target, units)
        return prediction, losses

    def _ranking(self, encoded: tuple[Tensor, ...], prediction: Tensor, target: Tensor, units: Tensor) -> Tensor:
        """Loss of the loss predictor: the ranking of hidden patches by their prediction error."""
        expected = self.loss_predictor(*encoded)[:, 0]
        errors = patch_errors(prediction, target, expected.shape[-1])
        return ranking_loss(expected.flatten(1), errors, spread(units, expected.shape[-1]).flatten(1))

    @torch.no_grad()
    def scores(self, images: Tensor, mask: Mask | None = None) -> Tensor | None:
        """Patch scores of clean images [B, C, S, S] for a mask: float32 [B, h, w]; None if it needs none.

        The momentum encoder sees unmasked images. mask: by default the run's own.
        """
        parts: Any = self.momentum
        match scored_by := (mask or self.run.mask).scored_by:
            case None:
                return None
            case "attention":
                return attention_scores(parts.encoder, images)
            case "loss":
                # A predictor that takes visible tokens is given all places: nothing is hidden here.
                if self.run.corruption.token == "drop":
                    places = torch.arange((images.shape[-1] // self.run.backbone.stride) ** 2, device=images.device)
                    every = places.expand(len(images), -1)
                    expected: Tensor = parts.loss_predictor(encode_visible(parts.encoder.model, images, every), every)
                else:
                    expected = parts.loss_predictor(parts.encoder(images))
                return expected[:, 0].float()
            case _:
                assert_never(scored_by)

    def _contrastive(self, encoded: tuple[Tensor, ...], images: Tensor, units: Tensor, pairs: Pairs) -> Tensor:
        """Contrastive loss of the first crops; with `crops="swapped"` plus that of the second crops."""
        # The views of an image are repetitions of it, and the momentum encoder needs it once.
        shown = images[:: self.run.mask.views]
        loss = self._info_nce(encoded, shown if pairs.second is None else pairs.second, units, pairs.hidden)
        if pairs.second is None or pairs.units is None:
            return loss
        swapped = self._encoded(self, in_views(self.run.mask, pairs.second), pairs.units, self.run.mask)
        return loss + self._info_nce(swapped, shown, pairs.units, pairs.swapped)

    def _info_nce(self, encoded: tuple[Tensor, ...], images: Tensor, units: Tensor, hidden: Tensor | None) -> Tensor:
        """InfoNCE of the queries of encoded crops and the keys of `images`, masked by `hidden` or by the same masks."""
        run = self.run
        parts: Any = self.momentum
        assert run.contrastive is not None
        with torch.no_grad():  # keys are constants: the momentum encoder follows and is not trained
            other = run.mask if isinstance(run.contrastive.mask, str) else run.contrastive.mask
            # The same mask means the same views, each with a key of its own.
            if run.contrastive.mask == "same":
                images, hidden = in_views(run.mask, images), units
            keys = parts.projector(pooled(*self._encoded(parts, images, hidden, other)))
        queries = self.predictor(self.projector(pooled(*encoded)))
        return info_nce_over_views(
            queries,
            keys,
            views=run.mask.views,
            temperature=run.contrastive.temperature,
            of_all=lambda mine: of_all(mine, self.place.positions, run.recipe.batch_size, self.processes),
        )


def pooled(features: Tensor, places: Tensor | None = None) -> Tensor:
    """Mean over all computed positions, [B, C], without class and register tokens; arguments as for a head."""
    return features.mean((2, 3)) if places is None else features[:, -places.shape[1] :].mean(1)


def _encoder(run: Pretrain, channels: int) -> Encoder:
    model = build(run.built, image_size=run.image_size, channels=channels, drop_path=run.recipe.drop_path)
    return Encoder(model, run.corruption)


def _projections(run: Pretrain, width: int) -> tuple[nn.Sequential | None, nn.Sequential | None]:
    """Projector and predictor of a contrastive loss, each initialised from its own stream."""
    spec = run.contrastive
    if spec is None:
        return None, None
    projector = initialised(run.seed, "projector", lambda: mlp(spec.projector_layers, width, spec.hidden, spec.out))
    predictor = initialised(run.seed, "predictor", lambda: mlp(spec.predictor_layers, spec.out, spec.hidden, spec.out))
    return projector, predictor


def _loss_predictor(run: Pretrain, width: int) -> nn.Module | None:
    """Decoder that predicts the loss of each patch, for hard masks; None for a run without one."""
    if run.loss_predictor is None:
        return None
    decoder, side = run.loss_predictor.decoder, run.image_size // run.backbone.stride
    drops = run.corruption.token == "drop"
    return initialised(
        run.seed,
        "loss predictor",
        lambda: Decoder(decoder, width=width, channels=1, upscale=1, side=side, fills=drops),
    )


def _black(run: Pretrain, channels: int) -> Tensor:
    """Pixel value 0 after normalisation, float [channels]; zeros if no pixel is filled with it."""
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
    """Mask token [width] at its initial values: normal of deviation 0.02."""
    cut = 0.02 if run.backbone.variant == "simmim" else 2.0  # the released ViT cuts its normals at one deviation
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=0.02, a=-cut, b=cut))


def load_pretraining_start(start: Checkpoint, model: MaskedImageModel) -> None:
    """Load a checkpoint's weights into a model for further pre-training.

    The encoder has to fit. Another part that the file lacks, or has in another shape, keeps its initial weights, which
    is logged; so does a head of classes whose codebook is another.

    Raises:
        HarnessError: the file's SHA-256 is not the one in the spec, or its encoder does not fit.
    """
    found = checkpoint_weights(start)
    load_encoder(model.encoder.model, found.encoder, start.path)
    for name, ours, theirs in (
        ("mask token", model.mask_token, found.mask_token),
        ("gate", model.mask_gate, found.mask_gate),
    ):
        _taken_over(name, ours, theirs, start.path)
    # Classes of another codebook mean something else.
    book, saved = model.targets.codebook, found.targets.get("codebook")
    same = book is saved is None or (book is not None and saved is not None and torch.equal(book, saved))
    for name, module, tensors in (
        ("prediction head", model.head, found.head if same else {}),
        ("projector", model.projector, below(found.rest, "projector.")),
        ("predictor", model.predictor, below(found.rest, "predictor.")),
        ("loss predictor", model.loss_predictor, below(found.rest, "loss_predictor.")),
    ):
        _continued(name, module, tensors, start.path)


def _continued(name: str, module: nn.Module | None, tensors: dict[str, Tensor], path: str) -> None:
    """Load a part of a checkpoint into the model's own, or log that it does not fit and begins anew."""
    if module is None:
        return
    own = {name: tensor.shape for name, tensor in module.state_dict().items()}
    if own == {name: tensor.shape for name, tensor in tensors.items()}:
        module.load_state_dict(tensors)
    else:
        LOG.warning("%s has no %s that fits: it begins anew", path, name)


@torch.no_grad()
def _taken_over(name: str, ours: Tensor | None, theirs: Tensor | None, path: str) -> None:
    """Copy a vector of a checkpoint into the model's own, or log that it does not fit and begins anew."""
    if ours is None:
        return
    if theirs is not None and theirs.shape == ours.shape:
        ours.copy_(theirs)
    else:
        LOG.warning("%s has no %s of width %d: it begins anew", path, name, len(ours))


def masked_image_model_of(trained: Trained, device: torch.device) -> MaskedImageModel:
    """Model of a finished pre-training with its weights, in evaluation mode.

    Raises:
        HarnessError: the run is a fine-tuning, the file has the encoder only, or the weights do not fit.
    """
    run, weights = trained.run, trained.weights
    if not isinstance(run, Pretrain):
        raise HarnessError(f"{trained.name} is a {run.kind}, which predicts no pixels; reconstruct with a pretrain")
    if not weights.head:
        raise HarnessError(f"{trained.name} holds the encoder only, without the prediction head; name the run itself")
    model = MaskedImageModel(run, trained.facts.channels)
    named = weights.rest | {f"encoder.model.{name}": tensor for name, tensor in weights.encoder.items()}
    for part, tensors in (("head", weights.head), ("targets", weights.targets)):
        named |= {f"{part}.{name}": tensor for name, tensor in tensors.items()}
    for name, tensor in (("mask_token", weights.mask_token), ("mask_gate", weights.mask_gate)):
        named |= {} if tensor is None else {name: tensor}
    load_own(model, named, trained.name)
    return model.to(device).eval().requires_grad_(False)
