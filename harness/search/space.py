"""Search space, explored without computing anything: its parameters, and all its points if they are few."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import Trial, create_trial

from harness.search.declaration import Space
from harness.spec import HarnessError, Scalar, Skip

MOST_POINTS = 10_000
"""A space with more points than this counts as endless."""


class Outside(HarnessError):
    """A given parameter lies outside the space."""


@dataclass(frozen=True)
class Point:
    """Parameters and the cell they lead to. excluded: reason, if the space raises Skip."""

    params: dict[str, Any]
    cell: dict[str, Scalar]
    excluded: str = ""


@dataclass(frozen=True)
class KnownSpace:
    """An explored space.

    Attributes:
        function: the space as the user wrote it.
        distributions: distribution of every parameter that some path through the space asks for.
        conditional: names of the parameters that not every path asks for.
        axes: axes of all cells that were seen.
        points: all points; None where a parameter is continuous or there are more than MOST_POINTS.
    """

    function: Space
    distributions: Mapping[str, BaseDistribution]
    conditional: frozenset[str]
    axes: tuple[str, ...]
    points: tuple[Point, ...] | None

    def record(self) -> dict[str, Any]:
        """The space as JSON, which a later version of it is compared with."""
        return {
            name: json.loads(distribution_to_json(found)) | {"conditional": name in self.conditional}
            for name, found in sorted(self.distributions.items())
        }

    def params_of(self, cell: Mapping[str, Scalar]) -> dict[str, Any] | None:
        """Parameters that lead to a cell; None if none are found. A missing axis equals one that is None."""
        wanted = present(cell)
        # Often parameters are named as axes are, so that the cell itself answers the questions of the space.
        try:
            path = _walk(self.function, wanted)
            if present(path.cell) == wanted:
                return path.params
        except (Outside, Skip):
            pass
        # Else a point has to be found whose cell is this one, which is possible in a finite space only.
        for point in self.points or ():
            if not point.excluded and present(point.cell) == wanted:
                return point.params
        return None

    def cell_of(self, params: Mapping[str, Any]) -> dict[str, Scalar] | None:
        """Cell of these parameters; None if they are no point of the space."""
        try:
            return _walk(self.function, params).cell
        except (Outside, Skip):
            return None

    def distributions_of(self, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """Distributions of the parameters that the path of these values asks for."""
        return _walk(self.function, params).distributions


def present(cell: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """A cell without the axes that are None."""
    return {axis: value for axis, value in cell.items() if value is not None}


def cell_id(cell: Mapping[str, Scalar]) -> str:
    """Text that is equal exactly for equal cells."""
    return json.dumps(present(cell), sort_keys=True)


def with_axes(cell: Mapping[str, Scalar]) -> str:
    """A cell in one line, each value after its axis: `k=4 temperature=0.3`."""
    return " ".join(f"{axis}={value}" for axis, value in present(cell).items())


class Path:
    """Stand-in for an Optuna trial that answers with given values and records every question.

    complete: True to refuse a question without a given value; False to answer it with the parameter's first value.
    """

    def __init__(self, given: Mapping[str, Any], *, complete: bool) -> None:
        self.given, self._complete = given, complete
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}
        self.cell: dict[str, Scalar] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Any:
        return self._suggest(name, CategoricalDistribution(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        value: int = self._suggest(name, IntDistribution(low, high, log=log, step=step))
        return value

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        value: float = self._suggest(name, FloatDistribution(low, high, log=log, step=step))
        return on_step(value, low, step)

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        """Answer a question of the space, and record it. The same name may be asked again with the same choices."""
        if self.distributions.setdefault(name, distribution) != distribution:
            raise HarnessError(f"the space asks for {name} twice, with other choices: give the second its own name")
        if name not in self.params:
            if name not in self.given and self._complete:
                raise Outside(f"the space asks for {name}, which is not given")
            value = self.given[name] if name in self.given else values_of(distribution)[0][0]
            if not _holds(distribution, value):
                raise Outside(f"{name} = {value!r} lies outside the space")
            self.params[name] = value
        return self.params[name]


class Stepped:
    """An Optuna trial whose stepped floats are decimals as a user writes them, and so equal the values of a grid."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return on_step(self._trial.suggest_float(name, low, high, step=step, log=log), low, step)


def on_step(value: float, low: float, step: float | None) -> float:
    """Stepped value rounded to its decimal number: 0.6 for 0.1 + 5 * 0.1, which is 0.6000000000000001."""
    if step is None:
        return value
    # str gives the shortest decimal of a float, which is what the user wrote.
    return float(Decimal(str(low)) + round((value - low) / step) * Decimal(str(step)))


def values_of(distribution: BaseDistribution) -> tuple[list[Any], bool]:
    """Values of a parameter, and True if these are all; of a continuous one both ends and the middle."""
    match distribution:
        case CategoricalDistribution():
            return list(distribution.choices), True
        case IntDistribution():
            return list(range(distribution.low, distribution.high + 1, distribution.step)), True
        case FloatDistribution(step=None):
            low, high = distribution.low, distribution.high
            # Three values, so that conditions on the number are likely to show their parameters.
            return [low, (low + high) / 2, high], low == high
        case FloatDistribution(step=float(step)):
            steps = round((distribution.high - distribution.low) / step)
            low = distribution.low
            return [on_step(low + number * step, low, step) for number in range(steps + 1)], True
        case _:
            raise HarnessError(f"a space holds categories, integers and floats, not {type(distribution).__name__}")


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    """True if a value belongs to a distribution."""
    try:
        # Optuna's own check, as it has no function of its own for steps and types.
        create_trial(value=0.0, params={"value": value}, distributions={"value": distribution})
    except (ValueError, TypeError):
        return False
    return True


def _walk(space: Space, given: Mapping[str, Any]) -> Path:
    """Path through a space with given values.

    Raises:
        Outside: a value is missing or lies outside the space. Skip: the space excludes the point.
    """
    path = Path(given, complete=True)
    path.cell = cell_of_space(space, path)
    return path


def cell_of_space(space: Space, trial: Any) -> dict[str, Scalar]:
    """Cell that a space returns for a trial, checked.

    Raises:
        HarnessError: the space fails, or returns no mapping of names to plain values.
        Skip: the space excludes the point.
    """
    try:
        found = space(trial)
    except (Skip, HarnessError):
        raise
    except Exception as error:  # the user's own code
        raise HarnessError(f"space: {type(error).__name__}: {error}".replace("\n", " ")) from error
    if not isinstance(found, Mapping) or not found:
        raise HarnessError(f"space: should return a cell such as {{'mask_ratio': 0.6}}, not {found!r}")
    for axis, value in found.items():
        if not isinstance(axis, str) or not isinstance(value, str | int | float | bool | None):
            raise HarnessError(f"space: axis {axis!r} should hold a plain value, not {value!r}")
    return dict(found)


def explore(space: Space) -> KnownSpace:
    """Follow every path through a space, or MOST_POINTS of them.

    Raises:
        HarnessError: the space fails, gives no cell, or asks for one parameter with two sets of choices.
    """
    distributions: dict[str, BaseDistribution] = {}
    asked: list[set[str]] = []
    points: list[Point] = []
    whole = True  # until a continuous parameter or too many points show that not all are known
    for path, excluded, finite in _paths(space):
        for name, found in path.distributions.items():
            # Optuna knows a parameter by its name alone, and refuses or ignores other choices later.
            if distributions.setdefault(name, found) != found:
                raise HarnessError(f"the space asks for {name} with two sets of choices: give the second its own name")
        asked.append(set(path.distributions))
        points.append(Point(path.params, path.cell, excluded))
        whole = whole and finite
        if len(points) > MOST_POINTS:
            whole = False
            break
    if not distributions:
        raise HarnessError("the space asks for no parameter: there is nothing to search")
    common = asked[0].intersection(*asked)
    conditional = frozenset(set(distributions) - common)
    axes = tuple(dict.fromkeys(axis for point in points if not point.excluded for axis in point.cell))
    return KnownSpace(space, distributions, conditional, axes, tuple(points) if whole else None)


def _paths(space: Space) -> Iterator[tuple[Path, str, bool]]:
    """Every path, with the reason if the space excludes it, and True if its parameters have no further values.

    The first path takes the first value of every parameter. Each other value of a parameter that was not given starts a
    further path, so that each combination comes once.
    """
    waiting: list[dict[str, Any]] = [{}]
    while waiting:
        given = waiting.pop()
        path, excluded, finite = Path(given, complete=False), "", True
        try:
            path.cell = cell_of_space(space, path)
        except Skip as skip:
            excluded = skip.reason
        before: dict[str, Any] = {}
        branches = []
        for name, distribution in path.distributions.items():
            values, all_of_them = values_of(distribution)
            finite = finite and all_of_them
            if name not in given:
                # Only values of later parameters vary from here, so no combination comes twice.
                branches += [{**before, name: value} for value in values[1:]]
            before[name] = path.params[name]
        waiting += reversed(branches)  # reversed: the last of the list is followed next, in the order of the values
        yield path, excluded, finite


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Differences between two records of a space, in words."""
    found = [f"{name} is gone" for name in old if name not in new]
    found += [f"{name} is new" for name in new if name not in old]
    for name in old:
        if name in new and old[name] != new[name]:
            found.append(f"{name} was {_words(old[name])} and is {_words(new[name])}")
    return found


def _words(record: Mapping[str, Any]) -> str:
    """A recorded distribution in words."""
    held = dict(record["attributes"])
    conditional = " under a condition" if record["conditional"] else ""
    if "choices" in held:
        return f"one of {', '.join(map(str, held['choices']))}{conditional}"
    step = f" in steps of {held['step']}" if held.get("step") is not None else ""
    return f"{held['low']} to {held['high']}{step}{', logarithmic' if held.get('log') else ''}{conditional}"
