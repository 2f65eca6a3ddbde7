"""A step on a GPU never waits for it: no tensor is read on the host, and none copied to the device.

Tried with tensors that have a device and a shape but no values, as there need be no GPU. Backward passes, which are
torch's own, are left out: they need one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_recorded import ALL
from test_testing import CONVNEXT, LOSSES, RESNET, TARGETS
from tiny import BEIT, CLASSES, RECIPE, SWIN_V2, pretrain
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.core.data.batches import Batch
from harness.core.objective.contrastive import has_second_crop
from harness.core.pretrain import recipe
from harness.core.pretrain.draws import masks_of
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.runtime.drop_path import key_drop_paths
from harness.core.runtime.session import Session
from harness.core.train.optimiser import parameter_groups
from harness.core.train.training import Training
from harness.spec import Contrastive, FourierLoss, FrequencyMask, Loss, MomentumEncoder, Pretrain

GPU = torch.device("cuda")
BATCH = RECIPE.batch_size
CODES = {"bins", "clusters", "words"}
RUNS = {
    **{name: run for name, run in ALL.items() if isinstance(run, Pretrain) and run.recipe.precision == "fp32"},
    **{
        f"target {name}": pretrain(target=TARGETS[name], loss=Loss(kind="l2"))
        for name in sorted(TARGETS.keys() - CODES)
    },
    **{f"target {name}": pretrain(target=TARGETS[name], loss=CLASSES) for name in sorted(CODES)},
    **{f"loss {name}": pretrain(loss=LOSSES[name]) for name in sorted(LOSSES.keys() - {"cosine"})},
    **{name: pretrain(backbone=backbone) for name, backbone in (("convnext", CONVNEXT), ("beit", BEIT))},
    "resnet": pretrain(backbone=RESNET, recipe=RECIPE.replace(drop_path=0.0)),
    "swin v2": pretrain(backbone=SWIN_V2),
    "removed frequencies": pretrain(mask=FrequencyMask(radius=4.0), loss=Loss(scope="full")),
    "released fourier": pretrain(fourier=FourierLoss(variant="released", weight=0.5)),
    "two crops": pretrain(contrastive=Contrastive(hidden=8, out=8, crops="two"), momentum=MomentumEncoder()),
}


class Waits(TorchDispatchMode):
    """What the host would wait for: names of operators that read a tensor, or copy one from the host's memory."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func._schema.name
        if name.startswith("aten::_fused_"):
            return None  # the update of the weights, which has no form without values
        found = func(*args, **(kwargs or {}))
        places = {tensor.device.type for tensor in tree_leaves((args, found)) if isinstance(tensor, Tensor)}
        if len(places) > 1 and name in ("aten::_to_copy", "aten::copy_"):
            self.found.append(name)
        return found


def moved(mode: FakeTensorMode, model: nn.Module) -> None:
    """Put a model's tensors on a GPU, without their values."""

    def fake(tensor: Tensor) -> Tensor:
        found = mode.from_tensor(tensor.detach())
        with mode:
            return found.to(GPU)

    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(fake(parameter), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake(buffer)


def batch_of(run: Pretrain) -> Batch:
    """A batch with its masks, as they come when they are drawn ahead."""
    crops = (2,) if has_second_crop(run.contrastive) else ()
    masks = [mask for mask in masks_of(run).values() if mask.scored_by is None]
    units = sum(mask.views * (run.image_size // mask.size) ** 2 for mask in masks)
    return Batch(
        0,
        torch.zeros(BATCH, *crops, 3, run.image_size, run.image_size, device=GPU),
        torch.zeros(BATCH, dtype=torch.int64, device=GPU),
        torch.arange(BATCH, device=GPU),
        torch.zeros(BATCH, units, dtype=torch.bool, device=GPU),
    )


def backward_to(parameters: list[Tensor]) -> Callable[[Tensor], None]:
    """Backward pass that gives these parameters a gradient."""

    def backward(loss: Tensor) -> None:
        assert loss.requires_grad
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)

    return backward


@pytest.mark.parametrize("name", RUNS)
def test_a_step_of_pre_training_does_not_wait(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, mode = RUNS[name], FakeTensorMode()
    model = MaskedImageModel(run, 3).train()
    moved(mode, model)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    with mode:
        model.place = key_drop_paths(model, run.seed, BATCH)
        training = Training(
            Session(SimpleNamespace(run=run), GPU),  # type: ignore[arg-type]
            run.recipe,
            model,
            seed=run.seed,
            groups=parameter_groups(model.named_parameters(), run.recipe),
            steps_per_epoch=4,
            place=model.place,
            schedules=recipe._schedules(run, 4),
        )
        monkeypatch.setattr(torch.autograd, "backward", backward_to(training.parameters))
        learn, batch = partial(recipe._learn, run, model, model), batch_of(run)
        for step in range(2):  # what is made once is made in the first
            training._set_rates(step)
            training.place.move(step, batch.positions)
            with Waits() as waits:
                training.compute(learn, batch._replace(step=training.place.step))
    assert waits.found == []
