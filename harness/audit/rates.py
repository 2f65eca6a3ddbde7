"""Does every parameter get the learning rate and the weight decay of the recipe? Measured from a step of the real loop.

The first step of Adam moves a weight by its learning rate times the sign of its gradient. So the largest movement in a
parameter is the rate that it really got, whatever the code that set it believes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load
from torch import Tensor

from harness.audit.finding import Finding, Verdict
from harness.core.evaluate import labelled
from harness.core.evaluate.finetune import finetune
from harness.core.evaluate.start import classifier
from harness.core.model.encoder import depth, layer_id
from harness.core.runtime.session import Session
from harness.core.train.optimiser import decays
from harness.spec import Cosine, FineTune, Recipe, Scratch, Shapes
from harness.store import Attempt

IMAGES = 4
TOLERANCE = 0.05
"""A rate may seem smaller than it is where all gradients of a parameter are tiny, never larger."""

MOVED = 1e-2
"""Rate of the step that weight decay is measured at."""


@dataclass
class _Aside:
    """Takes the place of an attempt in a store: nothing is kept but the weights at the end."""

    folder: Path
    key: str = "audit"
    logged: list[dict[str, Any]] = field(default_factory=list)
    weights: bytes = b""

    def checkpoints(self) -> Iterator[Any]:
        return iter(())

    def begin_metrics(self, lines: object = ()) -> None:
        del lines

    def write_checkpoint(self, step: int, write: object) -> None:
        del step, write

    def log(self, line: dict[str, Any]) -> None:
        self.logged.append(line)

    def lines(self) -> list[dict[str, Any]]:
        return self.logged

    def finish(self, metrics: dict[str, float], seconds: float, weights: bytes | None = None) -> None:
        del metrics, seconds
        self.weights = weights or b""


def one_step(run: FineTune) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights before and after the first step of a fine-tuning of the same model and recipe from scratch.

    On a few generated images, without what blurs the size of a step: warm-up, clipping, drop path, averages, mixed
    precision.
    """
    first = run.replace(
        start=Scratch(backbone=run.start.backbone, image_size=run.image_size),
        data=Shapes(image_size=run.image_size, train=IMAGES, test=IMAGES),
        recipe=run.recipe.replace(
            epochs=1,
            batch_size=IMAGES,
            lr=run.recipe.scaled(run.recipe.lr),
            lr_batch=None,
            eps=1e-20,  # gradients behind a scale of 1e-6 are no larger than the usual one
            warmup_epochs=0,
            schedule=Cosine(),
            clip=None,
            drop_path=0.0,
            precision="fp32",
            average=None,
            batch_norm_group=None,
        ),
        tested_epochs=1,
        test_size=None,
    )
    with tempfile.TemporaryDirectory() as folder:
        aside = _Aside(Path(folder))
        session = Session(attempt=cast(Attempt, aside), device=torch.device("cpu"))
        shapes = first.data
        model = classifier(first, session, channels=shapes.channels, num_classes=_classes(first))
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        finetune(first, session)
    after = load(aside.weights)
    return before, {name: after[name] for name in before}


def _classes(run: FineTune) -> int:
    from harness.core.data.datasets import load as load_images

    return load_images(run.data, "train").num_classes


def check_rates(run: FineTune, arm: str) -> Iterator[Finding]:
    """Effective learning rate and weight decay of every parameter against the recipe."""
    if run.recipe.optimizer != "adamw":
        yield Finding("rates", "remark", f"{run.recipe.optimizer}: rates are measured for adamw only", arm)
        return
    quiet = run.replace(recipe=run.recipe.replace(weight_decay=0.0))
    before, after = one_step(quiet)
    wrong = []
    wanted = expected_rates(run)
    for name, start in before.items():
        moved = (after[name] - start).abs().max().item()
        if moved and not 1 - TOLERANCE < moved / wanted[name] < 1 + 1e-3:
            wrong.append(f"{name} {moved:.3g} instead of {wanted[name]:.3g}")
    yield _verdict("learning rate", wrong, len(before), arm)
    wrong = [
        f"{name} {found:.3g} instead of {expected:.3g}"
        for name, (found, expected) in measured_decay(run).items()
        if abs(found - expected) > 0.1 * max(run.recipe.weight_decay, 1e-4)
    ]
    yield _verdict("weight decay", wrong, len(before), arm)


def _verdict(what: str, wrong: Sequence[str], count: int, arm: str) -> Finding:
    if not wrong:
        return Finding("rates", "passed", f"{what} of all {count} parameters is the recipe's", arm)
    shown = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
    return Finding("rates", "failed", f"{what} of {len(wrong)} of {count} parameters is not the recipe's: {shown}", arm)


def expected_rates(run: FineTune) -> dict[str, float]:
    """The peak times layer_decay to the power of the layers above, for every parameter of the classifier."""
    session = Session(attempt=cast(Attempt, _Aside(Path())), device=torch.device("cpu"))
    scratch = run.replace(start=Scratch(backbone=run.start.backbone, image_size=run.image_size))
    model = classifier(scratch, session, channels=3, num_classes=2)
    peak, decay = run.recipe.scaled(run.recipe.lr), run.recipe.layer_decay or 1.0
    last = depth(model) + 1
    return {name: peak * decay ** (last - layer_id(model, name)) for name, _ in model.named_parameters()}


def measured_decay(run: FineTune) -> dict[str, tuple[float, float]]:
    """Weight decay that each parameter got and that the recipe gives it: the difference that it makes to one step."""
    plain = {"lr": MOVED, "lr_batch": None, "layer_decay": None}
    recipes: tuple[Recipe, ...] = tuple(
        run.recipe.replace(**plain, weight_decay=decay) for decay in (0.0, run.recipe.weight_decay)
    )
    (before, without), (_, with_decay) = (one_step(run.replace(recipe=recipe)) for recipe in recipes)
    found = {}
    for name, start in before.items():
        large = start.abs() > start.abs().max() / 2
        if not bool(start.any()):
            continue
        lost = (without[name] - with_decay[name])[large] / (MOVED * start[large])
        wanted = run.recipe.weight_decay if decays(name, start, run.recipe.no_decay) else 0.0
        found[name] = (lost.median().item(), wanted)
    return found


def check_epoch() -> Finding:
    """Whether the reported accuracy is that of the last epoch, not the best one."""
    tested = [(1, 50.0), (2, 70.0), (3, 60.0)]
    lines = [{"epoch": e, "test_top1": top1, "test_top5": 100.0, "test_loss": 1.0} for e, top1 in tested]
    reported = labelled.summary(cast(list[dict[str, Any]], lines))["top1"]
    epoch = next((e for e, top1 in tested if top1 == reported), None)
    verdict: Verdict = "passed" if epoch == 3 else "failed"
    which = f"epoch {epoch} of 3" if epoch else "no epoch"
    return Finding("epoch", verdict, f"the reported accuracy is that of {which}; the rule is the last one")
