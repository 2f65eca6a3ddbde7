"""Import and call of a user's own functions, named `package.module:name`."""

from __future__ import annotations

import importlib
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from harness.core.runtime.randomness import uniform
from harness.spec import HarnessError, seed_stream
from harness.spec.data.external_content import source_digest


@cache
def load_function(function: str, source: str) -> Callable[..., Any]:
    """The function `package.module:name`, imported, provided that its file has the digest `source`.

    Raises:
        HarnessError: there is no such module or function, or its file is not the one that the run was planned with.
    """
    # The key of a run contains the digest of the file, so a file that changed would compute another run's numbers.
    if source_digest(function) != source:
        raise HarnessError(f"the source of {function} changed since this run was planned; plan again")
    name, _, attribute = function.partition(":")
    stale = name in sys.modules  # a long-lived process may have imported an earlier version of the file
    module = importlib.import_module(name)
    if stale:
        module = importlib.reload(module)
    found = getattr(module, attribute, None)
    if not callable(found):
        raise HarnessError(f"{function!r}: module {name!r} has no function {attribute!r}")
    return found  # type: ignore[no-any-return]


def call(function: Callable[..., object], name: str, *args: object, **params: object) -> object:
    """Result of a user's function, which is named in the error if its parameters do not fit.

    Raises:
        HarnessError: the signature does not take these arguments.
    """
    # Bind first: a TypeError from inside the function must not be reported as one of its signature.
    try:
        inspect.signature(function).bind(*args, **params)
    except TypeError as error:
        raise HarnessError(
            f"{name}: {error}; given {len(args)} arguments and {', '.join(params) or 'no'} params"
        ) from None
    return function(*args, **params)


def random_source(seed: int, purpose: str, step: int | Tensor, positions: Tensor) -> Callable[..., Tensor]:
    """Source of randomness for a user's function: `random(*shape)` gives uniform numbers in [0, 1), [B, *shape].

    Each call has a stream of its own. Row i depends on the seed, the step and positions[i] alone.

    Args:
        step: one for all rows, or int64 [B]. positions: int64 [B], places in the global batch.
    """
    calls = itertools.count()

    def random(*shape: int) -> Tensor:
        stream = seed_stream(seed, f"{purpose} {next(calls)}")
        return uniform(stream, step, positions, int(torch.Size(shape).numel())).view(-1, *shape)

    return random


def steps_of(step: int | Tensor, positions: Tensor, ndim: int) -> Tensor:
    """Step of each row as a user's function gets it: int64 [B, 1, ...] of `ndim` axes, so that it broadcasts."""
    given = step if isinstance(step, Tensor) else torch.full_like(positions, step)
    return given.expand(len(positions)).view(-1, *(1,) * (ndim - 1))


@contextmanager
def looked_at(module: nn.Module) -> Iterator[None]:
    """Context for a call that only inspects what a user's module returns: in evaluation mode and without gradients.

    Afterwards the parts that were in training mode are in it again.
    """
    training = [part for part in module.modules() if part.training]
    module.eval()  # so that no batch norm counts what it is shown
    with torch.no_grad():
        yield
    for part in training:
        part.training = True
