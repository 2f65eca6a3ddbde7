"""Steps that are recorded and replayed: the numbers are those of steps computed one by one, to the last bit.

On a CPU a tape stands in for a CUDA graph (`tape.py`). With a GPU the graph itself is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tape import on_tape
from test_in_turns import RUNS, ending, in_turns
from tiny import RECIPE, SWIN, VIT, pretrain

from harness.core.runtime.distributed import Group
from harness.core.runtime.session import Interrupted, Session
from harness.core.train import training
from harness.core.train.optimiser import make_optimiser
from harness.core.train.rates import Rates
from harness.core.train.recorded import Recorded, why_not_recorded
from harness.runs import compute, compute_in_turns
from harness.spec import (
    Contrastive,
    Corruption,
    CustomHead,
    DecoderHead,
    FineTune,
    FourierLoss,
    HardMask,
    LinearProbe,
    Loss,
    LossPredictor,
    MomentumEncoder,
    NormPixelTarget,
    Pretrain,
    Run,
    Scratch,
    Segment,
    TokenMask,
    UPerNet,
    key,
)
from harness.store import Attempt, Store

CPU = torch.device("cpu")
MORE: dict[str, Run] = {
    "hard mask": pretrain(
        recipe=RECIPE.replace(clip=None),
        mask=HardMask(size=8),
        momentum=MomentumEncoder(),
        loss_predictor=LossPredictor(decoder=DecoderHead(depth=1, width=16, heads=2)),
    ),
    "fourier": pretrain(fourier=FourierLoss(variant="paper", weight=0.5)),
    "contrastive": pretrain(contrastive=Contrastive(hidden=8, out=8, crops="swapped"), momentum=MomentumEncoder()),
    "sgd": FineTune(
        start=Scratch(backbone=VIT, image_size=32),
        data=pretrain().data,
        image_size=32,
        recipe=RECIPE.replace(optimizer="sgd", layer_decay=0.7),
    ),
    "segmentation": Segment(
        start=Scratch(backbone=VIT, image_size=32),
        data=pretrain().data,
        image_size=32,
        recipe=RECIPE.replace(drop_path=0.2, layer_decay=0.7),
        head=UPerNet(width=8, pools=(1, 2), dropout=0.1),
    ),
    "windows": pretrain(backbone=SWIN),
    "dropped tokens": pretrain(
        mask=TokenMask(size=4, ratio=0.75),
        corruption=Corruption(token="drop"),
        head=DecoderHead(depth=1, width=32, heads=2),
        target=NormPixelTarget(size=4),
        loss=Loss(kind="l2"),
        backbone=VIT.replace(variant="mae"),
    ),
    "noise in hidden pixels": pretrain(corruption=Corruption(token="none", fill="noise")),
    "half precision": pretrain(recipe=RECIPE.replace(precision="bf16")),
}
ALL = {**RUNS, **MORE}
OWN = "code of your own might hold numbers of the host (gang_pieces:normed)"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def taped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording works on a CPU too."""
    monkeypatch.setattr(training, "as_graph", on_tape)
    monkeypatch.setattr(training, "why_not_recorded", lambda session, recipe: None if session.capture else "")


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's fused optimisers, as on a GPU."""

    def make(*args: Any) -> torch.optim.Optimizer:
        made = make_optimiser(*args)
        for group in made.param_groups:
            group["fused"] = True
        return made

    monkeypatch.setattr(training, "make_optimiser", make)


def scalars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are tensors in steps that are not recorded too, as on a GPU."""
    monkeypatch.setattr(training, "Rates", lambda schedules, device: Rates(schedules, CPU))


def computed(folder: Path, run: Run, device: torch.device = CPU, **options: Any) -> tuple[Any, ...]:
    """How a run ends."""
    attempt = Store(folder).acquire(run)
    assert isinstance(attempt, Attempt)
    try:
        compute(run, Session(attempt, device, **options))
    finally:
        attempt.release()
    return ending(folder, run)


@pytest.mark.usefixtures("taped", "fused")
@pytest.mark.parametrize("name", ALL)
def test_a_recorded_run_ends_as_one_computed_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recorded = computed(tmp_path / "recorded", ALL[name], capture=True)
    scalars(monkeypatch)
    assert recorded == computed(tmp_path / "plain", ALL[name])


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("name", ["drop path and dropout", "mixup and drop path", "sgd"])
def test_rates_in_tensors_are_those_in_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """To the last bit on a CPU, but for averages of weights, of which a fused product may round otherwise."""
    plain = computed(tmp_path / "numbers", ALL[name])
    scalars(monkeypatch)
    found = computed(tmp_path / "tensors", ALL[name])
    if name == "mixup and drop path":
        assert [line["loss"] for line in found[1]] == [line["loss"] for line in plain[1]]
    else:
        assert found == plain


def stopping_after(steps: int) -> Callable[[], bool]:
    asked = iter(step == steps for step in range(1, 100))
    return asked.__next__


@pytest.mark.usefixtures("taped", "fused")
@pytest.mark.parametrize("first", [True, False], ids=["recorded, then plain", "plain, then recorded"])
def test_a_checkpoint_of_a_recorded_run_is_one_of_any_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    run = MORE["contrastive"]
    whole = computed(tmp_path / "whole", run, capture=True)
    if not first:
        scalars(monkeypatch)
    with pytest.raises(Interrupted, match="stopped at step 6"):
        computed(tmp_path / "parts", run, capture=first, stopping=stopping_after(6))
    checkpoint = torch.load(next((tmp_path / "parts").rglob("*.pt")), weights_only=True)
    assert all(type(group["lr"]) is float for group in checkpoint["optimiser"]["param_groups"])
    assert not any(group["capturable"] for group in checkpoint["optimiser"]["param_groups"])
    scalars(monkeypatch)
    assert computed(tmp_path / "parts", run, capture=not first) == whole


@pytest.mark.parametrize(
    ("changes", "options", "reason"),
    [
        ({}, {"capture": False}, "not asked for"),
        ({}, {"device": CPU}, "no CUDA graph on cpu"),
        ({}, {"group": Group(0, 2)}, "several processes"),
        ({}, {"micro_batch": 5}, "several slices of a batch"),
        ({"recipe": RECIPE.replace(optimizer="lars")}, {}, "the optimiser's rate is a number of the host (lars)"),
        (
            {"head": CustomHead(function="gang_pieces:normed")},
            {},
            OWN,
        ),
        ({}, {"micro_batch": 16}, None),
    ],
)
def test_what_cannot_be_recorded_says_why(changes: dict[str, Any], options: dict[str, Any], reason: str | None) -> None:
    run = pretrain(**changes)
    values = {"capture": True, "device": torch.device("cuda"), "micro_batch": None, "group": Group()} | options
    session: Any = SimpleNamespace(attempt=SimpleNamespace(run=run), **values)
    assert why_not_recorded(session, run.recipe) == reason


def test_a_run_that_starts_from_one_with_code_of_your_own_is_recorded() -> None:
    """Unless its own step calls it, as a backbone's."""
    start = pretrain(head=CustomHead(function="gang_pieces:normed"))
    run = FineTune(start=start, data=start.data, recipe=RECIPE, image_size=32)
    session: Any = SimpleNamespace(
        attempt=SimpleNamespace(run=run), capture=True, device=torch.device("cuda"), micro_batch=None, group=Group()
    )
    assert why_not_recorded(session, run.recipe) is None


def test_a_tape_knows_no_numbers_of_the_host() -> None:
    """Else the tests above would prove nothing."""
    counter, total = iter(range(1, 10)), torch.zeros(())

    def compute() -> torch.Tensor:
        total.add_(next(counter))
        return total * 2

    replay = on_tape(compute)
    assert [float(replay()) for _ in range(3)] == [2.0, 4.0, 6.0]  # not 2, 6, 12
    with pytest.raises(RuntimeError, match="_local_scalar_dense in a recorded step"):
        on_tape(lambda: total.item())()


def test_inputs_are_copied_only_where_they_changed() -> None:
    recorded, one, other = Recorded(on_tape), torch.zeros(2), torch.zeros(2)
    held = recorded.hold((one, other))
    one.add_(1)
    recorded.hold((one, other))
    assert held[0].tolist() == [1.0, 1.0]
    recorded.hold((other, other))
    assert held[0].tolist() == [0.0, 0.0]
    assert held[1]._version == 0


def test_a_compiled_run_ends_as_one_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a compiler that changes no arithmetic; the weights keep their names, and the record says so."""
    run = RUNS["mixup and drop path"]
    monkeypatch.setattr("harness.core.runtime.session.torch.compile", partial(torch.compile, backend="eager"))
    assert computed(tmp_path / "compiled", run, compile=True) == computed(tmp_path / "plain", run)
    assert Store(tmp_path / "compiled").environment(key(run))["compiled"] is True
    assert Store(tmp_path / "plain").environment(key(run)) == {}


def test_a_record_says_why_a_run_was_not_captured(tmp_path: Path) -> None:
    computed(tmp_path, RUNS["linear probe"], capture=True)
    found = Store(tmp_path).environment(key(RUNS["linear probe"]))
    assert found == {"captured": False, "not captured": "no CUDA graph on cpu"}


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_gpu
@pytest.mark.parametrize("name", [*ALL, "scaled"])
def test_a_captured_run_ends_as_one_launched_operator_by_operator(tmp_path: Path, name: str) -> None:
    """Under deterministic algorithms; "scaled" with a loss scaler."""
    run = {**ALL, "scaled": pretrain(recipe=RECIPE.replace(precision="fp16"))}[name]
    device = torch.device("cuda")
    torch.use_deterministic_algorithms(mode=True)
    try:
        found = [computed(tmp_path / str(capture), run, device, capture=capture) for capture in (True, False)]
    finally:
        torch.use_deterministic_algorithms(mode=False)
    assert found[0] == found[1]
    assert isinstance(run, Pretrain | FineTune | LinearProbe)
    assert Store(tmp_path / "True").environment(key(run))["captured"] is (run.recipe.optimizer in ("adamw", "sgd"))


@needs_gpu
def test_captured_runs_in_turns_each_end_as_alone(tmp_path: Path) -> None:
    """Each on its own stream, with its own graph."""
    device, names = torch.device("cuda"), ["drop path and dropout", "mixup and drop path", "another seed"]
    torch.use_deterministic_algorithms(mode=True)
    try:
        alone = {name: computed(tmp_path / "alone", ALL[name], device) for name in names}
        owned = {name: Store(tmp_path / "turns").acquire(ALL[name]) for name in names}
        turns = {}
        for name, attempt in owned.items():
            assert isinstance(attempt, Attempt)
            turns[name] = compute_in_turns(ALL[name], Session(attempt, device, capture=True))
        assert dict(in_turns(turns)) == dict.fromkeys(names)
    finally:
        torch.use_deterministic_algorithms(mode=False)
    for name in names:
        assert ending(tmp_path / "turns", ALL[name]) == alone[name], name
