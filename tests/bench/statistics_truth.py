"""Simulated studies with known truth: do intervals cover, are verdicts false no more often than promised?

Run     PYTHONPATH=. python tests/bench/statistics_truth.py [--replications 500] > tests/bench/statistics_truth.txt
        --only coverage, changes, seeds or verdicts prints one of the tables.
Aim     Intervals cover 95 % within simulation error; at most 5 % of the verdicts on any kind of claim are false, with
        one look and with several; at most 5 % of the comparisons of unchanged results name a cell; the seeds that a
        claim is told to need are 0.7 to 1.5 times those it needs, in the median.

A value is cell + seed + noise, all normal; seeds vary as much as the noise. A claim is tried where a verdict is
hardest, on the boundary between true and false. If the boundary counts as false, a verdict for the claim is false; if
it counts as true, a verdict against it. Both are counted by themselves, and each has to stay at or below 5 %.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.stats

from harness import claims
from harness.report.claims.sequential import errors
from harness.report.claims.verdicts import FIXED, Scored, Word, compared_cells, verdict
from harness.spec import Backbone, Recipe, Scale, Shapes
from harness.stats.additive import NOISIER, fit, levels
from harness.stats.comparisons import among_best, differences
from harness.stats.intervals import Floats, half_width, tails
from harness.stats.simultaneous import holm
from harness.study import Grid, Plan, Study, axes
from harness.study.claims import Claim

SEEDS = (2, 3, 5, 10)
LOOKS = ((2, 3, 5, 10), (3, 5, 8, 10))
NOISES = ("equal", "every second x 2", "log-normal 0.5", "first x 3")
ONE_OTHER = "second x 3"
MARGIN = 3.0
SCALE = Scale(
    name="tiny",
    data=Shapes(image_size=32),
    image_size=32,
    backbone=Backbone(name="vit_tiny", patch_size=4),
    pretrain=Recipe(epochs=1, batch_size=8, lr=1e-3),
    finetune=Recipe(epochs=1, batch_size=8, lr=1e-3),
)


def spreads(kind: str, count: int, generator: np.random.Generator) -> Floats:
    """Standard deviations of the noise of each cell; the first cell is the reference."""
    match kind:
        case "equal":
            return np.ones(count)
        case "every second x 2":
            return np.where(np.arange(count) % 2, 2.0, 1.0)
        case "log-normal 0.5":
            return np.exp(0.5 * generator.standard_normal(count))
        case "first x 3":
            return np.where(np.arange(count) == 0, 3.0, 1.0)
        case "second x 3":
            return np.where(np.arange(count) == 1, 3.0, 1.0)
        case _:
            raise ValueError(kind)


def draw(truth: Floats, kind: str, seeds: int, generator: np.random.Generator) -> Floats:
    """Values of one simulated study, float [cells, seeds]."""
    noise = spreads(kind, len(truth), generator)[:, None] * generator.standard_normal((len(truth), seeds))
    return truth[:, None] + generator.standard_normal(seeds) + noise


@dataclass(frozen=True)
class Coverage:
    """Shares of studies, or of intervals, that hold the truth.

    means, differences: single intervals. worst: of the difference that is covered least. together: all differences at
    once. best: the best cell is marked. own: cells that have their own variance. width: of the single intervals
    of differences, the median half in units of the noise of most cells.
    """

    means: float
    differences: float
    worst: float
    together: float
    best: float
    own: float
    width: float


def coverage(cells: int, seeds: int, kind: str, replications: int, generator: np.random.Generator) -> Coverage:
    """How often intervals of means and of differences from the first cell hold the truth."""
    truth = np.linspace(0, 1, cells)
    sums, each, widths = np.zeros(4), np.zeros(cells - 1), []
    for _ in range(replications):
        values = draw(truth, kind, seeds, generator)
        model, n = fit(values), np.full(cells, seeds)
        found = differences(model, 0)
        off = np.abs(found.found.value - truth)[1:]
        half = half_width(values.std(axis=1, ddof=1), n, n - 1)
        means = (np.abs(values.mean(axis=1) - truth) <= half).mean()
        sums += means, (off <= found.simultaneous[1:]).all(), among_best(model)[-1], model.own.mean()
        each += off <= found.half[1:]
        widths.append(found.half[1:])
    each /= replications
    mean, together, best, own = sums / replications
    return Coverage(mean, float(each.mean()), float(each.min()), together, best, own, float(np.median(widths)))


def false_alarms(
    cells: int, seeds: int, kind: str, replications: int, generator: np.random.Generator, common: float = 0.0
) -> float:
    """Share of comparisons of two results without any change in which `harness compare` calls a cell changed.

    common: sd of what the seeds of the two results differ by in all cells alike, in units of the noise.
    """
    found = 0
    for _ in range(replications):
        noise = spreads(kind, cells, generator)[:, None] * generator.standard_normal((2, cells, seeds))
        shift = common * generator.standard_normal((2, 1, seeds))
        found += bool((holm(tails(levels((noise + shift)[1] - (noise + shift)[0]))) < 0.05).any())
    return found / replications


def told_and_needed(
    cells: int, seeds: int, kind: str, effect: float, replications: int, generator: np.random.Generator
) -> tuple[Floats, float]:
    """Seeds that the verdict on `the first cell beats the second` is told to need, where it is open, and needs.

    It needs as many as decide it in every second study; found by an implementation of its own. None is told as inf.
    """
    truth = np.zeros(cells)
    truth[0] = effect
    case = Case("", claims.better("", {"arm": 0}, {"arm": 1}), axes(arm=tuple(range(cells))), tuple(truth))
    plan = plan_of(case, (seeds,))
    found = [verdict(case.claim, data_of(plan, draw(truth, kind, seeds, generator))) for _ in range(replications)]
    told = np.array([np.inf if one.needed is None else one.needed for one in found if one.open])
    low, high = 2, 500  # decides too rarely, decides
    while high - low > 1:
        middle = (low + high) // 2
        share = _decided(truth, kind, middle, 2000 if middle < 60 else 600, generator)
        low, high = (low, middle) if share >= 0.5 else (middle, high)
    return told, high


def _decided(truth: Floats, kind: str, seeds: int, replications: int, generator: np.random.Generator) -> float:
    """Share of studies in which the first cell is told from the second."""
    spread = spreads(kind, len(truth), generator)[:, None]
    values = truth[:, None] + spread * generator.standard_normal((replications, len(truth), seeds))
    residuals = values - values.mean(axis=1, keepdims=True)
    residuals -= residuals.mean(axis=2, keepdims=True)
    df, number = (len(truth) - 1) * (seeds - 1), len(truth)
    all_ = (residuals**2).sum(axis=(1, 2))
    variance, degrees = [], []
    for cell in (0, 1):
        added = (residuals[:, cell] ** 2).sum(axis=1) * number / (number - 1) / (seeds - 1)
        own, rest_df = np.zeros(replications, dtype=bool), df - (seeds - 1)
        if rest_df:
            rest = (all_ - added * (seeds - 1)) / rest_df
            own = scipy.stats.f.sf(added / rest, seeds - 1, rest_df) < NOISIER
            added = rest + (added - rest) * number / (number - 1)
        variance.append(np.where(own, added, all_ / df))
        degrees.append(np.where(own, seeds - 1, np.nan))
    own_parts = [np.where(np.isnan(d), 0.0, v) for v, d in zip(variance, degrees, strict=True)]
    pooled = sum(variance) - sum(own_parts)
    worth = sum(part**2 / (seeds - 1) for part in own_parts) + pooled**2 / df
    degrees_used = sum(variance) ** 2 / worth
    t = (values[:, 0] - values[:, 1]).mean(axis=1) / np.sqrt(sum(variance) / seeds)
    return float((np.abs(t) > scipy.stats.t.isf(0.025, degrees_used)).mean())


@dataclass(frozen=True)
class Case:
    """A claim on its boundary: the study's cells, their true values, and the verdicts for it and against it."""

    name: str
    claim: Claim
    grid: Grid
    truth: tuple[float, ...]
    favour: tuple[Word, ...] = ("reproduced",)
    against: tuple[Word, ...] = ("contradicted",)


def cases() -> tuple[Case, ...]:
    """Every kind of claim, in studies of few and of many cells."""
    few = axes(arm=("a", "b", "c")) | axes(arm="scratch")
    rows = axes(arm=("a", "b"), row=(0, 1, 2)) | axes(other=tuple(range(12)))
    groups = axes(side="few", member=(0, 1, 2)) | axes(side="many", member=tuple(range(20)))
    curve = axes(ratio=(0.1, 0.3, 0.5, 0.7, 0.9)) | axes(other=(0, 1, 2, 3))
    a, b, m = {"arm": "a"}, {"arm": "b"}, MARGIN
    many, three = claims.best(side="many"), claims.best(side="few")
    flat = (0.0,) * 4
    none: tuple[Word, ...] = ("no difference beyond the margin",)
    peak = claims.inner_maximum("peak", axis="ratio", at={"other": None})
    wide = claims.inner_maximum("peak", axis="ratio", at={"other": None}, margin=m)
    return (
        Case("better, equal cells, 4 cells", claims.better("", a, b), few, (0,) * 4),
        Case("better, three pairs, 18 cells", claims.better("", a, b), rows, (0,) * 18),
        Case("better, at its margin, 4 cells", claims.better("", a, b, margin=m), few, (m, 0, 0, 0), (), none),
        Case("no worse, at its margin, 4 cells", claims.no_worse("", a, b, margin=m), few, (-m, 0, 0, 0)),
        Case("no worse, at a share of the gain", claims.no_worse("", a, b), few, (10, 12, 12, 0)),
        Case("same, three pairs at the margin", claims.same("", a, b, margin=m), rows, (m,) * 3 + (0,) * 15),
        Case("best of 20 beats best of 3, all equal", claims.better("", many, three), groups, (0,) * 23),
        Case("best of 3 beats best of 20, all equal", claims.better("", three, many), groups, (0,) * 23),
        Case(
            "best of 20 beats best of 3, one is good", claims.better("", many, three), groups, (0, -9, -9) + (0,) * 20
        ),
        Case(
            "best of 20 no worse, at the margin",
            claims.no_worse("", many, three, margin=m),
            groups,
            (m, 0, 0) + (0,) * 20,
        ),
        Case("best of 20 same, at the margin", claims.same("", many, three, margin=m), groups, (0, 0, 0) + (m,) * 20),
        Case("inner maximum, plateau to both ends", peak, curve, (0,) * 9),
        Case("inner maximum, plateau to the last", peak, curve, (-9, 0, 0, 0, 0, *flat)),
        Case("inner maximum, at its margin", wide, curve, (0, m, 0, 0, 0, *flat), (), none),
    )


def data_of(plan: Plan, values: Floats) -> Scored:
    """The simulated study as verdicts need it."""
    scratch = [cell.get("arm") == "scratch" for cell in plan.study.cells]
    gain = np.array([1.0, *(-1.0 * np.array(scratch[1:]))]) if any(scratch) else None
    return Scored(plan, "top1", values, {}, gain)


def plan_of(case: Case, looks: tuple[int, ...]) -> Plan:
    """The study of a case, without runs."""
    study = Study(
        cell=lambda *_, **__: {},
        grid=case.grid,
        scales=(SCALE,),
        reference=next(iter(case.grid)),
        seeds=looks[0],
        looks=looks,
    )
    return Plan(study, SCALE, ())


def one_look(
    case: Case, seeds: int, kind: str, replications: int, generator: np.random.Generator
) -> Mapping[Word, int]:
    """How often each verdict is reached with a fixed number of seeds."""
    plan = plan_of(case, (seeds,))
    truth = np.array(case.truth, dtype=float)
    return Counter(
        verdict(case.claim, data_of(plan, draw(truth, kind, seeds, generator)), FIXED).word for _ in range(replications)
    )


def several_looks(
    case: Case, looks: tuple[int, ...], kind: str, replications: int, generator: np.random.Generator
) -> Mapping[Word, int]:
    """How often each verdict is reached at any look; cells that take no part stay at the first number of seeds."""
    plan, truth = plan_of(case, looks), np.array(case.truth, dtype=float)
    found: Counter[Word] = Counter()
    for _ in range(replications):
        values = draw(truth, kind, looks[-1], generator)
        word: Word = "inconclusive"
        for number in looks:
            seen = np.where(np.arange(looks[-1]) < looks[0], values, np.nan)
            data = data_of(plan, seen[:, :number])
            if number > looks[0]:
                used = list(compared_cells(case.claim, data))
                seen[used] = values[used]
                data = data_of(plan, seen[:, :number])
            word = verdict(case.claim, data, errors(case.claim, data)).word
            if word != "inconclusive":
                break
        found[word] += 1
    return found


def repeated(name: str, kind: str, looks: tuple[int, ...], replications: int, seed: int) -> tuple[float, float]:
    """The false verdicts of one line again, with other draws and more of them. looks: one number for a single look."""
    case = next(case for case in cases() if case.name == name)
    generator = np.random.default_rng(seed)
    if len(looks) > 1:
        return false_rates(case, several_looks(case, looks, kind, replications, generator))
    return false_rates(case, one_look(case, looks[0], kind, replications, generator))


def false_rates(case: Case, found: Mapping[Word, int]) -> tuple[float, float]:
    """Shares of verdicts for and against a claim on its boundary."""
    total = sum(found.values())
    favour, against = (sum(found.get(word, 0) for word in words) / total for words in (case.favour, case.against))
    return favour, against


def show_coverage(options: argparse.Namespace, generator: np.random.Generator) -> None:
    """Coverage of intervals."""
    error = 1.96 * np.sqrt(0.95 * 0.05 / options.replications)
    print(f"\nCoverage of 95 % intervals (simulation error of one share: +-{error:.3f})")
    print("cells   n noise                means   diffs   worst     all    best     own   width")
    for cells in (4, 9, 24):
        for kind in (*NOISES, ONE_OTHER):
            for seeds in SEEDS:
                found = coverage(cells, seeds, kind, options.replications, generator)
                numbers = " ".join(f"{value:7.3f}" for value in vars(found).values())
                print(f"{cells:5} {seeds:3} {kind:<18} {numbers}", flush=True)


def show_changes(options: argparse.Namespace, generator: np.random.Generator) -> None:
    """Comparisons of unchanged results that name a cell."""
    error = 2 * np.sqrt(0.95 * 0.05 / 4000)
    print(f"\nUnchanged results of 8 cells of which one is called changed, of 4,000 (two standard errors: {error:.4f})")
    print("  n noise              equal seeds, seeds that differ as much as the noise")
    for kind in ("equal", "first x 3", ONE_OTHER, "log-normal 0.5"):
        for seeds in SEEDS:
            shares = (false_alarms(8, seeds, kind, 4000, generator, common) for common in (0.0, 1.0))
            print(f"{seeds:3} {kind:<18} " + " ".join(f"{share:7.4f}" for share in shares), flush=True)


def show_seeds(options: argparse.Namespace, generator: np.random.Generator) -> None:
    """Seeds that a claim is told to need over those it needs."""
    print("\nSeeds told over seeds needed, the median of 1,000 studies; none told counts as infinite")
    print("cells noise              effect needed" + "".join(f"   n = {seeds}" for seeds in SEEDS[:3]))
    for cells in (2, 5, 9):
        for kind in ("equal", "first x 3")[: 1 + (cells > 2)]:
            for effect in (0.7, 1.0, 1.5, 2.0):
                size = effect * (np.sqrt(5) if kind == "first x 3" else 1)
                found = [told_and_needed(cells, seeds, kind, size, 1000, generator) for seeds in SEEDS[:3]]
                ratios = "".join(f"{np.median(told) / needed:8.2f}" for told, needed in found)
                print(f"{cells:5} {kind:<18} {size:6.2f} {found[0][1]:6.0f}{ratios}", flush=True)


def show_verdicts(options: argparse.Namespace, generator: np.random.Generator) -> None:
    """Verdicts on claims on their boundary."""
    print("\nFalse verdicts on the boundary: for the claim / against it")
    titles = [*(f"n = {seeds}" for seeds in SEEDS), *(",".join(map(str, looks)) for looks in LOOKS)]
    print(f"{'claim':<38} {'noise':<17}" + "".join(f"{title:>15}" for title in titles))
    largest = 0.0
    for case in cases():
        for kind in NOISES:
            rates = [false_rates(case, one_look(case, seeds, kind, options.replications, generator)) for seeds in SEEDS]
            rates += [
                false_rates(case, several_looks(case, looks, kind, options.replications, generator)) for looks in LOOKS
            ]
            largest = max(largest, *map(max, rates))
            print(f"{case.name:<38} {kind:<17}" + "".join(f"{a:9.3f}/{b:.3f}" for a, b in rates), flush=True)
    print(f"\nlargest share of false verdicts: {largest:.3f}")


TABLES = {"coverage": show_coverage, "changes": show_changes, "seeds": show_seeds, "verdicts": show_verdicts}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replications", type=int, default=500)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", choices=TABLES, nargs="+", default=list(TABLES))
    options = parser.parse_args()
    began = time.perf_counter()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    print(f"command  python {' '.join(sys.argv)}   commit {commit.strip()}")
    print(f"python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, "
          f"{options.replications} replications a line where none are named")  # fmt: skip
    for name in options.only:
        TABLES[name](options, np.random.default_rng(options.seed))
    print(f"\nseconds: {time.perf_counter() - began:.0f}")


if __name__ == "__main__":
    main()
