"""Numbers as text: a minus as wide as a plus, and no sign on what rounds to zero."""

from __future__ import annotations

import math

from harness.report.escape import NOTHING


def number(value: float, digits: int) -> str:
    """The value with so many digits after the point."""
    if math.isnan(value):
        return NOTHING
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int) -> str:
    """As `number`, with a plus too."""
    return ("+" if round(value, digits) > 0 else "") + number(value, digits)


def with_half(text: str, half: float) -> str:
    """A number with half the width of its interval, or with its spread; alone where that is not known."""
    return text if math.isnan(half) else f"{text} ± {number(half, 2)}"


def between(low: float, high: float, digits: int) -> str:
    """An interval. A bound has more digits where it would round to zero: which side of it it lies on is what counts."""
    enough = (more for more in range(digits, digits + 3) if round(low, more) and round(high, more))
    more = next(enough, digits)
    return f"{number(low, more)} to {number(high, more)}"
