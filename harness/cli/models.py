"""`harness models`: parameters and multiply-adds of the published SimMIM models, counted here and as published."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from harness.cli.common import console, say
from harness.papers import paper_table, simmim_finetune, simmim_pretrain
from harness.papers.simmim.recipes import FINETUNED, PRETRAINED, Variant
from harness.spec import FineTune, Pretrain

if TYPE_CHECKING:
    from harness.core.model.complexity import Complexity

CLASSES = 1000
"""Classes of ImageNet-1K, on which the published models were fine-tuned."""
VARIANTS: tuple[Variant, ...] = ("official", "mmpretrain")
ACCURACY: dict[Variant, tuple[str, str]] = {
    "official": ("simmim_table7_scaling", "simmim_top1"),
    "mmpretrain": ("mmpretrain_simmim", "top1"),
}
"""The table of published accuracies, and its column."""


@dataclass(frozen=True)
class Published:
    """Published size of a model.

    multiply_adds: None where none are printed. image_size: side in pixels that they were counted at, likewise.
    """

    parameters: int
    multiply_adds: int | None
    image_size: int | None


def models() -> None:
    """List the published SimMIM models: parameters and multiply-adds counted here and as published, published top-1.

    Example: harness models
    """
    for variant in VARIANTS:
        say(variant, style="bold")
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for heading in ("model", "px", "parameters", "published", "multiply-adds", "published"):
            table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
        for row in rows(variant):
            table.add_row(*(escape(text) for text in row))
        console.print(table, soft_wrap=False)
        for line in top1(variant):
            say(line)
    say("A multiply-add is what others call a FLOP. As mmpretrain does, encoder and pooling are counted,")
    say("prediction head and classifier are not; parameters include both.")
    say("Published as 18.83 G and 55.85 G: pre-training at 192 px, but counted at 224, where windows of 6 and 12")
    say("pad the maps. Rows at 192 px show what pre-training costs.")


def rows(variant: Variant) -> list[tuple[str, ...]]:
    """The lines of the table of one variant, as text."""
    known, found = published(), []
    for name, run in _runs(variant):
        printed = known.get((variant, _name(name, run)), [])
        # Also at sizes of published counts: mmpretrain counts at 224 px what is trained at 192.
        sizes = {run.image_size, *(figures.image_size for figures in printed if figures.image_size)}
        found += [_line(name, run, size, printed) for size in sorted(sizes)]
    return found


def _name(name: str, run: Pretrain | FineTune) -> str:
    return f"{name} {run.image_size}"


def published() -> dict[tuple[str, str], list[Published]]:
    """Published figures by variant and name of a run (harness/papers/simmim/models.csv)."""
    text = (files("harness.papers") / "simmim" / "models.csv").read_text(encoding="utf-8")
    found: dict[tuple[str, str], list[Published]] = {}
    for row in csv.DictReader(text.splitlines()):
        figures = [int(row[name]) if row[name] else None for name in ("multiply_adds", "image_size")]
        found.setdefault((row["variant"], row["run"]), []).append(Published(int(row["parameters"]), *figures))
    return found


def top1(variant: Variant) -> list[str]:
    """Published top-1 in percent of the models that were fine-tuned, a line each."""
    table, metric = ACCURACY[variant]
    return [
        f"published: {axes['model']}, {axes['pretrain_epochs']} epochs at {axes['pretrain_size']} px, "
        f"fine-tuned at {axes['finetune_size']} px: {value.value:.2f} % top-1"
        for axes, value in paper_table(table, metric=metric).rows
    ]


def _runs(variant: Variant) -> list[tuple[str, Pretrain | FineTune]]:
    found: list[tuple[str, Pretrain | FineTune]] = []
    for model, epochs in PRETRAINED:
        if variant == "official" or model != "vit-b":
            found.append((f"{model} pretrain", simmim_pretrain(model, epochs=epochs, variant=variant)))
    for model, epochs, size in FINETUNED:
        if variant == "official" or model != "vit-b":
            tuned = simmim_finetune(model, epochs=epochs, image_size=size, variant=variant)
            found.append((f"{model} finetune", tuned))
    return list({_name(*named): named for named in reversed(found)}.values())[::-1]  # 100 and 800 epochs share models


def _line(name: str, run: Pretrain | FineTune, size: int, printed: list[Published]) -> tuple[str, ...]:
    found = counted(run, size)
    counts = [figures.multiply_adds for figures in printed if figures.image_size == size and figures.multiply_adds]
    return (
        name,
        str(size),
        f"{found.parameters:,}",
        f"{printed[0].parameters:,}" if printed else "",
        _giga(found.encoder + found.pooling),
        _giga(counts[0]) if counts else "",
    )


def counted(run: Pretrain | FineTune, image_size: int) -> Complexity:
    """Cost of a published model at an image size, for images in colour and 1,000 classes."""
    from harness.core.model import complexity

    if isinstance(run, Pretrain):
        return complexity.pretraining(run.backbone, image_size=image_size, channels=3, head=run.head, target=run.target)
    return complexity.classifier(run.built, image_size=image_size, channels=3, num_classes=CLASSES, pool=run.pool)


def _giga(count: int) -> str:
    return f"{count / 1e9:.2f} G"
