"""Several runs computed in turns in one process: each ends as if it were alone, to the last bit."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import DATA, RECIPE, VIT, pretrain

from harness.core.runtime.precision import Arithmetic
from harness.core.runtime.session import Computation, Diverged, Session
from harness.runs import compute_in_turns
from harness.spec import Augment, Average, FineTune, GuidedMask, Knn, LinearProbe, MomentumEncoder, Run, Scratch, key
from harness.store import Attempt, Store

DROPS = VIT.replace(args={**dict(VIT.args), "proj_drop_rate": 0.2})
MIXED = Augment(crop_scale=(0.5, 1.0), mixup=0.8, cutmix=1.0, smoothing=0.1)
RUNS: dict[str, Run] = {
    "drop path and dropout": pretrain(backbone=DROPS, recipe=RECIPE.replace(drop_path=0.2)),
    "mixup and drop path": FineTune(
        start=Scratch(backbone=DROPS, image_size=32),
        data=DATA,
        image_size=32,
        recipe=RECIPE.replace(drop_path=0.2, augment=MIXED, average=Average(decay=0.9)),
    ),
    "linear probe": LinearProbe(
        start=Scratch(backbone=VIT, image_size=32), data=DATA, image_size=32, recipe=RECIPE.replace(epochs=1)
    ),
    "momentum": pretrain(mask=GuidedMask(size=8, ratio=0.5), momentum=MomentumEncoder()),
    "another seed": pretrain(backbone=DROPS, recipe=RECIPE.replace(epochs=1), seed=5),
}
DIVERGING = pretrain(recipe=RECIPE.replace(lr=1e30))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def begun(folder: Path, run: Run) -> tuple[Attempt, Computation]:
    """A run that is owned and not yet computed."""
    attempt = Store(folder).acquire(run)
    assert isinstance(attempt, Attempt)
    return attempt, compute_in_turns(run, Session(attempt, torch.device("cpu")))


def ending(folder: Path, run: Run) -> tuple[Any, list[dict[str, Any]], list[str]]:
    """Result, metrics lines without times, and digests of the weights of a finished run."""
    store = Store(folder)
    result, times = store.result(key(run)), {"seconds", "images_per_second"}
    assert result is not None
    lines = [{name: value for name, value in line.items() if name not in times} for line in store.metrics(key(run))]
    files = sorted((folder / key(run)).rglob("*.safetensors"))
    return result.metrics, lines, [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Endings of the runs, each computed alone."""
    torch.set_num_threads(1)
    found = {}
    for name, run in RUNS.items():
        folder = tmp_path_factory.mktemp("alone")
        attempt, computation = begun(folder, run)
        assert all(ready() for ready in computation)
        attempt.release()
        found[name] = ending(folder, run)
    return found


def disturb() -> None:
    """What other users of the process could leave behind."""
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002


def in_turns(computations: dict[str, Computation]) -> Iterator[tuple[str, Exception | None]]:
    """Advance all in turns; gives the name of each that ended, and how."""
    while computations:
        for name, computation in [*computations.items()]:
            disturb()
            error: Exception | None = None
            try:
                if next(computation, None) is not None:
                    continue
            except Exception as raised:
                error = raised
            del computations[name]
            yield name, error


def test_runs_in_turns_end_as_each_alone(tmp_path: Path, alone: dict[str, Any]) -> None:
    """Among them one that diverges at its first line and ends alone."""
    owned = {name: begun(tmp_path, run) for name, run in {**RUNS, "diverging": DIVERGING}.items()}
    endings = dict(in_turns({name: computation for name, (_, computation) in owned.items()}))
    for attempt, _ in owned.values():
        attempt.release()
    assert isinstance(endings.pop("diverging"), Diverged)
    assert endings == dict.fromkeys(RUNS)
    for name, run in RUNS.items():
        assert ending(tmp_path, run) == alone[name], name


def test_a_cancelled_run_leaves_the_others(tmp_path: Path, alone: dict[str, Any]) -> None:
    """Closed after its first line; the other goes on to the same end."""
    name, other = "linear probe", "another seed"
    (kept, one), (closed, two) = begun(tmp_path, RUNS[name]), begun(tmp_path, RUNS[other])
    next(one)
    next(two)
    two.close()
    closed.release()
    assert list(in_turns({name: one})) == [(name, None)]
    kept.release()
    assert ending(tmp_path, RUNS[name]) == alone[name]
    assert Store(tmp_path).result(key(RUNS[other])) is None


@pytest.mark.parametrize("name", RUNS)
def test_nothing_of_the_process_is_left_changed_between_turns(tmp_path: Path, name: str) -> None:
    """Gradient mode, autocast, deterministic algorithms and the precision of products, at each turn."""

    def settings() -> tuple[Any, ...]:
        return (
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
            torch.get_default_dtype(),
        )

    attempt, computation = begun(tmp_path, RUNS[name].replace(seed=8))
    before = settings()
    assert all(settings() == before for _ in computation)
    attempt.release()


def test_a_run_without_a_recipe_has_32_bit_convolutions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's default lets convolutions on GPUs round to ten bits, which k-NN and analyses would inherit."""
    from harness import runs

    seen: list[Arithmetic] = []
    monkeypatch.setattr(runs, "knn", lambda run, session: seen.append(Arithmetic.current()))
    attempt, computation = begun(tmp_path, Knn(start=Scratch(backbone=VIT, image_size=32), data=DATA))
    before = Arithmetic.current()
    assert not list(computation)
    assert seen == [Arithmetic("highest", convolutions=False)]
    assert Arithmetic.current() == before
    attempt.release()


def test_the_precision_of_products_is_each_runs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in tf32 and one in fp32 each find their own after each turn, and the caller finds his."""
    from harness import runs

    seen: list[tuple[str, str]] = []

    def recipe(run: Run, session: Session) -> Computation:
        wanted = "high" if run.seed else "highest"
        torch.set_float32_matmul_precision(wanted)
        for _ in range(3):
            yield session.mark()
            seen.append((wanted, torch.get_float32_matmul_precision()))

    monkeypatch.setattr(runs, "pretrain", recipe)
    owned = [begun(tmp_path, pretrain(seed=seed)) for seed in (0, 1)]
    before = torch.get_float32_matmul_precision()
    assert len(list(in_turns({str(place): one for place, (_, one) in enumerate(owned)}))) == 2
    assert len(seen) == 6
    assert all(wanted == found for wanted, found in seen)
    assert torch.get_float32_matmul_precision() == before
    for attempt, _ in owned:
        attempt.release()
