"""In which fields two specs differ."""

from __future__ import annotations

from dataclasses import dataclass

from harness.spec.base import Spec


@dataclass(frozen=True)
class Difference:
    """One field in which two specs differ: its path, such as `start.mask.ratio`, and both values."""

    path: str
    left: object
    right: object


def differences(left: object, right: object, path: str = "") -> list[Difference]:
    """Every leaf field in which two specs differ; a piece of another type is one difference."""
    if isinstance(left, Spec) and isinstance(right, Spec) and type(left) is type(right):
        return [
            found
            for name, value in left.values.items()
            for found in differences(value, getattr(right, name), f"{path}.{name}" if path else name)
        ]
    return [] if repr(left) == repr(right) else [Difference(path, left, right)]  # == takes 0 for False
