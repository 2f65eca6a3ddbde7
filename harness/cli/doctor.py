"""`harness doctor`: check the site profile, the cluster and the store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import StorePath, say
from harness.store import open_store


def doctor(
    folder: Annotated[Path, typer.Argument(help="a folder of the project")] = Path(),
    store: StorePath = None,
    probe: Annotated[bool, typer.Option("--probe", help="also run a small job of a minute on a node")] = False,
) -> None:
    """Check harness.toml and site.toml, the cluster and the store before anything is queued.

    Example: harness doctor
    """
    from harness.launch.doctor import probe_node, problems
    from harness.launch.site import read_site
    from harness.machine import project_root

    root = project_root(folder.resolve())
    site = read_site(root)
    place = open_store(store, root).root
    found = problems(place, site)
    # A job would only fail of what is known already.
    if probe and not any(problem.stops for problem in found):
        found += probe_node(place, site["evaluation"])
    for problem in found:
        say(f"{'problem' if problem.stops else 'note':<8} {problem.text}")
    if any(problem.stops for problem in found):
        raise typer.Exit(2)
    say("nothing stands in the way of a submission")
