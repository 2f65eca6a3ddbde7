"""Scales: the sizes at which a study can be run. Same axes, same question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from harness.machine import HarnessError
from harness.spec.base import Side, Spec
from harness.spec.data.datasets import Data
from harness.spec.model.backbone import AnyBackbone
from harness.spec.recipe import Recipe


class Skip(Exception):
    """Raised (or returned) by a study's cell function: this cell is excluded, for the reason given."""

    def __init__(self, reason: str) -> None:
        if not isinstance(reason, str) or not reason.strip():
            raise HarnessError(f"Skip takes its reason as a text, such as Skip('too coarse'), not {reason!r:.80}")
        super().__init__(reason)
        self.reason = reason


class Scale(Spec):
    """One size of a study.

    name: what `--scale` and the folder of a report call it.
    data: the set of pre-training.
    labelled: the set of fine-tuning and tests, where it differs; a study's cell function hands it on as `data=`.
    image_size: side of the network's input in pixels.
    paper_image_size: side of the input in the paper whose values a study's axes have, in pixels. `pixels`
        maps by it: a patch of 32 of the paper's 192 pixels is one of 16 where image_size is 96. A study that states
        lengths in pixels of its own image needs no value.
    backbone: the encoder.
    pretrain: recipe of the pre-training.
    finetune: recipe of the fine-tuning.
    first_seed: the lowest seed of studies at this scale, where they do not say their own: what was chosen for the scale
        on lower ones, such as a learning rate, is judged on others. No run's key depends on it.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)
    data: Data
    labelled: Data | None = None
    image_size: Side
    paper_image_size: Side = 192
    backbone: AnyBackbone
    pretrain: Recipe
    finetune: Recipe
    first_seed: int = Field(default=0, ge=0, le=100_000)

    implicit: ClassVar[Mapping[str, object]] = {"first_seed": 0}

    def pixels(self, length: int) -> int:
        """A length in pixels of the paper's image, mapped to this scale's image.

        Raises:
            Skip: the mapped length is not a whole multiple of the model's patch that divides the image.
        """
        mapped, rest = divmod(length * self.image_size, self.paper_image_size)
        here = f"{length} px is {length * self.image_size / self.paper_image_size:g} px at {self.image_size} px"
        patch = self.backbone.patch_size
        if rest:
            raise Skip(f"{here}, not a whole number")
        if mapped < patch:
            raise Skip(f"{here}, smaller than one {patch}-px patch of {self.backbone.name}")
        if mapped % patch:
            raise Skip(f"{here}, no multiple of the {patch}-px patch of {self.backbone.name}")
        if self.image_size % mapped:
            raise Skip(f"{here}, which does not divide the image")
        return mapped
