"""Tables on a terminal: no line is wider than it, no number is broken, no column is lost."""

from __future__ import annotations

import pytest
from rich.console import Console

from harness.cli import common


def printed(monkeypatch: pytest.MonkeyPatch, header: list[str], rows: list[list[str]], axes: int) -> list[str]:
    console = Console(width=80, highlight=False, soft_wrap=True, record=True)
    monkeypatch.setattr(common, "console", console)
    common.show_table(header, rows, axes=axes)
    return console.export_text().splitlines()


def test_three_evaluations_fit_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    row = ["masked area", "0.6", "85.15 ± 0.41 •*", "81.75?", "85.15 ± 0.41 ↓", "85.15 ± 0.41 ↓"]
    lines = printed(monkeypatch, ["scope", "mask ratio", "top-1 (%)", "paper", "probe (%)", "k-NN (%)"], [row], 2)
    assert [line.rstrip() for line in lines][-1] == "  ".join([*row[:1], "0.6  ", *row[2:]])
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("number", [5, 12, 40])
def test_what_does_not_fit_follows_below_with_the_axes(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    header = ["scope", *(f"evaluation {place} (%)" for place in range(number))]
    rows = [["masked", *(f"{place:02}.15 ± 0.41 ↓" for place in range(number))]]
    lines = printed(monkeypatch, header, rows, 1)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert all(f"{place:02}.15 ± 0.41 ↓" in text for place in range(number))
    assert text.count("masked") == text.count("scope") > 1


def test_a_long_axis_is_broken_and_its_numbers_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, ["mask", "top-1 (%)"], [["x" * 200, "85.15 ± 0.41 •* (1 of 2 failed) [a]"]], 1)
    assert max(map(len, lines)) <= 80
    assert any("85.15 ± 0.41 •* (1 of 2 failed) [a]" in line for line in lines)
    assert sum(line.count("x") for line in lines) == 200
