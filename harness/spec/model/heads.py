"""Prediction heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from harness.spec.base import Spec
from harness.spec.user_code import UserFunction

__all__ = [
    "CustomHead", "DecoderHead", "Head", "InverseSwinHead", "LinearHead", "LossPredictor", "MlpHead", "TransformerHead",
]  # fmt: skip


class LinearHead(Spec):
    """SimMIM's head: one 1x1 convolution from C channels to all values under an output token, then pixel shuffle."""

    kind: Literal["linear"] = "linear"


class MlpHead(Spec):
    """1x1 convolutions with GELU between them, then pixel shuffle.

    layers: number of convolutions, 2 for the paper's "2-layer MLP".
    width: hidden channels; None for the encoder's C, which gives the published 90.9M (SimMIM Table 2).
    depthwise: side of a depth-wise convolution; each of the convolutions but the last is then one, without bias, with a
        LayerNorm over channels before the GELU. With 2 layers and 5 that is the MLP of the released A2MIM
        (Westlake-AI/openmixup, configs/selfsup/a2mim/imagenet100/deit_small_l0_mlp..., ConvNeck).
    """

    kind: Literal["mlp"] = "mlp"
    layers: int = Field(default=2, ge=2)
    width: PositiveInt | None = None
    depthwise: PositiveInt | None = None

    implicit: ClassVar[Mapping[str, object]] = {"depthwise": None}

    @model_validator(mode="after")
    def _depthwise(self) -> Self:
        _odd(self.depthwise)
        if self.depthwise is not None and self.width is not None:
            raise ValueError("a depth-wise convolution keeps the encoder's channels; leave width out")
        return self


class TransformerHead(Spec):
    """Transformer blocks over the encoder's output tokens, then one 1x1 convolution and pixel shuffle.

    A linear layer to `width`, learned positions, blocks as timm's ViT has them (pre-norm, MLP of four times the width),
    a LayerNorm. A2MIM compares heads of two such blocks; its code has none, so the construction is assumed. It differs
    from MAE's decoder in that it gets hidden places from the encoder.

    layers: number of blocks. width: channels of a token; None for the encoder's C, without the linear layer.
    num_heads: of each block; they divide the width.
    depthwise: side of a depth-wise convolution over the map, added to it before each block; None for none. Assumed too.
    """

    kind: Literal["transformer"] = "transformer"
    layers: PositiveInt = 2
    width: PositiveInt | None = None
    num_heads: PositiveInt = 8
    depthwise: PositiveInt | None = None

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        _odd(self.depthwise)
        if self.width is not None and self.width % self.num_heads:
            raise ValueError(f"{self.num_heads} heads do not divide the width {self.width}")
        return self


def _odd(kernel: int | None) -> None:
    if kernel is not None and kernel % 2 == 0:
        raise ValueError(f"a depth-wise convolution of side {kernel} moves the map; valid: odd sides, such as 3, 5, 7")


class InverseSwinHead(Spec):
    """A Swin transformer run backwards, from coarse to fine: SimMIM's heavy heads (Table 2).

    A linear layer to the deepest width; then the stages in reverse order, each followed by the mirror image of a patch
    merging: LayerNorm, a linear layer C -> 2C without bias, pixel shuffle by 2. Doublings end with the stages, or
    before at the target's resolution (the shallow stages are then left out); what is still missing is made up at once
    (LayerNorm, C -> s * s * C without bias, pixel shuffle by s). A 1x1 convolution predicts.

    The code of these heads was never released: this construction is assumed. Pre-training Swin-B at 192 px with it has
    115,164,053 (`tiny()`) and 174,750,707 (`base()`) parameters, the paper's 115.2M and 174.8M.

    embed_dim: width of the shallowest of all stages; it doubles with each deeper one.
    depths, num_heads: of each stage, in Swin's own order, the shallowest first.
    window: side of an attention window in tokens; a smaller map is one window. The encoder's 6 is assumed.
    """

    kind: Literal["inverse-swin"] = "inverse-swin"
    embed_dim: PositiveInt
    depths: tuple[PositiveInt, ...] = Field(min_length=1)
    num_heads: tuple[PositiveInt, ...] = Field(min_length=1)
    window: PositiveInt = 6

    @model_validator(mode="after")
    def _stages(self) -> Self:
        if len(self.depths) != len(self.num_heads):
            raise ValueError(f"depths names {len(self.depths)} stages and num_heads {len(self.num_heads)}")
        for stage, heads in enumerate(self.num_heads):
            if (width := self.embed_dim << stage) % heads:
                raise ValueError(f"{heads} heads do not divide the {width} channels of stage {stage + 1}")
        return self

    @classmethod
    def tiny(cls, *, window: int = 6) -> Self:
        """The inverse of Swin-T."""
        return cls(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window=window)

    @classmethod
    def base(cls, *, window: int = 6) -> Self:
        """The inverse of Swin-B."""
        return cls(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window=window)


class DecoderHead(Spec):
    """A transformer decoder over all places of the map (MAE, section 3).

    A linear layer to `width`; where the encoder computes visible tokens only, a learned mask token at each hidden
    place; positions; `depth` transformer blocks with an MLP of four times the width; a LayerNorm; a linear layer to all
    values under a place, then pixel shuffle. Behaves as facebookresearch/mae, models_mae.py. There the class token goes
    through the decoder too, and so does what else an encoder has in front of the visible tokens here; behind an encoder
    that computes all places the decoder gets the map alone.

    depth, width, heads: MAE has 8 blocks of width 512 with 16 heads.
    positions: `sincos`: fixed sines and cosines of column and row, as in MAE; `learned`.
    """

    kind: Literal["decoder"] = "decoder"
    depth: PositiveInt = 8
    width: PositiveInt = 512
    heads: PositiveInt = 16
    positions: Literal["sincos", "learned"] = "sincos"

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the width {self.width}")
        if self.positions == "sincos" and self.width % 4:
            raise ValueError(f"positions 'sincos' need a width that 4 divides, not {self.width}")
        return self


class CustomHead(UserFunction):
    """A user's own head.

    function: `package.module:name`; called as `name(in_channels, out_channels, **params)` it returns a module that
        maps [B, in_channels, h, w] to [B, out_channels, h, w]; pixel shuffle follows.
    """

    kind: Literal["custom"] = "custom"


class LossPredictor(Spec):
    """A second decoder that learns to rank hidden patches by their prediction error (HPM).

    It predicts one number for each place. For each pair of hidden patches of an image whose errors differ, the
    difference of their numbers is the logit that the first error is the larger one; the loss is the mean cross-entropy
    over an image's pairs and over images. An error is the mean squared difference between prediction and target in a
    patch. A hard mask uses the numbers that the momentum encoder's copy predicts from the whole image. Behaves as
    Haochen-Wang409/HPM, models_mae_learn_loss.py with relative=True, except that there the first linear layer and the
    mask token are shared with MAE's decoder, a place's number is the mean of as many outputs as a patch has values,
    and the mean is over all pairs of the batch.

    weight: factor on this loss in the run's loss; 1 is assumed.
    decoder: its blocks.
    """

    weight: PositiveFloat = 1.0
    decoder: DecoderHead = DecoderHead()


Head = Annotated[
    LinearHead | MlpHead | TransformerHead | InverseSwinHead | DecoderHead | CustomHead, Field(discriminator="kind")
]


def check_head(head: Head, stride: int, downsample: int) -> None:
    """Refuse a head that cannot go from an encoder's stride to a target's resolution.

    Raises:
        ValueError: it cannot.
    """
    factor = stride // downsample
    if isinstance(head, InverseSwinHead) and factor & (factor - 1):
        valid = [str(n) for n in range(1, stride + 1) if stride % n == 0 and not (m := stride // n) & (m - 1)]
        raise ValueError(
            f"an inverse-swin head doubles the resolution; stride {stride} to target.downsample {downsample} is "
            f"{factor} times; valid target.downsample: {', '.join(valid)}"
        )
