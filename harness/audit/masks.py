"""Do masks hide as much as they say, and differ from image to image and from step to step?"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.audit.finding import Finding, Verdict
from harness.core.masks.masking import make_mask
from harness.core.runtime.randomness import uniform
from harness.spec import (
    CheckerboardMask,
    CustomMask,
    LocalMask,
    Mask,
    Pretrain,
    SquareMask,
    VisibleSquareMask,
    seed_stream,
)

IMAGES, STEPS = 16, 8
"""Images in a batch, and steps spread over a training, of which masks are drawn."""


def drawn_masks(run: Pretrain) -> Tensor:
    """Masks of the first images of some steps from the first to the last: bool [STEPS, IMAGES, units, units]."""
    positions = torch.arange(IMAGES)
    drawn = (
        make_mask(
            run.mask,
            image_size=run.image_size,
            seed=run.seed,
            step=step,
            steps=STEPS,
            positions=positions,
            scores=_scores(run.image_size // run.mask.size, step, positions),
        )
        for step in range(STEPS)
    )
    return torch.stack(list(drawn))


def _scores(units: int, step: int, positions: Tensor) -> Tensor:
    """Noise in place of what a teacher would say of the images, for the masks that ask one."""
    return uniform(seed_stream(0, "audited scores"), step, positions, units**2).view(-1, units, units)


def check_masks(run: Pretrain, arm: str) -> Iterator[Finding]:
    """The measured share of hidden units, and how many masks there are, against what the spec says."""
    units = drawn_masks(run)
    total = units.shape[-1] ** 2
    counts = units.flatten(2).sum(2)
    yield _share(run.mask, counts, total, run.image_size, arm)
    distinct = len({tuple(mask.flatten().tolist()) for mask in units.flatten(0, 1)})
    yield _variety(run.mask, units, distinct, arm)


def stated_ratio(mask: Mask) -> float | None:
    """The share of hidden units that a mask's spec names, if it does; that of local windows is of the window alone."""
    if isinstance(mask, LocalMask):
        return None
    if isinstance(mask, CustomMask):
        found = dict(mask.params).get("ratio")
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
    found = getattr(mask, "ratio", None)
    return found if isinstance(found, float) else None


def _share(mask: Mask, counts: Tensor, total: int, image_size: int, arm: str) -> Finding:
    mean, least, most = counts.double().mean().item(), int(counts.min()), int(counts.max())
    spread = f"{most}" if least == most else f"{least} to {most}, {mean:.1f} on average,"
    text = f"{mask.kind} mask: {spread} of {total} units hidden ({mean / total:.2%})"
    ratio = stated_ratio(mask)
    if least == 0 or most == total:
        return Finding("masks", "failed", f"{text}: some masks hide {'all' if most == total else 'nothing'}", arm)
    if ratio is None:
        return Finding("masks", "remark", f"{text}; its spec states no ratio", arm)
    exact = None if isinstance(mask, CustomMask) else getattr(mask, "hidden_units", None)
    varies = not isinstance(mask, CustomMask) and mask.varies(image_size)
    if exact is not None and not varies and not least == most == exact(image_size):
        return Finding("masks", "failed", f"{text} where its spec means {exact(image_size)}", arm)
    meant = bool(((counts - ratio * total).abs() <= 1).any())  # at least one mask hides what the spec says
    if (abs(mean - ratio * total) <= 1 and meant) or varies:
        return Finding("masks", "passed" if not varies else "remark", f"{text}; ratio {ratio:g} is stated", arm)
    turned = abs(total - mean - ratio * total) <= 1
    hint = ", as if True meant visible" if turned else ""
    # A square has the nearest side there is, and a board is half hidden where its squares fill the image.
    nearest = isinstance(mask, SquareMask | VisibleSquareMask | CheckerboardMask)
    verdict: Verdict = "remark" if nearest else "failed"
    return Finding("masks", verdict, f"{text}, but ratio {ratio:g} is stated{hint}", arm)


def _variety(mask: Mask, units: Tensor, distinct: int, arm: str) -> Finding:
    text = f"{mask.kind} mask: {distinct} distinct masks of {STEPS * IMAGES}"
    if mask.is_fixed:
        return Finding("masks", "remark", f"{text}: its spec means the same mask everywhere", arm)
    if distinct == 1:
        return Finding("masks", "failed", f"{text}: every image of every batch has the same mask", arm)
    if bool((units == units[:1]).all()):
        return Finding("masks", "failed", f"{text}: every batch has the same masks", arm)
    if bool((units == units[:, :1]).all()):
        return Finding("masks", "remark", f"{text}: all images of a batch share one mask", arm)
    return Finding("masks", "passed", text, arm)
