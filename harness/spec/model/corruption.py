"""Corruption: fill of hidden pixels, and site and operation of the mask token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from harness.spec.base import Spec

GATE = 1e-6
"""Initial value of the gate of a gated addition, as in the released A2MIM (configs/selfsup/a2mim, `mask_init`)."""


class AtInput(Spec):
    """After the patch embedding of a ViT, BEiT or Swin, before class token and positions; after a CNN's stem.

    A ResNet's stem ends with its max pooling, a ConvNeXt's with its norm. The stride is the backbone's patch.
    """

    kind: Literal["input"] = "input"

    @property
    def text(self) -> str:
        """The site in a few words."""
        return "the input"


class AfterStage(Spec):
    """After the last block of a stage of a Swin or CNN, before whatever reduces the map for the next stage.

    ResNet: A2MIM's `mask_layer=3` is `AfterStage(stage=3, stride=16)`.

    stage: counted from 1; not the last, behind which nothing is left to spread what is visible.
    stride: pixels of the input under one position there. It is stated because masks are checked against it before torch
        is loaded; the built model must agree.
    """

    kind: Literal["stage"] = "stage"
    stage: PositiveInt
    stride: PositiveInt

    @property
    def text(self) -> str:
        """The site in a few words."""
        return f"after stage {self.stage} (stride {self.stride})"


class BeforeBlock(Spec):
    """Before a block, counted from 1 over all stages.

    A ViT has its positions and class token by then, which stays as it is. Where a stage begins with a layer of its own
    that reduces the map (Swin's patch merging, ConvNeXt's downsampling), its first block comes after that: ConvNeXt-T's
    A2MIM with `mask_layer=3` is `BeforeBlock(block=16, stride=32)`. A ViT's with `mask_layer=k`, k >= 1, is block k.

    block: its number.
    stride: as for `AfterStage`.
    """

    kind: Literal["block"] = "block"
    block: PositiveInt
    stride: PositiveInt

    @property
    def text(self) -> str:
        """The site in a few words."""
        return f"before block {self.block} (stride {self.stride})"


Site = Annotated[AtInput | AfterStage | BeforeBlock, Field(discriminator="kind")]
Fill = Literal["none", "zero", "mean", "image-mean", "visible-mean", "noise"]


class Corruption(Spec):
    """The way in which hidden patches are kept from the encoder.

    fill: replacement of hidden pixels.
        `none`: nothing.
        `zero`: black, the pixel value 0 before normalisation.
        `mean`: the data set's mean colour, 0 after normalisation. What OpenMixup calls 'zero' would be this, but it
            fills nothing there (BlockwiseMaskGenerator edits pixels for 'mean' alone).
        `image-mean`: the image's own mean colour, over hidden and visible pixels. A2MIM fills so. It tells the encoder
            the mean of what is hidden: a declared leak.
        `visible-mean`: the mean colour of the image's visible pixels.
        `noise`: standard normal after normalisation, a function of seed, step and place in the global batch.
    token: operation of a learned mask token T on features x at the site, with m = 1 where hidden and 0 elsewhere.
        `replace`: x (1 - m) + T m (SimMIM).
        `add`: x + T m (A2MIM).
        `gated-add`: x (1 - m) + gate x m + T m, with a learned factor `gate` per channel, which the released A2MIM of
            CNNs has.
        `drop`: there is no token; the encoder computes without hidden tokens (MAE). Plain ViTs only.
        `none`: there is no token.
    site: layer at which the token is applied. A mask unit has to be a multiple of the stride there, so that no position
        is hidden in part.
    gate: initial value of the gate of `gated-add`; 1e-6 by default.
    detach: True stops the gradients of hidden features before `add` or `gated-add` (MIMResNet's `detach`).
    hides_nothing: must be True for combinations that hide nothing from the encoder (`released_simmim_cnn`), which are
        otherwise rejected; reports then say so.
    """

    fill: Fill = "none"
    token: Literal["replace", "add", "gated-add", "drop", "none"] = "replace"
    site: Site = AtInput()
    gate: NonNegativeFloat | None = None
    detach: bool = False
    hides_nothing: bool = False

    implicit: ClassVar[Mapping[str, object]] = {
        "site": AtInput(),
        "gate": None,
        "detach": False,
        "hides_nothing": False,
    }

    @model_validator(mode="before")
    @classmethod
    def _gate_of_gated_add(cls, values: Any) -> Any:
        if isinstance(values, dict):
            gated = values.get("token") == "gated-add"
            if gated and values.get("gate") is None:
                return {**values, "gate": GATE}
            if not gated and values.get("gate") is not None:
                raise ValueError(f"gate belongs to token='gated-add', not to {values.get('token', 'replace')!r}")
        return values

    @model_validator(mode="after")
    def _hides_something(self) -> Self:
        hides = self.fill != "none" or self.token in ("replace", "gated-add", "drop")
        if not hides and not self.hides_nothing:
            raise ValueError(
                f"fill='none' with token={self.token!r} hides nothing; set a fill such as 'mean', or token='replace'"
            )
        if hides and self.hides_nothing:
            raise ValueError(
                f"fill={self.fill!r} with token={self.token!r} hides something, against hides_nothing=True"
            )
        if self.token in ("drop", "none") and self.site != AtInput():
            raise ValueError(f"token={self.token!r} has no site; leave it out")
        if self.fill != "none" and self.token == "drop":
            raise ValueError(f"fill={self.fill!r} does nothing to tokens that are dropped; leave it out")
        if self.detach and self.token not in ("add", "gated-add"):
            raise ValueError(f"detach does nothing to token={self.token!r}; valid there: add, gated-add")
        return self

    def replace(self, **changes: Any) -> Self:
        """A validated copy; a new token begins with its own gate."""
        return super().replace(**({"gate": None, **changes} if "token" in changes else changes))

    def stride(self, patch_size: int) -> int:
        """Pixels of the input under one position at the site, of a backbone with that patch."""
        return patch_size if isinstance(self.site, AtInput) else self.site.stride
