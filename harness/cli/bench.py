"""`harness bench`: images a second, operators, memory and share of the matrix rate of a pre-training here."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from harness.cli.common import ScaleName, Where, console, planned, say, with_resources
from harness.launch.resources import Resources
from harness.papers.models import named
from harness.spec import HarnessError, ImageFolder, Pretrain
from harness.spec.data.datasets import absent

if TYPE_CHECKING:
    from harness.bench import Timing


@with_resources
def bench(
    preset: Annotated[
        str,
        typer.Argument(metavar="PRESET", help="a name of harness models, or a study: its first pre-training"),
    ],
    batch: Annotated[int | None, typer.Option("--batch", min=2, help="images a step; default: the run's own")] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="steps that are timed")] = 50,
    precision: Annotated[
        Literal["fp32", "tf32", "bf16", "fp16"] | None,
        typer.Option(
            "--precision", metavar="PRECISION", help="fp32, tf32, bf16 or fp16; default: the run's own, on a CPU fp32"
        ),
    ] = None,
    scale: ScaleName = None,
    where: Where = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="NAME", help="a folder of images: is reading it the limit?"),
    ] = None,
    count: Annotated[bool, typer.Option("--operators/--no-operators", help="count the operators of a step")] = True,
    file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write it there too")] = None,
    *,
    resources: Resources,
) -> None:
    """Time the steps of a pre-training here, on pictures of noise: the loop that a study runs, in a throw-away store.

    Example: harness bench simmim/swin-b --batch 128
    """
    run, folder = _run(preset, scale, where), _folder(data) if data else None
    if resources.processes > 1:
        raise HarnessError(f"--processes {resources.processes}: a bench times one process")
    # Refused now and not after minutes of measuring.
    if file is not None and not file.parent.is_dir():
        raise HarnessError(f"--json {file}: there is no folder {file.parent}")
    # After the checks above: torch takes seconds to load, and a mistake should show at once.
    from harness import bench as measuring
    from harness.launch.job import prepare

    place = prepare(resources)
    # Most published recipes compute in fp16, which a CPU refuses (`harness.core.runtime.precision.require`).
    arithmetic = precision if precision else run.recipe.precision if place.type == "cuda" else "fp32"
    timed = measuring.prepared(run, batch=batch or run.recipe.batch_size, precision=arithmetic, steps=steps)
    sizes = {"micro_batch": resources.micro_batch, "recompute": resources.recompute}
    operators = measuring.count_operators(timed, place, steps=steps, **sizes) if count else {}
    # Compiled only if asked for: `auto` pays in long trainings, and a bench is a short one.
    how = {"compile": resources.compile == "on", "capture": resources.captured(gpu=place.type == "cuda")}
    found = measuring.measure(timed, place, steps=steps, operators=operators, **sizes, **how)
    loader = None
    if folder is not None:
        loader = measuring.loader_rate(timed.replace(data=folder), place, workers=resources.workers, steps=steps)
    shown = measuring.device_name(place)
    _show(preset, timed, shown, found, loader)
    if file is not None:
        whole = asdict(found) | {"preset": preset, "device": shown, "precision": arithmetic, "loader": loader}
        whole |= {"images_per_second": found.images_per_second, "share": found.share}
        file.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def _run(preset: str, scale: str | None, where: list[str] | None) -> Pretrain:
    """The pre-training of a preset or the first of a study.

    Raises:
        HarnessError: there is none.
    """
    if Path(preset).suffix == ".py":
        plan = planned(Path(preset), scale, where, 1, None).plan
        found = [run for run in plan.runs().values() if isinstance(run, Pretrain)]
        if not found:
            raise HarnessError(f"{preset} has no pre-training in this selection")
        return found[0]
    if scale or where:
        raise HarnessError("--scale and --where select from a study; name a study's file instead of a preset")
    run = named(preset).run
    if not isinstance(run, Pretrain):
        raise HarnessError(f"{preset} is a {run.kind}; bench times pre-trainings")
    return run


def _folder(name: str) -> ImageFolder:
    """A folder of images that is here.

    Raises:
        HarnessError: it is not.
    """
    folder = ImageFolder(name=name)
    if folder.content is None:
        raise HarnessError(absent(folder))
    return folder


def _show(preset: str, run: Pretrain, device: str, found: Timing, loader: float | None) -> None:
    """Print what was measured, a line each."""
    say(f"{preset} · {run.image_size} px · batch {found.batch} · {run.recipe.precision} · {device}", style="bold")
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    rate, each = found.images_per_second, 1000 * found.seconds / found.steps
    for name, text in (
        (
            "images a second",
            f"{rate:,.0f}   ({each:,.1f} ms a step, {found.steps} steps)",
        ),
        ("matrix rate", f"{found.share:.1%} of {found.matrix_rate / 1e9:,.0f} G operations a second, measured here"),
        ("first step", f"after {found.first_step:.1f} s, then {found.warm_up:.1f} s of warming up"),
        ("peak memory", f"{found.peak_bytes / 1e9:,.2f} GB {'of the GPU' if device != 'cpu' else 'of the process'}"),
        ("operators a step", f"{sum(found.operators.values()):,.0f}" if found.operators else "not counted"),
        *((f"  {phase}", f"{count:,.1f}") for phase, count in found.operators.items() if count),
    ):
        table.add_row(name, text)
    console.print(table, soft_wrap=False)
    if loader is not None:
        limit = "the loader is the limit" if loader < rate else "the loader keeps up"
        say(f"loader alone: {loader:,.0f} images a second: {limit}" + ("; see --workers" if loader < rate else ""))
