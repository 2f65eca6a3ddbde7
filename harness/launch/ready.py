"""Data sets and models of runs are checked before any of them is computed or queued."""

from __future__ import annotations

from collections.abc import Iterable

from harness.launch.cost import check_models
from harness.launch.slurm.task import open_to_group
from harness.machine import require_coco
from harness.spec import Detect, HarnessError, Pretrain, Run
from harness.spec.data.datasets import Folder, absent
from harness.spec.model.described import costed_models
from harness.store import Store


def missing_data(runs: Iterable[Run]) -> list[str]:
    """Messages on how to set the folders of images that are missing here."""
    sets = [run.data for run in runs]
    return sorted({absent(data) for data in sets if isinstance(data, Folder) and data.content is None})


def refuse_folders(runs: Iterable[Run]) -> None:
    """Refuse runs whose folders of images cannot be used.

    Raises:
        HarnessError: a folder lacks a class that is named, or has no images that accuracies are measured on.
    """
    # Thousands of runs share a few data sets, and each look reads a folder.
    sets = {(run.data.digest, tested): run.data for run in runs for tested in [not isinstance(run, Pretrain)]}
    for (_, tested), data in sets.items():
        if (fault := data.fault(tested=tested)) is not None:
            raise HarnessError(fault)


def check_runs(runs: dict[str, Run], store: Store) -> None:
    """Check data sets and models of runs before any of them is computed or queued.

    Raises:
        HarnessError: a folder of images is missing or cannot be used, a model cannot be built as its spec says, or a
            package that an evaluation needs is not installed.
    """
    # Data first, which takes no time; counting a model may have to load torch.
    if missing := missing_data(runs.values()):
        raise HarnessError(missing[0])
    refuse_folders(runs.values())
    if any(isinstance(run, Detect) for run in runs.values()):
        require_coco()
    open_to_group(store.root)  # before models are counted, which leaves files in the store
    check_models(store.root, costed_models(runs))
