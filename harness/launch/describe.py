"""Asking torch about models in a process of its own, once; the answers are kept in the store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.spec import HarnessError
from harness.spec.described import Described
from harness.store.descriptions import Description, read_description, write_description

MINUTES = 10
"""How long counting may take before it is given up."""


@dataclass(frozen=True)
class Answer:
    """A model, and what is known of it: a description, or why there is none, or neither yet."""

    model: Described
    found: Description | None
    error: str = ""


def known(root: Path, models: Iterable[Described]) -> list[Answer]:
    """What the store holds of some models."""
    return [Answer(model, read_description(root, model)) for model in models]


def describe(root: Path, models: Iterable[Described]) -> list[Answer]:
    """What is known of some models, counted and kept where the store does not hold it.

    Raises:
        HarnessError: the process that should count fails as a whole, or the disk refuses.
    """
    held = known(root, models)
    missing = [answer.model for answer in held if answer.found is None]
    fresh = {answer.model.digest: answer for answer in _ask(missing)} if missing else {}
    for answer in fresh.values():
        if answer.found is not None:
            write_description(root, answer.model, answer.found)
    return [fresh.get(answer.model.digest, answer) for answer in held]


def _ask(models: list[Described]) -> list[Answer]:
    question = json.dumps([model.to_plain() for model in models])
    command = [sys.executable, "-m", "harness.core.model.describe"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # finds a user's own heads
    try:
        done = subprocess.run(
            command,
            input=question,
            capture_output=True,
            text=True,
            timeout=60 * MINUTES,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise HarnessError(f"counting {len(models)} models took more than {MINUTES} minutes") from None
    try:
        records = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise HarnessError(f"models could not be described: {last}") from None
    return [
        Answer(model, None, str(record["error"])) if "error" in record else Answer(model, Description(**record))
        for model, record in zip(models, records, strict=True)
    ]
