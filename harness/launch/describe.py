"""What is known of models before anything is computed: their names without torch, and what torch says of them.

torch is asked in a process of its own, once; the answers are kept in the store.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.spec import HarnessError
from harness.spec.backbone import check_model
from harness.spec.described import Described
from harness.store.descriptions import Description, read_description, write_description

REGISTERED = re.compile(r"^@register_model\s*\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
"""How timm's source says that a function makes a model of that name."""

MINUTES = 10
"""How long counting may take before it is given up."""


@dataclass(frozen=True)
class Answer:
    """A model, and what is known of it: a description, or why there is none, or neither yet.

    refused: whether a run would refuse it for that reason too.
    """

    model: Described
    found: Description | None
    error: str = ""
    refused: bool = False


@cache
def timm_models() -> dict[str, str]:
    """The module of `timm.models` of every model, read from timm's source without loading it; empty without timm."""
    timm = importlib.util.find_spec("timm")
    if timm is None or timm.origin is None:
        return {}
    return {
        name: path.stem
        for path in (Path(timm.origin).parent / "models").rglob("*.py")
        for name in REGISTERED.findall(path.read_text(encoding="utf-8"))
    }


def check_names(models: Iterable[Described]) -> None:
    """Whether timm has these models, and of families that can be encoders. Loads no torch.

    Raises:
        HarnessError: it has not.
    """
    if modules := timm_models():
        for name in dict.fromkeys(model.backbone.name for model in models):
            check_model(name, modules)


def check_models(root: Path, models: Iterable[Described]) -> list[Answer]:
    """What is known of some models, as `describe` finds it, if all can be built as their specs say.

    Raises:
        HarnessError: one cannot.
    """
    models = list(models)
    check_names(models)
    answers = describe(root, models)
    for answer in answers:
        if answer.refused:
            raise HarnessError(f"{answer.model.text}: {answer.error}")
    return answers


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
    records = _records(models)
    return [
        Answer(model, Description(**record))
        if "parameters" in record
        else Answer(model, None, str(record.get("error", record.get("refused"))), "refused" in record)
        for model, record in zip(models, records, strict=True)
    ]


def _records(models: list[Described]) -> list[dict[str, Any]]:
    if "torch" in sys.modules:  # as in a notebook: another process would load it again
        from harness.core.model.describe import answer

        return [answer(model) for model in models]
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
        records: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise HarnessError(f"models could not be described: {last}") from None
    return records
