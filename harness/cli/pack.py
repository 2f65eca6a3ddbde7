"""`harness pack`: a folder of images, decoded once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from harness.cli.common import say
from harness.spec.data.datasets import Decoder


def pack(
    name: Annotated[str, typer.Argument(help="data set, as ImageFolder names it", metavar="NAME")],
    file: Annotated[Path, typer.Argument(help="the pack that is written, on a fast disk", metavar="FILE.pack")],
    image_size: Annotated[
        int | None,
        typer.Option(min=1, max=20_000, help="squares of this side instead of whole pictures; a key of its own"),
    ] = None,
    decoder: Annotated[Decoder, typer.Option(help="as ImageFolder(decoder=...)")] = "pil",
    threads: Annotated[int | None, typer.Option(min=1, help="that decode; default: one a CPU")] = None,
) -> None:
    """Decode a folder of images once, into a file that is mapped into memory.

    Example: harness pack imagenet /fast/imagenet.pack --image-size 256
    """
    from harness.core.data.packing import pack as write

    # On stderr, so that stdout holds the result alone.
    bar = Progress(
        TextColumn("packing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    )
    task = bar.add_task("packing", total=None)

    def advance(done: int, number: int) -> None:
        bar.start()  # not before: a mistake is one line
        bar.update(task, completed=done, total=number)

    try:
        facts = write(
            name, file, side=image_size, decoder=decoder, threads=threads or os.cpu_count() or 1, advance=advance
        )
    finally:
        bar.stop()
    say(f"wrote {file}: {facts.images} pictures, {file.stat().st_size / 1e6:,.1f} MB, content {facts.content[:12]}")
    say(f'Next: {name} = "{file.resolve()}" under [data] in harness.toml')
    if image_size is not None:
        say(f"Squares of {image_size} px are other pixels than the files': runs with them have keys of their own")
