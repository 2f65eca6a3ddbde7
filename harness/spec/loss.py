"""How the error of a prediction is measured."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import PositiveFloat, model_validator

from harness.spec.base import Spec
from harness.spec.targets import DalleTokenizer, Target, TokenTarget, target_classes


class Loss(Spec):
    """The prediction error.

    kind: l1 (SimMIM's default), l2 or smooth-l1 for values; cross-entropy for classes.
    scope: where it counts: under hidden patches only, or over the full image (SimMIM Table 4).
    beta: where smooth-l1 turns from quadratic to linear; unused by the others. The paper states none.
    """

    kind: Literal["l1", "l2", "smooth-l1", "cross-entropy"] = "l1"
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


def check_loss(loss: Loss, target: Target, channels: int) -> None:
    """Whether a loss fits a target, and the target images of `channels` channels.

    Raises:
        ValueError: they do not.
    """
    classified = target_classes(target) is not None
    if classified != (loss.kind == "cross-entropy"):
        valid = "cross-entropy" if classified else "l1, l2, smooth-l1"
        raise ValueError(f"loss.kind {loss.kind!r} does not fit the target {target.kind!r}; valid: {valid}")
    if isinstance(target, TokenTarget) and isinstance(target.tokenizer, DalleTokenizer) and channels != 3:
        raise ValueError(f"the tokenizer 'dalle' sees colours, not {channels} channels; valid here: patch-words")
