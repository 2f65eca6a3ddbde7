"""Key names of the released MAE (facebookresearch/mae): an encoder with timm's names, and a decoder beside it.

The rows of its last layer are the values of a patch in the order (row, column, channel); those of
`harness.core.model.mae.Decoder` are in the order (channel, row, column).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from harness.core.weights.formats.weights import Weights, below, without_buffers
from harness.spec import HarnessError


def from_mae(tensors: Mapping[str, Tensor]) -> Weights:
    """A pre-training. The decoder's positions are left out: they are not trained, and follow from its size.

    Raises:
        HarnessError: the decoder predicts other values than the pixels of a patch.
    """
    decoder = {
        "mask_token": tensors["mask_token"].flatten(),
        **{
            f"{ours}.{name}": tensor
            for ours, theirs in (("embed", "decoder_embed."), ("blocks", "decoder_blocks."), ("norm", "decoder_norm."))
            for name, tensor in below(tensors, theirs).items()
        },
    }
    kernel = tensors["patch_embed.proj.weight"].shape  # [C0, channels, patch, patch]
    for name, tensor in below(tensors, "decoder_pred.").items():
        if len(tensor) != (wanted := math.prod(kernel[1:])):
            raise HarnessError(f"the decoder of an MAE file predicts {len(tensor)} values a patch, not {wanted} pixels")
        # (row, column, channel) -> (channel, row, column), for the weight and the bias alike.
        by_channel = tensor.reshape(*kernel[2:], kernel[1], *tensor.shape[1:]).movedim(2, 0)
        decoder[f"predict.{name}"] = by_channel.flatten(0, 2).contiguous()
    # The encoder has its names at the top level, beside the decoder.
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(("decoder_", "mask_token"))}
    return Weights(without_buffers(rest), head=decoder)
