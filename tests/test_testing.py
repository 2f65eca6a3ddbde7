"""The contract suite that users run on their own pieces: sound and shipped ones pass it, and each defect is named."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "core"))

from tiny import BEIT, BINS, CLUSTERS, DATA, INVERSE, SWIN, VIT, WORDS

from harness import testing
from harness.core.runtime.custom import load_function
from harness.spec import (
    AnyBackbone,
    Backbone,
    CustomAugment,
    CustomBackbone,
    CustomData,
    CustomEvaluation,
    CustomHead,
    CustomLoss,
    CustomMask,
    CustomOptimiser,
    CustomTarget,
    DecoderHead,
    FrequencyMask,
    GuidedMask,
    HardMask,
    Head,
    HogTarget,
    LinearHead,
    Loss,
    LowPassTarget,
    Mask,
    MlpHead,
    NormPixelTarget,
    PixelTarget,
    Scratch,
    Target,
    TransformerHead,
)

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_pieces"
DEFECTS = """
import numpy as np
import torch
from torch import nn

def sound(random, grid, step, steps, *, ratio):
    return random(*grid).flatten(1).argsort(1).argsort(1).view(-1, *grid) < round(ratio * grid[0] * grid[1])

def inverted(random, grid, step, steps, *, ratio):
    return ~sound(random, grid, step, steps, ratio=ratio)

def global_noise(random, grid, step, steps):
    return torch.rand(len(random(1)), *grid) < 0.5

def whole_batch(random, grid, step, steps):
    noise = random(*grid)
    return noise < noise.mean()

def one_step(random, grid, step, steps):
    return random(*grid) < (0.2 if step < 5 else 0.8)

def first_step(random, grid, step, steps):
    return random(*grid) < 0.2 + 0.5 * step[0, 0, 0] / steps

def grey(images):
    return images.mean(1, keepdim=True)

def in_place(images):
    return images.mul_(0.5)[:, :1]

def constant(images):
    return torch.zeros_like(images[:, :1])

def of_the_batch(images):
    return (images - images.mean())[:, :1]

class Unused(nn.Conv2d):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.spare = nn.Parameter(torch.zeros(3))

def unused(width, out):
    return Unused(width, out, 1)

def head(width, out):
    return nn.Conv2d(width, out, 1)

def upside_down(prediction, target, hidden):
    return 9 - (prediction - target).abs()

def over_the_batch(prediction, target, hidden):
    error = (prediction - target).abs()
    return error * (1 + torch.arange(len(error))).view(-1, 1, 1, 1)

def of_a_channel(prediction, target, hidden):
    return (prediction - target).abs()[:1]

class Stubborn(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] = 0.01
        return super().step(closure)

def stubborn(groups):
    return Stubborn(groups)

class Forgetful(torch.optim.SGD):
    count = 0
    def step(self, closure=None):
        self.count += 1
        for group in self.param_groups:
            group["lr"] /= self.count
        return super().step(closure)

def forgetful(groups):
    return Forgetful(groups)

class Half(torch.optim.SGD):
    def step(self, closure=None):
        self.param_groups[1]["lr"] = 0.0
        return super().step(closure)

def half(groups):
    return Half(groups)

def seeded(channels, image_size):
    generator = torch.Generator()
    generator.seed()
    made = nn.Sequential(nn.Conv2d(channels, 8, 4, 4), nn.Conv2d(8, 8, 1))
    nn.init.normal_(made[0].weight, generator=generator)
    return made

class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0, keepdim=True)

def batchwise(channels, image_size):
    return nn.Sequential(nn.Conv2d(channels, 8, 4, 4), Centred(), nn.Conv2d(8, 8, 1))

class Blind(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.ones(1, 8, 1, 1))
    def forward(self, x):
        return x * 0 + self.bias

def blind(channels, image_size):
    return nn.Sequential(nn.Conv2d(channels, 8, 4, 4), Blind())

def quiet(images, random, step, steps):
    return images

def shuffling(images, random, step, steps):
    return images.flip(0)

def broken(images, random, step, steps):
    return images / 0

def images(split, *, classes=3):
    classes = classes if split == "test" else 3
    labels = torch.arange(30) % classes
    return (labels.view(-1, 1, 1, 1) * torch.ones(1, 16, 16, 3)).byte().numpy(), labels.numpy()

def noise(split):
    return torch.randint(256, (9, 8, 8, 3), dtype=torch.uint8).numpy(), torch.arange(9).numpy()

def spread(encoder, train, test):
    return {"spread": encoder(test[0]).std().item(), "size": len(train[0])}

def deaf(encoder, train, test):
    return {"spread": 1.0}

def drawing(encoder, train, test):
    rows = np.random.default_rng().permutation(len(test[0]))[:3]
    return {"spread": encoder(test[0][rows]).mean().item()}

def drawing_seeded(encoder, train, test):
    return {"spread": encoder(test[0][torch.randperm(len(test[0]))[:3]]).mean().item()}
"""


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "defects.py").write_text(DEFECTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLE)
    load_function.cache_clear()
    yield
    for name in ("defects", "pieces"):
        sys.modules.pop(name, None)


def mask(name: str, **params: Any) -> Callable[[], None]:
    return lambda: testing.check_mask(CustomMask(function=f"defects:{name}", size=4, params=params))


def target(name: str) -> Callable[[], None]:
    return lambda: testing.check_target(CustomTarget(function=f"defects:{name}", channels=1))


def loss(name: str) -> Callable[[], None]:
    return lambda: testing.check_loss(CustomLoss(function=f"defects:{name}"))


def optimiser(name: str) -> Callable[[], None]:
    return lambda: testing.check_optimiser(CustomOptimiser(function=f"defects:{name}"))


def augment(name: str) -> Callable[[], None]:
    return lambda: testing.check_augment(CustomAugment(function=f"defects:{name}"))


def network(name: str) -> Callable[[], None]:
    return lambda: testing.check_backbone(CustomBackbone(function=f"defects:{name}", patch_size=4, stride=4))


def data(name: str, **params: Any) -> Callable[[], None]:
    return lambda: testing.check_data(CustomData(function=f"defects:{name}", params=params))


def evaluation(name: str, metric: str = "spread") -> Callable[[], None]:
    start = Scratch(backbone=VIT, image_size=32)
    return lambda: testing.check_evaluation(
        CustomEvaluation(function=f"defects:{name}", start=start, data=DATA, metric=metric)
    )


def test_an_evaluation_may_draw_from_the_global_generators_which_runs_seed() -> None:
    evaluation("drawing_seeded")()


NAMED = {
    "a set drawn anew": (data("noise"), "defects:noise gives other images or labels of 'train' when it is called"),
    "a class that is not trained": (data("images", classes=5), "a test label is 4, but the training labels end at 2"),
    "an evaluation of nothing": (evaluation("deaf"), "defects:deaf never asks the encoder"),
    "an evaluation that draws": (evaluation("drawing"), "defects:drawing gives other numbers when it is called again"),
    "an evaluation of something else": (evaluation("spread", "top1"), "gives spread, size, not 'top1'"),
    "a mask the wrong way round": (mask("inverted", ratio=0.75), "25.00%), but ratio 0.75 is stated, as if True meant"),
    "a mask of torch's generator": (mask("global_noise"), "defects:global_noise gives other masks for the same seed"),
    "a mask of the whole batch": (mask("whole_batch"), "other masks alone than in a batch of 12"),
    "a mask that asks for the step": (mask("one_step"), "is ambiguous; `step` is a tensor, each row's own"),
    "a mask of the first row's step": (mask("first_step"), "other masks where each row has its own step: `step`"),
    "a mask that lacks a parameter": (mask("sound"), "defects:sound: missing a required"),
    "a target that writes": (target("in_place"), "defects:in_place writes into the images"),
    "a constant target": (target("constant"), "the same for other images: a dead switch"),
    "a target of the batch": (target("of_the_batch"), "defects:of_the_batch gives rows [0, 11] other values alone"),
    "a head with a spare parameter": (
        lambda: testing.check_head(CustomHead(function="defects:unused")),
        "defects:unused has parameters without a gradient: 0.spare",
    ),
    "a loss upside down": (loss("upside_down"), "for a perfect prediction and"),
    "a loss over the batch": (loss("over_the_batch"), "row i depends on other rows"),
    "a loss of another shape": (loss("of_a_channel"), "should return an error map [12, K, 16, 16], not [1, 3, 16, 16]"),
    "an optimiser with a rate of its own": (optimiser("stubborn"), "it does not read its groups' lr"),
    "an optimiser that forgets": (optimiser("forgetful"), "is not in state_dict()"),
    "an optimiser of half": (optimiser("half"), "leaves 2 of 4 parameters where they were"),
    "a network of another seed": (network("seeded"), "they are not drawn from torch's default generator"),
    "a network over the batch": (network("batchwise"), "other values alone than in a batch of 12"),
    "a blind network": (network("blind"), "parameters without a gradient: model.body.0.weight, model.body.0.bias"),
    "an augmentation that does nothing": (augment("quiet"), "changes no image: a dead switch"),
    "an augmentation of the batch": (augment("shuffling"), "other images alone than in a batch of 12"),
    "an augmentation that divides by 0": (augment("broken"), "gives values that are not finite"),
}


@pytest.mark.parametrize("name", NAMED)
def test_defects_are_named_in_one_line(name: str) -> None:
    check, said = NAMED[name]
    with pytest.raises(AssertionError) as caught:
        check()
    assert "\n" not in str(caught.value)
    assert said in str(caught.value)


def test_sound_pieces_of_a_user_pass() -> None:
    testing.check_mask(CustomMask(function="defects:sound", size=4, params={"ratio": 0.75}))
    testing.check_target(CustomTarget(function="defects:grey", channels=1))
    testing.check_head(CustomHead(function="defects:head"))
    testing.check_backbone(CustomBackbone(function="pieces:mixer", patch_size=4, stride=8))
    testing.check_loss(CustomLoss(function="pieces:charbonnier"))
    testing.check_optimiser(CustomOptimiser(function="pieces:sign"))
    testing.check_augment(CustomAugment(function="pieces:dim"))
    data("images")()
    evaluation("spread")()


RESNET = Backbone(name="resnet18", args={"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}, patch_size=4, stride=32)
CONVNEXT = Backbone(
    name="convnext_tiny", args={"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}, patch_size=4, stride=32
)


@pytest.mark.parametrize(
    "backbone", [VIT, BEIT, SWIN, RESNET, CONVNEXT], ids=["vit", "beit", "swin", "resnet", "convnext"]
)
def test_shipped_backbones_pass(backbone: AnyBackbone) -> None:
    testing.check_backbone(backbone)


HEADS: dict[str, Head] = {
    "linear": LinearHead(),
    "mlp": MlpHead(layers=3),
    "depth-wise": MlpHead(depthwise=3),
    "transformer": TransformerHead(layers=1, num_heads=4),
    "inverse swin": INVERSE,
    "decoder": DecoderHead(depth=1, width=16, heads=2),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_shipped_heads_pass(head: Head) -> None:
    testing.check_head(head)


TARGETS: dict[str, Target] = {
    "pixels": PixelTarget(downsample=4),
    "patches": NormPixelTarget(size=4),
    "windows": NormPixelTarget(size=9, area="window"),
    "low-pass": LowPassTarget(radius=6.0, patch=4),
    "hog": HogTarget(cell=2, window=4),
    "bins": BINS,
    "clusters": CLUSTERS,
    "words": WORDS,
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_shipped_targets_pass(target: Target) -> None:
    testing.check_target(target)


LOSSES = {
    **{kind: Loss(kind=kind) for kind in ("l1", "l2", "smooth-l1", "focal-l1", "cosine")},
    "l1 over all": Loss(scope="full"),
    "frequency": Loss(kind="frequency", scope="full"),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_shipped_losses_pass(loss: Loss) -> None:
    testing.check_loss(loss)


def test_cross_entropy_passes() -> None:
    testing.check_loss(Loss(kind="cross-entropy"), classes=4)


LOOKING: dict[str, Mask] = {
    "frequency": FrequencyMask(radius=4.0),
    "guided": GuidedMask(size=8, ratio=0.5),
    "hints": GuidedMask(size=4, ratio=0.5, reveal=0.1),
    "hard": HardMask(size=8),
}


@pytest.mark.parametrize("mask", LOOKING.values(), ids=LOOKING)
def test_shipped_masks_pass(mask: Mask) -> None:
    """The others: tests/core/test_masks.py."""
    testing.check_mask(mask, image_size=32)
