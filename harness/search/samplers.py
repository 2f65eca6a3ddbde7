"""Samplers and pruners by name, and the seed that makes a proposal a function of the history."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import assert_never, cast

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from harness.search.declaration import SAMPLERS, PrunerName, SamplerName, Search, check_name
from harness.search.space import KnownSpace
from harness.spec import HarnessError, Scale, seed_stream

REDUCTION = 3
"""Of this many trials one goes on, in successive halving and Hyperband."""
STARTUP_TRIALS = 5
"""Trials that the median pruner lets finish before it compares."""


def sampler_of(name: str, seed: int, number: int) -> BaseSampler:
    """The sampler that proposes the trial of this number. Equal histories give equal proposals, however often the
    process that asks was begun anew.

    Args:
        seed: of the search.
    """
    check_name("sampler", name, SAMPLERS)
    word = seed_stream(seed, f"sampler of trial {number}") % 2**32
    match cast(SamplerName, name):
        case "tpe":
            return TPESampler(seed=word, constant_liar=True)
        case "gp":
            return GPSampler(seed=word, warn_independent_sampling=False)
        case "cmaes":
            return CmaEsSampler(seed=word)
        case "random":
            return RandomSampler(seed=word)
        case "nsga2":
            return NSGAIISampler(seed=word, population_size=20)
        case other:
            assert_never(other)


def check_sampler(name: str, space: KnownSpace, metrics: int) -> None:
    """Refuse a sampler that does not fit, where Optuna would silently draw at random.

    Raises:
        HarnessError: it is unknown, does not fit the space or the number of metrics, or needs a package.
    """
    check_name("sampler", name, SAMPLERS)
    if name == "cmaes":
        held = space.distributions
        categories = [axis for axis, found in held.items() if isinstance(found, CategoricalDistribution)]
        for what, found in (("a category", categories), ("asked for under a condition", sorted(space.conditional))):
            if found:
                raise HarnessError(f"cmaes needs numbers, and {', '.join(found)} is {what}; valid: tpe, gp, random")
        if len(held) < 2:
            raise HarnessError("cmaes needs two parameters or more; valid: tpe, gp, random")
        if metrics > 1:
            raise HarnessError(f"cmaes optimises one metric, not {metrics}; valid: tpe, gp, random, nsga2")
    for package in {"cmaes": ("cmaes",), "gp": ("scipy", "torch")}.get(name, ()):
        if find_spec(package) is None:
            raise HarnessError(f"sampler {name} needs the package {package}: pip install {package}")


def pruner_of(search: Search, scale: Scale) -> BasePruner:
    """The pruner of a search at a scale; none where that has no rungs."""
    rungs = search.rung_epochs(scale)
    if search.pruner != "wilcoxon" and not rungs:
        return NopPruner()
    match cast(PrunerName, search.pruner):
        case "none":
            return NopPruner()
        case "halving":
            return SuccessiveHalvingPruner(min_resource=rungs[0], reduction_factor=REDUCTION)
        case "hyperband":
            longest = max(scale.pretrain.epochs, rungs[-1])
            return HyperbandPruner(min_resource=rungs[0], max_resource=longest, reduction_factor=REDUCTION)
        case "median":
            return MedianPruner(n_startup_trials=STARTUP_TRIALS)
        case "wilcoxon":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return WilcoxonPruner()
        case other:
            assert_never(other)


def quiet() -> None:
    """Let Optuna speak of nothing below a warning: the coordinator reports itself."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
