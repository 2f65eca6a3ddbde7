"""Check of learning rate and weight decay of every parameter, measured from one step of the real training loop.

The first step of Adam moves a weight by its learning rate times the sign of its gradient. The largest movement in a
parameter is therefore the rate that was applied, whatever the code that set it intended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from harness.audit.contract import Finding, shortened
from harness.core.evaluate.finetune import finetune
from harness.core.evaluate.start import classifier
from harness.core.model.encoder import depth, layer_id
from harness.core.runtime.session import Session
from harness.core.train.optimiser import decays
from harness.spec import Cosine, FineTune, Recipe, Scratch, Shapes
from harness.store import Attempt

IMAGES = 4
"""Generated images of the measured step."""
TOLERANCE = 0.05
"""Share by which a measured rate may fall short, as it does where all gradients of a parameter are tiny."""
DECAY_RATE = 1e-2
"""Learning rate of the step that weight decay is measured at."""


class _Aside(Attempt):
    """An attempt in no store: keeps log lines and final weights in memory, writes nothing."""

    def __init__(self) -> None:
        self.key, self.weights = "audit", b""
        self.logged: list[dict[str, Any]] = []

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
    """Weights before and after the first step of a fine-tuning from scratch with the same model and recipe.

    The step uses a few generated images, and leaves out what changes the size of a step: warm-up, clipping, drop path,
    averages, mixed precision.
    """
    first = run.replace(
        start=Scratch(backbone=run.start.backbone, image_size=run.image_size),
        data=Shapes(image_size=run.image_size, train=IMAGES, test=IMAGES),
        recipe=run.recipe.replace(
            epochs=1,
            batch_size=IMAGES,
            lr=run.recipe.scaled(run.recipe.lr),
            lr_batch=None,  # scaled in the line above
            eps=1e-20,  # gradients behind a LayerScale of 1e-6 are no larger than the usual 1e-8
            warmup_epochs=0,
            warmup_steps=0,
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
    aside = _Aside()
    session = Session(attempt=aside, device=torch.device("cpu"))
    model = classifier(first, session, channels=Shapes.channels, num_classes=Shapes.num_classes)
    # Initial weights are a function of the seed, so `finetune` starts from these.
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for _ in finetune(first, session):
        pass
    after = load(aside.weights)
    return before, {name: after[name] for name in before}


def check_rates(run: FineTune, arm: str) -> Iterator[Finding]:
    """Compare the applied learning rate and weight decay of every parameter with the recipe."""
    if run.recipe.optimizer != "adamw":
        name = getattr(run.recipe.optimizer, "function", run.recipe.optimizer)
        yield Finding("rates", "remark", f"{name}: rates are measured for adamw only", arm)
        return
    # Decay moves weights too, so the rate is measured without it.
    before, after = one_step(run.replace(recipe=run.recipe.replace(weight_decay=0.0)))
    wrong = []
    wanted = expected_rates(run)
    for name, start in before.items():
        moved = (after[name] - start).abs().max().item()
        spacing = torch.finfo(start.dtype).eps * start.abs().max().item()  # to which the step of a weight is rounded
        most = wanted[name] * (1 + 1e-3) + spacing
        if moved and not wanted[name] * (1 - TOLERANCE) < moved < most:
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
    text = f"{what} of {len(wrong)} of {count} parameters is not the recipe's: {shortened(wrong)}"
    return Finding("rates", "failed", text, arm)


def expected_rates(run: FineTune) -> dict[str, float]:
    """Peak learning rate of each parameter: the recipe's, times layer_decay to the power of the layers above it."""
    session = Session(attempt=_Aside(), device=torch.device("cpu"))
    scratch = run.replace(start=Scratch(backbone=run.start.backbone, image_size=run.image_size))
    model = classifier(scratch, session, channels=3, num_classes=2)
    peak, decay = run.recipe.scaled(run.recipe.lr), run.recipe.layer_decay or 1.0
    last = depth(model) + 1
    return {name: peak * decay ** (last - layer_id(model, name)) for name, _ in model.named_parameters()}


def measured_decay(run: FineTune) -> dict[str, tuple[float, float]]:
    """Applied and expected weight decay of each parameter, from one step with decay and one without."""
    plain = {"lr": DECAY_RATE, "lr_batch": None, "layer_decay": None}
    recipes: tuple[Recipe, ...] = tuple(
        run.recipe.replace(**plain, weight_decay=decay) for decay in (0.0, run.recipe.weight_decay)
    )
    (before, without), (_, with_decay) = (one_step(run.replace(recipe=recipe)) for recipe in recipes)
    found = {}
    for name, start in before.items():
        if not bool(start.any()):
            continue  # decay of zeros is zero whatever its strength
        large = start.abs() > start.abs().max() / 2  # the quotient of small weights is rounding
        lost = (without[name] - with_decay[name])[large] / (DECAY_RATE * start[large])
        wanted = run.recipe.weight_decay if decays(name, start, run.recipe.no_decay) else 0.0
        found[name] = (lost.median().item(), wanted)
    return found
