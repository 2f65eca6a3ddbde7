"""`harness records`: results without weights in one file, for version control and for merging stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import ScaleName, Seeds, StorePath, StudyFile, Where, planned, say

records = typer.Typer(
    help="Export results of a study without weights to one text file, and import such files into a store.",
    no_args_is_help=True,
)


@records.command("export")
def export(
    study: StudyFile,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="written anew, in one step")],
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
) -> None:
    """Write specs, results and provenance of a study's finished runs to a file.

    Example: harness records export studies/quickstart.py results/quickstart.records
    """
    from harness.store.exchange import export_records

    found = planned(study, scale, where, seeds, store)
    # As in a report: with looks, claims that were open have further seeds, which belong to the whole study's results.
    names = (found if where or seeds else found.looked()).plan.runs()
    count = export_records(found.store, names, file)
    left = ": the others are not finished" if count < len(names) else ""
    say(f"wrote {count} of {len(names)} runs to {file}{left}")


@records.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="files of harness records export")],
    store: StorePath = None,
) -> None:
    """Merge files into a store: all are checked before anything is written, and nothing that is there changes.

    Example: harness records import from-cluster-a.records from-cluster-b.records
    """
    from harness.store import open_store
    from harness.store.exchange import import_records

    runs = open_store(store)
    merged = import_records(runs, files)
    say(f"{len(merged.new)} runs are new in {runs.root}, {len(merged.present)} were there already")
