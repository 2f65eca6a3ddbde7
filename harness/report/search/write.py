"""The report of a search: its trials, its best cells with fresh seeds, and figures."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from harness.report import escape
from harness.report.labels import axis_words, measure_label
from harness.report.numbers import number, signed, with_half
from harness.report.search.numbers import Confirmed, confirmed, verdict
from harness.search.declaration import Search
from harness.search.session import Opened, history
from harness.search.trials import Trial, importances
from harness.spec import Scalar
from harness.store.files import disk_errors, write_atomically

PICTURES = "search-*.p[nd][gf]"


@dataclass(frozen=True)
class SearchReport:
    """Files that were written, and the table of the best cells for a terminal. notes: remarks on the table."""

    folder: Path
    files: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def write_search(opened: Opened, folder: Path) -> SearchReport:
    """Write trials.csv, best.csv, search.md and the figures of a search, however far it is.

    Raises:
        HarnessError: it was never begun, or the disk refuses.
    """
    trials, study = history(opened)
    search = opened.search
    best = confirmed(trials, opened.measure, opened.store)
    header, rows = _table(best, search)
    notes = _notes(trials, best, search)
    files = {
        "trials.csv": _csv(*_trial_rows(trials, search)).encode(),
        "best.csv": _csv(*_best_rows(best, search)).encode(),
        "search.md": _markdown(opened.name, header, rows, notes).encode(),
    }
    pictures = _pictures(trials, search, importances(study))
    files |= pictures
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_atomically(folder / name, data)
        for path in folder.glob(PICTURES):
            if path.name not in files:
                path.unlink(missing_ok=True)
    return SearchReport(folder, tuple(files), tuple(header), tuple(tuple(row) for row in rows), tuple(notes))


def _pictures(trials: Sequence[Trial], search: Search, importance: dict[str, float]) -> dict[str, bytes]:
    from harness.report.figures.drawing import pdf, png, style
    from harness.report.search.figures import figures

    found: dict[str, bytes] = {}
    for name, figure in figures(trials, search.metrics, search.directions, importance).items():
        with style():
            found |= {f"{name}.png": png(figure), f"{name}.pdf": pdf(figure)}
    return found


def _table(best: Sequence[Confirmed], search: Search) -> tuple[list[str], list[list[str]]]:
    metric, axes = measure_label(search.metrics[0]), _axes(best)
    header = ["", *map(axis_words, axes)]
    header += [f"{metric} of the trial", f"{metric}, fresh seeds", "n", "difference from default", "p"]
    if search.test:
        header.append(f"{measure_label(search.test)} (test)")
    rows = []
    for row, name in zip(best, _names(best), strict=True):
        line = [name, *(_value(row.cell.get(axis)) for axis in axes)]
        line += [number(row.found, 2), with_half(number(row.mean, 2), row.half), str(row.n)]
        line += [with_half(signed(row.difference, 2), row.difference_half), _p_value(row.p)]
        rows.append(line + ([with_half(number(row.test, 2), row.test_sd)] if search.test else []))
    return header, rows


def _axes(best: Sequence[Confirmed]) -> list[str]:
    return list(dict.fromkeys(axis for row in best for axis in row.cell))


def _names(best: Sequence[Confirmed]) -> list[str]:
    """What the rows are called: the default stands first, then the best cells."""
    return ["default" if row.reference else f"best {place}" for place, row in enumerate(best)]


def _value(value: Scalar) -> str:
    """A value of an axis, rounded for the eye; trials.csv and best.csv have it as it was drawn."""
    return f"{value:.4g}" if isinstance(value, float) else escape.shown(value)


def _best_rows(best: Sequence[Confirmed], search: Search) -> tuple[list[str], list[list[str]]]:
    """The default and the best cells as exact numbers; the fields of `Confirmed`."""
    axes, numbers = _axes(best), [field.name for field in fields(Confirmed) if field.name not in ("cell", "reference")]
    if not search.test:
        numbers = [name for name in numbers if not name.startswith("test")]
    rows = []
    for row, name in zip(best, _names(best), strict=True):
        values = [getattr(row, name) for name in numbers]
        cell = ["" if row.cell.get(axis) is None else str(row.cell[axis]) for axis in axes]
        rows.append([name, *cell, *("" if math.isnan(value) else repr(value) for value in values)])
    return ["row", *axes, *numbers], rows


def _p_value(p: float) -> str:
    if math.isnan(p):
        return escape.NOTHING
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _notes(trials: Sequence[Trial], best: Sequence[Confirmed], search: Search) -> list[str]:
    words = Counter("duplicate" if trial.twin is not None else trial.state for trial in trials)
    found = [verdict(best, search.directions[0])]
    found.append(
        f"{len(trials)} trials: {', '.join(f'{count} {word}' for word, count in words.items())}; "
        f"{sum(trial.computed for trial in trials)} cells computed, "
        f"{sum(trial.imported for trial in trials)} in the store before."
    )
    found.append(
        f"Cells were chosen by {', '.join(search.metrics)} on held-out training images, seeds a trial: {search.seeds}; "
        "the value of the best trial is optimistic. Fresh seeds chose no cell of this search: ± is the half "
        "width of a 95 % t-interval, p that of a paired t-test against the default, corrected by Holm."
    )
    if search.test:
        found.append(
            f"{search.test} is the mean ± sd on the test images over the fresh seeds; nothing was chosen by it."
        )
    found += [
        f"trial {trial.number} failed: {escape.shorten(escape.clean(trial.error), 120)}"
        for trial in trials
        if trial.state == "failed" and trial.twin is None
    ]
    return found


def _trial_rows(trials: Sequence[Trial], search: Search) -> tuple[list[str], list[list[str]]]:
    params = list(dict.fromkeys(name for trial in trials for name in trial.params))
    header = [
        "trial",
        "state",
        *params,
        *search.metrics,
        "seeds",
        "computed",
        "in store before",
        "duplicate of",
        "reason",
    ]
    rows = []
    for trial in trials:
        values = [repr(value) for value in trial.values] or [""] * len(search.metrics)
        seeds = len(trial.per_seed[0]) if trial.per_seed else ""
        rows.append(
            [
                str(trial.number),
                trial.state,
                *(escape.clean(str(trial.params.get(name, ""))) for name in params),
                *values,
                str(seeds),
                str(trial.computed),
                str(trial.imported),
                "" if trial.twin is None else str(trial.twin),
                escape.clean(trial.error or trial.excluded),
            ]
        )
    return header, rows


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([escape.spreadsheet(value) for value in line] for line in (header, *rows))
    return text.getvalue()


def _markdown(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    table = escape.markdown_table(
        map(escape.markdown, header), ["---"] * len(header), (map(escape.markdown, row) for row in rows)
    )
    lines = [f"# {escape.markdown(title)}", "", table, "", *(f"{escape.markdown(note)}\n" for note in notes)]
    return "\n".join(lines)
