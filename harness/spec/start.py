"""Where training starts, if not from a pre-training of this package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import PositiveInt, model_validator

from harness.spec.base import HarnessError, Spec
from harness.spec.content import cached_file_sha256
from harness.spec.model import Backbone


class Scratch(Spec):
    """A starting point without pre-training: the control that every pre-training has to beat."""

    kind: Literal["scratch"] = "scratch"
    backbone: Backbone
    image_size: PositiveInt


class Checkpoint(Spec):
    """A starting point from a file of weights: safetensors, or a torch file of tensors and plain values.

    Its names may be timm's, those of the released SimMIM (a pre-training or a fine-tuned classifier), mmpretrain's, or
    those of a pre-training of this package. Relative position tables of another window are resized. An evaluation takes
    the encoder, a pre-training the mask token and the prediction head too.

    path: where the file lies; the key follows its bytes (`sha256`, filled in), not its place.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    path: str
    backbone: Backbone
    image_size: PositiveInt
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
