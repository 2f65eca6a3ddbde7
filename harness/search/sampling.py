"""Samplers by name, and proposals: one trial at a time, each with its own seed.

A sampler is made anew for every trial, seeded by the trial's number. A proposal is therefore a function of the history
of the search, however often the process that asks was restarted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, assert_never, cast

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from harness.search.declaration import SamplerName
from harness.search.space import KnownSpace, Stepped, cell_of_space, present
from harness.search.trials import CELL
from harness.spec import HarnessError, Scalar, Skip, seed_stream


def sampler_of(name: str, seed: int, number: int) -> BaseSampler:
    """Sampler of a search for the trial of this number, with a seed of its own.

    Args:
        seed: seed of the search.
    """
    # Optuna seeds NumPy, which takes 32 bits.
    word = seed_stream(seed, f"sampler of trial {number}") % 2**32
    match cast(SamplerName, name):
        case "tpe":
            # constant_liar: open trials count as bad, so that parallel proposals differ.
            return TPESampler(seed=word, constant_liar=True)
        case "gp":
            # Without the warning that parameters under a condition are drawn independently: the study asks for them.
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
    """Refuse a sampler that does not fit the space; Optuna would silently draw at random instead.

    Raises:
        HarnessError: the sampler does not fit the space or the number of metrics, or needs a package.
    """
    if name == "cmaes":
        categories = [name for name, kind in space.distributions.items() if isinstance(kind, CategoricalDistribution)]
        for what, names in (("a category", categories), ("asked for under a condition", sorted(space.conditional))):
            if names:
                raise HarnessError(f"cmaes needs numbers, and {', '.join(names)} is {what}; valid: tpe, gp, random")
        # Optuna's CMA-ES samples a single parameter at random.
        if len(space.distributions) < 2:
            raise HarnessError("cmaes needs two parameters or more; valid: tpe, gp, random")
        if metrics > 1:
            raise HarnessError(f"cmaes optimises one metric, not {metrics}; valid: tpe, gp, random, nsga2")
    # Optuna imports these when it first samples, which is too late for a clear message.
    for package in {"cmaes": ("cmaes",), "gp": ("scipy", "torch")}.get(name, ()):
        if find_spec(package) is None:
            raise HarnessError(f"sampler {name} needs the package {package}: pip install {package}")


@dataclass(frozen=True)
class Proposed:
    """A proposed cell. excluded: reason, if the space raised Skip; the cell then holds the parameters asked so far."""

    trial: optuna.Trial
    cell: dict[str, Scalar]
    excluded: str = ""

    @property
    def number(self) -> int:
        """Number of the trial."""
        return self.trial.number

    def note(self, attributes: Mapping[str, Any]) -> None:
        """Store what is to be done with the trial, then its cell.

        A trial counts as begun once it has a cell. The cell comes last, so that a trial whose coordinator was killed in
        between is decided again.
        """
        for name, value in attributes.items():
            self.trial.set_user_attr(name, value)
        self.trial.set_user_attr(CELL, present(self.cell))


class Proposals:
    """Proposals of one sampler in one space.

    Args:
        sampler: name of the sampler. seed: seed of the search.
    """

    def __init__(self, sampler: str, seed: int, space: KnownSpace) -> None:
        self.sampler, self.seed, self.space = sampler, seed, space

    def ask(self, study: optuna.Study) -> Proposed:
        """Ask for the next trial, which is RUNNING from now on."""
        self.seed_for(study, len(study.get_trials(deepcopy=False)))
        return self._proposed(study.ask())

    def ask_again(self, study: optuna.Study, asked: FrozenTrial) -> Proposed:
        """Repeat a proposal of a coordinator that was killed before it stored all parameters; gives the same cell."""
        self.seed_for(study, asked.number)
        trial = optuna.Trial(study, asked._trial_id)
        # Stored parameters would not be drawn again, and the others would get the random numbers of the stored ones.
        trial._cached_frozen_trial.params, trial._cached_frozen_trial.distributions = {}, {}
        return self._proposed(trial)

    def seed_for(self, study: optuna.Study, number: int) -> None:
        """Give the study the sampler for the trial of this number."""
        study.sampler = sampler_of(self.sampler, self.seed, number)

    def _proposed(self, trial: optuna.Trial) -> Proposed:
        try:
            return Proposed(trial, cell_of_space(self.space.function, Stepped(trial)))
        except Skip as skip:
            return Proposed(trial, dict(trial.params), skip.reason)


def quiet() -> None:
    """Silence Optuna's messages below warnings: the coordinator reports progress itself."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
