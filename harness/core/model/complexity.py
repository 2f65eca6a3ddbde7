"""Parameters, multiply-adds and memory of a model, counted on torch's meta device: nothing is allocated or computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from harness.core.model.detector import BOX_SIDE, MASK_SIDE, build_heads, taps_for
from harness.core.model.encoder import Encoder, build, depth
from harness.core.model.heads import build_head
from harness.core.model.mae import encode_visible
from harness.core.model.pyramid import build_pyramid
from harness.core.model.segmenter import Segmenter, build_segment_head
from harness.core.model.taps import Taps
from harness.core.runtime.drop_path import Place
from harness.spec import AnyBackbone, Corruption, HarnessError, Head, Target
from harness.spec.model.described import Described

NORM_ELEMENT = 5
"""Multiply-adds of a layer norm for each element of its input, as mmengine counts them (jit_handles.py)."""

WEIGHT_BYTES, TRAINING_BYTES = 4, 12
"""Bytes of a float32 weight, and of its gradient with AdamW's two moments where it is trained."""


@dataclass(frozen=True)
class Complexity:
    """Parameters and multiply-adds of a model for one image.

    One multiply-add is one unit, where others write FLOPs: convolutions, linear layers and matrix products as they are
    computed (padded windows included), 5 for each element of a layer norm, 1 for each element that is pooled. Biases,
    softmax, activations, batch norms and additions are left out. That is mmpretrain's get_flops, whose published figure
    is `encoder + pooling`: neither a classifier nor a decoder is in it.

    Attributes:
        parameters: all of them, head and mask token included.
        encoder, pooling, head: multiply-adds of one forward pass.
        activation_bytes: bytes that a forward pass of one image keeps for the backward pass, in float32; about half
            with 16 bits. Losses and targets are left out.
        trained: True if the parameters are trained.
    """

    parameters: int
    encoder: int
    pooling: int
    head: int
    activation_bytes: int = 0
    trained: bool = True

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one whole forward pass."""
        return self.encoder + self.pooling + self.head

    @property
    def memory_bytes(self) -> int:
        """Weights, and gradients and AdamW's moments where they are trained, in float32; activations are left out."""
        return self.parameters * (WEIGHT_BYTES + (TRAINING_BYTES if self.trained else 0))


def pretraining(
    backbone: AnyBackbone,
    *,
    image_size: int,
    channels: int,
    head: Head,
    target: Target,
    mask_token: bool = True,
    corruption: Corruption | None = None,
    visible: int | None = None,
) -> Complexity:
    """Cost of encoder, mask token and its gate, and prediction head.

    Args:
        corruption: where the token comes in and whether it has a gate; the input and none unless given.
        visible: tokens that the encoder computes behind the patch embedding; None for all of them.
    """
    with torch.device("meta"):
        encoder = Encoder(build(backbone, image_size=image_size, channels=channels), corruption).eval()
        prediction = build_head(
            head,
            width=encoder.width,
            channels=target.prediction_channels(channels),
            upscale=backbone.stride // target.downsample,
            side=image_size // backbone.stride,
            fills=visible is not None,
        ).eval()
        # Mask token and gate are vectors of their own, in neither encoder nor head, so they are counted by hand.
        vectors = 1 if encoder.corruption.gate is None else 2
        images = torch.zeros(1, channels, image_size, image_size)
        features = torch.zeros(1, encoder.width, *(image_size // backbone.stride,) * 2)
        places = torch.zeros(1, visible or 0, dtype=torch.int64)
    if visible is not None:
        tokens = encode_visible(encoder.model, images, places)
        return Complexity(
            parameters=count(encoder) + count(prediction),
            encoder=multiply_adds(lambda: encode_visible(encoder.model, images, places)),
            pooling=0,
            head=multiply_adds(lambda: prediction(tokens, places)),
            activation_bytes=kept_bytes(
                (encoder, prediction), lambda: prediction(encode_visible(encoder.model, images, places), places)
            ),
        )
    return Complexity(
        parameters=count(encoder) + count(prediction) + (encoder.token_width * vectors if mask_token else 0),
        encoder=multiply_adds(lambda: encoder(images)),
        pooling=0,
        head=multiply_adds(lambda: prediction(features)),
        activation_bytes=kept_bytes((encoder, prediction), lambda: prediction(encoder(images))),
    )


def classifier(
    backbone: AnyBackbone, *, image_size: int, channels: int, num_classes: int, pool: str = "mean"
) -> Complexity:
    """Cost of a model that is fine-tuned. `pool` as for `build`; `num_classes` 0 leaves the last layer out."""
    with torch.device("meta"):
        model = build(backbone, image_size=image_size, channels=channels, num_classes=num_classes, pool=pool)
        encoder, images = Encoder(model.eval()), torch.zeros(1, channels, image_size, image_size)
    # One for each element of the map that is averaged; a class token is taken as it is.
    pooled = encoder.width * (image_size // backbone.stride) ** 2 if pool == "mean" else 0
    # Such a norm is computed on the pooled vector, so the body ends with the last block.
    last = depth(model) if encoder.layers.norm_behind_pooling else None
    body = multiply_adds(lambda: encoder.features(images, last))
    whole = multiply_adds(lambda: model(images))  # includes the norm after pooling, where a model has one
    kept = kept_bytes((model,), lambda: model(images))
    return Complexity(parameters=count(model), encoder=body, pooling=pooled, head=whole - body, activation_bytes=kept)


def segmentation(model: Described) -> Complexity:
    """Cost of encoder and head; an auxiliary head, which testing leaves out, is in the parameters only."""
    size, channels = model.image_size, model.channels
    if model.segment_head is None:
        raise HarnessError("a segmentation has a head")
    with torch.device("meta"):
        taps = Taps(Encoder(build(model.backbone, image_size=size, channels=channels)), model.taps)
        head = build_segment_head(model.segment_head, taps, model.num_classes or 1, 0, Place())
        whole, images = Segmenter(taps, head).eval(), torch.zeros(1, channels, size, size)
    body = multiply_adds(lambda: taps(images))
    return Complexity(
        parameters=count(whole),
        encoder=body,
        pooling=0,
        head=multiply_adds(lambda: whole(images)) - body,
        activation_bytes=kept_bytes((whole,), lambda: whole(images)),
    )


def detection(model: Described) -> Complexity:
    """Cost of encoder, pyramid and heads, these for as many regions as a picture has at most in training.

    Proposals and pooling of regions, which multiply little, are left out.
    """
    size, channels, pyramid = model.image_size, model.channels, model.pyramid
    if pyramid is None:
        raise HarnessError("a detection has a pyramid")
    with torch.device("meta"):
        encoder = Encoder(build(model.backbone, image_size=size, channels=channels))
        taps = taps_for(pyramid, encoder)
        levels = build_pyramid(pyramid, taps.widths, taps.strides)
        rpn, heads = build_heads(model, levels, model.num_classes or 0)
        parts = nn.ModuleList([taps, levels, rpn, heads]).eval()
        images = torch.zeros(1, channels, size, size)
        boxes = torch.zeros(model.rois, levels.width, BOX_SIDE, BOX_SIDE)
        masks = torch.zeros(model.rois // 4, levels.width, MASK_SIDE, MASK_SIDE)

    def predict(maps: list[Tensor]) -> list[object]:
        found = [rpn.head(maps), heads.box_predictor(heads.box_head(boxes))]
        return [*found, heads.mask_predictor(heads.mask_head(masks))] if model.masks else found

    made = taps(images)
    return Complexity(
        parameters=count(parts),
        encoder=multiply_adds(lambda: taps(images)),
        pooling=0,
        head=multiply_adds(lambda: predict(levels(made))),
        activation_bytes=kept_bytes((parts,), lambda: predict(levels(taps(images)))),
    )


def frozen(backbone: AnyBackbone, *, image_size: int, channels: int, block: int | None = None) -> Complexity:
    """Cost of features pooled over the map, after block `block` or after the final norm, from an encoder as it is."""
    with torch.device("meta"):
        encoder = Encoder(build(backbone, image_size=image_size, channels=channels)).eval()
        images = torch.zeros(1, channels, image_size, image_size)
    return Complexity(
        parameters=count(encoder),
        encoder=multiply_adds(lambda: encoder.features(images, block)),
        # One for each element of the map that is averaged.
        pooling=encoder.features(images, block).numel(),
        head=0,
        trained=False,
    )


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def kept_bytes(modules: Iterable[nn.Module], forward: Callable[[], object]) -> int:
    """Bytes that a forward pass keeps for the backward pass, each piece of memory once, without weights and buffers."""
    # Weights are counted apart, and by memory: a view of a weight is the weight.
    weights = {id_of(tensor) for module in modules for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if id_of(tensor) not in weights:
            kept[id_of(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = forward()
    del result  # it held what was kept, so that no piece of memory could be another's after it
    return sum(kept.values())


def id_of(tensor: Tensor) -> int:
    """Number of the memory that a tensor lies in; tensors on torch's meta device have no address."""
    number: int = tensor.untyped_storage()._cdata
    return number


@torch.no_grad()
def multiply_adds(forward: Callable[[], object]) -> int:
    """Multiply-adds of a call, counted as `Complexity` says."""
    norms = {torch.ops.aten.native_layer_norm: _norm}
    with FlopCounterMode(display=False, custom_mapping=norms) as counter:
        forward()
    return int(counter.get_total_flops()) // 2  # torch counts a multiply-add as two


def _norm(shape: Any, *rest: Any, **named: Any) -> int:
    del rest, named
    return 2 * NORM_ELEMENT * int(math.prod(shape))
