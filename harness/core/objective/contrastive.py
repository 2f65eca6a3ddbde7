"""Contrastive loss: queries of the encoder against keys of the momentum encoder, over all images of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.core.runtime.distributed import Group
from harness.core.runtime.session import Session
from harness.spec import Contrastive, HarnessError, Pretrain

SECOND = "second crop"
"""Name of the random stream of second crops and of their masks."""
MOMENTUM, SWAPPED = "momentum mask", "momentum mask, swapped"
"""Names of the random streams of the momentum encoder's own masks."""


class Pairs(NamedTuple):
    """Inputs of the contrastive loss besides the images and their masks. True = hidden.

    second: float [b, C, S, S], a second crop of each image; None if both encoders see the same crop.
    units: bool [b * views, units, units], the encoder's masks of the second crop; None if it does not see it.
    hidden: the momentum encoder's mask of the crop that it sees, bool; None for the whole image.
    swapped: the momentum encoder's mask of the first crop, where crops are swapped.
    """

    second: Tensor | None = None
    units: Tensor | None = None
    hidden: Tensor | None = None
    swapped: Tensor | None = None


def mlp(layers: int, width: int, hidden: int, out: int) -> nn.Sequential:
    """Linear layers without bias, a batch norm behind each, ReLU between them; the last norm has no weights.

    These MLPs compute in training only, so their norms keep no running statistics.
    """
    parts: list[nn.Module] = []
    for number in range(layers):
        last = number == layers - 1
        size = out if last else hidden
        parts += [nn.Linear(width, size, bias=False), nn.BatchNorm1d(size, affine=not last, track_running_stats=False)]
        parts += [] if last else [nn.ReLU()]
        width = size
    return nn.Sequential(*parts)


def info_nce(queries: Tensor, keys: Tensor, places: Tensor, temperature: float) -> Tensor:
    """InfoNCE: 2 * temperature * mean cross-entropy of each query's own key among all keys; a float32 scalar.

    Args:
        queries: float [b, D]. keys: float [n, D]; both are normalised to length 1 here.
        places: int64 [b], index of each query's own key.
    """
    # In float32: scores are divided by a small temperature, which would magnify the rounding of half precision.
    with torch.autocast(queries.device.type, enabled=False):
        scores = F.normalize(queries.float(), dim=1) @ F.normalize(keys.float(), dim=1).T / temperature
        # Times 2 T as in MoCo v3; without T, gradients would grow as the temperature falls.
        return 2 * temperature * F.cross_entropy(scores, places)


def info_nce_over_views(
    queries: Tensor,
    keys: Tensor,
    *,
    views: int,
    temperature: float,
    of_all: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> Tensor:
    """Mean InfoNCE over the masked views of each image; a float32 scalar.

    Args:
        queries: [b * views, D], the views of an image one after another. keys: [b, D], or [b * views, D] in the same
            order; a query is then compared with the keys of its own view.
        of_all: from keys [b, D] of this process, the keys of the global batch and the places of its own among them.
    """
    ways = len(keys) * views // len(queries)  # views of the keys
    losses = []
    for view in range(views):
        whole, places = of_all(keys[view % ways :: ways])
        losses.append(info_nce(queries[view::views], whole, places, temperature))
    return torch.stack(losses).mean()


def of_all(keys: Tensor, positions: Tensor, batch_size: int, group: Group) -> tuple[Tensor, Tensor]:
    """Keys of the global batch, without gradient, and the places of this process's own keys among them.

    Args:
        keys: [b, D], of this process's images. positions: int64 [b], their places in the global batch.
    """
    if group.size == 1:
        return keys, torch.arange(len(keys), device=keys.device)
    # Each process fills its own rows of zeros, so that the sum over processes gathers them in batch order.
    found = keys.new_zeros(batch_size, keys.shape[1])
    found[positions] = keys
    return group.sum(found), positions


def has_second_crop(contrastive: Contrastive | None) -> bool:
    """True if the momentum encoder sees another crop than the encoder."""
    return contrastive is not None and contrastive.crops != "same"


def require_whole_batch(run: Pretrain, session: Session) -> None:
    """Refuse micro-batches for a loss that compares all images of a batch.

    Raises:
        HarnessError: this process's images do not fit one micro-batch.
    """
    if run.contrastive is None or session.micro_batch is None:
        return
    mine = -(-run.recipe.batch_size // session.group.size)
    if session.micro_batch < mine:
        raise HarnessError(
            f"a contrastive loss compares all images of a batch: {mine} at a time in each of {session.group.size} "
            f"process(es), which micro-batches of {session.micro_batch} cut apart; leave --micro-batch out"
        )
