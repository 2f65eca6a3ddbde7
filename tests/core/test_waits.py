"""A training step on a GPU: the host enqueues it without waiting, for every mask, target, loss and recipe.

The GPU is one of torch's fake devices: shapes without arithmetic, so that this runs anywhere. A copy from ordinary
memory, a read of a value and a shape that depends on values each make the host wait for all that is enqueued.
Backward passes are left out, as torch's engine starts a thread for each device that it finds.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from test_compile import PRESETS
from test_masks import MASKS
from tiny import pretrain
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.core.data.datasets import ImageSet, load
from harness.core.masks.masking import make_views
from harness.core.model.batchnorm import group_batch_norms
from harness.core.pretrain.draws import drawn_batches
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.pretrain.recipe import _learn, _schedules
from harness.core.runtime.drop_path import key_drop_paths
from harness.core.runtime.session import Session
from harness.core.train.optimiser import parameter_groups
from harness.core.train.training import Pace, Training
from harness.spec import BlockMask, FourierLoss, GuidedMask, MomentumEncoder, Pretrain

GPU = torch.device("cuda", 0)
READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero")


class Waits(TorchDispatchMode):
    """Notes operators that make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        name, named = func._schema.name.removeprefix("aten::"), kwargs or {}
        given = [leaf for leaf in tree_leaves((args, named)) if isinstance(leaf, Tensor)]
        here, there = ([leaf for leaf in given if leaf.is_cuda == on_gpu] for on_gpu in (False, True))
        if there and (name in READS or name.startswith("unique") or _by_values(name, args, named)):
            self.found.append(f"{name}: a shape or a value is read")
        made = func(*args, **named)
        results = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        waits_not = named.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        to_gpu = any(leaf.is_cuda for leaf in results) and any(
            leaf.ndim or name in ("_to_copy", "copy_") for leaf in here
        )
        if to_gpu and not waits_not:
            self.found.append(f"{name}: a copy to the device")
        if there and any(not leaf.is_cuda for leaf in results) and name != "set_":
            self.found.append(f"{name}: a copy from the device")
        return made


def _by_values(name: str, args: Sequence[Any], named: Mapping[str, Any]) -> bool:
    """Whether the shape of the result depends on values."""
    if name in ("index", "index_put", "index_put_"):
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return name == "repeat_interleave" and isinstance(args[-1], Tensor) and named.get("output_size") is None


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A fake GPU: nothing is saved, resumed or seeded there, and its host has pinned memory."""
    monkeypatch.setattr(Training, "_resume", lambda self: None)
    monkeypatch.setattr(Training, "_seed", lambda self, step: None)
    monkeypatch.setattr(Pace, "after", lambda *_, **__: False)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch, "_fused_adamw_", lambda *_, **__: None)  # a kernel that fake devices lack
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def on_gpu(model: nn.Module) -> Any:
    """The model with all its tensors on the fake GPU."""
    moved = dict[Tensor, Tensor]()
    for part in model.modules():
        for named in (part._parameters, part._buffers):
            for name, tensor in named.items():
                if tensor is None:
                    continue
                if tensor not in moved:
                    there = torch.empty_like(tensor, device=GPU, requires_grad=False)
                    moved[tensor] = nn.Parameter(there, tensor.requires_grad) if named is part._parameters else there
                named[name] = moved[tensor]  # type: ignore[assignment]
    return model


def _have_gradients(model: nn.Module) -> None:
    for weight in model.parameters():
        weight.grad = torch.empty_like(weight) if weight.requires_grad else None


def waits_of(run: Pretrain, images: ImageSet, model: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What makes the host wait in the second and the third step of a pre-training."""
    session: Any = Session(None, GPU)  # type: ignore[arg-type]
    images = dataclasses.replace(
        images, **{name: torch.empty_like(getattr(images, name), device=GPU) for name in ("images", "labels")}
    )
    model = on_gpu(model).train()
    model.place = key_drop_paths(model, run.seed, run.recipe.batch_size)
    group_batch_norms(model, run.recipe, session, model.place)
    groups = parameter_groups(model.named_parameters(), run.recipe)
    training = Training(
        session, run.recipe, model, seed=0, groups=groups, steps_per_epoch=4, place=model.place,
        schedules=_schedules(run, 4),
    )  # fmt: skip
    learn = partial(_learn, run, model, model)
    monkeypatch.setattr(torch.autograd, "backward", lambda loss: _have_gradients(model))
    steps = training.steps(partial(drawn_batches, run, images, session, training.total_steps))
    next(steps).compute(learn)  # constants reach the device in the first
    with Waits() as waits:
        for _ in range(2):
            next(steps).compute(learn)
    return waits.found


def pretraining(run: Pretrain) -> tuple[ImageSet, MaskedImageModel]:
    images: Any = load(run.data, "pretrain")
    return images, MaskedImageModel(run, images.channels)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    "wait",
    [lambda x: x + torch.tensor([1.0, 2.0], device=GPU), lambda x: x + torch.ones(2).to(GPU), lambda x: x.cpu(),
     lambda x: x[torch.arange(2)], lambda x: x.new_tensor([1.0, 2.0]), lambda x: torch.as_tensor(3, device=GPU),
     lambda x: x.copy_(torch.ones(2)), lambda x: x[0].item(), lambda x: x[x > 0], lambda x: x.nonzero(),
     lambda x: bool(x.any())],
    ids=["tensor", "to", "cpu", "index", "new_tensor", "as_tensor", "copy", "item", "mask", "nonzero", "any"],
)  # fmt: skip
def test_what_waits_is_found(wait: Callable[[Tensor], object]) -> None:
    with Waits() as waits, contextlib.suppress(Exception):  # a fake device refuses some of them
        wait(torch.empty(2, device=GPU))
    assert len(waits.found) == 1


@pytest.mark.usefixtures("gpu")
def test_what_does_not_wait_is_not_found() -> None:
    with Waits() as waits:
        x = torch.empty(2, device=GPU)
        x += torch.ones(2).to(GPU, non_blocking=True) + torch.full((2,), 3.0, device=GPU)
        x.mul_(2.0).add_(torch.tensor(3.0)).repeat_interleave(3)
    assert waits.found == []


RUNS: dict[str, Callable[[], Pretrain]] = {
    **PRESETS,
    "guided mask": lambda: pretrain(mask=GuidedMask(size=8, ratio=0.4), momentum=MomentumEncoder()),
    "fourier": lambda: pretrain(fourier=FourierLoss(variant="paper", weight=0.5)),
}


FAST = ("simmim, vit", "mae")
EACH = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in RUNS]


@pytest.mark.parametrize("name", EACH)
def test_a_step_does_not_wait(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RUNS[name]()
    images, model = pretraining(run)
    request.getfixturevalue("gpu")
    assert waits_of(run, images, model, monkeypatch) == []


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", [name for name in MASKS if not isinstance(MASKS[name], BlockMask)])  # see test_blocks
def test_a_mask_is_drawn_without_waiting(name: str) -> None:
    positions, steps = (torch.empty(12, dtype=torch.int64, device=GPU) for _ in range(2))
    with Waits() as waits:
        make_views(MASKS[name], image_size=224, seed=0, step=steps, steps=9, positions=positions)
    assert waits.found == []
