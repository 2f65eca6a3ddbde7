"""Every target, loss and head learns one batch in 30 steps, has no dead parameter and a target of the clean image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gang import compute
from overfit import LEARNT, overfit
from safetensors.torch import save_file
from tiny import DATA, RECIPE, SWIN, VIT, pretrain

from harness import audit
from harness.core.model.encoder import build
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.runtime.distributed import Group
from harness.launch import Resources
from harness.spec import (
    Backbone,
    Checkpoint,
    Corruption,
    FeatureTarget,
    FourierLoss,
    HogTarget,
    Images,
    Loss,
    LowPassTarget,
    MlpHead,
    MomentumEncoder,
    MomentumTarget,
    NormPixelTarget,
    Pretrain,
    RandomMask,
    TransformerHead,
    key,
)
from harness.store import Store

HOG = HogTarget(cell=2, window=4)
PIECES: dict[str, dict[str, Any]] = {
    "norm-pixels": {"target": NormPixelTarget(size=4), "loss": Loss(kind="l2")},
    "norm-pixels, window": {"target": NormPixelTarget(size=9, area="window")},
    "low-pass": {"target": LowPassTarget(radius=6.0, patch=4), "loss": Loss(kind="l2")},
    "hog": {"target": HOG, "loss": Loss(kind="l2")},
    "features, cosine": {"target": "features", "loss": Loss(kind="cosine")},
    "features, l2": {"target": "features", "loss": Loss(kind="l2")},
    "momentum": {
        "target": MomentumTarget(width=32, downsample=4, blocks=2, norm="layer"),
        "loss": Loss(kind="l2"),
        "momentum": MomentumEncoder(),
    },
    "focal l1": {"loss": Loss(kind="focal-l1")},
    "frequency": {"loss": Loss(kind="frequency", scope="full")},
    "fourier, paper": {"fourier": FourierLoss()},
    "fourier, released": {"fourier": FourierLoss(variant="released", group=4), "loss": Loss(kind="focal-l1")},
    "fourier, plain": {"fourier": FourierLoss(variant="plain")},
    "fourier, not focal": {"fourier": FourierLoss(variant="released", focal=False, reweight=True)},
    "depth-wise": {"head": MlpHead(depthwise=5)},
    "transformer": {"head": TransformerHead(num_heads=4)},
    "transformer with convolutions": {"head": TransformerHead(layers=1, width=24, num_heads=4, depthwise=3)},
    "hog, depth-wise": {"target": HOG, "loss": Loss(kind="l2"), "head": MlpHead(depthwise=5)},
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> FeatureTarget:
    path = tmp_path_factory.mktemp("teacher") / "vit.safetensors"
    torch.manual_seed(1)
    made = build(VIT, image_size=32, channels=3)
    save_file({name: tensor.contiguous() for name, tensor in made.state_dict().items()}, path)
    return FeatureTarget(teacher=Checkpoint(path=str(path), backbone=VIT, image_size=32), width=32, norm="layer")


def made_of(name: str, teacher: FeatureTarget, backbone: Backbone = VIT) -> Pretrain:
    """On 32 px, or 64 for a Swin, so that its last map has more than one place; the teacher sees 32 in either case."""
    pieces, size = PIECES[name], backbone.stride * 2 if backbone is SWIN else 32
    if pieces.get("target") == "features":
        pieces = {**pieces, "target": teacher.replace(downsample=size * 4 // 32)}
    if name == "momentum" and backbone is SWIN:
        whole = RandomMask(size=32, ratio=0.5)
        pieces = {**pieces, "target": MomentumTarget(width=128, downsample=32, blocks=1, norm="layer"), "mask": whole}
    return pretrain(**{"backbone": backbone, "image_size": size, "mask": RandomMask(size=8, ratio=0.5), **pieces})


@pytest.mark.parametrize("backbone", [VIT, SWIN], ids=["vit", "swin"])
@pytest.mark.parametrize("name", PIECES)
def test_one_batch_is_learnt_and_nothing_is_dead(name: str, backbone: Backbone, teacher: FeatureTarget) -> None:
    run = made_of(name, teacher, backbone)
    share, first = overfit(run, audit.fixed_batch(run))
    assert share <= LEARNT
    assert audit.dead_parameters(run) == []
    assert first.gradients.keys() == dict(_parameters(run)).keys()


def _parameters(run: Pretrain) -> list[tuple[str, Any]]:
    return [(name, p) for name, p in MaskedImageModel(run, 3).named_parameters() if p.requires_grad]


@pytest.mark.parametrize("name", PIECES)
def test_the_target_is_of_the_clean_image_and_nothing_hidden_is_seen(name: str, teacher: FeatureTarget) -> None:
    run = made_of(name, teacher)
    batch = audit.fixed_batch(run, 4)
    assert audit.is_masked(run, batch)
    assert audit.is_clean(run, batch)


@pytest.mark.parametrize("fourier", [None, FourierLoss(), FourierLoss(variant="released")])
def test_a_fill_that_leaks_the_mean_leaves_the_target_clean(fourier: FourierLoss | None) -> None:
    run = pretrain(fourier=fourier, mask=RandomMask(size=8, ratio=0.5), corruption=Corruption(fill="image-mean"))
    batch = audit.fixed_batch(run, 4)
    assert audit.is_masked(run, batch)
    assert audit.is_clean(run, batch)


def test_every_piece_changes_the_first_step(teacher: FeatureTarget) -> None:
    runs = [pretrain(mask=RandomMask(size=8, ratio=0.5)), *(made_of(name, teacher) for name in PIECES)]
    batch = audit.fixed_batch(runs[0], 4)
    losses = [audit.first_step(run, batch).loss for run in runs]
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize("name", ["norm-pixels", "low-pass", "hog", "features, cosine", "depth-wise", "transformer"])
def test_reconstructions(name: str, teacher: FeatureTarget, tmp_path: Path) -> None:
    """Every target but features has a picture; training, its checkpoint and the pictures work."""
    run = made_of(name, teacher).replace(recipe=RECIPE.replace(epochs=1))
    event = compute(Group(), tmp_path, [run], Resources(checkpoint_seconds=1e6), {})[0]
    assert event.kind == "done", event.text
    found = list(Store(tmp_path).folder(key(run)).path.rglob("reconstructions.npz"))
    assert len(found) == (0 if name == "features, cosine" else 1)
    for file in found:
        held = np.load(file)
        assert held["predicted"].shape == held["original"].shape == (8, 32, 32, 3)


def test_grey_images_have_a_third_of_the_histograms() -> None:
    """36 numbers for a patch of one channel, which is predicted, and 108 for three."""
    for data, channels, count in ((DATA, 3, 108), (Images(name="fashion-mnist-mini"), 1, 36)):
        run = pretrain(data=data, target=HOG, loss=Loss(kind="l2"))
        model = MaskedImageModel(run, channels)
        units = torch.zeros(2, 4, 4, dtype=torch.bool)
        units[:, :2] = True
        prediction, losses = model(torch.randn(2, channels, 32, 32), units)
        assert prediction.shape == (2, count, 8, 8)
        assert losses["prediction"].ndim == 0
