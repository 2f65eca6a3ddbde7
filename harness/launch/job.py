"""One run, computed here. The only module of launch that loads torch."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any, assert_never

import torch

from harness.core.finetune import finetune
from harness.core.pretrain import pretrain
from harness.core.probe import custom_evaluation, knn, linear_probe
from harness.core.session import Diverged, Interrupted, Session
from harness.launch import provenance
from harness.launch.queue import Ending, Event, last_line
from harness.launch.resources import Resources
from harness.spec import CustomEvaluation, FineTune, HarnessError, Knn, LinearProbe, Pretrain, Run, key
from harness.store import Attempt, Store, Superseded


def prepare(resources: Resources) -> torch.device:
    """Set up torch in this process and return the device that runs use.

    Raises:
        HarnessError: a GPU was asked for and there is none.
    """
    torch.set_num_threads(resources.threads)
    found = torch.cuda.is_available()
    if resources.device == "cuda" and not found:
        raise HarnessError("--device cuda: torch sees no GPU here")
    if found and resources.device != "cpu":
        if resources.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(mode=True)
        return torch.device("cuda")
    return torch.device("cpu")


def work(
    store: Store,
    run: Run,
    device: torch.device,
    resources: Resources,
    *,
    retry: bool = False,
    report: Callable[[Event], None],
    stopping: Callable[[], bool] = lambda: False,
    begin: Callable[[Attempt], None] = lambda attempt: None,
) -> Event:
    """Compute one run, or find out why not; returns how it ended.

    Args:
        begin: called with the attempt as soon as it is owned.
    """
    try:
        attempt = store.acquire(run, retry=retry)
    except HarnessError as error:
        return Event("failed", key(run), str(error))
    if not isinstance(attempt, Attempt):
        ending: dict[str, Ending] = {"done": "done", "running": "elsewhere", "failed": "failed"}
        return Event(ending[attempt.word], store.register(run), last_line(attempt.error))
    name = attempt.key

    def line(values: dict[str, Any]) -> None:
        report(Event("line", name, line=values))

    session = Session(
        attempt,
        device,
        workers=resources.workers,
        micro_batch=resources.micro_batch,
        checkpoint_seconds=resources.checkpoint_seconds,
        report=line,
        stopping=stopping,
    )
    try:
        begin(attempt)
        shown = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        attempt.write_environment(provenance.environment(shown, resources.threads), provenance.repository()[1])
        report(Event("started", name))
        _compute(run, session)
    except Interrupted as stop:
        return Event("interrupted", name, str(stop))
    except Superseded as lost:
        return Event("elsewhere", name, str(lost))
    except Exception as error:
        plain = isinstance(error, HarnessError | Diverged)  # these say all there is to say
        text = f"{type(error).__name__}: {error}" if plain else traceback.format_exc()
        try:
            attempt.fail(text)
        except Superseded as lost:
            return Event("elsewhere", name, str(lost))
        return Event("failed", name, last_line(text))
    finally:
        attempt.release()
    return Event("done", name)


def _compute(run: Run, session: Session) -> None:
    match run:
        case Pretrain():
            pretrain(run, session)
        case FineTune():
            finetune(run, session)
        case LinearProbe():
            linear_probe(run, session)
        case Knn():
            knn(run, session)
        case CustomEvaluation():
            custom_evaluation(run, session)
        case _:
            assert_never(run)
