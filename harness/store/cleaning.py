"""What of a study's runs can be deleted without losing a result."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.spec import Run, key, upstream
from harness.store.layout import RunFolder
from harness.store.store import Store


@dataclass(frozen=True)
class Removable:
    """A file or folder that can go. size: in bytes."""

    what: str
    path: Path
    size: int


def removable(
    store: Store, runs: Mapping[str, Run], *, weights: bool = False, unfinished: bool = False
) -> list[Removable]:
    """Superseded attempts of done runs, and what else is asked for.

    Args:
        weights: also the weights of done runs, but for those that an evaluation that is not done starts from.
        unfinished: also whole folders of failed and lost runs. Running ones are left alone.
    """
    states = store.states(runs)
    needed = {
        key(first) for name, run in runs.items() if states[name].word != "done" and (first := upstream(run)) is not None
    }
    found: list[Removable] = []
    for name, state in states.items():
        folder = store.folder(name)
        if state.word == "done":
            found += _superseded(folder, state.attempt)
            file = folder.attempt(state.attempt).weights
            if weights and name not in needed and file.is_file():
                found.append(Removable("weights", file, size(file)))
        elif unfinished and state.word in ("failed", "lost"):
            found.append(Removable(f"{state.word} runs", folder.path, size(folder.path)))
    return found


def remove(found: list[Removable]) -> None:
    """Delete them."""
    for item in found:
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink(missing_ok=True)


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _superseded(folder: RunFolder, final: int) -> list[Removable]:
    attempts = [attempt for attempt in folder.attempts() if attempt.number != final]
    old = [Removable("superseded attempts", attempt.path, size(attempt.path)) for attempt in attempts]
    aside = [Removable("results put aside", path, size(path)) for path in folder.path.glob("result-put-aside-*.json")]
    return old + aside
