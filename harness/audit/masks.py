"""Check of masks: share of hidden units against the spec, and variety over images and steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.audit.contract import Finding, Verdict
from harness.core.masks.masking import make_mask
from harness.core.runtime.randomness import uniform
from harness.spec import (
    CheckerboardMask,
    CustomMask,
    GuidedMask,
    LocalMask,
    Mask,
    SquareMask,
    VisibleSquareMask,
    seed_stream,
)

IMAGES, STEPS = 16, 8
"""Number of masks drawn: images of a batch, and steps spread over a training."""


def drawn_masks(mask: Mask, image_size: int, seed: int) -> Tensor:
    """Masks of the first images at steps from first to last: bool [STEPS, IMAGES, units, units], True = hidden."""
    positions = torch.arange(IMAGES)
    drawn = (
        make_mask(
            mask,
            image_size=image_size,
            seed=seed,
            step=step,
            steps=STEPS,
            positions=positions,
            scores=noise_scores(image_size // mask.size, step, positions),
        )
        for step in range(STEPS)
    )
    return torch.stack(list(drawn))


def noise_scores(units: int, step: int | Tensor, positions: Tensor) -> Tensor:
    """Uniform noise float32 [B, units, units], in place of a model's scores of image patches."""
    return uniform(seed_stream(0, "audited scores"), step, positions, units**2).view(-1, units, units)


def check_masks(mask: Mask, image_size: int, *, seed: int, arm: str = "") -> Iterator[Finding]:
    """Compare the share of hidden units and the number of distinct masks with what the spec states."""
    units = drawn_masks(mask, image_size, seed)
    total = units.shape[-1] ** 2
    counts = units.flatten(2).sum(2)
    yield _share(mask, counts, total, image_size, arm)
    distinct = len({tuple(one.flatten().tolist()) for one in units.flatten(0, 1)})
    yield _variety(mask, units, distinct, arm)


def stated_ratio(mask: Mask) -> float | None:
    """Share of hidden units that the spec states; None if it states none for the whole image."""
    if isinstance(mask, LocalMask):
        return None  # its ratio is that of the window
    if isinstance(mask, CustomMask):
        found = dict(mask.params).get("ratio")
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
    found = getattr(mask, "ratio", None)
    if isinstance(mask, GuidedMask):
        return mask.ratio - mask.reveal  # those shown again are not hidden
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
    # A number of units that the spec fixes has to be met by every mask, not on average.
    exact = mask.hidden_units(image_size)
    varies = not isinstance(mask, CustomMask) and mask.varies(image_size)
    if exact is not None and not varies and not least == most == exact:
        return Finding("masks", "failed", f"{text} where its spec means {exact}", arm)
    # The mean alone would pass masks that hide all or nothing in turn.
    meant = bool(((counts - ratio * total).abs() <= 1).any())
    if (abs(mean - ratio * total) <= 1 and meant) or varies:
        return Finding("masks", "passed" if not varies else "remark", f"{text}; ratio {ratio:g} is stated", arm)
    turned = abs(total - mean - ratio * total) <= 1
    hint = ", as if True meant visible" if turned else ""
    # A square takes the whole side nearest to the ratio; a board of squares that fill the image is half hidden.
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
