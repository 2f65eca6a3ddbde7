"""The encoder of DALL-E's discrete VAE, as a function of its published weights.

Ramesh et al., ICML 2021; architecture and names of weights: repository openai/DALL-E, dall_e/encoder.py. BEiT (Bao et
al., ICLR 2022) predicts its codes.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from harness.core.runtime.precision import alone_in
from harness.core.weights.checkpoint import read_weights
from harness.spec import DalleTokenizer, HarnessError
from harness.spec.data.external_content import file_sha256

GROUPS = 4
"""Groups of blocks in the encoder; each but the last ends in a pooling by 2."""
CODE = 8
"""Side in pixels of the square that one code covers: three of the four groups halve the resolution."""

Weights = dict[str, Tensor]


def shapes(width: int, blocks: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights. width: channels of the first group; blocks: of each group."""

    def conv(name: str, out: int, into: int, kernel: int) -> None:
        found[f"{name}.w"], found[f"{name}.b"] = (out, into, kernel, kernel), (out,)

    found: dict[str, tuple[int, ...]] = {}
    conv("blocks.input", width, 3, 7)
    into = width
    for group in range(GROUPS):
        out = width << group  # as published, each group has twice the channels of the one before
        for block in range(blocks):
            name = f"blocks.group_{group + 1}.block_{block + 1}"
            # A projection stands beside the residual path only where the channels change.
            if into != out:
                conv(f"{name}.id_path", out, into, 1)
            hidden = out // 4  # as published, residual paths are bottlenecks
            for number, (wide, kernel) in enumerate(((into, 3), (hidden, 3), (hidden, 3)), start=1):
                conv(f"{name}.res_path.conv_{number}", hidden, wide, kernel)
            conv(f"{name}.res_path.conv_4", out, hidden, 1)
            into = out
    conv("blocks.output.conv", vocabulary, into, 1)
    return found


@lru_cache(maxsize=2)
def read(tokenizer: DalleTokenizer) -> Weights:
    """The weights of a tokenizer spec, float32 on the CPU.

    Raises:
        HarnessError: the file has changed, does not read as tensors, or holds others than such an encoder's.
    """
    path = Path(tokenizer.path).expanduser()
    # The key names the file by its digest: another one would give other codes under the same key.
    if file_sha256(path) != tokenizer.sha256:
        raise HarnessError(f"{path} has changed since this run was planned; plan again")
    weights = read_weights(path)
    blocks = len({found[1] for name in weights if (found := re.match(r"blocks\.group_1\.block_(\d+)\.", name))})
    first = weights.get("blocks.input.w")
    wanted = shapes(len(first) if first is not None and first.ndim else 0, blocks, tokenizer.vocabulary)
    held = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if wrong := sorted(name for name in wanted.keys() | held.keys() if wanted.get(name) != held.get(name)):
        name = wrong[0]
        expected, got = (list(where[name]) if name in where else "nothing" for where in (wanted, held))
        raise HarnessError(
            f"{path} does not fit DALL-E's encoder with {tokenizer.vocabulary} codes: "
            f"{name} should be {expected}, not {got}"
        )
    return {name: tensor.float() for name, tensor in weights.items()}


def fed(values: Tensor, side: int) -> Tensor:
    """Input of the encoder, scaled so that one code covers `side` pixels of an image, with values in [0.1, 0.9].

    BEiT resizes the crop from the file with Lanczos; here the crop itself is resized, bicubic with antialiasing. The
    difference is assumed not to matter.

    Args:
        values: float32 [B, 3, S, S] in [0, 1].

    Returns:
        float32 [B, 3, 8 * S / side, 8 * S / side] in [0.1, 0.9].
    """
    size = values.shape[-1] // side * CODE
    if size != values.shape[-1]:
        values = F.interpolate(values, size=size, mode="bicubic", antialias=True).clamp(0, 1)
    # map_pixels of dall_e/utils.py, (1 - 2 eps) x + eps with eps = 0.1: the VAE was trained on such values.
    return 0.8 * values + 0.1


def logits(weights: Weights, images: Tensor) -> Tensor:
    """Logits of the codes, float32 [B, vocabulary, H / 8, W / 8], of images from `fed`.

    Computed in fp32, so that codes do not depend on the precision of training.
    """
    with alone_in("fp32", images.device):
        return _logits(weights, images)


def _logits(weights: Weights, images: Tensor) -> Tensor:
    """Logits as `logits` gives them, in whatever precision the caller has set."""
    blocks = sum(name.startswith("blocks.group_1.") and name.endswith("res_path.conv_4.w") for name in weights)
    gain = 1 / (GROUPS * blocks) ** 2  # post-gain of residual paths, as published: 1 / (number of blocks)^2
    x = _conv(weights, "blocks.input", images)
    for group in range(1, GROUPS + 1):
        for block in range(1, blocks + 1):
            x = _block(weights, f"blocks.group_{group}.block_{block}", x, gain)
        x = F.max_pool2d(x, 2) if group < GROUPS else x
    return _conv(weights, "blocks.output.conv", x.relu())


def _block(weights: Weights, name: str, x: Tensor, gain: float) -> Tensor:
    kept = _conv(weights, f"{name}.id_path", x) if f"{name}.id_path.w" in weights else x
    for number in range(1, 5):
        x = _conv(weights, f"{name}.res_path.conv_{number}", x.relu())
    return kept + gain * x


def _conv(weights: Weights, name: str, x: Tensor) -> Tensor:
    kernel = weights[f"{name}.w"]
    return F.conv2d(x, kernel, weights[f"{name}.b"], padding=kernel.shape[-1] // 2)
