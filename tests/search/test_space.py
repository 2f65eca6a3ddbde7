"""Spaces: what is known of them without computing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from toy import SCALE, cell, finish, space, toy

from harness.search.sampling import Proposals
from harness.search.session import open_search
from harness.search.space import Point, changes, explore
from harness.spec import HarnessError, Skip, key
from harness.store import Store


def conditional(trial: Any) -> dict[str, Any]:
    """2 x 3 + 1 x 3 x 2 cells, of which one is excluded."""
    found = {"mask": trial.suggest_categorical("mask", ("random", "board", "square")), "unit": 8}
    if found["mask"] == "board":
        found["block"] = trial.suggest_int("block", 2, 6, step=2)
        if found["block"] == 6:
            raise Skip("too large")
        return {**found, "filled": trial.suggest_categorical("filled", (True, False))}
    return {**found, "ratio": trial.suggest_float("ratio", 0.25, 0.75, step=0.25)}


def test_every_path_is_a_point() -> None:
    known = explore(conditional)
    assert known.points is not None
    cells = [point.cell for point in known.points if not point.excluded]
    expected = [
        {"mask": mask, "unit": 8, "ratio": ratio} for mask in ("random", "square") for ratio in (0.25, 0.5, 0.75)
    ]
    expected += [
        {"mask": "board", "unit": 8, "block": block, "filled": filled} for block in (2, 4) for filled in (True, False)
    ]
    assert len(cells) == len(expected) == 10
    assert all(cell in cells for cell in expected)
    assert [point for point in known.points if point.excluded] == [
        Point({"mask": "board", "block": 6}, {}, "too large")
    ]
    assert set(known.distributions) == {"mask", "block", "filled", "ratio"}
    assert known.conditional == {"block", "filled", "ratio"}
    assert set(known.axes) == {"mask", "unit", "block", "filled", "ratio"}


def test_cells_become_parameters_again() -> None:
    known = explore(conditional)
    for point in known.points or ():
        if not point.excluded:
            complete = dict.fromkeys(known.axes) | point.cell
            assert known.params_of(complete) == point.params
            assert known.cell_of(point.params) == point.cell
    assert known.params_of({"mask": "random", "unit": 8, "ratio": 0.3}) is None
    assert known.params_of({"mask": "random", "unit": 4, "ratio": 0.5}) is None
    assert known.cell_of({"mask": "board", "block": 3, "filled": True}) is None


def test_a_continuous_space_has_no_points_but_takes_cells() -> None:
    known = explore(lambda trial: {"ratio": trial.suggest_float("ratio", 0.1, 0.9)})
    assert known.points is None
    assert known.params_of({"ratio": 0.35}) == {"ratio": 0.35}
    assert known.params_of({"ratio": 0.95}) is None


def test_what_changed_is_said() -> None:
    old = explore(conditional).record()

    def wider(trial: Any) -> dict[str, Any]:
        found = {"mask": trial.suggest_categorical("mask", ("random", "board", "block")), "scope": 1}
        return {**found, "ratio": trial.suggest_float("ratio", 0.25, 1.0, step=0.25), "k": trial.suggest_int("k", 1, 9)}

    assert changes(old, old) == []
    assert changes(old, explore(wider).record()) == [
        "block is gone",
        "filled is gone",
        "k is new",
        "mask was one of random, board, square and is one of random, board, block",
        "ratio was 0.25 to 0.75 in steps of 0.25 under a condition and is 0.25 to 1.0 in steps of 0.25",
    ]
    assert len(explore(space).points or ()) == 36


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda trial: 3, "space: should return a cell"),
        (lambda trial: {"a": [trial.suggest_int("a", 0, 1)]}, "axis 'a' should hold a plain value"),
        (lambda trial: {"a": trial.suggest_uniform("a", 0, 1)}, "space: AttributeError"),
        (lambda trial: {"a": 1}, "asks for no parameter"),
        (
            lambda trial: {"a": trial.suggest_int("a", 0, 1), "b": trial.suggest_int("a", 0, 2)},
            "asks for a twice, with other choices",
        ),
        (
            lambda trial: (
                {"b": trial.suggest_int("b", 0, 1)}
                if trial.suggest_categorical("a", (True, False))
                else {"b": trial.suggest_int("b", 0, 2)}
            ),
            "asks for b with two sets of choices",
        ),
    ],
)
def test_spaces_that_are_refused(wrong: Any, says: str) -> None:
    with pytest.raises(HarnessError, match=says):
        explore(wrong)


def stepped(trial: Any) -> dict[str, Any]:
    return {"k": 4, "temperature": trial.suggest_float("temperature", 0.1, 0.9, step=0.1)}


TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def test_values_on_a_step_are_the_decimals_that_a_grid_has() -> None:
    points = explore(stepped).points or ()
    assert tuple(point.cell["temperature"] for point in points) == TENTHS
    fine = explore(lambda trial: {"rate": trial.suggest_float("rate", 0, 1e-4, step=1e-5)}).points or ()
    assert [point.cell["rate"] for point in fine] == [float(f"{n}e-5") for n in range(11)]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_proposal_on_a_step_finds_the_runs_of_the_grid(tmp_path: Path, sampler: str) -> None:
    store = Store(tmp_path / "runs")
    for value in TENTHS:
        finish(store, cell(SCALE, 4, value, 0)["validation"])
    study = optuna.create_study()
    opened = open_search(toy(space=stepped, reference={"k": 4, "temperature": 0.1}), store)
    for _ in range(30):
        proposed = Proposals(sampler, 0, opened.space).ask(study)
        candidate = opened.measure.candidate(proposed.cell, [0])
        assert all(store.result(key(run)) for run in opened.measure.wanted(candidate))
        study.tell(proposed.number, 0.0)


def test_a_space_whose_values_read_like_others_of_the_grid_is_refused(tmp_path: Path) -> None:
    def floats(trial: Any) -> dict[str, Any]:
        return {"k": trial.suggest_float("k", 1, 4, step=1), "temperature": 0.1}

    with pytest.raises(HarnessError, match=r"axis k has two values that read alike: 1 and 1\.0"):
        open_search(toy(space=floats), Store(tmp_path))
