"""Numbers as text: a minus as wide as a plus, and no sign on what rounds to zero."""

from __future__ import annotations

import math
from collections.abc import Callable

from harness.report.escape import NOTHING


def number(value: float, digits: int) -> str:
    """The value with so many digits after the point."""
    if math.isnan(value):
        return NOTHING
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int) -> str:
    """As `number`, with a plus too."""
    return ("+" if round(value, digits) > 0 else "") + number(value, digits)


def published(value: float) -> str:
    """A value as a paper prints it: with a digit after the point, or with those that it has."""
    return f"{value:.1f}" if math.isclose(value, round(value, 1)) else f"{value:g}"


def with_half(text: str, half: float) -> str:
    """A number with half the width of its interval, or with its spread; alone where that is not known."""
    return text if math.isnan(half) else f"{text} ± {number(half, 2)}"


def between(low: float, high: float, digits: int) -> str:
    """An interval. Its bounds have more digits where one would round to zero: on which side of it it lies counts."""
    return _interval(low, high, digits, number)


def signed_between(low: float, high: float, digits: int) -> str:
    """As `between`, with pluses too; a dash where there is no interval."""
    return _interval(low, high, digits, signed) if math.isfinite(low + high) else NOTHING


def _interval(low: float, high: float, digits: int, text: Callable[[float, int], str]) -> str:
    enough = (more for more in range(digits, digits + 3) if round(low, more) and round(high, more))
    more = next(enough, digits)
    return f"{text(low, more)} to {text(high, more)}"
