"""Patch scores for masks: a momentum encoder's attention, and the errors that a loss predictor expects."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from harness.core.model.encoder import Encoder
from harness.spec import HarnessError


def attention_of(encoder: Encoder) -> Any:
    """Attention of an encoder's last block, whose chances can be computed.

    Raises:
        HarnessError: the encoder is no VisionTransformer, or its blocks have no attention of their own.
    """
    vit = encoder.model
    if not isinstance(vit, VisionTransformer):
        raise HarnessError(f"attention is read from timm's VisionTransformer (vit_...), not from {type(vit).__name__}")
    block: Any = vit.blocks[-1]
    if not hasattr(getattr(block, "attn", None), "qkv"):
        raise HarnessError(f"attention is read from blocks with one attention each, not from {type(block).__name__}")
    return block.attn


@torch.no_grad()
def attention_scores(encoder: Encoder, images: Tensor) -> Tensor:
    """Attention of the class token to each patch in the last block, mean over heads: float32 [B, h, w].

    Without a class token, the mean over all queries.

    Args:
        images: float [B, C, S, S], unmasked.

    Raises:
        HarnessError: as `attention_of`.
    """
    vit: Any = encoder.model
    attention = attention_of(encoder)
    # timm's fused attention returns no weights, so they are computed again from the block's input.
    seen: list[Tensor] = []
    handle = attention.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        side = encoder.features(images).shape[-1]
    finally:
        handle.remove()
    x = seen[0]
    shape = (len(x), x.shape[1], 3, attention.num_heads, -1)
    queries, keys, _ = attention.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
    queries, keys = attention.q_norm(queries).float(), attention.k_norm(keys).float()
    # Autocast would compute the product in 16 bits again, in which most scores are equal.
    with torch.autocast(x.device.type, enabled=False):
        chances = (queries @ keys.mT * attention.scale).softmax(-1).mean(1)  # [B, from, to]
    asking: Tensor = chances[:, 0] if vit.cls_token is not None else chances.mean(1)
    return asking[:, -side * side :].reshape(-1, side, side)


def ranking_loss(predicted: Tensor, errors: Tensor, hidden: Tensor) -> Tensor:
    """Pairwise ranking loss: cross-entropy of which of two hidden patches has the larger error; a float32 scalar.

    Mean over the ordered pairs of an image whose errors differ, then over images; an image without pairs counts 0.

    Args:
        predicted, errors: float [B, N], no gradient flows through the errors. hidden: bool [B, N].
    """
    predicted, errors = predicted.float(), errors.detach().float()
    larger = errors[:, None] > errors[:, :, None]
    pairs = (errors[:, None] != errors[:, :, None]) & hidden[:, None] & hidden[:, :, None]
    logits = predicted[:, None] - predicted[:, :, None]
    losses = F.binary_cross_entropy_with_logits(logits, larger.float(), reduction="none") * pairs
    # Per image first: images that hide more patches have more pairs, but count alike.
    return (losses.sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)).mean()


def patch_errors(prediction: Tensor, target: Tensor, side: int) -> Tensor:
    """Mean squared difference over each of side x side patches, float32 [B, side * side].

    Args:
        prediction, target: [B, K, H, H], side a divisor of H.
    """
    error = (prediction.detach().float() - target.float()).square().mean(1, keepdim=True)
    return F.avg_pool2d(error, error.shape[-1] // side).flatten(1)
