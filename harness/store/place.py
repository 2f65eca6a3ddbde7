"""Where the store of a project lies: where it is said, or where a site profile says, or `runs/` in the project root."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.spec import HarnessError
from harness.spec.external_content import PROJECT_VARIABLE, project_root
from harness.store.store import Store

PROFILE = ("store", "data", "slurm")
"""What a profile may hold."""


def open_store(said: Path | str | None = None, root: Path | None = None) -> Store:
    """The store of a project: for commands, the Python API and jobs alike.

    Args:
        said: its folder, where somebody names it. root: the project root; that of the current folder by default.

    Raises:
        HarnessError: a profile does not read, or names no path.
    """
    if said is not None:
        return Store(Path(said).resolve())
    root = root or Path(os.environ.get(PROJECT_VARIABLE) or project_root(Path.cwd()))
    found = root / "runs"
    for path in profile_files(root):
        if (place := read_profile(path).get("store")) is not None:
            if not isinstance(place, str):
                raise HarnessError(f'{path}: store should be a path, such as store = "/shared/me/runs"')
            found = (path.parent / Path(place).expanduser()).resolve()
    return Store(found)


def profile_files(root: Path) -> list[Path]:
    """Where a profile may lie, the user's first; the project's overrides it value by value."""
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "harness" / "site.toml"
    return [user, root / "harness.toml"]


def read_profile(path: Path) -> dict[str, Any]:
    """The content of a profile; empty where there is none.

    Raises:
        HarnessError: the file does not read, or has a key that means nothing.
    """
    try:
        found = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HarnessError(f"{path}: {error}") from None
    check_keys(str(path), found, PROFILE)
    return found


def check_keys(place: str, found: Iterable[str], valid: Sequence[str]) -> None:
    """Whether all keys of a table are known.

    Raises:
        HarnessError: one is not.
    """
    for name in found:
        if name not in valid:
            close = difflib.get_close_matches(name, valid, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise HarnessError(f"{place} has a key {name!r:.80} that means nothing; valid: {', '.join(valid)}{hint}")
