"""`harness predict`: what a trained model sees in pictures: classes, classes of pixels, or objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

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
    counted,
    say,
    show_table,
    stems,
)
from harness.spec import HarnessError

if TYPE_CHECKING:
    from harness.use import Detections, Prediction, Segments

Kind = Literal["finetune", "segment", "detect"]
"""Kinds of runs whose models see something in a picture."""


def predict(
    run: RunName,
    images: Pictures,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON list, with all scores")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="folder for the pictures of a segmentation or detection; default: predictions"),
    ] = None,
    score: Annotated[
        float | None, typer.Option("--score", min=0, max=1, help="least score of an object; default: 0.5")
    ] = None,
    kind: Annotated[Kind | None, typer.Option("--kind", help="which runs of a study are meant")] = None,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    weights: WeightsFile = None,
    device: OnDevice = "auto",
) -> None:
    """Say what a trained model sees in pictures, of any size.

    A fine-tuning: the five likeliest classes with their scores. A segmentation: the share of each class, a picture in
    the colours of its classes, and a map, whose pixels are the numbers of the classes. A detection: each object with
    its score and box, and a picture with boxes and masks.

    Example: harness predict finetune-3f2a photo.jpg
    """
    # Before torch is loaded: a selection that names no run is answered at once.
    source, runs = chosen_run(run, (kind,) if kind else get_args(Kind), scale, where, seeds, store)
    from harness.use import Classifier, Prediction, predictor, torch_device

    model = predictor(source, runs, torch_device(device), score, weights)
    if out is not None and isinstance(model, Classifier):
        raise HarnessError(f"--out: {model.trained.name} is a finetune, of which no picture is written; leave it out")
    # All pictures before any line: one that does not read ends the command before it has printed half a list.
    found = [(path, model(path)) for path in images]
    plain = []
    for (path, one), stem in zip(found, stems(images), strict=True):
        files = () if isinstance(one, Prediction) else one.save(out or Path("predictions"), stem)
        plain.append({"image": str(path), **_plain(one), **({"files": [*map(str, files)]} if files else {})})
        if not as_json:
            _show(path, one)
            for file in files:
                say(f"wrote {file}")
    if as_json:
        # Not by `say`, which replaces control characters: JSON escapes them itself.
        typer.echo(json.dumps(plain, indent=1))


def _show(path: Path, found: Prediction | Segments | Detections) -> None:
    from harness.use import Detections, Prediction

    if isinstance(found, Prediction):
        ranked = "   ".join(f"{one.name or one.label} {one.score:.1%}" for one in found.top5)
        say(f"{path}   {ranked}")
    elif isinstance(found, Detections):
        say(f"{path}   {counted(len(found.boxes), 'object')}")
        rows = [
            (found.names[kind], f"{score:.1%}", *(str(round(place)) for place in box))
            for kind, score, box in zip(
                found.classes.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True
            )
        ]
        if rows:
            show_table(("object", "score", "x0", "y0", "x1", "y1"), rows)
    else:
        say(str(path))
        show_table(("class", "share"), [(one.name, f"{one.share:.1%}") for one in found.shares])


def _plain(found: Prediction | Segments | Detections) -> dict[str, Any]:
    from harness.use import Detections, Prediction

    if isinstance(found, Prediction):
        return {
            "pred_label": found.pred_label,
            "pred_score": found.pred_score,
            "pred_class": found.pred_class,
            "top5": [one._asdict() for one in found.top5],
            "pred_scores": found.pred_scores.tolist(),
        }
    if isinstance(found, Detections):
        columns = zip(found.classes.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
        objects = [
            {"label": kind, "name": found.names[kind], "score": score, "box": box} for kind, score, box in columns
        ]
        return {"objects": objects}
    return {"classes": [one._asdict() for one in found.shares]}
