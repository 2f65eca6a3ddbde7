"""Runs for tests of the store, and attempts at them. Nothing is trained."""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.spec import Backbone, FineTune, Pretrain, RandomMask, Recipe, Run, Shapes
from harness.store import Attempt, Store

RECIPE = Recipe(epochs=2, batch_size=16, lr=1e-3, lr_batch=None)


def pretraining(seed: int = 0) -> Pretrain:
    """A run that differs from others by its seed."""
    return Pretrain(
        data=Shapes(image_size=16, train=64, test=32),
        image_size=16,
        backbone=Backbone(name="vit_tiny_patch16_224", patch_size=4),
        mask=RandomMask(size=4, ratio=0.5),
        recipe=RECIPE,
        seed=seed,
    )


def finetuning(start: Pretrain) -> FineTune:
    """An evaluation of a pre-training."""
    return FineTune(start=start, recipe=RECIPE)


def owned(store: Store, run: Run, *, retry: bool = False) -> Attempt:
    """An attempt at a run that is known to be free."""
    attempt = store.acquire(run, retry=retry)
    assert isinstance(attempt, Attempt), attempt
    return attempt


def finish(store: Store, run: Run, weights: bytes | None = b"weights") -> None:
    """Have a run done."""
    attempt = owned(store, run)
    attempt.finish({"loss": 0.5}, 1.5, weights)
    attempt.release()


def save(attempt: Attempt, step: int) -> bytes:
    """Log a line and write a checkpoint; returns what the checkpoint holds."""
    data = hashlib.sha256(str(step).encode()).digest() * 40
    attempt.log({"step": step})
    attempt.write_checkpoint(step, lambda file: file.write(data))
    return data


def steps(attempt: Attempt) -> list[int]:
    """The steps of the whole checkpoints, latest first."""
    return [file.step for file in attempt.checkpoints()]


def snapshot(root: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with the bytes of files."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None for path in root.rglob("*")
    }
