"""Paths and settings of this machine: project root, profiles, data sets, store, cache, HARNESS_* variables, packages.

A profile is a TOML file: harness.toml in the project root, and ~/.config/harness/site.toml for all projects of a user.
It may hold `store = "path"`, tables [data] and [weights] (name = "path") and a table [slurm] (read by
`harness.launch.site`).
None of them determines a run's numbers, so none is part of a spec.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

PROJECT_VARIABLE = "HARNESS_PROJECT"
"""Project root of worker processes and jobs, whose current folder may be another."""

SNAPSHOT_VARIABLE = "HARNESS_SNAPSHOT"
"""Folder of the code copy that a job runs."""

LIMIT_VARIABLE = "HARNESS_HEARTBEAT_LIMIT"

PROFILE_KEYS = ("store", "data", "weights", "slurm")


class HarnessError(Exception):
    """A mistake that the user can mend; its message is one line and names the valid choices."""


def project_root(start: Path) -> Path:
    """The nearest folder at or above `start` that holds harness.toml or pyproject.toml, else `start`."""
    for folder in (start, *start.parents):
        if (folder / "harness.toml").is_file() or (folder / "pyproject.toml").is_file():
            return folder
    return start


def current_project() -> Path:
    """The project root that HARNESS_PROJECT names, else that of the current folder."""
    return Path(os.environ.get(PROJECT_VARIABLE) or project_root(Path.cwd()))


def cache_folder() -> Path:
    """Folder for files that can be deleted at any time: digests, downloaded data sets."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness"


def kernel_cache() -> Path:
    """Folder of the kernels that torch.compile made, one for all runs: a cell finds those of the cells before it."""
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or cache_folder() / "kernels")


def profile_files(root: Path) -> list[Path]:
    """The two possible profiles of the project at `root`, the user's first: the project's overrides its values."""
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "harness" / "site.toml"
    return [user, root / "harness.toml"]


def read_profile(path: Path) -> dict[str, Any]:
    """The content of a profile; empty if the file does not exist.

    Raises:
        HarnessError: the file cannot be read or parsed, or has an unknown key.
    """
    try:
        found = tomllib.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HarnessError(f"{path}: {error}") from None
    check_keys(str(path), found, PROFILE_KEYS)
    return found


def check_keys(place: str, found: Iterable[str], valid: Sequence[str]) -> None:
    """Refuse a table that has an unknown key.

    Args:
        place: name of the table in the message.

    Raises:
        HarnessError: a key is not among the valid ones; the message names them and the closest.
    """
    for name in found:
        if name not in valid:
            close = difflib.get_close_matches(name, valid, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise HarnessError(f"{place} has a key {name!r:.80} that means nothing; valid: {', '.join(valid)}{hint}")


def store_folder(said: Path | str | None = None, root: Path | None = None) -> Path:
    """The folder of a project's store: `said`, else `store` of a profile, else runs/ in the project root.

    Args:
        said: folder named by the user. root: the project root; default the current project's.

    Raises:
        HarnessError: a profile cannot be read, or its `store` is no path.
    """
    if said is not None:
        return Path(said).expanduser().resolve()
    root = root or current_project()
    found = root / "runs"
    for path in profile_files(root):  # the project's profile comes last, so it wins
        if (place := read_profile(path).get("store")) is not None:
            if not isinstance(place, str):
                raise HarnessError(f'{path}: store should be a path, such as store = "/shared/me/runs"')
            found = _resolved(path, place)
    return found


def data_variable(name: str) -> str:
    """Name of the environment variable that holds the folder of a data set."""
    return "HARNESS_DATA_" + name.upper().replace("-", "_")


def data_location(name: str) -> Path | None:
    """Folder of a named data set on this machine, or None if it is not known.

    The first of: the variable HARNESS_DATA_<NAME>, [data] of the project's profile, [data] of the user's profile.

    Raises:
        HarnessError: a profile cannot be read, or its [data] is no table of paths.
    """
    if found := os.environ.get(data_variable(name)):
        return Path(found).expanduser()
    for profile in reversed(profile_files(current_project())):
        if place := _paths(profile, "data", IMAGENET).get(name):
            return _resolved(profile, place)
    return None


def data_names() -> set[str]:
    """Names of all data sets whose folder is known on this machine."""
    prefix = data_variable("")
    said = {name.removeprefix(prefix).lower().replace("_", "-") for name in os.environ if name.startswith(prefix)}
    return said.union(*(_paths(profile, "data", IMAGENET) for profile in profile_files(current_project())))


def weights_file(names: Sequence[str], file: str) -> Path:
    """Where the weights of a published model should lie on this machine; the file need not exist.

    The line of [weights] in the project's profile, then in the user's: a name = "file, or a folder that holds it", or
    `folder`, of all models. Else the folder weights/ in the project root.

    Args:
        names: of the model, all of them. file: name of the file within a folder.

    Raises:
        HarnessError: a profile cannot be read, or its [weights] is no table of paths.
    """
    root = current_project()
    for profile in reversed(profile_files(root)):
        table = _paths(profile, "weights", 'folder = "/data/weights"')
        for name in (*names, "folder"):
            if name in table:
                place = _resolved(profile, table[name])
                return place / file if name == "folder" or place.is_dir() else place
    return root / "weights" / file


def heartbeat_limit() -> float:
    """Seconds without a heartbeat after which an owner counts as dead (HARNESS_HEARTBEAT_LIMIT, default 120).

    Raises:
        HarnessError: the variable is no positive number.
    """
    text = os.environ.get(LIMIT_VARIABLE, "120")
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not limit > 0:  # also refuses nan
        raise HarnessError(f"{LIMIT_VARIABLE}={text} should be a positive number of seconds")
    return limit


IMAGENET = 'imagenet = "/data/imagenet"'


def _paths(profile: Path, name: str, example: str) -> dict[str, str]:
    """A table of paths in a profile."""
    table = read_profile(profile).get(name, {})
    if not isinstance(table, dict) or not all(isinstance(place, str) for place in table.values()):
        raise HarnessError(f"{profile}: [{name}] should hold lines like {example}")
    return table


def _resolved(profile: Path, place: str) -> Path:
    """A path written in a profile: relative to the profile's folder, `~` expanded."""
    return (profile.parent / Path(place).expanduser()).resolve()


def require_coco() -> None:
    """Refuse to go on without pycocotools.

    Raises:
        HarnessError: it is not installed.
    """
    if importlib.util.find_spec("pycocotools") is None:
        raise HarnessError("average precision needs pycocotools: pip install 'mim-harness[detection]'")
