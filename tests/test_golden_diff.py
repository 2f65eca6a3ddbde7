"""tools/golden_diff.py says in words what changed in the golden files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from golden_files import Cell, Run

FILE = Path(__file__).resolve().parent.parent / "tools" / "golden_diff.py"
spec = importlib.util.spec_from_file_location("golden_diff", FILE)
assert spec is not None
assert spec.loader is not None
golden_diff = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden_diff)


def study(lr: str = "0.002", *, revision: int = 1, cells: int = 2) -> dict[str, Cell]:
    """Cells with a run each and a run that it starts from; a rate or a revision gives other keys."""
    return {
        f"head = {i}": Cell(
            None, {"top1": Run(f"f-{i}{lr}{revision}", f"p-{i}{lr}{revision}", {"recipe.lr": lr, "head": str(i)})}
        )
        for i in range(cells)
    }


def lines(old: dict[str, Cell], new: dict[str, Cell]) -> list[str]:
    return list(golden_diff.told({"simmim_head.small": old}, {"simmim_head.small": new}))


def test_cells_that_changed_alike_are_one_line() -> None:
    assert lines(study(), study()) == []
    assert lines(study(), study("0.001")) == [
        "simmim_head.small: 2 of 2 cells: recipe.lr 0.002 -> 0.001; 4 keys changed"
    ]


def test_a_change_of_some_cells_names_these_only() -> None:
    mixed = study() | {"head = 1": study("0.1")["head = 1"]}
    assert lines(study(), mixed) == ["simmim_head.small: 1 of 2 cells: recipe.lr 0.002 -> 0.1; 2 keys changed"]


def test_a_raised_revision_changes_keys_and_no_value() -> None:
    assert lines(study(), study(revision=2)) == ["simmim_head.small: 2 of 2 cells: no value; 4 keys changed"]


def test_fields_columns_cells_and_files_that_come_and_go() -> None:
    less, more = study(), study()
    more["head = 0"].runs["top1"].values["loss.beta"] = "None"
    assert lines(less, more) == ["simmim_head.small: 1 of 2 cells: loss.beta is new: None; no key changed"]
    assert lines(more, less) == ["simmim_head.small: 1 of 2 cells: loss.beta is gone (was None); no key changed"]
    assert lines(study(cells=1), study()) == ["simmim_head.small: 1 new cell: head = 1"]
    assert lines(study(), study(cells=1)) == ["simmim_head.small: 1 gone cell: head = 1"]
    excluded = study() | {"head = 1": Cell("too large")}
    assert lines(study(), excluded) == [
        "simmim_head.small: 1 of 2 cells: excluded: too large, gone column top1; no key changed"
    ]
    assert list(golden_diff.told({}, {"new.tiny": study()})) == ["new.tiny: new, 2 cells"]
