"""Counts of the torch operators that a piece of work dispatches.

Where a GPU waits for the host to launch kernels, their number sets the time of a step. Any device can count them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

VIEWS_BY_NAME = {"aten::_unsafe_view"}
"""Views of their input whose schema does not say so."""


class Operators(TorchDispatchMode):
    """Counts the operators dispatched within its context that return no view of their input.

        with Operators() as found:
            loss.backward()
        found.total, found.names.most_common(5)

    A view costs host time but nothing on the device. Contexts may lie within each other; each counts all of its own.

    Attributes:
        names: how often each operator was dispatched, by its name (`aten::add_`).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Number of operators."""
        return self.names.total()

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        if not returns_view(func) and not func._schema.name.startswith("profiler::"):
            self.names[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


@cache
def returns_view(operator: OpOverload) -> bool:
    """True if what an operator returns is a part of its input's memory, which it leaves as it was."""
    schema = operator._schema
    aliases = [found.alias_info for found in schema.returns]
    return schema.name in VIEWS_BY_NAME or any(alias is not None and not alias.is_write for alias in aliases)
