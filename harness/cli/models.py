"""`harness models`: the published models, from facts that are kept, so that nothing has to be loaded or counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from harness.cli.common import say, show_table
from harness.machine import weights_file
from harness.papers.models import TITLES, Model, named, published_models, published_sizes

NOTES = (
    "Multiply-adds, which others call FLOPs: encoder and pooling for one image, as",
    "mmpretrain counts; parameters include heads. Epochs: pre-training + the rest.",
    "Published top-1 in percent; ? from memory or a summary. * A lent recipe.",
)
"""How to read the table; lines of at most 80 characters."""


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="a paper, such as a2mim, or a model, for all of its facts")
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help="with exact counts, and the sources of accuracies")] = False,
) -> None:
    """List the published models of SimMIM, A2MIM, MAE and SymMIM: names, sizes, published top-1, epochs.

    Example: harness models mmpretrain
    """
    if name is not None and name not in TITLES:
        _show_model(named(name))
        return
    for paper in [name] if name else TITLES:
        say(TITLES[paper], style="bold")
        found = [model for model in published_models().values() if model.name.startswith(f"{paper}/")]
        if wide:
            show_table(
                (*HEADER, "head", "source of top-1"), [(*_row(model, exact=True), *_more(model)) for model in found]
            )
        else:
            show_table(HEADER, [_row(model) for model in found])
        _show_aliases(found)
    for note in NOTES:
        say(note, style="dim")
    say("harness models NAME shows all of one: recipe, weights, source.", style="dim")


HEADER = ("model", "px", "parameters", "multiply-adds", "top-1", "epochs")


def _row(model: Model, *, exact: bool = False) -> tuple[str, ...]:
    size, top1 = model.size, model.accuracy
    counts = f"{size.parameters / 1e6:.2f} M", f"{size.multiply_adds / 1e9:.2f} G"
    if exact:
        counts = f"{size.parameters:,}", f"{size.multiply_adds:,}"
    shown = "" if top1 is None else f"{top1.value:.1f}{'' if top1.verified else '?'}"
    return model.name, str(size.image_size), *counts, shown, model.epochs


def _more(model: Model) -> tuple[str, str]:
    return f"{model.size.head:,}", model.accuracy.source if model.accuracy else ""


def _show_aliases(found: Sequence[Model]) -> None:
    """Print the names that others have for the same models."""
    for model in found:
        for alias in model.aliases:
            if "/" not in alias:  # our own shorter names need no line
                say(f"  {alias}")
                say(f"      is {model.name}", style="dim")


def _show_model(model: Model) -> None:
    """Print all facts of one model, a line each."""
    size, known, top1 = model.size, published_sizes().get(model.name), model.accuracy
    lines = [("paper", model.paper), *(("also", alias) for alias in model.aliases)]
    lines.append(("parameters", f"{size.parameters:,}, heads included"))
    lines.append(("multiply-adds", f"{size.multiply_adds:,} at {size.image_size} px, and {size.head:,} of the head"))
    if known is not None:
        told = f", {known.multiply_adds:,} multiply-adds at {known.image_size} px" if known.multiply_adds else ""
        lines.append(("published", f"{known.parameters:,} parameters{told}"))
        lines.append(("", f"({known.source})"))
    if top1 is not None:
        lines.append(
            ("top-1", f"{top1.value:.2f} %" + ("" if top1.verified else ", which was checked against no source"))
        )
        lines.append(("", f"({top1.source})"))
    for place, text in enumerate(model.recipe.split("; then ")):
        lines.append(("" if place else "recipe", text))
    lines += [("assumed", note) for run in model.trainings for note in run.assumed]
    lines.append(("weights", model.file or "no file is published"))
    lines.append(("", f"looked for at {weights_file(model.names, model.weights)}"))
    say(model.name, style="bold")
    for name, text in lines:
        say(f"  {name:<13} {text}")
