"""What a family of timm models has to say of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from harness.spec import Backbone
from harness.spec.corruption import Site


@dataclass(frozen=True)
class Piece:
    """One step of a forward pass, from an image to features, and what comes out of it.

    layout: `tokens` is [B, prefix + N, C] with N = h * w in rows, `last` [B, h, w, C], `first` [B, C, h, w].
    width: channels C. stride: pixels of the image under one position.
    sites: where a mask token may come in, right behind this step.
    block: number of the block that this step is, counted from 1 over all stages; None for what is no block.
    """

    run: Callable[[Tensor], Tensor]
    layout: Literal["tokens", "last", "first"]
    width: int
    stride: int
    sites: tuple[Site, ...] = ()
    block: int | None = None
    prefix: int = 0


class Layers(ABC):
    """A family of timm models: how it is built, what its layers are called and how an image goes through them.

    classifier: name of the classifier's weight.
    channels_last: whether it is computed faster with channels in the last place of memory.
    norm_behind_pooling: whether a classifier has the encoder's last norm, but behind its pooling.
    new: beginnings of the names that a fine-tuning does not take from a pre-training.
    """

    classifier: ClassVar[str]
    channels_last: ClassVar[bool] = False
    norm_behind_pooling: ClassVar[bool] = False
    new: ClassVar[tuple[str, ...]] = ("head.", "fc_norm.")

    @abstractmethod
    def arguments(self, backbone: Backbone, *, image_size: int, pool: str) -> dict[str, Any]:
        """What `timm.create_model` is given besides channels, classes, drop path and the backbone's own arguments.

        Args:
            pool: as for `harness.core.model.encoder.build`.

        Raises:
            HarnessError: a class token is to be pooled of a model that has none.
        """

    @abstractmethod
    def pieces(self, model: Any) -> list[Piece]:
        """The forward pass up to the features after the final norm; always the same number of steps."""

    @abstractmethod
    def depths(self, model: Any) -> list[int]:
        """Number of blocks of each stage."""

    @abstractmethod
    def layer_id(self, model: Any, name: str) -> int:
        """Depth of a parameter for layer-wise decay: 0 for the embeddings, k for block k, depth + 1 behind the last."""

    @abstractmethod
    def cuts_patches(self, backbone: Backbone) -> bool:
        """Whether each position behind patch embedding or stem sees its own patch only."""

    def taken(self, names: Iterable[str], own: Iterable[str]) -> set[str]:
        """Which of a pre-training's names a model takes that has the names `own`, a classifier's perhaps."""
        del own
        return {name for name in names if not name.startswith(self.new)}
