"""Tables and prose on a terminal: no line is wider than it, no word or number is broken, no column is lost."""

from __future__ import annotations

import pytest
from rich.console import Console

from harness.cli import common


def printed(
    monkeypatch: pytest.MonkeyPatch, header: list[str], rows: list[list[str]], axes: int, groups: tuple[int, ...] = ()
) -> list[str]:
    console = Console(width=80, highlight=False, soft_wrap=True, record=True)
    monkeypatch.setattr(common, "console", console)
    common.show_table(header, rows, axes=axes, groups=groups)
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


def test_a_published_value_stands_beside_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    header = ["method", *(text for name in "abc" for text in (f"{name} {'x' * 16}", "paper"))]
    row = ["SimMIM", *(f"{place:02}.15 ± 0.41 (4/5) •*" if place % 2 else f"{place}9.4" for place in range(1, 7))]
    lines = printed(monkeypatch, header, [row], 1, (2, 2, 2))
    assert max(map(len, lines)) <= 80
    assert [line.split()[-1] for line in lines if "±" in line] == ["49.4", "69.4"]
    wide = printed(monkeypatch, header, [row], 1, (6,))  # no room for all of them: as many as fit
    assert max(map(len, wide)) <= 80
    assert sum(line.count("±") for line in wide) == 3


def said(monkeypatch: pytest.MonkeyPatch, text: str, *, terminal: bool, whole: bool = False) -> list[str]:
    console = Console(width=40, highlight=False, soft_wrap=True, record=True, force_terminal=terminal)
    monkeypatch.setattr(common, "console", console)
    common.say(text, whole=whole)
    return console.export_text().splitlines()


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("so short", ["so short"]),
        (
            "inconclusive: two seeds decide nothing, [and] nine or more would",
            ["inconclusive: two seeds decide nothing,", "[and] nine or more would"],
        ),
        (
            "• not distinguishable from the reference at this many seeds",
            ["• not distinguishable from the reference", "  at this many seeds"],
        ),
        (
            "  models     ViT-B at 224 px, pretrain: 86.57 M parameters",
            ["  models     ViT-B at 224 px, pretrain:", "             86.57 M parameters"],
        ),
        (
            "wrote /a/folder-of-a-long-name/below-another/results/study to it",
            ["wrote", "/a/folder-of-a-long-name/below-another/results/study", "to it"],
        ),
        ("", [""]),
    ],
)
def test_prose_is_broken_at_spaces_in_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, text: str, broken: list[str]
) -> None:
    assert said(monkeypatch, text, terminal=True) == broken
    assert said(monkeypatch, text, terminal=False) == [text]
    assert said(monkeypatch, text, terminal=True, whole=True) == [text]
