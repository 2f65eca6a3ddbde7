"""What is predicted (targets) and how an error is measured (loss)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from harness.spec.base import Spec
from harness.spec.own import OwnFunction


class PixelTarget(Spec):
    """The clean image, normalised by the data set's mean and standard deviation (SimMIM section 3.4).

    downsample: the target is the image averaged over squares of this many pixels: 1 for full resolution,
        32 for the paper's 6x6 (SimMIM Table 3). The filter (area average) is assumed: the paper names none.
    """

    kind: Literal["pixels"] = "pixels"
    downsample: PositiveInt = 1


class CustomTarget(OwnFunction):
    """A user's own target.

    function: `package.module:name`; called as `name(images, **params)` with the clean normalised images
        [B, C, H, W] it returns [B, channels, H / downsample, W / downsample], without gradient.
    """

    kind: Literal["custom"] = "custom"
    channels: PositiveInt
    downsample: PositiveInt = 1


Target = Annotated[PixelTarget | CustomTarget, Field(discriminator="kind")]


class Loss(Spec):
    """The prediction error.

    kind: l1 (SimMIM's default), l2 or smooth-l1.
    scope: where it counts: under hidden patches only, or over the full image (SimMIM Table 4).
    beta: where smooth-l1 turns from quadratic to linear; unused by the others. The paper states none.
    """

    kind: Literal["l1", "l2", "smooth-l1"] = "l1"
    scope: Literal["masked", "full"] = "masked"
    beta: PositiveFloat | None = None

    @model_validator(mode="before")
    @classmethod
    def _beta_of_smooth_l1(cls, values: Any) -> Any:
        if isinstance(values, dict):
            smooth = values.get("kind") == "smooth-l1"
            if smooth and values.get("beta") is None:
                return {**values, "beta": 1.0}
            if not smooth and values.get("beta") is not None:
                raise ValueError(f"beta belongs to smooth-l1, not to {values.get('kind', 'l1')}")
        return values
