"""Functions of a user's own, named `package.module:name`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from harness.spec import HarnessError
from harness.spec.content import source_digest


def load_function(function: str, source: str) -> Callable[..., Any]:
    """The function `package.module:name`, imported, provided that its file still has the digest `source`.

    Raises:
        HarnessError: there is no such module or function, or its file is not the one that the run was planned
            with.
    """
    if source_digest(function) != source:
        raise HarnessError(f"the source of {function} changed since this run was planned; plan again")
    module, _, name = function.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    if not callable(found):
        raise HarnessError(f"{function!r}: module {module!r} has no function {name!r}")
    return found  # type: ignore[no-any-return]
