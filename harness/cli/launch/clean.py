"""`harness clean`: free disk space."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.common import ScaleName, Seeds, StorePath, StudyFile, Where, planned, say
from harness.store import Store
from harness.store.cleaning import Removable, kept_features, left_by_kills, old_records, removable, remove
from harness.store.cleaning import seal as rewrite


def clean(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="also weights of done runs that nothing waits for")
    ] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="also failed and interrupted runs, with checkpoints")
    ] = False,
    seal: Annotated[
        bool,
        typer.Option("--seal", help="instead: give the old records of the whole store digests"),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="delete without asking")] = False,
) -> None:
    """Free disk space: old attempts, what kills left, kept features; on request weights, unfinished runs. Results stay.

    Example: harness clean studies/quickstart.py --weights
    """
    chosen = planned(study, scale, where, seeds, store)
    plan, runs = chosen.plan, chosen.store
    if seal:
        _seal(runs, yes=yes)
        return
    found: list[Removable] = removable(runs, plan.runs(), weights=weights, unfinished=unfinished)
    # What lies within a folder that goes anyway would be counted twice.
    found += kept_features(runs)
    found += [item for item in left_by_kills(runs) if not any(kept.path in item.path.parents for kept in found)]
    if unfinished:  # a job that waits in the queue goes on from what an earlier one left
        seen = chosen.overview()
        waiting = {name for name, place in seen.places.items() if place.job or place.word == "queued"}
        found = [item for item in found if item.path.name not in waiting]
    if not found:
        say("nothing to clean")
        return
    for what, items in _by_kind(found).items():
        say(f"  {what:<22} {len(items):>5}   {sum(item.size for item in items) / 1e6:,.1f} MB")
    if not yes and not typer.confirm("delete these?"):
        raise typer.Exit(1)
    remove(found)


def _seal(store: Store, *, yes: bool) -> None:
    """Rewrite records without a digest, once the user has agreed."""
    old = list(old_records(store))
    say(f"{len(old)} records of {store.root} have no digest yet")
    if not old:
        return
    if not yes and not typer.confirm("rewrite them? versions of harness before 0.2 then take them for damaged"):
        raise typer.Exit(1)
    for path in old:
        rewrite(path)


def _by_kind(found: list[Removable]) -> dict[str, list[Removable]]:
    groups: dict[str, list[Removable]] = {}
    for item in found:
        groups.setdefault(item.what, []).append(item)
    return groups
