"""Batch norm over groups of images of the global batch, independent of processes and micro-batches.

Group g holds the images at places g * size to (g + 1) * size - 1 of the global batch (the "ghost batches" of Hoffer et
al., NeurIPS 2017, section 4, by their place). torch's SyncBatchNorm knows neither CPUs nor groups smaller than a
process's rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.core.runtime.distributed import Group, rows_of, summed
from harness.core.runtime.drop_path import Place
from harness.core.runtime.session import Session
from harness.spec import HarnessError, Recipe

KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Grouping:
    """Division of a global batch into groups.

    size: images in a group. count: groups in the global batch. place: current step and positions.
    processes: those that compute the run. across: True if a group's images may be spread over them.
    """

    size: int
    count: int
    place: Place
    processes: Group
    across: bool


class GroupBatchNorm(_BatchNorm):
    """Batch norm with statistics over groups of images; parameters and buffers are those of `layer`.

    The first axis may hold n rows of each image (its views, say), the rows of an image one after another. Running
    statistics are updated once a step (`settle`), towards the mean of the groups' means and unbiased variances; with
    one group that equals torch's layers.
    """

    def __init__(self, layer: _BatchNorm, grouping: Grouping) -> None:
        super().__init__(
            layer.num_features, layer.eps, layer.momentum, affine=False, track_running_stats=layer.track_running_stats
        )
        self.affine, self.weight, self.bias = layer.affine, layer.weight, layer.bias
        # The same tensors as the layer that is replaced: averages and state dicts made before stay valid.
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        # The kind of the layer checks the number of axes, which torch leaves to its subclasses.
        self.kind, self.grouping = type(layer), grouping
        self.seen: Tensor | None = None
        self.train(layer.training)

    def _check_input_dim(self, input: Tensor) -> None:
        check: Any = self.kind._check_input_dim
        check(self, input)

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, ...] to the same, in the input's dtype.

        Raises:
            HarnessError: the first axis is not a multiple of the images, or a group has one value a channel.
        """
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        # At least float32: sums over a group in half precision would lose digits.
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        members = self._members(len(x))
        # Values of a channel in a group: its images, times the places and views of each.
        values = self.grouping.size * x.numel() // (x.shape[1] * len(self.grouping.place.positions))
        if values < 2:
            raise HarnessError("batch norm over one value a channel: make batch_norm_group larger")
        shape = (*x.shape[:2], *(1,) * (x.ndim - 2))
        mean = self._sum(x, members) / values
        centred = x - mean[members].view(shape)
        # In two passes: the mean of squares minus the square of the mean would cancel digits.
        variance = self._sum(centred.square(), members) / values
        self._note(mean.detach(), variance.detach() * values / (values - 1))
        found = centred * (variance + self.eps).rsqrt()[members].view(shape)
        if self.affine:
            along = (1, -1, *shape[2:])
            found = found * self.weight.view(along) + self.bias.view(along)
        return found.to(input.dtype)

    def _members(self, rows: int) -> Tensor:
        """The group of each row: int64 [rows]."""
        positions = self.grouping.place.positions
        if not len(positions) or rows % len(positions):
            raise HarnessError(f"batch norm of {rows} rows, which are no multiple of the {len(positions)} images")
        return (positions // self.grouping.size).repeat_interleave(rows // len(positions))

    def _sum(self, x: Tensor, members: Tensor) -> Tensor:
        """Sums over each group: [groups, C]; 0 for groups whose images are all in other processes."""
        rows = x.flatten(2).sum(2) if x.ndim > 2 else x
        sums = rows.new_zeros(self.grouping.count, x.shape[1]).index_add(0, members, rows)
        return summed(sums, self.grouping.processes) if self.grouping.across else sums

    def _note(self, mean: Tensor, variance: Tensor) -> None:
        """Accumulate the targets of the running statistics: one row of [means, variances, number of groups]."""
        if not self.track_running_stats:
            return
        here = len(self.grouping.place.positions) // self.grouping.size
        shown = self.grouping.count if self.grouping.across else here
        row = torch.cat([mean.sum(0), variance.sum(0), mean.new_full((1,), shown)])
        self.seen = row if self.seen is None else self.seen + row

    @torch.no_grad()
    def settle(self) -> None:
        """Update the running statistics at the end of a step; all processes call it together."""
        if self.seen is None:
            return
        # Groups across processes were summed in the forward pass; else each process has noted its own groups only.
        seen = self.seen if self.grouping.across else self.grouping.processes.sum(self.seen)
        self.seen = None
        mean, variance = (seen[:-1] / seen[-1]).chunk(2)
        buffers: Any = self
        buffers.num_batches_tracked.add_(1)
        rate = 1 / buffers.num_batches_tracked if self.momentum is None else self.momentum
        for buffer, value in ((buffers.running_mean, mean), (buffers.running_var, variance)):
            buffer.copy_((1 - rate) * buffer + rate * value)


def group_batch_norms(
    model: nn.Module, recipe: Recipe, session: Session, place: Place, *, repeated: bool = False
) -> None:
    """Replace a model's batch norms by ones with statistics over the recipe's groups.

    torch's own layers are kept where they are equal: one process, one group, the whole batch at once.

    Args:
        place: to be moved before each forward pass in training.
        repeated: True if a step calls layers more than once, which would update torch's running statistics as often.

    Raises:
        HarnessError: micro-batches cut groups apart, a layer is of an unknown kind, or there is no batch norm to group.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    if not layers:
        if recipe.batch_norm_group is not None:
            raise HarnessError("batch_norm_group is set, but the model has no batch norm; leave it out")
        return
    size, processes = recipe.batch_norm_group or recipe.batch_size, session.group
    piece = session.micro_batch or recipe.batch_size
    if size == recipe.batch_size and processes.size == 1 and piece >= size and not repeated:
        return
    across = _across(recipe, size, processes.size, piece)
    grouping = Grouping(size, recipe.batch_size // size, place, processes, across)
    for layer in layers:
        if type(layer) not in KINDS:
            known = ", ".join(kind.__name__ for kind in KINDS)
            raise HarnessError(f"{type(layer).__name__} cannot take its statistics over groups; valid: {known}")
    # One new layer for each old one, also where a model uses a layer in several places.
    made = {layer: GroupBatchNorm(layer, grouping) for layer in layers}
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm) and child in made:
                setattr(parent, name, made[child])


def _across(recipe: Recipe, size: int, processes: int, piece: int) -> bool:
    """True if groups are spread over processes, each of which then computes all its rows at once."""
    found = _spread(recipe, size, processes, piece)
    if found is None:
        share = -(-recipe.batch_size // processes)
        fitting = [m for m in range(1, share) if _spread(recipe, size, processes, m) is not None]
        valid = ", ".join(str(m) for m in fitting[:8]) + (", ..." if len(fitting) > 8 else "")
        raise HarnessError(
            f"batch norm over groups of {size} images cannot be had from {processes} process(es) with micro-batches of "
            f"{piece}; valid --micro-batch: {valid + ', or ' if fitting else ''}none"
        )
    return found


def _spread(recipe: Recipe, size: int, processes: int, piece: int) -> bool | None:
    """False if every slice of every process holds whole groups; True if not but each process has one slice; else
    None, as statistics over a group would need slices that are not computed at the same time."""
    mirrored = recipe.augment.mixes
    rows = [rows_of(recipe.batch_size, rank, processes, mirrored=mirrored) for rank in range(processes)]
    slices = [part for mine in rows for part in torch.split(mine // size, piece)]
    if all((torch.bincount(part)[part] == size).all() for part in slices):
        return False
    return True if len(slices) == processes else None
