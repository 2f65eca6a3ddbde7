"""Momentum encoders: a second set of weights that follows the trained ones."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from harness.spec.base import Spec


class MomentumEncoder(Spec):
    """A copy of the encoder that is an exponential moving average of it: k <- m * k + (1 - m) * q after each step.

    Nothing is learnt in it. It begins as a copy of the weights that training begins with, hides tokens by its own
    average of the mask token, and never drops a residual branch. Buffers, such as running statistics, are copied.

    start, end: momentum m of the first step and what it rises to. 0.99 to 1 is MoCo v3's (mmpretrain, configs/mocov3),
        0.999 to 0.9999 data2vec's (fairseq, examples/data2vec/config/vision/pretraining).
    schedule: `cosine`: end - (end - start) * (1 + cos(pi * t / T)) / 2; `linear`: start + (end - start) * t / T. t is
        the step, counted from 0, and T the number of steps, so that `end` itself is what the step after the last would
        have.
    epochs: T in epochs, after which m stays at `end`; None for the whole training.
    """

    start: Annotated[float, Field(ge=0, le=1)] = 0.99
    end: Annotated[float, Field(ge=0, le=1)] = 1.0
    schedule: Literal["cosine", "linear"] = "cosine"
    epochs: PositiveInt | None = None

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"momentum falls from {self.start:g} to {self.end:g}; end should be at least start")
        if self.start == 1:
            raise ValueError("start 1 keeps the first weights for ever; it should be less than 1")
        return self
