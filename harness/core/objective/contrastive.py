"""The contrastive loss: queries of the encoder against keys of the momentum encoder, over all images of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.core.masks.masking import make_views
from harness.core.runtime.distributed import Group
from harness.core.runtime.session import Session
from harness.spec import Contrastive, HarnessError, Mask, Pretrain, seed_stream

SECOND = "second crop"
"""Purpose of the randomness of second crops and of their masks."""


class Pairs(NamedTuple):
    """What the contrastive loss sees besides the images and their masks.

    second: float [b, C, S, S], another crop of each image; None for the same one.
    units: bool [b, units, units], the encoder's mask of the second crop, True = hidden; None where it does not see it.
    hidden: the momentum encoder's mask of the crop that it sees, bool, or None for none.
    swapped: likewise, of the first crop where it sees that too.
    """

    second: Tensor | None = None
    units: Tensor | None = None
    hidden: Tensor | None = None
    swapped: Tensor | None = None


def mlp(layers: int, width: int, hidden: int, out: int) -> nn.Sequential:
    """Linear layers without bias, a batch norm behind each, ReLU between them; the last norm has no weights.

    Only training computes them, so the norms keep no running statistics.
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
    """2 * temperature * the mean cross-entropy of telling each query's own key from all others; a float32 scalar.

    Args:
        queries: float [b, D]. keys: float [n, D]; both are scaled to length 1.
        places: int64 [b], which key is each query's own.
    """
    with torch.autocast(queries.device.type, enabled=False):
        scores = F.normalize(queries.float(), dim=1) @ F.normalize(keys.float(), dim=1).T / temperature
        return 2 * temperature * F.cross_entropy(scores, places)


def info_nce_over_views(
    queries: Tensor,
    keys: Tensor,
    *,
    views: int,
    temperature: float,
    of_all: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> Tensor:
    """InfoNCE of images that have several queries each, the mean over these: a float32 scalar.

    Args:
        queries: [b * views, D], those of an image after one another. keys: [b, D], or [b * views, D] in the same order,
            and then a query is compared with the keys of its own view.
        of_all: the keys of all images and the places of the own ones, from [b, D].
    """
    ways = len(keys) * views // len(queries)  # views of the keys
    losses = []
    for view in range(views):
        whole, places = of_all(keys[view % ways :: ways])
        losses.append(info_nce(queries[view::views], whole, places, temperature))
    return torch.stack(losses).mean()


def of_all(keys: Tensor, positions: Tensor, batch_size: int, group: Group) -> tuple[Tensor, Tensor]:
    """The keys of the global batch, without gradient, and the places of this process's own among them.

    Args:
        keys: [b, D], of this process's images. positions: int64 [b], their places in the global batch.
    """
    if group.size == 1:
        return keys, torch.arange(len(keys), device=keys.device)
    found = keys.new_zeros(batch_size, keys.shape[1])
    found[positions] = keys
    return group.sum(found), positions


def pairs_of(
    run: Pretrain,
    second: Tensor | None,
    *,
    step: int,
    steps: int,
    positions: Tensor,
    look: Callable[[Tensor], Tensor | None] = lambda images: None,
) -> Pairs | None:
    """The other side of a batch; None for a run without a contrastive loss. Arguments as for `make_mask`.

    Args:
        second: as in `Pairs`.
        look: what the run's mask looks at in images, as `make_mask` wants it.
    """
    if run.contrastive is None:
        return None

    def mask(spec: Mask, purpose: str, scores: Tensor | None = None) -> Tensor:
        return make_views(
            spec,
            image_size=run.image_size,
            seed=seed_stream(run.seed, purpose),
            step=step,
            steps=steps,
            positions=positions,
            scores=scores,
        )

    swaps, other = run.contrastive.crops == "swapped", run.contrastive.mask
    return Pairs(
        second,
        mask(run.mask, SECOND, look(second)) if swaps and second is not None else None,
        None if isinstance(other, str) else mask(other, "momentum mask"),
        None if isinstance(other, str) or not swaps else mask(other, "momentum mask, swapped"),
    )


def has_second_crop(contrastive: Contrastive | None) -> bool:
    """Whether the momentum encoder sees another crop."""
    return contrastive is not None and contrastive.crops != "same"


def require_whole_batch(run: Pretrain, session: Session) -> None:
    """Refuse micro-batches where all images of a batch are compared.

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
