"""`harness predict`, `reconstruct` and `export`: using what was trained."""

from __future__ import annotations

import json
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.common import ScaleName, Seeds, StorePath, Where, labels, planned, say
from harness.spec import HarnessError
from harness.store import Store, open_store

if TYPE_CHECKING:
    from harness.use import Prediction

SHOWN = 6
"""Runs that are named where a selection has several."""


class Device(StrEnum):
    """What is computed with."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Kind(StrEnum):
    """Runs that have weights."""

    pretrain = "pretrain"
    finetune = "finetune"


class Format(StrEnum):
    """Whose names the weights get."""

    timm = "timm"
    official = "official"


RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="a run's key or a beginning of it, its folder, an exported file, or a study with --where"
    ),
]
Pictures = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="pictures, of any size")]
OnDevice = Annotated[Device, typer.Option("--device", help="auto takes a GPU where there is one")]


def predict(
    run: RunName,
    images: Pictures,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON list, with all scores")] = False,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    device: OnDevice = Device.auto,
) -> None:
    """Say what a fine-tuned model sees in pictures: the five likeliest classes with their scores.

    Example: harness predict finetune-3f2a photo.jpg
    """
    source, runs = _chosen(run, Kind.finetune, scale, where, seeds, store)
    from harness.core.weights.finished_run import opened
    from harness.use import Classifier, torch_device

    classify = Classifier(opened(source, runs), torch_device(device.value))
    found = [(path, classify(path)) for path in images]
    if as_json:
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


def reconstruct(
    run: RunName,
    images: Pictures,
    mask: Annotated[str | None, typer.Option("--mask", help="kind of mask; default: the run's own")] = None,
    size: Annotated[int | None, typer.Option("--size", min=1, help="side of a masked unit in pixels")] = None,
    ratio: Annotated[float | None, typer.Option("--ratio", help="share of hidden units")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="which masks; default: the run's seed")] = None,
    out: Annotated[Path, typer.Option("--out", help="folder to write to")] = Path("reconstructions"),
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    device: OnDevice = Device.auto,
) -> None:
    """Show what a pre-trained model makes of masked pictures: a PNG for each, with original, mask and prediction.

    Example: harness reconstruct pretrain-3f2a photo.jpg --ratio 0.8
    """
    source, runs = _chosen(run, Kind.pretrain, scale, where, seeds, store)
    from harness.core.weights.finished_run import opened
    from harness.use import Reconstructor, chosen_mask, torch_device

    trained = opened(source, runs)
    own = getattr(trained.run, "mask", None)  # a fine-tuning has none, which the Reconstructor says
    chosen = chosen_mask(own, mask, size=size, ratio=ratio) if own and (mask or size or ratio is not None) else None
    model = Reconstructor(trained, torch_device(device.value), chosen)
    out.mkdir(parents=True, exist_ok=True)
    taken: Counter[str] = Counter()
    for position, path in enumerate(images):
        taken[path.stem] += 1
        number = f"-{taken[path.stem]}" if taken[path.stem] > 1 else ""
        target = out / f"{path.stem}{number}-reconstruction.png"
        model(path, seed=seed, position=position).save(target, title=path.name)
        say(f"wrote {target}")


def export(
    run: RunName,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="where to write: .safetensors, or .pth for official")],
    form: Annotated[Format, typer.Option("--format", help="timm's names, or microsoft/SimMIM's")] = Format.timm,
    kind: Annotated[Kind | None, typer.Option("--kind", help="which runs of a study are meant")] = None,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
) -> None:
    """Write a trained encoder or classifier for timm or for the released SimMIM, and how to load it.

    Example: harness export pretrain-3f2a encoder.safetensors
    """
    source, runs = _chosen(run, kind, scale, where, seeds, store)
    from harness.core.weights.export import export as write
    from harness.core.weights.finished_run import opened

    found = write(opened(source, runs), file, form.value)
    say(f"wrote {found.path} ({found.path.stat().st_size / 1e6:,.1f} MB)")
    for note in found.notes:
        say(note)
    say(found.call)


def _chosen(
    run: str, kind: Kind | None, scale: str | None, where: list[str] | None, seeds: int | None, store: Path | None
) -> tuple[str, Store]:
    """What is to be opened, and the store: of a study's file the only done run of a kind in its selection."""
    if Path(run).suffix == ".py":
        return _of_study(Path(run), kind, scale, where, seeds, store)
    if scale or where or seeds:
        raise HarnessError("--scale, --where and --seeds select from a study; name a study's file instead of a run")
    return run, open_store(store)


def _of_study(
    study: Path, kind: Kind | None, scale: str | None, where: list[str] | None, seeds: int | None, store: Path | None
) -> tuple[str, Store]:
    plan, runs = planned(study, scale, where, seeds, store)
    kinds = [kind.value] if kind else [each.value for each in Kind]
    names = [name for name, spec in plan.runs().items() if spec.kind in kinds]
    done = [name for name, state in runs.states(names).items() if state.word == "done"]
    if not done:
        raise HarnessError(f"none of the {len(names)} {' or '.join(kinds)} runs of this selection is done")
    if len(done) > 1:
        cells = labels(plan)
        shown = ", ".join(f"{name} ({cells[name]})" for name in done[:SHOWN]) + (", ..." if len(done) > SHOWN else "")
        raise HarnessError(f"{len(done)} runs are done: {shown}; narrow with --where and --seeds 1, or name a key")
    return done[0], runs
