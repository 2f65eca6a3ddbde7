"""Multi-order interaction strength: joint effect of two patches in contexts of m others (Deng et al., ICLR 2022).

Definition, sampling and sizes as in A2MIM's analysis (Westlake-AI/A2MIM, analysis_tools/representation_bottleneck).
Two differences: where an order has only one context it is computed once, and the noise is stated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.analysis.sweep import image_sample, random_orders, sweep, write_arrays
from harness.core.data.batches import test_batches
from harness.core.data.datasets import load
from harness.core.evaluate.labelled import test_batch_size
from harness.core.evaluate.start import fine_tuned
from harness.core.masks.masking import spread
from harness.core.runtime.session import Session
from harness.spec import Interactions, seed_stream
from harness.spec.analyses import Reward

Values = NDArray[np.float64]


class Estimate(NamedTuple):
    """Estimate of the interaction I of one pair at one order, from K contexts.

    mean: mean of the K differences. error: its standard error, 0 if the K are all contexts that exist. halves: estimate
    of |I| from two halves of the contexts, see `estimate`.
    """

    mean: float
    error: float
    halves: float


class Strength(NamedTuple):
    """Interaction strength by order, each field float64 [orders].

    strength: J(m), `interaction` divided by its mean over the orders. error: standard error of `strength`, a jackknife
    over images; NaN for one image. split_half: J(m) from `lower`. interaction: mean over images and pairs of |I| as
    published, biased upwards. lower: mean of `Estimate.halves`, biased downwards. noise: expected `interaction` if no
    patches interacted, from the scatter over contexts.
    """

    strength: Values
    error: Values
    split_half: Values
    interaction: Values
    lower: Values
    noise: Values


def interactions(run: Interactions, session: Session) -> None:
    """Measure J(m) of a classifier; publish metrics, write analysis.npz.

    Arrays: orders, sizes [orders]; the fields of `Strength`; mean, halves, errors float64 [images, pairs, orders]. The
    model computes in float32 whatever the fine-tuning's precision: second differences are small.
    """
    source = load(run.data, "test")
    model = fine_tuned(run.start, session, channels=source.channels)
    images = image_sample(source, run.images, run.seed)
    # All images at once: a part of the sweep is an image, and few are looked at.
    only_batch = test_batches(
        images, image_size=run.image_size, crop=run.crop, batch_size=run.images, device=session.device, workers=0
    )
    inputs, labels = next(iter(only_batch))
    shape = (run.images, run.pairs, len(run.orders))
    found = {name: torch.zeros(shape, dtype=torch.float64) for name in Estimate._fields}
    batch = test_batch_size(session)

    def compute(number: int) -> None:
        def value(visible: Tensor) -> Tensor:
            return rewards(model, inputs[number], int(labels[number]), visible.to(session.device), run.reward, batch)

        for pair, row in enumerate(image_interactions(run, number, value)):
            for order, one in enumerate(row):
                for name, figure in one._asdict().items():
                    found[name][number, pair, order] = figure

    seconds = sweep(session, parts=run.images, found=found, compute=compute, images=forwards(run))
    mean, error, halves = (array.numpy() for array in found.values())
    total = strength(mean, error, halves)
    write_arrays(session,
        orders=np.array(run.orders), sizes=np.array(run.sizes),
        mean=mean, errors=error, halves=halves, **total._asdict(),
    )  # fmt: skip
    session.attempt.finish(_metrics(run, total, mean), seconds)


def forwards(run: Interactions) -> int:
    """Number of masked copies of one image that pass through the model."""
    return 4 * run.pairs * sum(min(run.contexts, math.comb(run.grid**2 - 2, size)) for size in run.sizes)


def image_interactions(run: Interactions, image: int, value: Callable[[Tensor], Tensor]) -> list[tuple[Estimate, ...]]:
    """Estimates for an image's pairs, a row a pair, a column an order.

    Args:
        image: number in the sample, by which its pairs and contexts are drawn.
        value: maps visible patches bool [N, n], True = visible, to rewards [N].
    """
    pairs = list(pairs_of(run, image))
    sets = [around_pair(contexts(run, place, pair, size), pair) for place, pair in pairs for size in run.sizes]
    # One call for all pairs and orders, so that the model's batches are full.
    values = value(torch.cat(sets)).double().cpu()
    parts = iter(torch.split(values, [len(part) for part in sets]))
    every = [math.comb(run.grid**2 - 2, size) <= run.contexts for size in run.sizes]
    return [tuple(estimate(next(parts), complete=complete) for complete in every) for _ in pairs]


def pairs_of(run: Interactions, image: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Pairs of patches of an image, each with its number among all pairs of all images."""
    candidates = run.candidates
    order = random_orders(seed_stream(run.seed, "pairs"), 0, torch.tensor([image]), len(candidates))[0]
    for number, index in enumerate(order[: run.pairs].tolist()):
        yield image * run.pairs + number, candidates[index]


def contexts(run: Interactions, place: int, pair: tuple[int, int], size: int) -> Tensor:
    """Contexts of a pair: sets of `size` other patches, bool [K, n], True = in the set.

    All sets that exist where these are at most `run.contexts`, else a random draw. place: the pair's number among all
    pairs of all images, by which contexts are drawn.
    """
    players = run.grid**2
    others = torch.tensor([player for player in range(players) if player not in pair])
    if math.comb(players - 2, size) <= run.contexts:
        members = torch.tensor(list(itertools.combinations(range(players - 2), size)), dtype=torch.int64)
    else:
        positions = place * run.contexts + torch.arange(run.contexts)
        members = random_orders(seed_stream(run.seed, "contexts"), size, positions, players - 2)[:, :size]
    found = torch.zeros(len(members), players, dtype=torch.bool)
    return found.scatter_(1, others[members.reshape(len(members), size)], value=True)


def around_pair(sets: Tensor, pair: tuple[int, int]) -> Tensor:
    """Each set S with both patches, the first, the second and neither: bool [K, n] -> bool [4 K, n], kind by kind."""
    kinds = sets.repeat(4, 1, 1)  # [both, first, second, neither], the order that `estimate` expects
    kinds[:2, :, pair[0]] = True
    kinds[::2, :, pair[1]] = True
    return kinds.flatten(0, 1)


def estimate(values: Tensor, *, complete: bool) -> Estimate:
    """Interaction of a pair at one order.

    |mean| is biased upwards, because noise does not cancel in an absolute value. With means a and b over the even and
    the odd contexts, (sign(a) b + sign(b) a) / 2 is biased downwards: sign and size are independent, and the sign is
    sometimes wrong. The true value lies between the two expectations for any distribution of the noise.

    Args:
        values: rewards float64 [4 K] of the sets that `around_pair` made. complete: the K contexts are all that exist.
    """
    both, first, second, none = values.chunk(4)
    differences = both - first - second + none
    mean = float(differences.mean())
    if complete:
        return Estimate(mean, 0.0, abs(mean))
    a, b = float(differences[::2].mean()), float(differences[1::2].mean())
    error = float(differences.std()) / math.sqrt(len(differences))
    return Estimate(mean, error, (math.copysign(1, a) * b + math.copysign(1, b) * a) / 2)


def strength(mean: Values, error: Values, halves: Values) -> Strength:
    """Interaction strength by order with its uncertainty.

    Args:
        mean, error, halves: as in `Estimate`, float64 [images, pairs, orders].
    """
    sizes = np.abs(mean).mean(axis=1)
    lower = halves.mean(axis=(0, 1))
    return Strength(
        strength=_normalised(sizes.mean(axis=0)),
        error=_jackknife(sizes, _normalised),
        split_half=_normalised(lower),
        interaction=sizes.mean(axis=0),
        lower=lower,
        # Mean of |x| for a normal x of standard deviation `error` and mean zero.
        noise=math.sqrt(2 / math.pi) * error.mean(axis=(0, 1)),
    )


def _jackknife(sizes: Values, of: Callable[[Values], Values]) -> Values:
    """Jackknife error, over images, of `of` applied to the mean; NaN for one image. sizes: float64 [images, orders]."""
    count = len(sizes)
    if count == 1:
        return np.full_like(of(sizes)[0], math.nan)
    without = of((sizes.sum(axis=0) - sizes) / (count - 1))
    found: Values = np.sqrt((count - 1) / count * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    return found


def _normalised(found: Values) -> Values:
    """Values divided by their mean over the orders (the last axis); zeros where that mean is zero."""
    whole = found.mean(axis=-1, keepdims=True)
    shares: Values = np.divide(found, whole, out=np.zeros_like(found), where=whole != 0)
    return shares


@torch.no_grad()
def rewards(
    model: Callable[[Tensor], Tensor], image: Tensor, label: int, visible: Tensor, kind: Reward, batch: int
) -> Tensor:
    """Rewards of a model for one image with only some patches visible.

    Args:
        model: maps normalised images [B, C, S, S] to logits [B, K]. image: [C, S, S], normalised.
        visible: bool [N, n], True = visible, patches row by row; the others are 0, the data set's mean colour.
        batch: masked copies that pass through the model at once.

    Returns:
        float32 [N].
    """
    grid = math.isqrt(visible.shape[1])
    parts = []
    for part in torch.split(visible, batch):
        seen = spread(part.view(-1, grid, grid), image.shape[-1])
        logits = model(image * seen[:, None]).float()
        parts.append(reward(logits, torch.full_like(logits[:, 0], label, dtype=torch.int64), kind))
    return torch.cat(parts)


def reward(logits: Tensor, labels: Tensor, kind: Reward) -> Tensor:
    """Reward v of logits float [B, K >= 2] for labels int64 [B]: float [B]; kinds as in `Interactions.reward`."""
    own = logits.gather(1, labels[:, None])[:, 0]
    match kind:
        case "log-odds":
            return own - logits.scatter(1, labels[:, None], -math.inf).logsumexp(dim=1)
        case "log-probability":
            return own - logits.logsumexp(dim=1)
        case "logit":
            return own
        case _:
            assert_never(kind)


def _metrics(run: Interactions, total: Strength, mean: Values) -> dict[str, float]:
    """Means over the band of orders, and J of every order; without the error where there is one image."""
    inside = np.array([run.band[0] <= order <= run.band[1] for order in run.orders])
    metrics = {
        "strength": total.strength[inside].mean(),
        "strength_split_half": total.split_half[inside].mean(),
        "interaction": total.interaction[inside].mean(),
        "interaction_lower": total.lower[inside].mean(),
        "noise": total.noise[inside].mean(),
    }
    if len(mean) > 1:
        sizes = np.abs(mean).mean(axis=1)
        # Of the mean over the band itself: errors of single orders are correlated.
        metrics["strength_error"] = _jackknife(sizes, lambda part: _normalised(part)[..., inside].mean(axis=-1))
    metrics |= {f"J({order:g})": value for order, value in zip(run.orders, total.strength, strict=True)}
    return {name: float(value) for name, value in metrics.items()}
