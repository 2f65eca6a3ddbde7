"""Asking the sampler: one trial at a time, re-seeded for each, so that a proposal is a function of the history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from harness.search.samplers import sampler_of
from harness.search.space import KnownSpace, Stepped, checked_cell, present
from harness.search.trials import CELL
from harness.spec import HarnessError, Scalar, Skip


@dataclass(frozen=True)
class Proposed:
    """A proposal. excluded: the reason, if the space raised Skip; the cell is then what it had asked for so far."""

    trial: optuna.Trial
    cell: dict[str, Scalar]
    excluded: str = ""

    @property
    def number(self) -> int:
        """The number of the trial."""
        return self.trial.number

    def note(self, attributes: Mapping[str, Any]) -> None:
        """Write down what is to be done with it, and last the cell: from then on the trial is begun."""
        for name, value in attributes.items():
            self.trial.set_user_attr(name, value)
        self.trial.set_user_attr(CELL, present(self.cell))


class Proposals:
    """Proposals of one sampler in one space.

    Args:
        sampler: its name. seed: of the search.
    """

    def __init__(self, sampler: str, seed: int, space: KnownSpace) -> None:
        self.sampler, self.seed, self.space = sampler, seed, space

    def ask(self, study: optuna.Study) -> Proposed:
        """The next trial, which is RUNNING from now on."""
        self.seed_for(study, len(study.get_trials(deepcopy=False)))
        return self._proposed(study.ask())

    def ask_again(self, study: optuna.Study, asked: FrozenTrial) -> Proposed:
        """A trial whose parameters were not all written down before the coordinator was killed: the same proposal."""
        self.seed_for(study, asked.number)
        trial = optuna.Trial(study, asked._trial_id)
        # Else those that were written down would be taken from there, and the others drawn with the numbers of these.
        trial._cached_frozen_trial.params, trial._cached_frozen_trial.distributions = {}, {}
        return self._proposed(trial)

    def seed_for(self, study: optuna.Study, number: int) -> None:
        """Give a study the sampler for the trial of this number."""
        study.sampler = sampler_of(self.sampler, self.seed, number)

    def _proposed(self, trial: optuna.Trial) -> Proposed:
        try:
            return Proposed(trial, checked_cell(self.space.function(Stepped(trial))))
        except Skip as skip:
            return Proposed(trial, dict(trial.params), skip.reason)
        except HarnessError:
            raise
        except Exception as error:  # the user's own code
            raise HarnessError(f"space: {type(error).__name__}: {error}".replace("\n", " ")) from error
