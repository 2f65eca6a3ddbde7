"""The resolved values of every shipped study, as text files: a change of any of them is seen in review.

Update  python tests/test_golden.py --update
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.spec import key, upstream
from harness.study import expand, load

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "golden"
UPDATE = "python tests/test_golden.py --update"


def golden() -> dict[str, str]:
    """File name -> text, for every study and scale."""
    path, project = list(sys.path), os.environ.get("HARNESS_PROJECT")
    found = {}
    try:
        for file in sorted((HERE.parent / "studies").glob("*.py")):
            if "\nSTUDY" in file.read_text(encoding="utf-8"):
                study = load(file)
                for scale in study.scales:
                    found[f"{study.name}.{scale.name}.txt"] = "\n".join(_lines(file, scale.name)) + "\n"
    finally:  # loading a study changes both
        sys.path[:] = path
        os.environ.pop("HARNESS_PROJECT", None)
        if project is not None:
            os.environ["HARNESS_PROJECT"] = project
    return found


def _lines(file: Path, scale: str) -> Iterator[str]:
    plan = expand(load(file), scale=scale, seeds=1)
    yield f"{plan.study.name} at scale {scale}: {len(plan.rows)} cells, {plan.study.seeds} seeds; seed 0 in full"
    for row in plan.rows:
        yield ""
        yield "== " + ", ".join(f"{axis} = {value!r}" for axis, value in row.axes.items())
        if row.excluded:
            yield f"excluded: {row.excluded}"
        for column, evaluation in row.evaluations.items():
            first = upstream(evaluation)
            yield f"{column}: {key(evaluation)}" + (f" from {key(first)}" if first is not None else "")
            yield from (f"  {path} = {value!r}" for path, value in _flat(evaluation.to_plain()))


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
