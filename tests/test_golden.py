"""The resolved values of every shipped study, as text files: a change of any of them is seen in review.

Update      python tests/test_golden.py --update
In words    python tools/golden_diff.py
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from golden_files import Cell, Run, read, written

from harness.spec import key, upstream
from harness.study import expand, load

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "golden"
UPDATE = "python tests/test_golden.py --update"


@contextmanager
def surroundings_kept() -> Iterator[None]:
    """Undo what loading a study changes: where modules are looked for, and the project."""
    path, project = list(sys.path), os.environ.get("HARNESS_PROJECT")
    try:
        yield
    finally:
        sys.path[:] = path
        os.environ.pop("HARNESS_PROJECT", None)
        if project is not None:
            os.environ["HARNESS_PROJECT"] = project


def golden() -> dict[str, str]:
    """File name -> text, for every study and scale."""
    found = {}
    for file in sorted((HERE.parent / "studies").glob("*.py")):
        if "\nSTUDY" in file.read_text(encoding="utf-8"):
            with surroundings_kept():
                study = load(file)
                for scale in study.scales:
                    found[f"{study.name}.{scale.name}.txt"] = written(*resolved(file, scale.name))
    return found


def resolved(file: Path, scale: str) -> tuple[str, dict[str, Cell]]:
    """Title of a golden file, and the cells of a study at a scale with every value of their runs."""
    plan = expand(load(file), scale=scale, seeds=1)
    cells = {}
    for row in plan.rows:
        axes = ", ".join(f"{axis} = {value!r}" for axis, value in row.axes.items())
        cells[axes] = cell = Cell(row.excluded or None)
        for column, evaluation in row.evaluations.items():
            first = upstream(evaluation)
            values = {path: repr(value) for path, value in _flat(evaluation.to_plain())}
            cell.runs[column] = Run(key(evaluation), None if first is None else key(first), values)
    assert len(cells) == len(plan.rows), f"two cells of {file.name} have the same axes"
    seeds = f"{len(plan.rows)} cells, {plan.study.seeds} seeds; seed {plan.rows[0].seed}"
    return f"{plan.study.name} at scale {scale}: {seeds}; of each column the first run in full", cells


def _flat(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    match value:
        case dict():
            for name, inner in value.items():
                yield from _flat(inner, f"{path}.{name}" if path else name)
        case _:
            yield path, value


def test_every_shipped_study_resolves_as_recorded() -> None:
    found = golden()
    assert found, "there is no study to compare"
    kept = {file.name: file.read_text(encoding="utf-8") for file in GOLDEN.glob("*.txt")}
    for name in sorted({*found, *kept}):
        left, right = kept.get(name, "").splitlines(), found.get(name, "").splitlines()
        changed = list(difflib.unified_diff(left, right, f"golden/{name}", "resolved now", n=0, lineterm=""))
        if changed:
            shown = "\n".join(changed[:60])
            pytest.fail(f"{shown}\n\nIf these changes are meant: {UPDATE}", pytrace=False)


def test_the_record_holds_every_value_of_a_run() -> None:
    text = (GOLDEN / "quickstart.mini.txt").read_text(encoding="utf-8")
    for line in ("start.mask.ratio = ", "start.loss.scope = 'full'", "recipe.betas = [0.9, 0.999]", "start.seed = 0"):
        assert f"  {line}" in text
    assert text.count("\n== ") == 5


@pytest.mark.parametrize("study", ["quickstart", "simmim_masking", "a2mim_occlusion"])
def test_every_value_and_key_can_be_read_back_from_what_differs(study: str) -> None:
    with surroundings_kept():
        title, cells = resolved(HERE.parent / "studies" / f"{study}.py", "mini" if study == "quickstart" else "tiny")
    assert sum(len(cell.runs) for cell in cells.values()) > 4
    assert read(written(title, cells)) == cells


def test_a_later_run_is_written_as_what_differs_from_the_first_of_its_column() -> None:
    cells = {
        "a = 1": Cell("too large"),
        "a = 2": Cell(None, {"top1": Run("x-1", "p-1", {"lr": "1", "mask.size": "'= 4'", "seed": "0"})}),
        "a = 3": Cell(None, {"top1": Run("x-2", None, {"lr": "2", "seed": "0", "pool": "'mean'"})}),
        "a = 4": Cell(None, {"top1": Run("x-3", "p-1", {"lr": "1", "mask.size": "'= 4'", "seed": "0"})}),
    }
    text = written("title", cells)
    assert read(text) == cells
    third = "\n== a = 3\ntop1: x-2, as the first except\n  lr = 2\n  pool = 'mean'\n  without mask.size\n\n"
    assert third in text
    assert text.endswith("\n== a = 4\ntop1: x-3 from p-1, as the first except\n")


def update() -> None:
    """Write all files anew."""
    GOLDEN.mkdir(exist_ok=True)
    found = golden()
    for file in GOLDEN.glob("*.txt"):
        if file.name not in found:
            file.unlink()
    for name, text in found.items():
        (GOLDEN / name).write_text(text, encoding="utf-8")
        print(f"wrote tests/golden/{name}")


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit(f"usage: {UPDATE}")
    update()
