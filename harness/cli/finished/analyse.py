"""`harness analyse`: interactions, occlusion, spectra and colours of single runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli.common import OnDevice, StorePath, say
from harness.cli.launch.live import Display, Stop
from harness.launch.executor import drive
from harness.launch.inline import Inline
from harness.launch.resources import Resources
from harness.spec import Analysis, FineTune, HarnessError, Pretrain, Run, key
from harness.store import RunFolder, Store, open_store
from harness.store.files import disk_errors, write_atomically

Kind = Literal["interactions", "occlusion", "fourier", "rgb"]

# Kinds of runs that an analysis starts from: accuracies and logits need a classifier.
_STARTS: dict[Kind, tuple[str, ...]] = {
    "interactions": ("finetune",),
    "occlusion": ("finetune",),
    "fourier": ("pretrain", "finetune"),
    "rgb": ("pretrain",),
}


def analyse(
    kind: Annotated[
        Kind, typer.Argument(metavar="KIND", show_choices=False, help="interactions, occlusion, fourier or rgb")
    ],
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="keys of runs or beginnings of them, or folders")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="a field of the analysis, such as images=20; repeat"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="folder for the figure")] = Path("results/analyses"),
    store: StorePath = None,
    device: OnDevice = "auto",
    micro_batch: Annotated[
        int | None, typer.Option("--micro-batch", min=1, help="images at once on the device")
    ] = None,
) -> None:
    """Look into trained models, and draw what is found: KIND.png and KIND.pdf.

    interactions and occlusion look into fine-tunings, fourier into pre-trainings or fine-tunings, rgb at the masked
    inputs of pre-trainings. Each analysis is a run of the store: asked for again, it is not computed again.

    Example: harness analyse occlusion finetune-3f2a finetune-91bc --set draws=3
    """
    found = open_store(store)
    # By key, so that a run that is named twice is analysed once.
    labels = {_key_of(text, found): text for text in runs}
    specs = {name: _spec(kind, found.spec(name), name, _fields(settings or ()), found) for name in labels}
    _compute(kind, {key(run): run for run in specs.values()}, found, Resources(device=device, micro_batch=micro_batch))
    for name, run in specs.items():
        say(f"{labels[name]}   {_metrics(run, found)}   {key(run)}")
    files = _draw(kind, {labels[name]: run for name, run in specs.items()}, found, out)
    say(f"wrote {', '.join(files)} to {out}")


def _key_of(text: str, store: Store) -> str:
    from harness.core.weights.finished_run import found_key

    folder = Path(text)
    return folder.resolve().name if RunFolder(folder).spec.is_file() else found_key(text, store)


def _fields(settings: Sequence[str]) -> dict[str, object]:
    """`["images=20", "reward=logit"]` as values: what reads as JSON is taken as that, else as text."""
    chosen: dict[str, object] = {}
    for item in settings:
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            raise HarnessError(f"--set {item}: should read field=value, such as --set images=20")
        try:
            chosen[name.strip()] = json.loads(value)
        except json.JSONDecodeError:
            chosen[name.strip()] = value
    return chosen


def _spec(kind: Kind, start: Run, name: str, fields: Mapping[str, object], store: Store) -> Analysis:
    """The analysis of a run with the given fields, refused here where it could not be computed."""
    if not isinstance(start, Pretrain | FineTune) or start.kind not in _STARTS[kind]:
        raise HarnessError(f"{name} is a {start.kind}; {kind} takes a {' or a '.join(_STARTS[kind])}")
    # The colours of masked inputs need no weights, only the data and the mask of the run.
    if kind != "rgb" and store.weights(name) is None:
        word = store.state(name).word
        raise HarnessError(f"{name} {'keeps no weights any more' if word == 'done' else f'is not done: it is {word}'}")
    from harness.use import analysis_of

    return analysis_of(kind, start, **fields)


def _compute(kind: Kind, specs: dict[str, Run], store: Store, resources: Resources) -> None:
    """Compute analyses in this process, and end the command if one of them is not finished."""
    inline = Inline(store, resources)
    # An analysis that failed is tried again by asking for it again.
    inline.submit(specs, retry=True)
    queue = inline.queue
    if len(queue):
        with Display(kind, specs, {}, queue) as display, Stop(tell=display.stopping) as stop:
            drive(inline, display.show, stopping=stop)
    if unfinished := [name for name, ending in queue.endings.items() if name in specs and ending != "done"]:
        say(f"not finished: {', '.join(unfinished)}. The same command goes on from here.")
        raise typer.Exit(1)


def _metrics(run: Analysis, store: Store) -> str:
    result = store.result(key(run))
    found = {} if result is None else result.metrics
    names = [name for name in dict.fromkeys((run.shown_metric, *run.metrics)) if name in found]
    return "   ".join(f"{name} {found[name]:.4g}" for name in names)


def _draw(kind: Kind, specs: Mapping[str, Analysis], store: Store, out: Path) -> list[str]:
    """Write the figure of some analyses as PNG and PDF; returns the names of the files."""
    from harness.report.figures import analyses, drawing

    read = {label: analyses.read([run], store) for label, run in specs.items()}
    # Here the figure is all there is, so a damaged file ends the command; a report goes on without it.
    if remarks := [remark for _, damaged in read.values() for remark in damaged]:
        raise HarnessError(remarks[0])
    arrays = [(label, found) for label, (found, _) in read.items()]
    with drawing.style():
        figure = analyses.figure_of(kind, arrays, column=kind, title="")
        files: dict[str, bytes] = {}
        for number, page in enumerate(figure.pages()):
            stem = kind if number == 0 else f"{kind}-{number + 1}"
            made = analyses.draw(page)
            files |= {f"{stem}.png": drawing.png(made), f"{stem}.pdf": drawing.pdf(made)}
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_atomically(out / name, data)
    return list(files)
