"""Random inputs of pre-training steps: crops, and masks, which are drawn ahead where they look at nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from harness.core.data.batches import Batch, in_pairs, training_batches
from harness.core.data.datasets import FolderSet, ImageSet
from harness.core.masks.masking import make_views
from harness.core.objective.contrastive import MOMENTUM, SECOND, SWAPPED, Pairs, has_second_crop
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.runtime.ahead import Ahead
from harness.core.runtime.session import Session
from harness.core.train.training import Part
from harness.spec import Mask, Pretrain, seed_stream

FIRST = "first crop"
"""Name of the masks of first crops, which the encoder sees; they are keyed by the run's seed itself."""


class Draws(NamedTuple):
    """Random inputs of a slice of a batch, except drop path and dropout.

    images: float [B, C, S, S], the first crop of each image. hidden: bool [B * views, units, units], True = hidden.
    pairs: second crops and masks of the contrastive loss; None without one.
    """

    images: Tensor
    hidden: Tensor
    pairs: Pairs | None


def masks_of(run: Pretrain) -> dict[str, Mask]:
    """The masks that a step draws, each by the name of its random stream, so that all are independent."""
    found, contrastive = {FIRST: run.mask}, run.contrastive
    if contrastive is None:
        return found
    swaps = contrastive.crops == "swapped"
    if swaps:
        found[SECOND] = run.mask
    if not isinstance(contrastive.mask, str):
        found |= dict.fromkeys((MOMENTUM, SWAPPED)[: 1 + swaps], contrastive.mask)
    return found


def draw_masks(
    run: Pretrain,
    masks: Mapping[str, Mask],
    *,
    step: int | Tensor,
    steps: int,
    positions: Tensor,
    scores: Mapping[str, Tensor | None] | None = None,
) -> dict[str, Tensor]:
    """Some masks of `masks_of`, bool [B * views, units, units] each, True = hidden; arguments as for `make_mask`."""
    return {
        name: make_views(
            mask,
            image_size=run.image_size,
            # The first mask keeps the plain seed, so that a contrastive loss leaves the masks of a run as they were.
            seed=run.seed if name == FIRST else seed_stream(run.seed, name),
            step=step,
            steps=steps,
            positions=positions,
            scores=(scores or {}).get(name),
        )
        for name, mask in masks.items()
    }


def pairs_of(run: Pretrain, second: Tensor | None, masks: Mapping[str, Tensor]) -> Pairs | None:
    """Second crops, as in `Pairs`, and masks of the contrastive loss; None for a run without one."""
    if run.contrastive is None:
        return None
    return Pairs(second, masks.get(SECOND), masks.get(MOMENTUM), masks.get(SWAPPED))


def drawn_batches(
    run: Pretrain, images: ImageSet | FolderSet, session: Session, steps: int, first_step: int
) -> Iterator[Batch]:
    """This process's rows of the batches from a step on, with two crops of each image if the run compares crops.

    They come with the masks that need no scores.
    """

    def crops(crop_seed: int | None = None) -> Iterator[Batch]:
        return training_batches(
            images,
            run.recipe.augment,
            image_size=run.image_size,
            batch_size=run.recipe.batch_size,
            seed=run.seed,
            first_step=first_step,
            steps=steps,
            device=session.device,
            workers=session.workers,
            rows=session.group.rows(run.recipe.batch_size),
            crop_seed=crop_seed,
        )

    found = in_pairs(crops(), crops(seed_stream(run.seed, SECOND))) if has_second_crop(run.contrastive) else crops()
    return _with_masks(run, found, steps) if _unscored(run) else found


def _unscored(run: Pretrain) -> dict[str, Mask]:
    """Masks that look at no model, so that they can be drawn ahead, by the name of their stream."""
    return {name: mask for name, mask in masks_of(run).items() if mask.scored_by is None}


def _with_masks(run: Pretrain, batches: Iterator[Batch], steps: int) -> Iterator[Batch]:
    """Batches with the masks that need no scores, flattened side by side as `Batch.masks` has them."""
    masks, ahead = _unscored(run), None

    def draw(step: Tensor, positions: Tensor) -> tuple[Tensor]:
        # All masks in one tensor, as a batch carries them through slicing and loops in one field.
        drawn = draw_masks(run, masks, step=step, steps=steps, positions=positions)
        return (torch.cat([hidden.reshape(len(positions), -1) for hidden in drawn.values()], dim=1),)

    for batch in batches:
        ahead = ahead or Ahead(draw, batch.positions, steps)  # the places are the same in every batch
        yield batch._replace(masks=ahead.at(int(batch.step))[0])


def _drawn(run: Pretrain, batch: Batch) -> dict[str, Tensor]:
    """The masks that came with a slice of a batch."""
    masks = _unscored(run)
    if not masks or not batch.masks.numel():
        return {}
    sides = {name: run.image_size // mask.size for name, mask in masks.items()}
    columns = torch.split(batch.masks, [mask.views * sides[name] ** 2 for name, mask in masks.items()], dim=1)
    return {name: drawn.reshape(-1, side, side) for (name, side), drawn in zip(sides.items(), columns, strict=True)}


def draw(model: MaskedImageModel, part: Part[Batch], steps: int) -> Draws:
    """Masks and second crops of a slice of a batch.

    Args:
        steps: number of steps of the whole training, for masks that change during it.
    """
    run, batch = model.run, part.batch
    first, second = batch.images.unbind(1) if has_second_crop(run.contrastive) else (batch.images, None)
    masks = _drawn(run, batch)
    # Guided and hard masks look at the model as it is now, so they are drawn in the step.
    if missing := {name: mask for name, mask in masks_of(run).items() if name not in masks}:
        seen = {FIRST: first, SECOND: second}
        with part.forward():  # the precision of what a mask looks at is that of training
            scores = {name: model.scores(crop) for name in missing if (crop := seen.get(name)) is not None}
            masks |= draw_masks(run, missing, step=batch.step, steps=steps, positions=batch.positions, scores=scores)
    return Draws(first, masks[FIRST], pairs_of(run, second, masks))
