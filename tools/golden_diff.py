"""What changed in the resolved values of the shipped studies, in words.

    python tools/golden_diff.py              # the working tree against the last commit
    python tools/golden_diff.py main         # the working tree against another version
    python tools/golden_diff.py v0.1 v0.2    # two versions

A line a file and a set of changes: "simmim_head.small: 4 of 4 cells: recipe.lr 0.002 -> 0.001; 8 keys changed".
"""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from golden_files import Cell, Run, read  # noqa: E402

FOLDER = "tests/golden"
Study = dict[str, Cell]


def committed(revision: str) -> dict[str, Study]:
    """Name of a golden file -> its cells, in a commit."""
    names = _git("ls-tree", "--name-only", revision, f"{FOLDER}/").split()
    return {Path(name).stem: read(_git("show", f"{revision}:{name}")) for name in names}


def present() -> dict[str, Study]:
    """Name of a golden file -> its cells, in the working tree."""
    return {file.stem: read(file.read_text(encoding="utf-8")) for file in sorted((ROOT / FOLDER).glob("*.txt"))}


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], check=True, capture_output=True, text=True).stdout


def told(old: dict[str, Study], new: dict[str, Study]) -> Iterator[str]:
    """Lines that say what changed between two versions of the golden files."""
    for name in sorted({*old, *new}):
        if name not in new or name not in old:
            cells = old.get(name, new.get(name, {}))
            yield f"{name}: {'new' if name in new else 'gone'}, {_count(len(cells), 'cell')}"
        else:
            yield from (f"{name}: {line}" for line in of_study(old[name], new[name]))


def of_study(old: Study, new: Study) -> Iterator[str]:
    """Lines that say what changed in one study at one scale: cells that changed alike in one line."""
    for word, some, others in (("new", new, old), ("gone", old, new)):
        if only := [axes for axes in some if axes not in others]:
            yield f"{_count(len(only), f'{word} cell')}: {' | '.join(only)}"
    alike: dict[tuple[str, ...], set[tuple[str | None, str | None]]] = defaultdict(set)
    cells: dict[tuple[str, ...], int] = defaultdict(int)
    for axes, cell in new.items():
        if axes in old and old[axes] != cell:
            changes = tuple(of_cell(old[axes], cell))
            alike[changes] |= _keys(old[axes], cell)
            cells[changes] += 1
    for changes, keys in alike.items():
        what = ", ".join(changes) or "no value"
        keys_changed = _count(len(keys), "key") if keys else "no key"
        yield f"{cells[changes]} of {_count(len(new), 'cell')}: {what}; {keys_changed} changed"


def of_cell(old: Cell, new: Cell) -> list[str]:
    """What changed in a cell, the same change in several columns once."""
    found = []
    if old.excluded != new.excluded:
        found.append(f"excluded: {new.excluded}" if new.excluded is not None else "no longer excluded")
    for column in sorted({*old.runs, *new.runs}):
        if column not in old.runs or column not in new.runs:
            found.append(f"{'new' if column in new.runs else 'gone'} column {column}")
        else:
            found += of_run(old.runs[column], new.runs[column])
    return list(dict.fromkeys(found))


def of_run(old: Run, new: Run) -> Iterator[str]:
    """The values of a run that changed."""
    for path in dict.fromkeys((*old.values, *new.values)):
        before, after = old.values.get(path), new.values.get(path)
        if before is None:
            yield f"{path} is new: {after}"
        elif after is None:
            yield f"{path} is gone (was {before})"
        elif before != after:
            yield f"{path} {before} -> {after}"


def _keys(old: Cell, new: Cell) -> set[tuple[str | None, str | None]]:
    pairs = {
        pair
        for column in old.runs.keys() & new.runs.keys()
        for pair in (
            (old.runs[column].key, new.runs[column].key),
            (old.runs[column].upstream, new.runs[column].upstream),
        )
    }
    return {(before, after) for before, after in pairs if before != after}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def main(versions: list[str]) -> int:
    """Print the changes; a line also if there is none."""
    if len(versions) > 2 or any(version.startswith("-") for version in versions):
        print(__doc__)
        return 2
    old = committed(versions[0] if versions else "HEAD")
    new = committed(versions[1]) if len(versions) == 2 else present()
    print("\n".join(told(old, new)) or "nothing changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
