"""The Fourier loss of both variants, against values computed by hand and against NumPy's FFT."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gang import CPU, compute
from numpy.typing import NDArray
from tiny import DATA, RECIPE, VIT, pretrain
from torch import Tensor

from harness import audit
from harness.core.objective.fourier import GradientRatio, fourier_loss, require_whole_groups
from harness.core.runtime.distributed import Group
from harness.core.runtime.session import Session
from harness.launch import Resources
from harness.spec import ComplementMask, FourierLoss, HarnessError, LocalMask, Loss, Pretrain, RandomMask, Shapes, key
from harness.store import Store

ALL = torch.ones(1, 2, 2, dtype=torch.bool)
RELEASED = FourierLoss(variant="released")
PLAIN = FourierLoss(variant="plain")


def of(fourier: FourierLoss, residual: Tensor, hidden: Tensor, loss: Loss | None = None, target: float = 7.0) -> float:
    """The loss of predictions that differ from a target by a residual."""
    run = pretrain(fourier=fourier, loss=loss or Loss())
    x = torch.full_like(residual, target)
    return fourier_loss(run, x + residual, x, hidden).item()


def image(*rows: tuple[float, float]) -> Tensor:
    return torch.tensor(rows).view(1, 1, 2, 2)


# By hand: [[1, 1], [0, 0]] has the orthonormal spectrum [[1, 0], [1, 0]], and [[3, 1], [0, 0]] has [[2, 1], [2, 1]].


@pytest.mark.parametrize(
    ("fourier", "value"),
    [
        (FourierLoss(), (9 + 0 + 9 + 0) / 4),
        (FourierLoss(alpha=2.0), (27 + 0 + 27 + 0) / 4),
        (FourierLoss(focal=False), (3 + 0 + 3 + 0) / 4),
        (RELEASED, (9 + 0 + 9 + 0) / 4),
        (RELEASED.replace(focal=False), (3 + 0 + 3 + 0) / 4),
        (RELEASED.replace(focal=False, reweight=True), (9 + 0 + 9 + 0) / 4),
    ],
)
def test_three_times_a_row_by_hand(fourier: FourierLoss, value: float) -> None:
    assert of(fourier, 3 * image((1, 1), (0, 0)), ALL) == pytest.approx(value, rel=1e-5)


def test_the_released_weight_by_hand() -> None:
    residual = image((3, 1), (0, 0))
    low = math.log(2) / math.log(3)
    assert of(RELEASED, residual, ALL) == pytest.approx((4 + low + 4 + low) / 4, rel=1e-5)
    low = math.log(2) / math.log(5)
    assert of(RELEASED.replace(alpha=2.0), residual, ALL) == pytest.approx((4 + low + 4 + low) / 4, rel=1e-5)


@pytest.mark.parametrize(("kind", "value"), [("l1", 1.5), ("l2", 2.5), ("smooth-l1", 1.0), ("focal-l1", None)])
def test_without_focal_the_released_loss_is_the_spatial_one(kind: Any, value: float | None) -> None:
    residual, fourier = image((3, 1), (0, 0)), FourierLoss(variant="released", focal=False)
    value = value or sum(a * math.tanh(0.1 * a) for a in (2, 1, 2, 1)) / 4
    assert of(fourier, residual, ALL, Loss(kind=kind)) == pytest.approx(value, rel=1e-5)


def test_the_plain_weight_by_hand() -> None:
    """Of the spectrum [[2, 1], [2, 1]]; another channel, with [[6, 0], [6, 0]], has a maximum of its own."""
    low = image((3, 1), (0, 0))
    assert of(PLAIN, low, ALL) == pytest.approx((4 + 0.5 + 4 + 0.5) / 4, rel=1e-5)
    assert of(PLAIN.replace(alpha=2.0), low, ALL) == pytest.approx((4 + 0.25 + 4 + 0.25) / 4, rel=1e-5)
    both = torch.cat([low, image((6, 6), (0, 0))], dim=1)
    assert of(PLAIN, both, ALL) == pytest.approx((9 + 72) / 8, rel=1e-5)


def test_visible_errors_count_whole_in_the_paper_and_half_as_released() -> None:
    """Pixel (0, 1) is visible: the residual [[3, 2], [0, 0]] is taken as it is, and as [[3, 1], [0, 0]]."""
    hidden = torch.tensor([[[True, False], [True, True]]])
    residual = image((3, 2), (0, 0))
    assert of(PLAIN, residual, hidden) == pytest.approx((12.5 + 0.1 + 12.5 + 0.1) / 2 / 4, rel=1e-5)  # 5, 1 over root 2
    assert of(FourierLoss(focal=False), residual, hidden) == pytest.approx((5 + 1 + 5 + 1) / 2 / 4, rel=1e-5)
    plain = FourierLoss(variant="released", focal=False)
    assert of(plain, residual, hidden) == pytest.approx((2 + 1 + 2 + 1) / 4, rel=1e-5)
    # a tenth of the prediction and nine tenths of the mixture: 0.1 * 2 + 0.9 * 1
    assert of(plain.replace(unmask_weight=0.1), residual, hidden) == pytest.approx((4.1 + 1.9) * 2 / 2 / 4, rel=1e-5)


def test_a_perfect_prediction_has_no_loss() -> None:
    for fourier in (FourierLoss(), PLAIN, RELEASED, RELEASED.replace(focal=False)):
        assert of(fourier, torch.zeros(3, 1, 2, 2), ALL.expand(3, 2, 2)) == 0.0


# Against NumPy

Array = NDArray[np.float64]


def by_numpy(fourier: FourierLoss, loss: Loss, y: Array, x: Array, m: Array, group: int) -> float:
    """The formulas as they are written in `FourierLoss`, in float64, image by image."""

    def spectrum(images: Array) -> NDArray[np.complex128]:
        return np.fft.fft2(images, norm="ortho")

    if fourier.variant == "paper":
        d = np.abs(spectrum(y) - spectrum(x))
        return float((d ** (1 + (fourier.alpha or 0.0))).mean())
    if fourier.variant == "plain":
        d = np.abs(spectrum(y) - spectrum(x))
        w = d**fourier.alpha / (d**fourier.alpha).max((2, 3), keepdims=True)
        return float((w * d**2).mean())
    u = fourier.unmask_weight or 0.0
    kept = m + (1 - m) * u
    filled = y * kept + (0.5 * y + 0.5 * x) * (1 - kept)
    if not fourier.focal:
        d = np.abs(spectrum(filled) - spectrum(x))
        e = {"l1": d, "l2": d**2, "focal-l1": d * (2 / (1 + np.exp(-0.2 * d)) - 1)}[loss.kind]
        return float((e * e if fourier.reweight else e).mean())
    values = []
    for first in range(0, len(y), group):
        part = slice(first, first + group)
        d = np.abs(spectrum(filled[part]).mean(0) - spectrum(x[part]).mean(0))
        w = np.log(d**fourier.alpha + 1)
        values.append((w / w.max() * d**2).mean())
    return float(np.mean(values))


FOURIER = [
    FourierLoss(),
    FourierLoss(alpha=0.5),
    FourierLoss(focal=False),
    RELEASED,
    RELEASED.replace(group=4, unmask_weight=1e-3),
    PLAIN.replace(alpha=0.5),
    RELEASED.replace(group=2, alpha=2.0),
    FourierLoss(variant="released", focal=False, unmask_weight=0.3),
    FourierLoss(variant="released", focal=False, reweight=True),
]


@pytest.mark.parametrize("kind", ["l1", "l2", "focal-l1"])
@pytest.mark.parametrize("fourier", FOURIER)
def test_against_numpy(fourier: FourierLoss, kind: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    y, x = torch.randn(2, 16, 3, 10, 8, generator=generator)
    hidden = torch.rand(16, 10, 8, generator=generator) < 0.6
    loss = Loss(kind=kind)
    run = pretrain(fourier=fourier, loss=loss)
    arrays = [value.double().numpy() for value in (y, x, hidden[:, None])]
    wanted = by_numpy(fourier, loss, arrays[0], arrays[1], arrays[2], fourier.group or 16)
    assert fourier_loss(run, y, x, hidden).item() == pytest.approx(wanted, rel=1e-4)


# Gradients


def gradient(fourier: FourierLoss, y: Tensor, x: Tensor, hidden: Tensor) -> Tensor:
    leaf = y.clone().requires_grad_()
    fourier_loss(pretrain(fourier=fourier), leaf, x, hidden).backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("fourier", [FourierLoss(), RELEASED.replace(focal=False, reweight=True)])
def test_the_weight_has_no_gradient(fourier: FourierLoss) -> None:
    """mean |F|^2 is mean d^2, of gradient 2 d / n; with one of the two factors |F| held, it is half of that."""
    y, x = torch.randn(2, 4, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    found = gradient(fourier, y, x, torch.ones(4, 6, 6, dtype=torch.bool))
    assert torch.allclose(found, (y - x) / y.numel(), atol=1e-7)


def test_all_of_the_plain_loss_s_gradient_is_had_by_an_unmask_weight_of_one() -> None:
    """Of one wave of one frequency and its mirror: both have the weight 1, and the loss is mean |F|^2, that is d^2."""
    wave = torch.cos(torch.arange(8) * math.pi / 4).expand(1, 1, 8, 8)
    hidden = torch.zeros(1, 8, 8, dtype=torch.bool)
    found = gradient(PLAIN.replace(unmask_weight=1.0), wave, torch.zeros_like(wave), hidden)
    assert torch.allclose(found, 2 * wave / 64, atol=1e-6)
    assert not gradient(PLAIN, wave, torch.zeros_like(wave), hidden).any()


@pytest.mark.parametrize("fourier", FOURIER[:6])
def test_what_the_visible_part_receives(fourier: FourierLoss) -> None:
    generator = torch.Generator().manual_seed(0)
    y, x = torch.randn(2, 16, 3, 8, 8, generator=generator)
    hidden = torch.rand(16, 8, 8, generator=generator) < 0.5
    found = gradient(fourier, y, x, hidden)
    seen = found[(~hidden)[:, None].expand_as(found)]
    assert found[hidden[:, None].expand_as(found)].abs().min() > 0
    if fourier.unmask_weight:
        assert 0 < seen.abs().max() < 2e-3 * found.abs().max() * 10
    else:
        assert not seen.any()


# What depends on the batch


def samples(count: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(count, 3, 16, 16, generator=generator)
    y = x + 0.5 * torch.randn(x.shape, generator=generator)
    return y, x, torch.rand(count, 16, 16, generator=generator) < 0.6


def test_the_paper_s_loss_of_a_batch_is_the_mean_of_its_images() -> None:
    y, x, hidden = samples(64)
    for fourier in (FourierLoss(), FourierLoss(focal=False), PLAIN):
        run = pretrain(fourier=fourier)
        alone = [fourier_loss(run, y[i : i + 1], x[i : i + 1], hidden[i : i + 1]).item() for i in range(64)]
        assert fourier_loss(run, y, x, hidden).item() == pytest.approx(np.mean(alone), rel=1e-5)
        weak, strong = (ratio(run.replace(recipe=RECIPE.replace(batch_size=size))) for size in (16, 64))
        assert weak == pytest.approx(strong, rel=0.1)


def test_the_released_loss_falls_with_the_group() -> None:
    """The mean of n independent residuals has 1 / n of their power, and its gradient in an image falls too."""
    y, x, hidden = samples(64)
    found = {}
    for group in (1, 4, 16, 64):
        fourier = RELEASED.replace(group=group)
        run = pretrain(fourier=fourier, recipe=RECIPE.replace(batch_size=64))
        found[group] = fourier_loss(run, y, x, hidden).item()
    for smaller, larger in ((1, 4), (4, 16), (16, 64)):
        assert found[larger] == pytest.approx(found[smaller] / 4, rel=0.3)
    small, large = (ratio(pretrain(fourier=RELEASED, recipe=RECIPE.replace(batch_size=size))) for size in (16, 64))
    assert large < 0.7 * small


def ratio(run: Pretrain) -> float:
    y, x, hidden = samples(run.recipe.batch_size)
    found = GradientRatio(run)
    found.add(y, x, hidden, hidden)
    return found.settle(Group())


def test_images_of_a_group_share_one_gradient() -> None:
    """Where all is hidden, the released loss moves all images of a group alike: it sees nothing but their mean."""
    y, x, _ = samples(16)
    everything = torch.ones(16, 16, 16, dtype=torch.bool)
    released = gradient(RELEASED.replace(group=8), y, x, everything)
    assert torch.allclose(released[:8], released[:1].expand(8, -1, -1, -1), atol=1e-9)
    assert not torch.allclose(released[8], released[0], atol=1e-6)


def test_all_masks_of_an_image_are_in_its_group() -> None:
    """With two masks of each image, a group of 4 images has 8 rows."""
    y, x, hidden = samples(16)
    single, double = (
        fourier_loss(pretrain(fourier=RELEASED.replace(group=group), mask=mask), y, x, hidden).item()
        for group, mask in ((8, RandomMask(size=8, ratio=0.5)), (4, ComplementMask(size=8)))
    )
    assert single == double


# The ratio of gradients


def test_the_ratio_by_hand() -> None:
    """All hidden, l2 and the paper's loss: gradients 2 d / n and weight * d / n."""
    y, x, _ = samples(16)
    everything = torch.ones(16, 16, 16, dtype=torch.bool)
    run = pretrain(fourier=FourierLoss(weight=0.3), loss=Loss(kind="l2"))
    found = GradientRatio(run)
    found.add(y, x, everything, everything)
    assert found.settle(Group()) == pytest.approx(0.15, rel=1e-4)


def test_the_ratio_of_slices_is_that_of_the_batch() -> None:
    y, x, hidden = samples(16)
    run = pretrain(fourier=RELEASED.replace(group=2))
    whole = ratio(run)
    sliced = GradientRatio(run)
    for part in (slice(0, 2), slice(2, 10), slice(10, 16)):
        sliced.add(y[part], x[part], hidden[part], hidden[part])
    assert sliced.settle(Group()) == pytest.approx(whole, rel=1e-5)
    assert sliced.sums == []


# Training

FEW = Shapes(image_size=16, train=16, test=8)
SMALL = VIT.replace(args={"embed_dim": 16, "depth": 2, "num_heads": 2})
TRAINED = pretrain(data=FEW, image_size=16, backbone=SMALL, recipe=RECIPE.replace(epochs=6))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def lines(root: Path, run: Pretrain, micro_batch: int | None = None) -> list[dict[str, float]]:
    events = compute(Group(), root, [run], Resources(checkpoint_seconds=1e6, micro_batch=micro_batch), {})
    assert [event.kind for event in events] == ["done"], events[0].text
    return Store(root).metrics(key(run))


@pytest.mark.parametrize("fourier", [FourierLoss(), RELEASED.replace(group=4)], ids=["paper", "released"])
def test_micro_batches_change_nothing(fourier: FourierLoss, tmp_path: Path) -> None:
    run = TRAINED.replace(fourier=fourier)
    whole, sliced = lines(tmp_path / "one", run), lines(tmp_path / "slices", run, micro_batch=4)
    assert len(whole) == len(sliced) == 6
    for one, other in zip(whole, sliced, strict=True):
        for name in ("loss", "grad_norm", "fourier_ratio"):
            assert one[name] == pytest.approx(other[name], rel=1e-4), name
        assert one["fourier_ratio"] > 0


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_the_logged_ratio_is_over_the_units_that_the_loss_is_taken_over(
    micro_batch: int | None, tmp_path: Path
) -> None:
    """l2 and the paper's loss have gradients 2 d / n and weight * d / N: n are 2 of the N = 16 units of an image."""
    mask = LocalMask(size=4, ratio=0.5, window=2, windows=2, shared=False)
    fourier, loss = FourierLoss(weight=0.3), Loss(kind="l2")
    run = TRAINED.replace(mask=mask, fourier=fourier, loss=loss, recipe=TRAINED.recipe.replace(epochs=2))
    for line in lines(tmp_path, run, micro_batch):
        assert line["fourier_ratio"] == pytest.approx(0.3 / 2 * 2 / 16, rel=1e-3)


def test_a_run_without_fourier_loss_logs_no_ratio(tmp_path: Path) -> None:
    assert all("fourier_ratio" not in line for line in lines(tmp_path, TRAINED.replace(recipe=RECIPE)))


def test_groups_that_are_cut_apart_are_refused(tmp_path: Path) -> None:
    def session(processes: int, micro_batch: int | None) -> Session:
        return Session(None, CPU, micro_batch=micro_batch, group=Group(0, processes))  # type: ignore[arg-type]

    run = TRAINED.replace(fourier=RELEASED.replace(group=4))
    for processes, micro_batch in ((1, None), (1, 4), (1, 8), (4, None), (2, 4)):
        require_whole_groups(run, session(processes, micro_batch))
    for processes, micro_batch in ((1, 6), (8, None), (2, 2)):
        with pytest.raises(HarnessError, match=r"groups of 4 images .* valid fourier.group here: 1(, 2)?$"):
            require_whole_groups(run, session(processes, micro_batch))
    with pytest.raises(HarnessError, match="groups of 16 images cannot be had from 2 process"):
        require_whole_groups(TRAINED.replace(fourier=RELEASED), session(2, None))
    require_whole_groups(TRAINED.replace(fourier=FourierLoss()), session(8, 1))
    events = compute(Group(), tmp_path, [run], Resources(micro_batch=6), {})
    assert events[0].kind == "failed"
    assert "valid fourier.group here: 1, 2" in events[0].text


def test_the_fourier_loss_is_no_dead_switch() -> None:
    batch = audit.fixed_batch(pretrain(data=DATA), 4)
    plain, paper, released = (
        audit.first_step(pretrain(fourier=fourier), batch) for fourier in (None, FourierLoss(), RELEASED)
    )
    assert not plain.same_as(paper)
    assert not paper.same_as(released)
