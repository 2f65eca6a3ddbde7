"""Functions and files of the user: the key follows the source of a function and the bytes of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from harness.machine import HarnessError
from harness.spec.base import CUSTOM, SHIPPED, Params, Spec
from harness.spec.data.external_content import cached_file_sha256, source_digest


class UserFunction(Spec):
    """Fields of every piece that calls a user's function.

    function: `package.module:name`, found from the project root or among the installed packages. Each piece documents
        its arguments and its result.
    params: keyword arguments that it is called with besides.
    source: digest of the file that holds the function (that file alone), filled in: the key follows the code.
    """

    function: str
    params: Params = Field(default=(), strict=False)
    source: str = ""

    filled: ClassVar[Mapping[str, str]] = {"source": "function"}

    @model_validator(mode="before")
    @classmethod
    def _fill_source(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("function") and not values.get("source"):
            try:
                return {**values, "source": source_digest(str(values["function"]))}
            except HarnessError as error:
                raise ValueError(str(error)) from None
        return values


def whose(value: object) -> str:
    """Tag of a piece in a union of a shipped spec and a user's own: a piece that names a function is the user's."""
    named = isinstance(value, UserFunction) or (isinstance(value, Mapping) and "function" in value)
    return CUSTOM if named else SHIPPED


class UserFile(Spec):
    """A file of weights: safetensors, or a torch file that holds nothing but tensors.

    path: location of the file; the key follows its bytes, not its location.
    sha256: digest of these bytes; filled in.
    """

    path: str
    sha256: str = ""

    unkeyed: ClassVar[frozenset[str]] = frozenset({"path"})
    filled: ClassVar[Mapping[str, str]] = {"sha256": "path"}

    @model_validator(mode="before")
    @classmethod
    def _fill_sha256(cls, values: Any) -> Any:
        if isinstance(values, dict) and "path" in values and not values.get("sha256"):
            try:
                return {**values, "sha256": cached_file_sha256(Path(values["path"]).expanduser())}
            except HarnessError as error:
                raise ValueError(str(error)) from None
        return values
