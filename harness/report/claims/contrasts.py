"""Contrasts of claims: both sides as weighted sums of cells that are equal on all axes the claim does not name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from harness.spec import Scalar
from harness.stats.intervals import Floats
from harness.study.claims import Best, Claim, Comparison, InnerMaximum, Where, selector

Cell = Mapping[str, Scalar]


@dataclass(frozen=True, eq=False)
class Sides:
    """The two sides of a claim: the best of the left candidates is compared with the best of the right ones.

    Attributes:
        left, right: float [candidates, cells], each row a mean of cells. A side without `best` has one row.
        cells: numbers of the cells that enter.
        remark: cells that were left out, in words.
    """

    left: Floats
    right: Floats
    cells: tuple[int, ...]
    remark: str = ""


def sides(claim: Claim, cells: Sequence[Cell], excluded: Mapping[int, str]) -> Sides | str:
    """Sides of a claim among the study's cells, or the reason why it cannot be tested.

    Args:
        excluded: reasons of the cells that do not exist at this scale, by cell number.
    """
    match claim:
        case Comparison(left=Best()) | Comparison(right=Best()):
            return _candidates(claim, cells, excluded)
        case Comparison():
            return _matched(claim, cells, excluded)
        case InnerMaximum():
            return _over_axis(claim, cells, excluded)
        case _:
            assert_never(claim)


def _matched(claim: Comparison, cells: Sequence[Cell], excluded: Mapping[int, str]) -> Sides | str:
    """Mean difference over all pairs of cells that agree on the axes that neither side names."""
    left, right = (_selected(claim.at, side, cells) for side in (claim.left, claim.right))
    named = {*_where(claim.left), *_where(claim.right)}
    pairs = [
        (one, two)
        for one in left
        for two in right
        if one != two and _rest(cells[one], named) == _rest(cells[two], named)
    ]
    if not pairs:
        return "no two cells of both sides are equal on all other axes"
    kept = [pair for pair in pairs if not excluded.keys() & set(pair)]
    if not kept:
        return _reason({number for pair in pairs for number in pair}, excluded)
    weights = [_mean([pair[side] for pair in kept], len(cells)) for side in (0, 1)]
    words = [f"mean over {len(kept)} pairs"] * (len(kept) > 1)
    words += [_excluded(len(pairs) - len(kept), f"of {len(pairs)} pairs")] * (len(kept) < len(pairs))
    used = tuple(sorted({number for pair in kept for number in pair}))
    return Sides(weights[0][None], weights[1][None], used, "; ".join(words))


def _candidates(claim: Comparison, cells: Sequence[Cell], excluded: Mapping[int, str]) -> Sides | str:
    """The best of one side against the other; a side without `best` is the mean of its cells."""
    found, used, remarks = [], set[int](), []
    for side in (claim.left, claim.right):
        chosen = _selected(claim.at, side, cells)
        kept = [number for number in chosen if number not in excluded]
        if not kept:
            return _reason(set(chosen), excluded)
        if len(kept) < len(chosen):
            remarks.append(_excluded(len(chosen) - len(kept), f"of {len(chosen)} cells"))
        if isinstance(side, Best) and len(kept) > 1:
            remarks.append(f"best of {len(kept)}")
        rows = [_mean([number], len(cells)) for number in kept] if isinstance(side, Best) else [_mean(kept, len(cells))]
        found.append(np.array(rows))
        used |= set(kept)
    return Sides(found[0], found[1], tuple(sorted(used)), "; ".join(remarks))


def _over_axis(claim: InnerMaximum, cells: Sequence[Cell], excluded: Mapping[int, str]) -> Sides | str:
    """Inner values of an axis against both ends, each a mean over the settings of all other axes."""
    places: dict[tuple[Scalar, ...], dict[float, int]] = {}
    for number in _selected(claim.at, {}, cells):
        value = cells[number][claim.axis]
        if isinstance(value, int | float) and not isinstance(value, bool):
            places.setdefault(_rest(cells[number], {claim.axis}), {})[float(value)] = number
    values = sorted({value for place in places.values() for value in place})
    whole = [place for place in places.values() if len(place) == len(values)]
    if max(map(len, places.values()), default=0) < 3:
        return f"{claim.axis} has fewer than three values with all other axes equal"
    if not whole:
        return f"at no setting of the other axes {claim.axis} has all of its {len(values)} values"
    left_out = {value for value in values for place in whole if place[value] in excluded}
    if left_out & {values[0], values[-1]}:
        return _reason({place[values[end]] for place in whole for end in (0, -1)}, excluded)
    inner = [value for value in values[1:-1] if value not in left_out]
    if not inner:
        return _reason({place[value] for place in whole for value in values}, excluded)
    rows = {value: _mean([place[value] for place in whole], len(cells)) for value in (*inner, values[0], values[-1])}
    used = tuple(sorted(place[value] for place in whole for value in rows))
    words = [f"at {len(rows)} values"] + [f"mean over {len(whole)} settings"] * (len(whole) > 1)
    if partial := len(places) - len(whole):
        words.append(
            f"{partial} of {len(places)} settings without all values {'is' if partial == 1 else 'are'} left out"
        )
    words += [_excluded(len(left_out), f"inner value{'s' * (len(left_out) > 1)}")] * bool(left_out)
    ends = np.array([rows[values[0]], rows[values[-1]]])
    return Sides(np.array([rows[value] for value in inner]), ends, used, "; ".join(words))


def _excluded(count: int, of_what: str) -> str:
    return f"{count} {of_what} {'is' if count == 1 else 'are'} excluded at this scale"


def _where(side: Where | Best) -> Where:
    return side.where if isinstance(side, Best) else side


def _selected(at: Where, side: Where | Best, cells: Sequence[Cell]) -> list[int]:
    chosen = selector({**at, **_where(side)})
    return [number for number, cell in enumerate(cells) if chosen(cell)]


def _rest(cell: Cell, named: set[str]) -> tuple[Scalar, ...]:
    return tuple(value for axis, value in cell.items() if axis not in named)


def _mean(numbers: Sequence[int], count: int) -> Floats:
    row = np.zeros(count)
    np.add.at(row, list(numbers), 1 / len(numbers))
    return row


def _reason(numbers: set[int], excluded: Mapping[int, str]) -> str:
    return "; ".join(dict.fromkeys(reason for number, reason in sorted(excluded.items()) if number in numbers))
