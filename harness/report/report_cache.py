"""Cache of written reports: a report is written again only if one of its inputs changed."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.report import AUDIT, write
from harness.report.collect import Standings
from harness.spec import HarnessError, key
from harness.store import Store
from harness.store.files import read_json, write_atomically
from harness.store.records import read_record, sealed
from harness.study import Plan

STAMP = ".report.json"


@dataclass(frozen=True)
class Shown:
    """A report's table for a terminal. folder: holds the report. written: False if the saved report was used."""

    folder: Path
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    axes: int
    groups: tuple[int, ...]
    notes: tuple[str, ...]
    written: bool


def current(
    plan: Plan,
    store: Store,
    folder: Path,
    standings: Standings | None = None,
    *,
    always: bool = False,
    wide: bool = False,
) -> Shown:
    """Current report of a plan, taken from `folder` if no input has changed since it was written.

    An existing report of more seeds is kept, and the plan's report goes to a folder beside it.

    Raises:
        HarnessError: the disk refuses, or as `check_own`.
    """
    check_own(plan, folder)
    folder = _beside_a_fuller_one(plan, folder)
    digest = _inputs(plan, store, folder, standings) + " wide" * wide
    saved = read_record(folder / STAMP) or {}
    if not always and saved.get("inputs") == digest and _whole(folder, saved["files"]):
        rows = tuple(tuple(row) for row in saved["rows"])
        return Shown(
            folder, saved["caption"], tuple(saved["header"]), rows, saved["axes"], tuple(saved["groups"]),
            tuple(saved["notes"]), written=False,
        )  # fmt: skip
    report = write(plan, store, folder, standings, saved.get("judged", ()), wide=wide)
    stamp = {
        "study": plan.study.file,
        "inputs": digest,
        "files": report.files,
        "caption": report.caption,
        "header": report.header,
        "rows": report.rows,
        "axes": report.axes,
        "groups": report.groups,
        "notes": report.notes,
        "judged": report.judged,
    }
    write_atomically(folder / STAMP, sealed(stamp))
    return Shown(
        folder, report.caption, report.header, report.rows, report.axes, report.groups, report.notes, written=True
    )


def _beside_a_fuller_one(plan: Plan, folder: Path) -> Path:
    """The folder, or a sibling if the folder holds values of seeds that the plan lacks."""
    seeds = {row.seed for row in plan.rows}
    try:
        with (folder / "runs.csv").open(encoding="utf-8", newline="") as file:
            there = {int(row["seed"]) for row in csv.DictReader(file) if row["value"]}
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return folder  # there is no report, or none that could be read back
    return folder.with_name(f"{folder.name}-{len(seeds)}-seeds") if there - seeds else folder


def check_own(plan: Plan, folder: Path) -> None:
    """Refuse a folder that holds the report of another existing study file.

    Raises:
        HarnessError: two study files have the same study name, or were given the same folder.
    """
    saved, study = read_json(folder / STAMP), plan.study
    other = saved.get("study") if isinstance(saved, dict) else None
    if study.file and isinstance(other, str) and other not in ("", study.file) and (study.root / other).is_file():
        own = folder == study.root / "results" / study.name / plan.scale.name
        remedy = "give one of the two another Study(name=...)" if own else "name another folder with --out"
        raise HarnessError(f"{folder} holds the results of {other}; {remedy}")


def _version() -> str:
    """Version of the installed package; empty where a checkout is on the import path and nothing is installed."""
    try:
        return version("mim-harness")
    except PackageNotFoundError:
        return ""


def _inputs(plan: Plan, store: Store, folder: Path, standings: Standings | None) -> str:
    """SHA-256 of all inputs of a report."""
    states = store.states(plan.runs())
    facts = {
        "version": _version(),
        "kept": [field.name for field in fields(Shown)],  # an earlier version kept less
        "audit": read_json(folder / AUDIT),
        "study": [
            plan.study.name,
            plan.scale.digest,
            str(plan.study.reference),
            str(plan.study.paper),
            str((plan.study.claims, plan.study.margin_share, plan.study.looks, plan.study.labels)),
        ],
        "rows": [
            [
                list(row.axes.items()),
                row.seed,
                row.excluded,
                {name: key(run) for name, run in row.evaluations.items()},
            ]
            for row in plan.rows
        ],
        "states": {name: [state.word, state.attempt, state.error, str(state.result)] for name, state in states.items()},
        "standings": standings,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _whole(folder: Path, files: list[str]) -> bool:
    return all((folder / name).is_file() for name in files)
