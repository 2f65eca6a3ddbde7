"""Base class of all specs: frozen, strict, without unknown fields, with one-line errors and a digest of its content."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from json.encoder import encode_basestring_ascii
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

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
"""Keyword arguments as a sorted tuple of pairs; a dict is accepted and sorted.

Its fields say `strict=False`, by which mypy knows that a dict will do; what `_pairs` gives is right in either case.
"""


def derived() -> Any:
    """Declares a field that a validator of its spec takes from other fields where it is left out.

    To a type checker it has a default, so that it may be left out; pydantic still misses it where nothing gives it.
    """
    return Field()  # a new one each time: pydantic 2.11 writes the annotation into it


_pieces: ContextVar[dict[object, Any] | None] = ContextVar("pieces", default=None)
_FORGOTTEN: frozenset[str] = frozenset()


@contextlib.contextmanager
def shared_pieces() -> Iterator[None]:
    """While it lasts, specs that are stated alike are one object: validated, filled in and digested once.

    Ten thousand cells of a study state a few dozen recipes and masks. For the length of one plan only, as what is
    filled in comes from outside.
    """
    token = _pieces.set({})
    try:
        yield
    finally:
        _pieces.reset(token)


class _SpecType(ModelMetaclass):
    """The type of the types of specs: makes a spec, or gives the one that was stated alike."""

    def __call__(cls, /, **values: Any) -> Any:
        return _shared(cls, values, super().__call__)


def _shared(of: object, values: dict[str, Any], make: Callable[..., Any]) -> Any:
    """The object that `make(**values)` gives, or the one it gave earlier for the same `of` and the same values."""
    pieces = _pieces.get()
    if pieces is None:
        return make(**values)
    stated = _stated(of, values)
    if (found := pieces.get(stated)) is not None:
        return found
    made = make(**values)
    # Which fields were stated and which left out means nothing here, and the set takes more room than the fields.
    object.__setattr__(made, "__pydantic_fields_set__", _FORGOTTEN)
    told = ((name, value) for name, value in values.items() if isinstance(value, Spec))
    if stated is not None and all(made.__dict__.get(name) is value for name, value in told):
        pieces[stated] = made  # which holds the specs that it was told by
    return made


def _stated(of: object, values: dict[str, Any]) -> object:
    """Equal for what is stated alike; None for what is not worth telling.

    A spec inside is told by its place in memory, which stays its own as long as the spec that holds it is kept.
    """
    found: list[object] = [of]
    for name, value in values.items():
        its = type(value)
        if its in _WRITE:
            found += (name, its, value if value or its is not float else repr(value))  # 0.0 == -0.0, and they differ
        elif isinstance(value, Spec):
            found += (name, id(value))
        elif its in (tuple, list, dict):
            found += (name, its, repr(value))
        else:
            return None
    return tuple(found)


class Spec(BaseModel, metaclass=_SpecType):
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
        fields, lists = cls.__pydantic_fields__, False  # model_fields, without the cost of a property
        for name, value in values.items():
            if name not in fields:
                close = difflib.get_close_matches(name, cls.model_fields, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise ValueError(f"no field {name!r}; its fields are {', '.join(cls.model_fields)}{hint}")
            if type(value) is int:
                _fitting(value)
            lists = lists or type(value) is list
        # Validators written in Python hand JSON's arrays on as lists, which a strict tuple refuses.
        return {name: _frozen(value) for name, value in values.items()} if lists else values

    def current_revision(self) -> int:
        """Revision of this value's meaning. Override it where a correction changed the meaning of some values only."""
        return type(self).revision

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the resolved content, the type and the revision."""
        try:
            found: str = object.__getattribute__(self, "_digest")
        except AttributeError:
            found = hashlib.sha256(self._canonical().encode()).hexdigest()
            object.__setattr__(self, "_digest", found)
        return found

    def to_plain(self) -> dict[str, object]:
        """All fields as what JSON can hold, unkeyed ones and defaults included."""
        return {name: _to_plain(value) for name, value in self.values.items()}

    def _canonical(self) -> str:
        """Text whose SHA-256 is the digest: JSON without spaces, names sorted, every spec inside as its digest."""
        kind, held = type(self), self.__dict__
        fields = []
        for name, begin, implicit in _keyed(kind):
            text = _encode(held[name])
            if text != implicit:
                fields.append(begin + text)
        revision, name = _encode(self.current_revision()), _encode(kind.__name__)
        return f'{{"fields":{{{",".join(fields)}}},"revision":{revision},"scheme":{SCHEME},"type":{name}}}'

    @property
    def values(self) -> dict[str, Any]:
        """The fields and their values, in the order of declaration."""
        return dict(self.__dict__)  # fields and nothing else; getattr on each costs seconds for 10,000 cells

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        if (pieces := _pieces.get()) is not None:
            pieces[id(self)] = self  # kept, so that its place in memory tells it
        made: Self = _shared(id(self), changes, self._changed)
        return made

    def _changed(self, **changes: Any) -> Self:
        stale = {name for name, source in self.filled.items() if source in changes}
        kept = {name: value for name, value in self.values.items() if name not in stale}
        made: Self = ModelMetaclass.__call__(type(self), **{**kept, **changes})
        return made

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


@cache
def _keyed(kind: type[Spec]) -> list[tuple[str, str, str | None]]:
    """The keyed fields of a type, sorted: their names, how each begins in JSON, and the JSON of an implicit value.

    Texts are compared, as `==` takes 0 for False and 1 for 1.0.
    """
    return [
        (name, f"{_JSON.encode(name)}:", _encode(kind.implicit[name]) if name in kind.implicit else None)
        for name in sorted(kind.model_fields)
        if name not in kind.unkeyed
    ]


def _encode(value: object) -> str:
    """JSON of a value of a field: keeps 1.0 apart from 1 and from "1.0", and writes a float alike on every Python."""
    if (write := _WRITE.get(type(value))) is not None:  # most by far; an encoder of JSON takes five times as long
        return write(value)
    match value:
        case Spec():
            return f'{{"digest":"{value.digest}"}}'
        case str() | int() | float():
            return _JSON.encode(value)
        case tuple():
            return f"[{','.join(map(_encode, value))}]"
        case _:
            raise TypeError(f"a spec cannot hold {type(value).__name__}: {value!r}")


_WRITE: Mapping[type, Callable[[Any], str]] = {
    str: encode_basestring_ascii,
    bool: lambda value: "true" if value else "false",
    int: int.__repr__,
    float: float.__repr__,
    NoneType: lambda value: "null",
}


def choices(size: int, multiple: int = 1, *, least: int = 1) -> str:
    """The multiples of a number, from `least` on, that divide a size, as the end of a complaint."""
    valid = [str(n) for n in range(multiple, size + 1, multiple) if n >= least and size % n == 0]
    return f"valid: {', '.join(valid) or 'none'}"


def one_line(error: ValidationError) -> str:
    """All complaints of a failed validation in one line: `Pretrain.mask.size: ...; ...`."""
    parts = []
    for item in error.errors(include_url=False, include_context=False):
        # The title of a union of models lists them all; the place names the one that was meant.
        title = () if error.title.startswith("tagged-union[") else (error.title,)
        where = ".".join(str(part) for part in (*title, *item["loc"]) if part not in (SHIPPED, CUSTOM))
        message = item["msg"].removeprefix("Value error, ")
        got = "" if item["type"] in ("value_error", "missing") else f" (got {item['input']!r:.80})"
        parts.append(f"{where}: {message}{got}" if where else f"{message}{got}")
    return "; ".join(parts).replace("\n", " ")
