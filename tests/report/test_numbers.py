"""Numbers as text."""

from __future__ import annotations

import math

from harness.report.numbers import between, number, published, signed, signed_between


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert [signed(value, 1) for value in (0.26, 0.04, 0.0, -0.04, -0.26)] == ["+0.3", "0.0", "0.0", "0.0", "−0.3"]
    assert [number(value, 2) for value in (-0.001, -1.5, 75)] == ["0.00", "−1.50", "75.00"]
    assert signed(math.nan, 1) == number(math.nan, 1) == "–"


def test_a_bound_near_zero_says_on_which_side_it_is() -> None:
    assert between(-1.33, -0.03, 1) == "−1.33 to −0.03"
    assert between(-0.004, 1.2, 1) == "−0.004 to 1.200"
    assert between(0.0, 1.23, 1) == "0.0 to 1.2"
    assert between(1.0, 2.0, 1) == "1.0 to 2.0"
    assert signed_between(-0.0044, 4.3, 2) == "−0.004 to +4.300"
    assert signed_between(0.0044, 4.3, 2) == "+0.004 to +4.300"
    assert signed_between(-math.inf, 4.3, 2) == signed_between(math.nan, math.nan, 2) == "–"


def test_a_published_value_has_the_digits_it_was_printed_with() -> None:
    assert [published(value) for value in (82, 82.8, 81.75)] == ["82.0", "82.8", "81.75"]
