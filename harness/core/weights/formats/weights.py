"""Contents of a checkpoint, with the names that this package uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

BUFFERS = ("relative_position_index", "relative_coords_table", "attn_mask")
"""Last component of the names of buffers that follow from sizes, so that no library needs them from a file."""


@dataclass(frozen=True)
class Weights:
    """The parts of a checkpoint.

    encoder: with timm's names, including the classifier's `head.*` and `fc_norm.*` if the file has one.
    mask_token: [C0], or None if the file has none. mask_gate: its gate, likewise.
    head: the prediction head's, under the names of `harness.core.model.heads.build_head`; empty if the file has none.
    targets: the target's codebook, under the names of `harness.core.objective.targets.Targets`; empty for most.
    rest: other parts of a pre-training (momentum encoder, projector, predictor), under its own names.
    """

    encoder: dict[str, Tensor]
    mask_token: Tensor | None = None
    head: dict[str, Tensor] = field(default_factory=dict)
    targets: dict[str, Tensor] = field(default_factory=dict)
    mask_gate: Tensor | None = None
    rest: dict[str, Tensor] = field(default_factory=dict)


def without_buffers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors without the buffers whose values follow from sizes."""
    return {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in BUFFERS}


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names have a prefix; it is removed from the names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
