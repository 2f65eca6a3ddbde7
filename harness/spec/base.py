"""What every spec shares: frozen, strict, no unknown field, one-line errors, a digest of its content."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

Scalar = str | int | float | bool | None
"""A plain value: what an axis of a study or a parameter of a user's own function may hold."""

SCHEME = 1
"""Version of the hash scheme. Raise it only when the encoding itself changes: every key changes with it."""


class HarnessError(Exception):
    """A mistake that the user can mend; its message is one line and names the valid choices."""


def _sorted_pairs(value: object) -> object:
    """Accept a mapping where a tuple of pairs is stored, so that field order cannot reach the key."""
    if isinstance(value, Mapping):
        return tuple(sorted(value.items()))
    if isinstance(value, tuple):  # also what JSON gives back
        return tuple(sorted(value))
    return value


Params = Annotated[tuple[tuple[str, Scalar | tuple[Scalar, ...]], ...], BeforeValidator(_sorted_pairs)]
"""Keyword arguments as a sorted tuple of pairs; a dict is accepted and sorted."""


class Spec(BaseModel):
    """A frozen value that determines numbers.

    Class attributes that a subclass may set:
        revision: raised when the meaning of the type changes, so that old results no longer answer for it.
        implicit: for a field added later, the value that specs had implicitly before. While the field equals
            it, it is left out of the digest, so that keys made before the field existed stay valid.
        unkeyed: fields that describe but do not determine numbers (a path, a note).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    revision: ClassVar[int] = 1
    implicit: ClassVar[Mapping[str, object]] = {}
    unkeyed: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for name in values:
            if name not in cls.model_fields:
                close = difflib.get_close_matches(name, cls.model_fields, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                fields = ", ".join(cls.model_fields)
                raise ValueError(f"no field {name!r}; its fields are {fields}{hint}")
        # Validators written in Python hand JSON's arrays on as lists, which a strict tuple refuses.
        return {name: _frozen(value) for name, value in values.items()}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the resolved content, the type and the revision."""
        text = json.dumps(self._canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _canonical(self) -> dict[str, object]:
        kind = type(self)
        fields = {
            name: _encode(value)
            for name, value in self.values.items()
            if name not in kind.unkeyed and not (name in kind.implicit and value == kind.implicit[name])
        }
        return {"scheme": SCHEME, "type": kind.__name__, "revision": kind.revision, "fields": fields}

    @property
    def values(self) -> dict[str, Any]:
        """The fields and their values, in the order of declaration."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        return type(self)(**{**self.values, **changes})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As `replace`: pydantic's own would skip validation and keep the old digest."""
        del deep  # frozen all the way down
        return self.replace(**(update or {}))


def _frozen(value: object) -> object:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _encode(value: object) -> object:
    match value:
        case Spec():
            return {"digest": value.digest}
        case tuple():
            return [_encode(item) for item in value]
        case float():
            return repr(value)  # apart from the integer of the same value; the same on every Python
        case str() | bool() | int() | None:
            return value
        case _:
            raise TypeError(f"a spec cannot hold {type(value).__name__}: {value!r}")


def one_line(error: ValidationError) -> str:
    """All complaints of a failed validation in one line: `Pretrain.mask.size: ...; ...`."""
    parts = []
    for item in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in (error.title, *item["loc"]))
        message = item["msg"].removeprefix("Value error, ")
        got = "" if item["type"] in ("value_error", "missing") else f" (got {item['input']!r:.80})"
        parts.append(f"{where}: {message}{got}")
    return "; ".join(parts).replace("\n", " ")
