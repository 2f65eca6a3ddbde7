"""`harness reconstruct`: masked pictures as a pre-trained model fills them in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    stems,
)


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
    weights: WeightsFile = None,
    device: OnDevice = "auto",
) -> None:
    """Show what a pre-trained model makes of masked pictures: a PNG for each, with original, mask and prediction.

    Example: harness reconstruct pretrain-3f2a photo.jpg --ratio 0.8
    """
    # Before torch is loaded: a selection that names no run is answered at once.
    source, runs = chosen_run(run, ("pretrain",), scale, where, seeds, store)
    from harness.use import Reconstructor, chosen_mask, opened, torch_device

    trained = opened(source, runs, weights)
    own = getattr(trained.run, "mask", None)  # a fine-tuning has none, which the Reconstructor says
    chosen = chosen_mask(own, mask, size=size, ratio=ratio) if own and (mask or size or ratio is not None) else None
    model = Reconstructor(trained, torch_device(device), chosen)
    out.mkdir(parents=True, exist_ok=True)
    for position, (path, stem) in enumerate(zip(images, stems(images), strict=True)):
        target = out / f"{stem}-reconstruction.png"
        model(path, seed=seed, position=position).save(target, title=path.name)
        say(f"wrote {target}")
