"""`harness export`: weights for timm or the released SimMIM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli.common import RunName, ScaleName, Seeds, StorePath, Where, chosen_run, say


def export(
    run: RunName,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="where to write: .safetensors, or .pth for official")],
    form: Annotated[
        Literal["timm", "official"], typer.Option("--format", help="timm's names, or microsoft/SimMIM's")
    ] = "timm",
    kind: Annotated[
        Literal["pretrain", "finetune"] | None, typer.Option("--kind", help="which runs of a study are meant")
    ] = None,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
) -> None:
    """Write a trained encoder or classifier for timm or for the released SimMIM, and how to load it.

    Example: harness export pretrain-3f2a encoder.safetensors
    """
    # Before torch is loaded: a selection that names no run is answered at once.
    source, runs = chosen_run(run, (kind,) if kind else ("pretrain", "finetune"), scale, where, seeds, store)
    from harness.core.weights.export import export as write
    from harness.core.weights.finished_run import opened

    found = write(opened(source, runs), file, form)
    size = found.path.stat().st_size
    say(f"wrote {found.path} ({size / 1e6:,.1f} MB)" if size >= 1e6 else f"wrote {found.path} ({size / 1e3:,.0f} kB)")
    for note in found.notes:
        say(note)
    say(found.call, whole=True)
