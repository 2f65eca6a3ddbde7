"""Finished runs in one text file without their weights: to keep results under version control, and to merge stores.

The file is a sequence of records (`harness.store.records`), each with a digest of its own: a header that says how many
runs follow, then one record a run, sorted by key: its spec, its result, and the files that a finished attempt keeps.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.spec import HarnessError, Run, key, run_from_json
from harness.store.files import create_exclusively, digests, disk_errors, publish_folder, read_bytes, write_atomically
from harness.store.layout import AttemptFolder
from harness.store.records import record_in, sealed
from harness.store.store import Store

# A closing brace alone on a line, unindented, ends a record: JSON within a record is indented.
_RECORD_END = re.compile(rb"(?<=\n\}\n)")
_KEPT = re.compile(r"env\.json|dirty\.patch|metrics\.jsonl|artefacts(/[\w.-]+)+")
"""Files of a finished attempt that travel, by path relative to it."""


@dataclass(frozen=True)
class Merged:
    """Keys of the runs of a file after its import: those that were new to the store, and those that it had already."""

    new: tuple[str, ...]
    present: tuple[str, ...]


@dataclass(frozen=True)
class _Exported:
    """A finished run as read from a file: its spec, the fields of its result, and its files by relative path."""

    name: str
    run: Run
    result: Mapping[str, Any]
    files: Mapping[str, bytes]


def export_records(store: Store, names: Iterable[str], file: Path) -> int:
    """Write the finished ones of these runs to a file, which is replaced in one step; returns their number.

    The same runs give the same bytes, in whatever order they are named.

    Raises:
        HarnessError: a file of a finished run is damaged, or the disk refuses.
    """
    done = [name for name in sorted(set(names)) if store.result(name) is not None]
    records = [sealed({"kind": "records", "runs": len(done)}), *(_exported(store, name) for name in done)]
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, b"".join(records))
    return len(done)


def import_records(store: Store, files: Iterable[Path]) -> Merged:
    """Merge the runs of files into a store; the whole of all files is checked before anything is written.

    A run that the store holds finished as well stays as it is. A run that is unfinished in the store becomes done: its
    attempts stay, and a process that computes it finds out that it was overtaken.

    Raises:
        HarnessError: a file is damaged, of a later schema, or not of this kind; a spec does not belong to its key; two
            results of one run differ; or the disk refuses.
    """
    found: dict[str, _Exported] = {}
    for file in files:
        for item in _read(file):
            other = found.setdefault(item.name, item)
            _require_same(item, other.result["metrics"], file)
    present = {name: result for name in found if (result := store.result(name)) is not None}
    for name, result in present.items():
        _require_same(found[name], result.metrics, store.root)
    new = [name for name in found if name not in present]
    for number, name in enumerate(new):
        _add(store, found[name], before=number)
    return Merged(tuple(new), tuple(present))


def _exported(store: Store, name: str) -> bytes:
    """Record of a finished run. Results of schema 1, which had no digests of files, get them here."""
    result = store.result(name)
    assert result is not None  # asked for finished runs only
    attempt = store.folder(name).attempt(result.attempt)
    paths = {path.relative_to(attempt.path).as_posix(): path for path in attempt.kept()}
    if lost := sorted(set(result.files) - set(paths)):
        raise HarnessError(f"{attempt.path / lost[0]} is gone: the run wrote it; import or compute the run again")
    contents = {place: store.checked(name, result, path).read_bytes() for place, path in paths.items()}
    kept = {"metrics": result.metrics, "seconds": result.seconds, "weights": result.weights}
    kept |= {} if result.cpu_seconds is None else {"cpu_seconds": result.cpu_seconds}
    files = {place: _as_text(data) for place, data in contents.items()}
    return sealed({"key": name, "run": store.spec(name).to_plain(), "result": kept, "files": files})


def _as_text(data: bytes) -> dict[str, str]:
    """Content of a file in JSON: as text where it is text, so that version control shows what changed."""
    try:
        return {"text": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def _as_bytes(content: Mapping[str, str]) -> bytes:
    return content["text"].encode() if "text" in content else base64.b64decode(content["base64"], validate=True)


def _read(file: Path) -> list[_Exported]:
    """All runs of a file.

    Raises:
        HarnessError: see `import_records`.
    """
    data = read_bytes(file)
    if data is None:
        raise HarnessError(f"there is no file {file}")
    records = [record_in(part, str(file)) for part in _RECORD_END.split(data) if part]
    header = records[0] if records else None
    if header is None or header.get("kind") != "records":
        raise HarnessError(f"{file} is damaged, or `harness records export` did not write it")
    if None in records or header["runs"] != len(records) - 1:
        whole = sum(record is not None for record in records[1:])
        raise HarnessError(
            f"{file} is damaged: {whole} of its {header['runs']} runs are whole; take it from its source"
        )
    return [_checked(record, file) for record in records[1:] if record is not None]


def _checked(record: Mapping[str, Any], file: Path) -> _Exported:
    """Run of a record, if its spec has the record's key in this version of harness, and its files are a run's."""
    name = record["key"]
    try:
        run = run_from_json(json.dumps(record["run"]))
    except HarnessError as error:
        raise HarnessError(f"{file}: the spec of {name} does not read: {error}") from None
    if key(run) != name:
        told = "a version of harness in which it means something else wrote it (see the changelog)"
        raise HarnessError(f"{file}: the spec of {name} has the key {key(run)} here: {told}")
    if strange := [place for place in record["files"] if not _KEPT.fullmatch(place) or ".." in place]:
        raise HarnessError(f"{file}: {name} has a file {strange[0]!r}, which no finished run keeps")
    files = {place: _as_bytes(content) for place, content in record["files"].items()}
    return _Exported(name, run, record["result"], files)


def _require_same(item: _Exported, other: Mapping[str, float], where: Path, before: int = 0) -> None:
    """Refuse a run of which `where` has other metrics; before: number of runs that were imported already.

    Time and weights may differ, as where another machine computed the same numbers again.
    """
    done = f"only {before} runs before it were imported" if before else "nothing was imported"
    one: Mapping[str, float] = item.result["metrics"]
    for metric in sorted({*one, *other}):
        if one.get(metric) != other.get(metric):
            values = f"{metric} {one.get(metric, 'missing')} and {other.get(metric, 'missing')}"
            raise HarnessError(
                f"{where}: two results of {item.name} differ ({values}): {done}; decide which one holds and "
                "delete the other"
            )


def _add(store: Store, item: _Exported, before: int) -> None:
    """Make a run of the store done, in an attempt of its own; `before` as for `_require_same`.

    The attempt's folder is published before the result that names it: no reader sees a result without its files.
    """
    store.register(item.run)
    folder = store.folder(item.name)

    def fill(fresh: Path) -> None:
        AttemptFolder(fresh).artefacts.mkdir()  # so that the folder holds its number even for a run without files
        for place, data in item.files.items():
            (fresh / place).parent.mkdir(parents=True, exist_ok=True)
            (fresh / place).write_bytes(data)

    while True:
        number = max((attempt.number for attempt in folder.attempts()), default=0) + 1
        attempt = folder.attempt(number)
        if publish_folder(attempt.path, fill):  # else somebody took the number
            break
    # From the disk, as a run that finishes does it: the files are made to survive a power loss before the result is.
    files = digests(attempt.path, attempt.kept())
    record = {"key": item.name, **item.result, "attempt": number, "files": files}
    if folder.result.exists() and store.result(item.name) is None:
        store.put_result_aside(item.name)  # damaged: as good as absent, but its name would be taken
    try:
        create_exclusively(folder.result, sealed(record))
    except FileExistsError:
        result = store.result(item.name)  # finished here in this very moment
        if result is not None:
            _require_same(item, result.metrics, store.root, before)
