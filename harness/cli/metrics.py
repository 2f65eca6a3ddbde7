"""`harness metrics`: export to TensorBoard or Weights & Biases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import ScaleName, Seeds, StorePath, StudyFile, Where, counted, planned, say
from harness.spec import HarnessError


def metrics(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", metavar="DIR", help="write TensorBoard's event files to a folder")
    ] = None,
    wandb: Annotated[
        Path | None, typer.Option("--wandb", metavar="DIR", help="write offline runs of Weights & Biases to a folder")
    ] = None,
) -> None:
    """Export the metrics of runs (metrics.jsonl) to TensorBoard or Weights & Biases. Nothing is uploaded.

    Example: harness metrics studies/quickstart.py --tensorboard logs
    """
    if tensorboard is None and wandb is None:
        raise HarnessError("name where to: --tensorboard DIR, --wandb DIR, or both")
    from harness.report import tracking

    found = planned(study, scale, where, seeds, store)
    if tensorboard is not None:
        count = tracking.write_tensorboard(found.plan, found.store, tensorboard)
        say(f"wrote {counted(count, 'run')} to {tensorboard}; tensorboard --logdir {tensorboard} shows them")
    if wandb is not None:
        count = tracking.write_wandb(found.plan, found.store, wandb)
        say(f"wrote {counted(count, 'run')} to {wandb / 'wandb'}; wandb sync uploads them")
