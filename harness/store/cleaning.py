"""What of a study's runs can be deleted without losing a result."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.spec import Run, key, upstreams
from harness.store.files import size_below
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
    """Superseded attempts and checkpoints of done runs, and what else is asked for.

    Args:
        weights: also the weights of done runs, but for those that an evaluation that is not done starts from.
        unfinished: also whole folders of failed and lost runs. Running ones are left alone.
    """
    states = store.states(runs)
    needed = {key(first) for name, run in runs.items() if states[name].word != "done" for first in upstreams(run)}
    found: list[Removable] = []
    for name, state in states.items():
        folder = store.folder(name)
        if state.word == "done":
            found += _leftovers(folder, state.attempt)
            file = folder.attempt(state.attempt).weights
            if weights and name not in needed:
                kept = [file] if file.is_file() else []
                found += [Removable("weights", path, size_below(path)) for path in (*kept, *folder.all_snapshots())]
        elif unfinished and state.word in ("failed", "lost"):
            found.append(Removable(f"{state.word} runs", folder.path, size_below(folder.path)))
    return found


def remove(found: list[Removable]) -> None:
    """Delete them."""
    for item in found:
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink(missing_ok=True)


def _leftovers(folder: RunFolder, final: int) -> list[Removable]:
    old = [attempt.path for attempt in folder.attempts() if attempt.number != final]
    states = [file.path for file in folder.attempt(final).checkpoints()]  # killed between the result and the clean-up
    aside = folder.path.glob("result-put-aside-*.json")
    return [
        Removable(what, path, size_below(path))
        for what, paths in (
            ("superseded attempts", old),
            ("checkpoints of done runs", states),
            ("results put aside", aside),
        )
        for path in paths
    ]
