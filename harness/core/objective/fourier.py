"""Fourier loss: the error of a prediction's spectrum, as in A2MIM's paper and as in its released code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

import torch
from torch import Tensor

from harness.core.objective.losses import distance_error, loss_denominators, prediction_loss
from harness.core.runtime.distributed import Group, rows_of
from harness.core.runtime.session import Session
from harness.spec import AnyLoss, FourierLoss, HarnessError, Pretrain


def fourier_loss(run: Pretrain, prediction: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """The Fourier loss of a run, without its weight; `harness.spec.FourierLoss` has the formulas.

    Args:
        prediction, target: [B, C, H, W]. hidden: bool [B, H, W], True = hidden.

    Returns:
        A float32 scalar. Under `released` with `focal`, image i belongs to group i // group, with all its masks if the
        run has several of each image, one after another along B. A last group that is not full counts like the others;
        that happens outside training only (`require_whole_groups`).
    """
    spec = run.fourier
    if spec is None:
        raise ValueError("the run has no Fourier loss")
    y, x, seen = prediction.float(), target.float(), (~hidden)[:, None].float()
    match spec.variant:
        case "paper":
            return _paper(spec, y, x, seen)
        case "released":
            rows = (spec.group or run.recipe.batch_size) * run.mask.views
            return _released(spec, run.loss, rows, y, x, seen)
        case "plain":
            return _plain(spec, y, x, seen)
        case _:
            assert_never(spec.variant)


def _paper(spec: FourierLoss, y: Tensor, x: Tensor, seen: Tensor) -> Tensor:
    """Loss of A2MIM's paper: visible pixels of the prediction get no gradient."""
    distance = _spectrum(y * (1 - seen) + y.detach() * seen - x).abs()
    # The weight of each frequency is a constant: no gradient flows through it.
    return (distance.detach() ** (spec.alpha or 1.0) * distance).mean() if spec.focal else distance.mean()


def _plain(spec: FourierLoss, y: Tensor, x: Tensor, seen: Tensor) -> Tensor:
    kept = 1 - seen * (1 - (spec.unmask_weight or 0.0))
    # The values are those of y everywhere; visible pixels get unmask_weight of their gradient.
    power = _power(y * kept + y.detach() * (1 - kept) - x)
    return (_by_maximum(power.detach() ** ((spec.alpha or 1.0) / 2), (2, 3)) * power).mean()


def _released(spec: FourierLoss, loss: AnyLoss, group: int, y: Tensor, x: Tensor, seen: Tensor) -> Tensor:
    """Loss of the released code, of the mean image of each group of `group` images if it is focal."""
    kept = 1 - seen * (1 - (spec.unmask_weight or 0.0))
    # As released: visible pixels are the mean of prediction and target, so half of their error remains in the spectrum.
    difference = y * kept + (0.5 * y.detach() + 0.5 * x) * (1 - kept) - x
    if spec.focal:  # the mean spectrum is the spectrum of the mean image
        power = _power(torch.stack([part.mean(0) for part in torch.split(difference, group)]))
        weight = (power.detach().sqrt() ** (spec.alpha or 1.0) + 1).log()
        return (_by_maximum(weight, (1, 2, 3)) * power).mean()
    error = distance_error(loss, _spectrum(difference).abs())
    return (error.detach() * error).mean() if spec.reweight else error.mean()


def _by_maximum(weight: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Weights divided by their maximum over some axes, in [0, 1]; 0 where all are 0, which would give NaN."""
    return (weight / weight.amax(axes, keepdim=True)).nan_to_num(0.0).clamp(0, 1)


def _power(images: Tensor) -> Tensor:
    spectrum = _spectrum(images)
    return spectrum.real.square() + spectrum.imag.square()


def _spectrum(images: Tensor) -> Tensor:
    found: Tensor = torch.fft.fft2(images, norm="ortho")
    return found


def require_whole_groups(run: Pretrain, session: Session) -> None:
    """Refuse processes and micro-batches that cut groups of the Fourier loss apart.

    Raises:
        HarnessError: a group's images would not all be in one slice of one process.
    """
    spec, batch = run.fourier, run.recipe.batch_size
    if spec is None or spec.variant != "released" or not spec.focal:
        return
    group, processes, piece = spec.group or batch, session.group.size, session.micro_batch or batch
    rows = [rows_of(batch, rank, processes) for rank in range(processes)]
    if all(_whole(part // group, group) for mine in rows for part in torch.split(mine, piece)):
        return
    fitting = [
        size
        for size in range(1, batch + 1)
        if batch % size == 0 and all(_whole(part // size, size) for mine in rows for part in torch.split(mine, piece))
    ]
    raise HarnessError(
        f"the released Fourier loss over groups of {group} images cannot be had from {processes} process(es) with "
        f"micro-batches of {piece}: each has to hold whole groups; valid fourier.group here: "
        f"{', '.join(str(size) for size in fitting)}"
    )


def _whole(members: Tensor, size: int) -> bool:
    """True if every group that occurs among the members, int64 [n], occurs `size` times."""
    return bool((torch.bincount(members)[members] == size).all())


@dataclass
class GradientRatio:
    """Relative strength of the Fourier loss: weight * |its gradient| / |gradient of the prediction error|.

    Gradients are taken with respect to the prediction of the global batch, whose slices are added one by one; norms are
    Euclidean. So the ratio depends neither on the slicing nor on the head.
    """

    run: Pretrain
    sums: list[Tensor] = field(default_factory=list)

    def add(self, prediction: Tensor, target: Tensor, hidden: Tensor, units: Tensor) -> None:
        """Add a slice. Arguments as for `fourier_loss`; units: its mask, bool [B, units, units]."""
        assert self.run.fourier is not None
        leaf = prediction.detach().float().requires_grad_()
        with torch.enable_grad(), torch.autocast(leaf.device.type, enabled=False):
            error = prediction_loss(self.run.loss, leaf, target, hidden)
            spectral = self.run.fourier.weight * fourier_loss(self.run, leaf, target, hidden)
            gradients = [torch.autograd.grad(loss, leaf)[0] for loss in (error, spectral)]
        named = loss_denominators(self.run, units)
        weights = torch.stack([named["prediction"], named["fourier"]])
        # The gradients of slices are of their own means: times their weights they are those of the batch.
        squares = torch.stack([gradient.double().square().sum() for gradient in gradients]) * weights.square()
        self.sums.append(torch.cat([squares, weights]))

    def settle(self, group: Group) -> float:
        """Ratio over all slices added in all processes, which call this together; resets the sums."""
        squares, weights = group.sum(torch.stack(self.sums).sum(0)).chunk(2)
        self.sums = []
        error, spectral = (squares.sqrt() / weights.clamp(min=1)).tolist()
        return float(spectral / error) if error else 0.0
