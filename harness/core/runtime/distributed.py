"""Processes that compute one run together, and their communication.

A run in several processes sees the same batches, masks and random draws as in one process: each rank takes some rows
of each global batch, and everything random is a function of a row's place in that batch. Losses, gradients and counts
are summed over the ranks.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import FileStore
from torch.nn.parallel import DistributedDataParallel

from harness.spec import HarnessError

T = TypeVar("T")
JOIN_TIMEOUT = timedelta(minutes=10)
"""Longest wait for the other processes to start."""
TIMEOUT = timedelta(hours=1)
"""Longest wait at a collective within a run: meanwhile rank 0 may write a checkpoint or run a user's evaluation.

On CPUs a process that died is noticed at once; on GPUs, whoever started the processes has to end the others."""
INTERFACE_VARIABLE = "GLOO_SOCKET_IFNAME"


class LeaderLeft(Exception):
    """Raised on ranks other than 0 when rank 0 gave the run up; rank 0 reports the reason."""


@dataclass
class Group:
    """The processes that compute one run: several after `join`; `Group()` is this process alone and exchanges nothing.

    Attributes:
        rank: number of this process, 0 <= rank < size. Rank 0 owns the run and is the only one that writes.
        broken: True once a process has left in the middle of a run. The others may wait in different collectives, so
            they cannot communicate any more and have to end.
    """

    rank: int = 0
    size: int = 1
    broken: bool = False

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up a contiguous tensor over all ranks, in place; without gradient (`summed` has one)."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """Average a contiguous tensor of floats over all ranks, in place; without gradient."""
        return self.sum(tensor).div_(self.size) if self.size > 1 else tensor

    def agree(self, *flags: bool) -> tuple[bool, ...]:
        """Logical or of each flag over all ranks, without waiting for a device."""
        if self.size == 1:
            return flags
        # A tensor on the CPU goes through gloo, so the host does not wait for kernels on a GPU.
        found = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in found.tolist())

    def share(self, value: T) -> T:
        """Rank 0's value, on all ranks; it has to pickle."""
        if self.size == 1:
            return value
        held: list[Any] = [value]
        dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        return cast(T, held[0])

    def gather(self, value: T) -> list[T]:
        """Every rank's value, by rank, on all ranks; it has to pickle."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def lead(self, do: Callable[[], T]) -> T:
        """Result of a function that rank 0 alone calls while the others wait; the same on all ranks.

        Raises:
            Exception: what it raised, on rank 0.
            LeaderLeft: it raised something, on the others.
        """
        if self.size == 1:
            return do()
        if self.rank:
            found, reason = self.share(cast(tuple[T, str], (None, "")))
            if reason:
                raise LeaderLeft(reason)
            return found
        try:
            found = do()
        except Exception as error:
            # Tell the others before raising: they wait in `share` and would wait for ever.
            self.share((None, f"{type(error).__name__}: {error}"))
            raise
        self.share((found, ""))
        return found

    def rows(self, batch_size: int, *, mirrored: bool = False) -> Tensor | None:
        """The rows of every global batch that this rank takes (`rows_of`); None for all of them.

        Raises:
            HarnessError: there are too few for all ranks.
        """
        if self.size == 1:
            return None
        if batch_size < self.size * (2 if mirrored else 1):
            most = batch_size // (2 if mirrored else 1)
            raise HarnessError(f"a batch of {batch_size} images feeds at most {most} processes, not {self.size}")
        return rows_of(batch_size, self.rank, self.size, mirrored=mirrored)

    def replicate(self, model: nn.Module, *, may_skip: bool = False) -> nn.Module:
        """A model whose gradients are averaged over all ranks in the backward pass; the model itself if alone.

        Args:
            may_skip: True if a forward pass may leave parameters unused, as a user's own module may.
        """
        if self.size == 1:
            return model
        # Buffers are the same on all ranks at every step, so none is sent round. torch 2.15 renames the argument.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {name: False, "find_unused_parameters": may_skip}
        return DistributedDataParallel(model, **options)


def rows_of(batch_size: int, rank: int, size: int, *, mirrored: bool = False) -> Tensor:
    """The rows of a global batch that a rank takes: int64, ascending, as even a split as there is.

    Args:
        mirrored: True keeps rows i and batch_size - 1 - i, which Mixup and CutMix mix, on one rank. A rank's rows then
            mirror each other as those of the whole batch do, so mixing them gives what mixing the whole batch gives.
    """
    half = batch_size // 2 if mirrored else batch_size
    rows = torch.arange(rank * half // size, (rank + 1) * half // size)
    return torch.cat([rows, batch_size - 1 - rows.flip(0)]) if mirrored else rows


class _Summed(torch.autograd.Function):
    """All-reduce with a gradient: every rank's loss depends on the sum, so gradients are summed likewise."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Group) -> Tensor:
        ctx.group = group
        # A copy: the reduction works in place, and the input belongs to the graph.
        return group.sum(tensor.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.group.sum(gradient.clone(memory_format=torch.contiguous_format)), None


def summed(tensor: Tensor, group: Group) -> Tensor:
    """The sum of a tensor over all ranks, with the gradient of the sum of all ranks' losses."""
    if group.size == 1:
        return tensor
    return cast(Tensor, _Summed.apply(tensor, group))


def original(model: nn.Module) -> nn.Module:
    """The model that was replicated; a model that was not is given back."""
    return cast(nn.Module, model.module) if isinstance(model, DistributedDataParallel) else model


def gathering(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Context for all slices of a batch but the last: gradients add up on this rank and are not exchanged yet.

    The backward pass of the last slice, outside of it, then averages all of them over the ranks at once.
    """
    return model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext()


@contextlib.contextmanager
def join(file: Path, rank: int, size: int, device: torch.device) -> Iterator[Group]:
    """Meet the other processes of a group, for one run or for several, one after the other.

    Hosts are not looked up by name: the processes meet in a file.

    Args:
        file: where they meet: a path that all of them see, in a folder that exists, and that no group has used before.
        device: this process's own; two ranks cannot share a GPU.

    Raises:
        HarnessError: not all of them came.
    """
    if size == 1:
        yield Group()
        return
    options: dict[str, Any] = {}
    if device.type == "cuda":
        torch.cuda.set_device(device)
        options["device_id"] = torch.device("cuda", torch.cuda.current_device())
    store = FileStore(str(file), size)
    store.set_timeout(JOIN_TIMEOUT)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "cpu:gloo"
    try:
        with _interface(_machines(store, rank, size)):
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT, **options)
    except RuntimeError as error:
        raise HarnessError(f"process {rank} of {size} could not meet the others: {error}".replace("\n", " ")) from None
    group = Group(rank, size)
    try:
        yield group
    except BaseException:
        group.broken = True
        raise
    finally:
        if not group.broken:  # with some at another collective, ending it together could wait for ever
            dist.destroy_process_group()


def _machines(store: FileStore, rank: int, size: int) -> set[str]:
    """The machines (network namespaces) that the processes are on."""
    try:
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        mine = f"{kernel} {os.readlink('/proc/self/ns/net')}"
    except OSError:
        mine = socket.gethostname()
    store.set(f"machine {rank}", mine)
    return {str(store.get(f"machine {other}"), "ascii") for other in range(size)}


@contextlib.contextmanager
def _interface(machines: set[str]) -> Iterator[None]:
    """Tell gloo its network interface, unless the user has.

    By itself gloo takes the address that the host's name resolves to. Where there is none, or it is a loopback's, gloo
    takes the loopback, which processes on other machines cannot reach.
    """
    name = None if os.environ.get(INTERFACE_VARIABLE) else interface(len(machines) > 1)
    if name is not None:
        os.environ[INTERFACE_VARIABLE] = name
    try:
        yield
    finally:
        if name is not None:
            del os.environ[INTERFACE_VARIABLE]


def interface(several: bool, routes: Path = Path("/proc/net/route")) -> str | None:
    """The network interface for a group; None leaves the choice to gloo.

    several: True if the group is on several machines. routes: the kernel's table of routes.
    """
    names = [name for _, name in socket.if_nameindex()]
    if not several:
        return "lo" if "lo" in names else None
    with contextlib.suppress(OSError):
        if not socket.gethostbyname(socket.gethostname()).startswith("127."):
            return None
    with contextlib.suppress(OSError):
        # The interface of the default route (destination 0); of several, the one with the lowest metric, field 6.
        lines = [line.split() for line in routes.read_text().splitlines()[1:]]
        found = [(int(line[6]), line[0]) for line in lines if line[1] == "00000000" and line[0] in names]
        return min(found)[1] if found else None
    return None
