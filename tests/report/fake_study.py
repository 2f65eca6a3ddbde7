"""Studies and stores made by hand, so that what a report should say is known. Nothing is trained."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from harness.papers import PaperTable, Protocol, PublishedValue
from harness.spec import (
    Backbone,
    Evaluation,
    FineTune,
    Loss,
    Pretrain,
    RandomMask,
    Recipe,
    Run,
    Scale,
    Scratch,
    Shapes,
    Skip,
    key,
    upstream,
)
from harness.store import Attempt, Store
from harness.study import Grid, Plan, Study, axes, expand

SCALE = Scale(
    name="fake",
    data=Shapes(image_size=32),
    image_size=32,
    backbone=Backbone(name="vit_tiny", patch_size=4),
    pretrain=Recipe(epochs=4, batch_size=8, lr=1e-3),
    finetune=Recipe(epochs=2, batch_size=8, lr=1e-3),
)
ENVIRONMENT = {
    "commit": "a" * 40,
    "dirty": False,
    "device": "cpu",
    "threads": 1,
    "versions": {"torch": "2.6.0", "timm": "1.0.20", "harness": "0.1.0"},
    "host": "node-1",
    "started": "2026-01-01T00:00:00Z",
}
GRID = axes(scope=("masked", "full"), mask_ratio=(0.4, 0.6, 0.99)) | Grid([{"scope": "scratch"}])
PROTOCOL = Protocol(data="imagenet", evaluation="finetune", image_size=192)
PAPER = PaperTable(
    "made_up_table",
    "top1",
    tuple(
        ({"scope": scope, "mask_ratio": ratio}, PublishedValue(value, trust, "by hand", PROTOCOL))
        for scope, ratio, value, trust in (
            ("masked", "0.4", 82.5, "image"),
            ("masked", "0.6", 82.8, "image"),
            ("full", "0.6", 81.75, "memory"),
        )
    ),
)


def scope_cell(scale: Scale, scope: str, mask_ratio: float | None, seed: int) -> dict[str, Evaluation]:
    """Scope x ratio, with a control from scratch; a ratio of 0.99 does not fit."""
    if mask_ratio is None:
        start: Pretrain | Scratch = Scratch(backbone=scale.backbone, image_size=scale.image_size)
        return {"top1": FineTune(start=start, data=scale.data, recipe=scale.finetune, seed=seed)}
    if mask_ratio == 0.99:
        raise Skip("0.99 hides all 16 units")
    start = Pretrain(
        data=scale.data,
        image_size=scale.image_size,
        backbone=scale.backbone,
        mask=RandomMask(size=8, ratio=mask_ratio),
        loss=Loss(scope="full" if scope == "full" else "masked"),
        recipe=scale.pretrain,
        seed=seed,
        assumed=("beta2 is 0.999",),
    )
    return {"top1": FineTune(start=start, recipe=scale.finetune, seed=seed)}


def scope_study(**changes: Any) -> Study:
    """The study of `scope_cell`, two seeds."""
    plain = {
        "cell": scope_cell,
        "grid": GRID,
        "scales": (SCALE,),
        "reference": {"scope": "masked", "mask_ratio": 0.6},
        "seeds": 2,
        "paper": PAPER,
        "name": "fake_scope",
    }
    return Study(**{**plain, **changes})


def evaluation(plan: Plan, seed: int, name: str = "top1", **cell: Any) -> Evaluation:
    """The evaluation of one cell and seed."""
    wanted = plan.study.complete(cell)
    return next(row.evaluations[name] for row in plan.rows if row.axes == wanted and row.seed == seed)


def begin(store: Store, run: Run) -> Attempt:
    """Own a run; it counts as running until released."""
    attempt = store.acquire(run)
    assert isinstance(attempt, Attempt)
    return attempt


def finish(
    store: Store,
    run: Run,
    metrics: Mapping[str, float],
    *,
    environment: object = ENVIRONMENT,
    log: Sequence[Mapping[str, Any]] = (),
    pictures: Mapping[str, Any] | None = None,
) -> None:
    """Make a run done."""
    attempt = begin(store, run)
    attempt.write_environment(environment, "")  # type: ignore[arg-type]
    for line in log:
        attempt.log(dict(line))
    if pictures is not None:
        np.savez(attempt.artefact("reconstructions.npz"), **pictures)
    attempt.finish(dict(metrics), seconds=10.0)
    attempt.release()


def fail(store: Store, run: Run, text: str) -> None:
    """Make a run failed."""
    attempt = begin(store, run)
    attempt.fail(text)
    attempt.release()


def finish_all(store: Store, plan: Plan, value: Any = None, **options: Any) -> None:
    """Make every run of a plan done; `value(row)` gives the accuracy, by default 80 + row number / 8."""
    for number, row in enumerate(plan.rows):
        for run in row.evaluations.values():
            if (first := upstream(run)) is not None and store.state(key(first)).word != "done":
                finish(store, first, {"loss": 0.5}, log=loss_log(number), pictures=pictures(number), **options)
            accuracy = 80 + number / 8 if value is None else value(row)
            if store.state(key(run)).word != "done":
                finish(store, run, {"top1": accuracy, "loss": 1.0}, **options)


def loss_log(number: int) -> list[dict[str, float]]:
    """A falling loss at eight places of four epochs."""
    return [
        {"step": step, "epoch": step / 10, "loss": 0.3 + 0.02 * number + math.exp(-step / 15), "lr": 1e-3}
        for step in range(5, 45, 5)
    ]


def pictures(number: int, channels: int = 3, side: int = 32, count: int = 6) -> dict[str, np.ndarray]:
    """Made-up reconstructions: a gradient, with a grey quarter, and blurred."""
    rows, columns = np.mgrid[0:side, 0:side]
    image = np.stack([(rows * (number + 3) + columns * (c + 2)) % 256 for c in range(channels)], axis=-1)
    original = np.stack([(image + 20 * n) % 256 for n in range(count)]).astype(np.uint8)
    hidden = np.zeros((count, side, side), dtype=bool)
    hidden[:, : side // 2, : side // 2] = True
    masked = np.where(hidden[..., None], np.uint8(128), original)
    return {
        "original": original,
        "masked": masked,
        "predicted": (original // 32 * 32).astype(np.uint8),
        "hidden": hidden,
    }


def scope_plan(**changes: Any) -> Plan:
    """The study of `scope_cell`, resolved."""
    return expand(scope_study(**changes))


def half_finished(store: Store, plan: Plan) -> None:
    """masked 0.4: done, failed. masked 0.6: done. full 0.4: missing. full 0.6: blocked, interrupted. scratch: done."""
    for ratio, values in ((0.4, (81.0, None)), (0.6, (84.0, 85.0))):
        for seed, value in enumerate(values):
            run = evaluation(plan, seed, scope="masked", mask_ratio=ratio)
            finish_upstream(store, run)
            if value is None:
                fail(store, run, "Traceback (most recent call last):\n  ...\nRuntimeError: out of memory\n")
            else:
                finish(store, run, {"top1": value, "loss": 1.0})
    for seed, value in enumerate((70.0, 72.0)):
        finish(store, evaluation(plan, seed, scope="scratch"), {"top1": value})
    blocked = upstream(evaluation(plan, 0, scope="full", mask_ratio=0.6))
    assert blocked is not None
    fail(store, blocked, "Traceback:\nValueError: loss is nan\n")
    stopped = evaluation(plan, 1, scope="full", mask_ratio=0.6)
    finish_upstream(store, stopped)
    begin(store, stopped).release()


def finish_upstream(store: Store, run: Evaluation) -> None:
    """Make the pre-training of an evaluation done."""
    first = upstream(run)
    assert first is not None
    finish(store, first, {"loss": 0.5}, log=loss_log(0))


def bench(name: str) -> ModuleType:
    """A script of tests/bench as a module."""
    path = Path(__file__).resolve().parent.parent / "bench" / f"{name}.py"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module
