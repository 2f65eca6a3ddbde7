"""Results of a study as one tidy table, for analyses in Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.store import Store, open_store
from harness.study import Study, expand, load

if TYPE_CHECKING:
    from pandas import DataFrame


def results_frame(
    study: Study | Path | str,
    scale: str | None = None,
    *,
    store: Store | Path | str | None = None,
    seeds: int | None = None,
) -> DataFrame:
    """Table of a study at one scale: a row for each cell, seed and evaluation, in whatever state it is.

    Columns: `cell` (its number in the study), the axes (None where an axis does not apply), seed, evaluation, state
    (done, running, failed, blocked, lost, missing or excluded), reason (for a missing value), value (the metric that
    tables show, NaN unless done), `metric.<name>` for every metric, then key, seconds and provenance of the
    evaluation, and the same with the prefix `pretrain_` for the pre-training that it starts from.

    Args:
        study: a study, or the path of its file.
        scale: name of the scale; by default the study's first.
        store: folder of the runs; by default that of the site profile, or `runs/` in the study's project root.
        seeds: number of replicates; by default the study's.

    Raises:
        HarnessError: the study or the scale does not exist.
    """
    # pandas loads here, so that importing this module costs nothing.
    from harness.report.collect import runs_frame

    found = study if isinstance(study, Study) else load(Path(study))
    if not isinstance(store, Store):
        store = open_store(store, found.root)
    return runs_frame(expand(found, scale=scale, seeds=seeds), store)
