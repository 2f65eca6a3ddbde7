"""Targets of clean images, and pictures of predictions."""

from __future__ import annotations

from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.core.data.datasets import load
from harness.core.model.encoder import Encoder
from harness.core.objective import dalle
from harness.core.objective.codebook import colours, learn, nearest, patches, raw
from harness.core.objective.features import momentum_features, teacher_features, teacher_of
from harness.core.objective.hog import gaussian_window, hog, strokes
from harness.core.objective.losses import split_classes
from harness.core.objective.pixels import local_statistics, low_pass
from harness.core.runtime.custom import call, load_function
from harness.spec import (
    BinTarget,
    ClusterTarget,
    CustomTarget,
    DalleTokenizer,
    Data,
    FeatureTarget,
    HarnessError,
    HogTarget,
    LowPassTarget,
    MomentumTarget,
    NormPixelTarget,
    PatchWords,
    PixelTarget,
    Target,
    TokenTarget,
)


class Targets(nn.Module):
    """Module that computes targets of clean images, and pictures of predictions.

    codebook: float32 [K, D], colours or patches with values in [0, 1]; a buffer, so that checkpoints and weights of a
        run contain the meaning of its predictions. None for targets without one.

    Raises:
        HarnessError: a codebook cannot be learnt from the data, or a teacher's or tokenizer's file cannot be read.
    """

    def __init__(self, target: Target, data: Data, image_size: int) -> None:
        super().__init__()
        self.target = target
        self.codebook: Tensor | None
        self.register_buffer("codebook", _codebook(target, data, image_size))
        # Buffers, so that they are on the device: copied there in every step, they would make the host wait.
        self.colours: Tensor | None
        self.register_buffer("colours", _colours(target, data), persistent=False)
        self.window: Tensor | None
        window = gaussian_window(target, image_size, image_size) if isinstance(target, HogTarget) else None
        self.register_buffer("window", window, persistent=False)
        self.teacher_colours: Tensor | None
        theirs = target if isinstance(target, FeatureTarget) and target.mean is not None else None
        own = None if theirs is None else torch.tensor((theirs.mean, theirs.std))
        self.register_buffer("teacher_colours", own, persistent=False)
        # Frozen, and in the key by its digest: neither saved with the weights nor optimised. Hence a dict and a list,
        # which torch does not register as parts of the module.
        self._weights = dalle.read(_tokenizer(target)) if _tokenizer(target) else {}
        self._teachers = [teacher_of(target, data.channels)] if isinstance(target, FeatureTarget) else []

    @torch.no_grad()
    def forward(self, images: Tensor, momentum: Encoder | None = None) -> Tensor:
        """Target of clean normalised images. Classes do not depend on the precision of training.

        Args:
            images: float [B, C, S, S]. momentum: the momentum encoder, for a target of its features.

        Returns:
            [B, maps, S / downsample, S / downsample]: float32 values to regress, or int64 class indices.
        """
        target = self.target
        match target:
            case PixelTarget():
                # A mean of squares of one pixel would only copy the images.
                return F.avg_pool2d(images, target.downsample) if target.downsample > 1 else images
            case NormPixelTarget():
                mean, deviation = local_statistics(images, target.size, target.area)
                return (images - mean) / deviation
            case LowPassTarget():
                values = self._smoothed(target, images)
                mean, deviation = self._statistics(target, values)
                return (values - mean) / deviation
            case HogTarget():
                return hog(images, target, self.window)
            case FeatureTarget():
                return self._features(target, images)
            case MomentumTarget():
                if momentum is None:
                    raise HarnessError("the target 'momentum' needs a momentum encoder")
                return momentum_features(target, momentum, images)
            case BinTarget():
                return bin_of(F.avg_pool2d(self._raw(images), target.downsample), target.bins)
            case ClusterTarget():
                return self._entry(colours(self._raw(images), target.downsample))
            case TokenTarget():
                return self._tokens(target, self._raw(images))
            case CustomTarget():
                return _own(target, images)
            case _:
                assert_never(target)

    def _tokens(self, target: TokenTarget, values: Tensor) -> Tensor:
        """Codes of a tokenizer, int64 [B, 1, h, w], of pixel values float32 [B, C, S, S] in [0, 1]."""
        match target.tokenizer:
            case PatchWords():
                return self._entry(patches(values, target.downsample))
            case DalleTokenizer():
                fed = dalle.fed(values, target.downsample)
                return dalle.logits(self._weights_on(fed.device), fed).argmax(1, keepdim=True)
            case _:
                assert_never(target.tokenizer)

    def _smoothed(self, target: LowPassTarget, images: Tensor) -> Tensor:
        """Images without high frequencies, normalised, like `images`; the filter works on pixel values."""
        mean, std = self._mean_and_std()
        return (low_pass(images.float() * std + mean, target.radius) - mean) / std

    def _statistics(self, target: LowPassTarget, values: Tensor) -> tuple[Tensor, Tensor]:
        if target.patch is None:
            return values.new_zeros(()), values.new_ones(())
        return local_statistics(values, target.patch, "patch")

    def _features(self, target: FeatureTarget, images: Tensor) -> Tensor:
        """Features of the frozen teacher, which sees the images with its own normalisation."""
        # Not a registered part, so moving the module to a device has left it where it was. Later this costs nothing.
        teacher = self._teachers[0].to(images.device)
        if self.teacher_colours is not None:
            mean, std = self._mean_and_std()
            own = self.teacher_colours.to(images.dtype)[..., None, None]
            # From the data set's normalisation to the teacher's.
            images = (images * std + mean - own[0]) / own[1]
        return teacher_features(target, teacher, images)

    def picture(self, prediction: Tensor, images: Tensor) -> Tensor | None:
        """Picture of a prediction: normalised images [B, C, h, w] of any resolution; None if the target has none.

        Pixels are shown as predicted; locally normalised ones with the clean image's local mean and deviation (as MAE
        shows them); bins as the expected colour, from the centres of the bins; clusters and patch words as the most
        probable entry; histograms of gradients as strokes along the edges.

        Args:
            prediction: [B, prediction_channels, S / downsample, S / downsample].
            images: the clean images, float [B, C, S, S].
        """
        target = self.target
        match target:
            case PixelTarget():
                return prediction
            case NormPixelTarget():
                mean, deviation = local_statistics(images, target.size, target.area)
                return prediction * deviation + mean
            case LowPassTarget():
                mean, deviation = self._statistics(target, self._smoothed(target, images))
                return prediction * deviation + mean
            case HogTarget():
                return self._normalised(strokes(prediction, target))
            case BinTarget():
                middles = (torch.arange(target.bins, device=prediction.device) + 0.5) / target.bins
                chances = split_classes(prediction.float(), target.bins).softmax(1)
                return self._normalised(torch.einsum("bkchw,k->bchw", chances, middles))
            case ClusterTarget():
                return self._normalised(self._shown(prediction))
            case TokenTarget(tokenizer=PatchWords()):
                return self._normalised(F.pixel_shuffle(self._shown(prediction), target.downsample))
            case TokenTarget() | FeatureTarget() | MomentumTarget() | CustomTarget():
                return None
            case _:
                assert_never(target)

    def _entry(self, vectors: Tensor) -> Tensor:
        """Index of the nearest entry of the codebook, int64 [B, 1, h, w], from vectors [B, h, w, D]."""
        assert self.codebook is not None
        return nearest(vectors, self.codebook)[0][:, None]

    def _shown(self, prediction: Tensor) -> Tensor:
        """Most probable entry of the codebook, [B, D, h, w], from logits [B, K, h, w]."""
        assert self.codebook is not None
        return self.codebook[prediction.argmax(1)].permute(0, 3, 1, 2)

    def _raw(self, images: Tensor) -> Tensor:
        mean, std = self._mean_and_std()
        return raw(images, mean, std)

    def _normalised(self, values: Tensor) -> Tensor:
        mean, std = self._mean_and_std()
        return (values - mean) / std

    def _mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the images' normalisation, [C, 1, 1] each."""
        assert self.colours is not None
        mean, std = self.colours[..., None, None].unbind(0)
        return mean, std

    def _weights_on(self, device: torch.device) -> dalle.Weights:
        if any(tensor.device != device for tensor in self._weights.values()):
            self._weights = {name: tensor.to(device) for name, tensor in self._weights.items()}
        return self._weights


def bin_of(values: Tensor, bins: int) -> Tensor:
    """Index, int64, of the bin of each value in [0, 1]: [0, 1 / bins) is bin 0, and 1 belongs to the last."""
    return (values * bins).long().clamp(0, bins - 1)  # the value 1 would lie one beyond the last bin


def _codebook(target: Target, data: Data, image_size: int) -> Tensor | None:
    """Codebook learnt from the pre-training images, float32 [K, D]; None for a target without one."""
    match target:
        case ClusterTarget():
            # `learn` hands the same tensor to everybody; loading weights would write into it.
            return learn(target, data, image_size, target.downsample).clone()
        case TokenTarget(tokenizer=PatchWords() as tokenizer):
            return learn(tokenizer, data, image_size, target.downsample).clone()
        case _:
            return None


def _colours(target: Target, data: Data) -> Tensor | None:
    """Mean and standard deviation by which images are normalised, float32 [2, C]; None where no target undoes it."""
    own = isinstance(target, FeatureTarget) and target.mean is None  # then the teacher sees images as the model does
    if own or not target.uses_colours:
        return None
    source = load(data, "pretrain")  # which may read a whole folder, so only where it is needed
    return torch.tensor((source.mean, source.std))


def _tokenizer(target: Target) -> DalleTokenizer | None:
    found = target.tokenizer if isinstance(target, TokenTarget) else None
    return found if isinstance(found, DalleTokenizer) else None


def _own(target: CustomTarget, images: Tensor) -> Tensor:
    """Target of a user's own function, float32 [B, channels, S / downsample, S / downsample], checked."""
    made = call(load_function(target.function, target.source), target.function, images, **dict(target.params))
    side = images.shape[-1] // target.downsample
    wanted = (images.shape[0], target.channels, side, side)
    if not isinstance(made, Tensor) or tuple(made.shape) != wanted:
        found = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise HarnessError(f"{target.function} should return a tensor {list(wanted)}, not {found}")
    if made.is_complex() or made.device != images.device:
        raise HarnessError(
            f"{target.function} should return numbers on {images.device}, not {made.dtype} on {made.device}"
        )
    return made.detach().float()
