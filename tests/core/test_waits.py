"""A training step on a GPU: the host enqueues it without waiting, for every mask, target, loss and recipe.

The GPU is one of torch's fake devices: shapes without arithmetic, so that this runs anywhere. A copy from ordinary
memory, a read of a value and a shape that depends on values each make the host wait for all that is enqueued.
Backward passes are left out, as torch's engine starts a thread for each device that it finds; so are images of files,
which are copied on streams that fake devices lack.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_compile import PRESETS
from test_dalle import Reference, save
from test_features import teacher
from test_in_turns import MIXED
from test_masks import MASKS
from test_recorded import ALL
from test_testing import CONVNEXT, LOSSES, RESNET, TARGETS
from tiny import CLASSES, DATA, RECIPE, SWIN, VIT, pretrain
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.core.data import batches
from harness.core.data.datasets import ImageSet
from harness.core.data.scenes import MadeScenes
from harness.core.evaluate import probe, segment
from harness.core.masks.masking import make_views
from harness.core.model import batchnorm
from harness.core.model.taps import Taps
from harness.core.runtime import ahead
from harness.core.runtime.precision import Arithmetic
from harness.core.runtime.session import Session
from harness.core.train import rates
from harness.core.train.training import Step, Training
from harness.runs import compute_in_turns
from harness.spec import (
    AnyBackbone,
    Augment,
    Average,
    BlockMask,
    ComplementMask,
    Contrastive,
    FeatureTarget,
    FineTune,
    FourierLoss,
    FrequencyMask,
    GuidedMask,
    LinearMap,
    LinearProbe,
    Loss,
    MomentumEncoder,
    Recipe,
    Run,
    Scratch,
    Segment,
    Target,
    TokenTarget,
)

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


def on_gpu(model: nn.Module) -> nn.Module:
    """The model with all its tensors on the fake GPU, without values."""
    moved = dict[Tensor, Tensor]()
    for part in model.modules():
        for named in (part._parameters, part._buffers):
            for name, tensor in named.items():
                if tensor is None or tensor.is_cuda:
                    continue
                if tensor not in moved:
                    there = torch.empty_like(tensor, device=GPU, requires_grad=False)
                    moved[tensor] = nn.Parameter(there, tensor.requires_grad) if named is part._parameters else there
                named[name] = moved[tensor]  # type: ignore[assignment]
    return model


def in_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with tensors that have values."""

    def found(*given: Any, **named: Any) -> Any:
        with unset_fake_temporarily():
            return function(*given, **named)

    return found


class Enough(Exception):
    """All steps that are looked at have been computed."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """What the host waits for in the second and the third step of a training on a fake GPU.

    Nothing is resumed or seeded there, and its host has pinned memory. Each step is drawn by itself, so that no draw is
    missed.
    """
    waits = Waits()
    with contextlib.ExitStack() as entered:

        def steps(self: Training, given: Callable[[int], Iterator[Any]]) -> Iterator[Step[Any]]:
            for step in itertools.islice(ours(self, given), 3):
                for weight in self.parameters:
                    weight.grad = torch.empty_like(weight)
                yield step
                if not step.number:  # constants reach the device in the first
                    entered.enter_context(waits)
            raise Enough

        def moved(self: nn.Module, *_: Any, **__: Any) -> nn.Module:
            entered.enter_context(mode)
            return on_gpu(self)

        def moved_set(self: ImageSet, device: torch.device) -> ImageSet:
            with mode:
                images, labels = (torch.empty_like(tensor, device=device) for tensor in (self.images, self.labels))
            return dataclasses.replace(self, images=images, labels=labels)

        def moved_scenes(self: MadeScenes, device: torch.device) -> MadeScenes:
            images = self.images.to(device)
            with mode:
                slots, classes = (torch.empty_like(tensor, device=device) for tensor in (self.slots, self.classes))
            return dataclasses.replace(self, images=images, slots=slots, classes=classes)

        ours, mode = Training.steps, FakeTensorMode(allow_non_fake_inputs=True)
        # Computed on the host before training, where values may be read.
        for module, name in ((probe, "initialised"), (segment, "initialised"), (batchnorm, "_across")):
            monkeypatch.setattr(module, name, in_numbers(getattr(module, name)))
        monkeypatch.setattr(nn.Module, "to", moved)
        monkeypatch.setattr(ImageSet, "to", moved_set)
        monkeypatch.setattr(MadeScenes, "to", moved_scenes)
        # These compute something before training.
        monkeypatch.setattr(segment, "_check_tested", lambda *_: None)
        monkeypatch.setattr(Taps, "train_what_is_reached", lambda *_: None)
        monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
        monkeypatch.setattr(Training, "steps", steps)
        monkeypatch.setattr(Training, "_resume", lambda self: None)
        monkeypatch.setattr(Training, "_seed", lambda self, step: None)
        monkeypatch.setattr(Arithmetic, "use", lambda self: None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        monkeypatch.setattr(torch.autograd, "backward", lambda loss: None)
        for kernel in ("_fused_adamw_", "_fused_sgd_"):  # which fake devices lack
            monkeypatch.setattr(torch, kernel, lambda *_, **__: None)
        for module in (ahead, batches, rates):
            monkeypatch.setattr(module, "STEPS", 1)
        yield waits


@pytest.fixture
def fake() -> Iterator[None]:
    """All tensors are without values."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@pytest.mark.usefixtures("fake")
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


@pytest.mark.usefixtures("fake")
def test_what_does_not_wait_is_not_found() -> None:
    with Waits() as waits:
        x = torch.empty(2, device=GPU)
        x += torch.ones(2).to(GPU, non_blocking=True) + torch.full((2,), 3.0, device=GPU)
        x.mul_(2.0).add_(torch.tensor(3.0)).repeat_interleave(3)
    assert waits.found == []


def tuned(backbone: AnyBackbone, recipe: Recipe = RECIPE, **changes: Any) -> FineTune:
    """A fine-tuning of a few steps."""
    start = Scratch(backbone=backbone, image_size=32)
    return FineTune(start=start, data=DATA, image_size=32, recipe=recipe, **changes)


def probed(recipe: Recipe = RECIPE, **changes: Any) -> LinearProbe:
    """A linear probe behind a batch norm."""
    start = Scratch(backbone=VIT, image_size=32)
    return LinearProbe(start=start, data=DATA, image_size=32, recipe=recipe, batch_norm=True, **changes)


LAMB = RECIPE.replace(augment=MIXED, optimizer="lamb")
LARS = RECIPE.replace(optimizer="lars", momentum=0.9, weight_decay=0.0)
GROUPS = RECIPE.replace(augment=MIXED, batch_norm_group=4)
RUNS: dict[str, Run] = {
    **{name: make() for name, make in PRESETS.items()},
    **ALL,
    **{
        f"target {name}": pretrain(target=target, loss=Loss(kind="l2"))
        for name, target in TARGETS.items()
        if name not in ("bins", "clusters", "words")  # classes, which presets have
    },
    **{f"loss {name}": pretrain(loss=loss) for name, loss in LOSSES.items() if name != "cosine"},  # for features only
    "guided mask": pretrain(mask=GuidedMask(size=8, ratio=0.4), momentum=MomentumEncoder()),
    "blocks": pretrain(mask=BlockMask(size=4, ratio=0.4)),
    "two views": pretrain(mask=ComplementMask(size=4)),
    "removed frequencies": pretrain(mask=FrequencyMask(radius=4.0), loss=Loss(scope="full")),
    "released fourier": pretrain(fourier=FourierLoss(variant="released", weight=0.5)),
    "two crops": pretrain(contrastive=Contrastive(hidden=8, out=8, crops="two"), momentum=MomentumEncoder()),
    "loss scaler": pretrain(recipe=RECIPE.replace(precision="fp16")),
    "fine-tuning": tuned(
        VIT, RECIPE.replace(augment=MIXED, drop_path=0.2, layer_decay=0.7, average=Average(decay=0.9))
    ),
    "fine-tuning, swin": tuned(SWIN, RECIPE.replace(augment=MIXED, drop_path=0.2, layer_decay=0.7)),
    "fine-tuning, convnext": tuned(CONVNEXT, RECIPE.replace(augment=MIXED)),
    "fine-tuning, resnet, lamb": tuned(RESNET, LAMB, loss="binary-cross-entropy", label_threshold=0.2),
    "fine-tuning, smoothed labels": tuned(VIT, RECIPE.replace(augment=Augment(smoothing=0.1))),
    "segmentation, linear, frozen": Segment(
        start=Scratch(backbone=VIT, image_size=32), data=DATA, recipe=RECIPE, head=LinearMap(), frozen=True
    ),
    "linear probe, batch norm": probed(),
    "linear probe, lars": probed(LARS, pool="token"),
    "loss scaler, lamb": tuned(RESNET, LAMB.replace(precision="fp16")),
    "loss scaler, lars": probed(LARS.replace(precision="fp16")),
}  # fmt: skip
FAST = ("simmim, vit", "mae", "fine-tuning", "segmentation", "linear probe, batch norm", "loss scaler, lars")
EACH = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in RUNS]


def compute(run: Run, **options: Any) -> None:
    """Three steps of a run on the fake GPU."""
    with pytest.raises(Enough):
        next(compute_in_turns(run, Session(None, GPU, **options)))  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")  # to copy a model for its average
@pytest.mark.parametrize("name", EACH)
def test_a_step_does_not_wait(name: str, gpu: Waits) -> None:
    compute(RUNS[name])
    assert gpu.found == []


FROM_FILES: dict[str, Callable[[Path], Target]] = {
    "teacher": lambda file: FeatureTarget(teacher=teacher(file, VIT)[0], width=32),
    "teacher that sees larger images in its own colours": lambda file: FeatureTarget(
        teacher=teacher(file, VIT.replace(patch_size=8), size=64)[0], width=32, downsample=4, mean=(0.5,) * 3,
        std=(0.2,) * 3,
    ),
    "codes of DALL-E": lambda file: TokenTarget(tokenizer=save(Reference(8, 2, 16), file), downsample=4),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_FILES)
def test_a_step_with_a_target_from_a_file_does_not_wait(name: str, gpu: Waits, tmp_path: Path) -> None:
    target = FROM_FILES[name](tmp_path / "a.safetensors")
    compute(pretrain(target=target, loss=Loss(kind="l2") if isinstance(target, FeatureTarget) else CLASSES))
    assert gpu.found == []


IN_PARTS: dict[str, Run] = {
    **{name: RUNS[name] for name in ("target patches", "fourier", "guided mask", "fine-tuning")},
    "fine-tuning, groups of a batch": tuned(RESNET, GROUPS),
    "linear probe, groups of a batch": probed(GROUPS),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize("name", IN_PARTS)
def test_a_step_in_parts_does_not_wait(name: str, gpu: Waits) -> None:
    compute(IN_PARTS[name], micro_batch=4)
    assert gpu.found == []


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_drawn_without_waiting(name: str) -> None:
    positions, steps = (torch.empty(12, dtype=torch.int64, device=GPU) for _ in range(2))
    with Waits() as waits:
        make_views(MASKS[name], image_size=224, seed=0, step=steps, steps=9, positions=positions)
    assert waits.found == []
