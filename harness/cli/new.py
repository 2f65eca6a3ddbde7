"""`harness new`: a starter project."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import say
from harness.spec import HarnessError


def new(
    folder: Annotated[Path, typer.Argument(help="where to write the project; must not exist, or be empty")],
) -> None:
    """Write a starter project: a study, a mask of your own, a place for data locations.

    Example: harness new my-ablation
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HarnessError(f"{folder} is there already and is not empty")
    starter = files("harness.cli") / "starter"
    for source, target in (
        ("harness.toml.txt", "harness.toml"),
        ("masks.py.txt", "masks.py"),
        ("first.py.txt", "studies/first.py"),
    ):
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((starter / source).read_text())
    say(f"wrote {folder}. Next: harness run {folder / 'studies/first.py'}")
