"""What is done of a study, as one tidy table, for an analysis of one's own."""

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
    """A row for each cell, seed and evaluation of a study at one scale, whatever became of it.

    Columns: `cell` (its number in the study), the axes (None where an axis does not apply), seed, evaluation, state
    (done, running, failed, blocked, lost, missing or excluded), reason (why there is no value), value (the metric
    that tables show, NaN unless done), `metric.<name>` for every metric of the results, then key, seconds and
    provenance of the evaluation, and the same with the prefix `pretrain_` of the pre-training that it starts from.

    Args:
        study: a study, or the path of its file. scale: name of the scale; the study's first by default.
        store: the folder of the runs; where the site profile says, or `runs/` in the study's project root, by default.
        seeds: number of replicates instead of the study's.

    Raises:
        HarnessError: there is no such study or scale.
    """
    from harness.report.collect import runs_frame

    found = study if isinstance(study, Study) else load(Path(study))
    if not isinstance(store, Store):
        store = open_store(store, found.root)
    return runs_frame(expand(found, scale=scale, seeds=seeds), store)
