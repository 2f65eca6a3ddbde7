"""Description of a family of timm models: its forward pass in steps, its names, its options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from harness.spec import Backbone
from harness.spec.model.corruption import Site

Run = Callable[[Any, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Piece:
    """One step of the forward pass from an image to features, with the layout of its output.

    run: function of the model, the output of the step before, and what `Layers.shared` gives. It holds no module, so
        that it stays true of a copy of the model, and of one whose layers were replaced.
    layout: `tokens` is [B, prefix + N, C] with N = h * w in rows, `last` [B, h, w, C], `first` [B, C, h, w].
    width: channels C. stride: side in image pixels of one position.
    sites: names of the sites right after this step at which a mask token may be inserted.
    block: number of the block, counted from 1 over all stages; None for a step that is not a block.
    prefix: number of class and register tokens in front of the patches.
    """

    run: Run
    layout: Literal["tokens", "last", "first"]
    width: int
    stride: int
    sites: tuple[Site, ...] = ()
    block: int | None = None
    prefix: int = 0


@dataclass(frozen=True)
class Submodule:
    """A step that calls one submodule, by its name, such as "layers.2.blocks.0". All blocks are such steps.

    shared_as: name of its argument that takes what all blocks share; None if it has none.
    """

    path: str
    shared_as: str | None = None

    def __call__(self, model: Any, x: Tensor, shared: Tensor | None) -> Tensor:
        named = {} if self.shared_as is None else {self.shared_as: shared}
        found: Tensor = model.get_submodule(self.path)(x, **named)
        return found


class Layers(ABC):
    """A family of timm models: arguments to build one, names of its layers, and its forward pass.

    classifier: name of the classifier's weight.
    channels_last: True if it computes faster in the channels-last memory layout.
    norm_behind_pooling: True if a classifier applies the encoder's last norm after pooling instead of before.
    norm_of_maps: True if a map of each stage goes through a new layer norm before a dense head.
    new: prefixes of the parameters that a fine-tuning initialises anew instead of loading.
    """

    classifier: ClassVar[str]
    channels_last: ClassVar[bool] = False
    norm_behind_pooling: ClassVar[bool] = False
    norm_of_maps: ClassVar[bool] = False
    new: ClassVar[tuple[str, ...]] = ("head.", "fc_norm.")

    @abstractmethod
    def arguments(self, backbone: Backbone, *, image_size: int, pool: str) -> dict[str, Any]:
        """Arguments of `timm.create_model` besides channels, classes, drop path and the backbone's own arguments.

        Args:
            pool: as for `harness.core.model.encoder.build`.

        Raises:
            HarnessError: a class token is to be pooled of a model that has none.
        """

    @abstractmethod
    def pieces(self, model: Any) -> list[Piece]:
        """Steps of the forward pass up to the features after the final norm; their number is constant."""

    def shared(self, model: Any) -> Tensor | None:
        """Tensor that all blocks take, computed once in a forward pass from weights alone; None for most families."""
        del model
        return None

    def blocks(self, model: Any) -> list[nn.Module]:
        """All blocks in their order, over all stages."""
        steps = [piece.run for piece in self.pieces(model) if piece.block is not None]
        return [model.get_submodule(step.path) for step in steps if isinstance(step, Submodule)]

    @abstractmethod
    def depths(self, model: Any) -> list[int]:
        """Number of blocks of each stage."""

    @abstractmethod
    def layer_id(self, model: Any, name: str) -> int:
        """Depth of a parameter for layer-wise decay: 0 for the embeddings, k for block k, depth + 1 behind the last."""

    @abstractmethod
    def cuts_patches(self, backbone: Backbone) -> bool:
        """True if each position after the patch embedding or stem depends on its own patch only."""

    def taken(self, names: Iterable[str], own: Iterable[str]) -> set[str]:
        """Parameters to load from a pre-training.

        Args:
            names: of the pre-training's parameters. own: of the parameters of the model that is loaded.
        """
        del own
        return {name for name in names if not name.startswith(self.new)}
