"""Base class of all specs: frozen, strict, without unknown fields, with one-line errors and a digest of its content."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

Scalar = str | int | float | bool | None
"""A plain value: what an axis of a study or a parameter of a user's own function may hold."""

SCHEME = 1
"""Version of the hash scheme. Raise it only when the encoding itself changes: every key changes with it."""


SHIPPED, CUSTOM = "shipped", "custom"
"""Tags of a union of a piece of this package and a user's own; `one_line` leaves them out."""


Side = Annotated[int, Field(ge=1, le=20_000)]
"""Side of an image in pixels."""


def _pairs(value: object) -> object:
    """Sorted pairs of a name and a plain value or a tuple of plain values.

    Checked here because pydantic's union of scalars does not keep False apart from 0.
    """
    pairs = value.items() if isinstance(value, Mapping) else value
    try:
        found = tuple(sorted((str(name), _plain(held)) for name, held in pairs))  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise ValueError(f"should map names to plain values or tuples of them, not {value!r:.80}") from None
    if len({name for name, _ in found}) < len(found):
        raise ValueError("repeats a name")
    return found


def _plain(value: object) -> object:
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    if value is None or isinstance(value, str | bool) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, int):
        return _fitting(value)
    raise TypeError


def _fitting(value: object) -> object:
    if isinstance(value, int) and value.bit_length() > 1000:  # neither a float nor, from 4,300 digits on, text
        raise ValueError("holds a whole number of more than 300 digits")
    return value


_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"))

Params = Annotated[tuple[tuple[str, Any], ...], BeforeValidator(_pairs)]
"""Keyword arguments as a sorted tuple of pairs; a dict is accepted and sorted."""


class Spec(BaseModel):
    """A frozen value that determines numbers.

    Class attributes that a subclass may set:
        revision: raised when the meaning of the type changes, so that old results no longer answer for it.
        implicit: for a field added later, the value that specs had implicitly before. While the field equals
            it, it is left out of the digest, so that keys made before the field existed stay valid.
        unkeyed: fields that describe but do not determine numbers (a path, a note).
        filled: for a field that is filled in from outside (a digest), the field that says from what. `replace`
            fills it in anew when that changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    __slots__ = ("_digest",)  # beside the fields, so that neither equality nor pydantic's own dump sees it

    revision: ClassVar[int] = 1
    implicit: ClassVar[Mapping[str, object]] = {}
    unkeyed: ClassVar[frozenset[str]] = frozenset()
    filled: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for name in values:
            if name not in cls.__pydantic_fields__:  # model_fields, without the cost of a property
                close = difflib.get_close_matches(name, cls.model_fields, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                fields = ", ".join(cls.model_fields)
                raise ValueError(f"no field {name!r}; its fields are {fields}{hint}")
        # Validators written in Python hand JSON's arrays on as lists, which a strict tuple refuses.
        return {name: _fitting(_frozen(value)) for name, value in values.items()}

    def current_revision(self) -> int:
        """Revision of this value's meaning. Override it where a correction changed the meaning of some values only."""
        return type(self).revision

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the resolved content, the type and the revision."""
        try:
            found: str = object.__getattribute__(self, "_digest")
        except AttributeError:
            found = hashlib.sha256(_JSON.encode(self._canonical()).encode()).hexdigest()
            object.__setattr__(self, "_digest", found)
        return found

    def to_plain(self) -> dict[str, object]:
        """All fields as what JSON can hold, unkeyed ones and defaults included."""
        return {name: _to_plain(value) for name, value in self.values.items()}

    def _canonical(self) -> dict[str, object]:
        kind = type(self)
        fields = {
            name: _encode(value)
            for name, value in self.values.items()
            if name not in kind.unkeyed and not (name in kind.implicit and _same(value, kind.implicit[name]))
        }
        return {"scheme": SCHEME, "type": kind.__name__, "revision": self.current_revision(), "fields": fields}

    @property
    def values(self) -> dict[str, Any]:
        """The fields and their values, in the order of declaration."""
        return dict(self.__dict__)  # fields and nothing else; getattr on each costs seconds for 10,000 cells

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        stale = {name for name, source in self.filled.items() if source in changes}
        kept = {name: value for name, value in self.values.items() if name not in stale}
        return type(self)(**{**kept, **changes})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Same as `replace`: pydantic's own method would skip validation and keep the old digest."""
        del deep  # frozen all the way down
        return self.replace(**(update or {}))


def _to_plain(value: object) -> object:
    match value:
        case Spec():
            return value.to_plain()
        case tuple():
            return [_to_plain(item) for item in value]
        case _:
            return value


def _frozen(value: object) -> object:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _encode(value: object) -> object:
    match value:
        case str() | bool() | int() | float() | None:
            return value  # JSON keeps 1.0 apart from 1 and from "1.0", and writes a float alike on every Python
        case tuple():
            return [_encode(item) for item in value]
        case Spec():
            return {"digest": value.digest}
        case _:
            raise TypeError(f"a spec cannot hold {type(value).__name__}: {value!r}")


def _same(left: object, right: object) -> bool:
    # `is` first, which is true of most and costs nothing; == takes 0 for False.
    return left is right or json.dumps(_encode(left)) == json.dumps(_encode(right))


def one_line(error: ValidationError) -> str:
    """All complaints of a failed validation in one line: `Pretrain.mask.size: ...; ...`."""
    parts = []
    for item in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in (error.title, *item["loc"]) if part not in (SHIPPED, CUSTOM))
        message = item["msg"].removeprefix("Value error, ")
        got = "" if item["type"] in ("value_error", "missing") else f" (got {item['input']!r:.80})"
        parts.append(f"{where}: {message}{got}")
    return "; ".join(parts).replace("\n", " ")
