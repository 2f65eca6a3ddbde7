"""`harness predict`: classes of pictures by a fine-tuned model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.common import (
    OnDevice,
    Pictures,
    RunName,
    ScaleName,
    Seeds,
    StorePath,
    WeightsFile,
    Where,
    chosen_run,
    say,
)

if TYPE_CHECKING:
    from harness.use import Prediction


def predict(
    run: RunName,
    images: Pictures,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON list, with all scores")] = False,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    weights: WeightsFile = None,
    device: OnDevice = "auto",
) -> None:
    """Say what a fine-tuned model sees in pictures: the five likeliest classes with their scores.

    Example: harness predict finetune-3f2a photo.jpg
    """
    # Before torch is loaded: a selection that names no run is answered at once.
    source, runs = chosen_run(run, "finetune", scale, where, seeds, store)
    from harness.use import Classifier, opened, torch_device

    classify = Classifier(opened(source, runs, weights), torch_device(device))
    # All pictures before any line: one that does not read ends the command before it has printed half a list.
    found = [(path, classify(path)) for path in images]
    if as_json:
        # Not by `say`, which replaces control characters: JSON escapes them itself.
        typer.echo(json.dumps([_plain(path, prediction) for path, prediction in found], indent=1))
        return
    for path, prediction in found:
        ranked = "   ".join(f"{one.name or one.label} {one.score:.1%}" for one in prediction.top5)
        say(f"{path}   {ranked}")


def _plain(path: Path, found: Prediction) -> dict[str, object]:
    return {
        "image": str(path),
        "pred_label": found.pred_label,
        "pred_score": found.pred_score,
        "pred_class": found.pred_class,
        "top5": [one._asdict() for one in found.top5],
        "pred_scores": found.pred_scores.tolist(),
    }
