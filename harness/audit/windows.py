"""Check of a Swin's shifted windows: where they do not divide a map, those at its edge mix opposite edges."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from harness.audit.contract import Finding
from harness.core.model.encoder import build
from harness.core.runtime.randomness import initialised
from harness.spec import AnyBackbone, Backbone, Pretrain, Run, upstreams
from harness.study import Plan


def check_windows(plan: Plan) -> Iterator[Finding]:
    """A remark for each kind of run of which a Swin (V1) has maps that its shifted windows do not divide.

    It names the first such run.
    """
    told: set[str] = set()
    for row in plan.firsts():
        for run in (run for final in row.evaluations.values() for run in (*upstreams(final), final)):
            if run.kind not in told and (maps := _undivided(run)):
                told.add(run.kind)
                text = (
                    f"{run.kind} at {run.image_size} px: {', '.join(maps)}; timm shifts before it pads, so that "
                    "shifted windows mix opposite edges"
                )
                yield Finding("windows", "remark", text, row.text)


def _undivided(run: Run) -> tuple[str, ...]:
    if isinstance(run, Pretrain):
        return undivided(run.built, run.image_size)
    return undivided(run.encoder, run.image_size) if run.needs_weights else ()


@cache
def undivided(backbone: AnyBackbone, image_size: int) -> tuple[str, ...]:
    """Maps of a Swin (V1) that its shifted windows do not divide, each once with its window, in words."""
    if not isinstance(backbone, Backbone) or not backbone.name.startswith("swin_"):
        return ()
    model: Any = initialised(0, "encoder", lambda: build(backbone, image_size=image_size, channels=3))
    found = []
    for block in (block for stage in model.layers for block in stage.blocks):
        (rows, columns), (high, wide) = block.input_resolution, block.window_size
        if any(block.shift_size) and (rows % high or columns % wide):
            found.append(f"windows of {high} x {wide} do not divide the map of {rows} x {columns}")
    return tuple(dict.fromkeys(found))
