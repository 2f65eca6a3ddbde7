"""A device that is not the CPU, played by the CPU: mixing its tensors with the CPU's fails as it does on a GPU.

    with played():
        compute(run, Session(attempt, DEVICE))

Its tensors hold their numbers on the CPU, so that results are a CPU's. What is forgiven on a GPU is forgiven here:
numbers without dimensions, copies, and indices. What is asked by the name of the device (streams, pinned memory,
layouts, graphs) is that of a CPU; tests/core/test_gpu.py has it on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NoReturn
from unittest import mock

import torch
from torch import Tensor
from torch.optim import optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")
"""The name that it goes by: that of a device which torch knows everywhere, and which has no numbers of its own."""
ATEN = torch.ops.aten
MAY_MIX = (ATEN.copy_, ATEN.index, ATEN.index_put, ATEN.index_put_, ATEN._index_put_impl_)


class Distant(Tensor):
    """A tensor of the device, with its numbers in `near`."""

    near: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, near: Tensor) -> Distant:
        found: Distant = Tensor._make_wrapper_subclass(
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            layout=near.layout,
            device=DEVICE,
        )
        found.near = near
        return found

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        return _computed(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.near.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.near.__reduce_ex__(protocol)  # a file has the numbers; it is read on the CPU

    def numpy(self, *, force: bool = False) -> NoReturn:
        del force
        raise TypeError("can't convert a tensor of the device to numpy. Use Tensor.cpu() first")


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operator gives: on the CPU with the numbers of the device's tensors, on the device where they are."""
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    distant = {id(one.near): one for one in tensors if isinstance(one, Distant)}
    if distant and func.overloadpacket not in MAY_MIX:
        for one in tensors:
            if one.dim() and not isinstance(one, Distant):
                shapes = " and ".join(str((*one.shape,)) for one in tensors)
                raise RuntimeError(f"{func} of tensors on the device and on the CPU, {shapes}")
    stays = bool(distant)
    if kwargs.get("device") is not None:
        stays = torch.device(kwargs["device"]).type == DEVICE.type
        kwargs = {**kwargs, "device": torch.device("cpu")}
    there, named = tree_map_only(Distant, lambda one: one.near, (args, kwargs))
    found = func(*there, **named)
    if func.overloadpacket is ATEN.copy_:
        return args[0]
    if not stays:
        return found
    return tree_map_only(Tensor, lambda one: _kept(one, distant), found)


def _kept(near: Tensor, distant: dict[int, Distant]) -> Distant:
    # Operators that work in place give back the tensor that they were given.
    return distant[id(near)] if id(near) in distant else Distant(near)


class _Operators(TorchDispatchMode):
    """Sees operators that have no tensor of the device yet, such as torch.zeros(device=)."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        return _computed(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Makes tensors of lists on the CPU first, since torch asks no mode where it makes them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = dict(kwargs or {})
        if func is Tensor.new_tensor:
            like, data = args
            return torch.tensor(data, dtype=kwargs.get("dtype") or like.dtype).to(like.device)
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


class _Autocast(torch.autocast):
    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == DEVICE.type else device_type, *args, **kwargs)


def _loaded(load: Callable[..., Any], path: Any, *, map_location: Any = None, **how: Any) -> Any:
    found = load(path, map_location="cpu", **how)
    return tree_map_only(Tensor, lambda one: one.to(map_location), found)


@contextmanager
def played() -> Iterator[None]:
    """Context in which the device is there."""
    fused = [*optimizer._get_fused_kernels_supported_devices(), DEVICE.type]  # type: ignore[attr-defined]
    before = torch._C._only_lift_cpu_tensors()
    with ExitStack() as stack:
        stack.enter_context(mock.patch("torch.autocast", _Autocast))
        stack.enter_context(mock.patch("torch.load", partial(_loaded, torch.load)))
        stack.enter_context(mock.patch.object(optimizer, "_get_fused_kernels_supported_devices", return_value=fused))
        stack.enter_context(_Functions())
        stack.enter_context(_Operators())  # type: ignore[no-untyped-call]
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            yield
        finally:
            torch._C._set_only_lift_cpu_tensors(before)
