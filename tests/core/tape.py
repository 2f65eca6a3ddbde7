"""A stand-in for a CUDA graph on a CPU: what a function did to tensors, done again to the same tensors.

As a graph does, it sees no Python: numbers of the host are those of the recording, memory is that of the recording, and
a function that reads a tensor on the host cannot be recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.core.runtime.operators import returns_view

T = TypeVar("T")
READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"}


class Tape(TorchDispatchMode):
    """Operators with their arguments and what they gave, in order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries: list[tuple[OpOverload, Sequence[Any], Mapping[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        if func._schema.name in READS:
            raise RuntimeError(f"{func._schema.name} in a recorded step")
        found = func(*args, **(kwargs or {}))
        if not returns_view(func) and not func._schema.name.startswith("profiler::"):
            self.entries.append((func, args, kwargs or {}, found))
        return found

    @torch.no_grad()
    def replay(self) -> None:
        """Do it all again."""
        for func, args, kwargs, before in self.entries:
            found = func(*args, **kwargs)
            for mine, new in zip(tree_leaves(before), tree_leaves(found), strict=True):
                if isinstance(mine, Tensor) and mine is not new:
                    mine.copy_(new)


def on_tape(compute: Callable[[], T]) -> Callable[[], T]:
    """Record a function; in place of `harness.core.train.recorded.as_graph`. Recording computes, the first time."""
    tape, results = Tape(), list[T]()

    def replay() -> T:
        if results:
            tape.replay()
        else:
            with tape:
                results.append(compute())
        return results[0]

    return replay
