"""A user's own network as an encoder or classifier."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from harness.core.model.backbones.pieces import Layers, Piece, Submodule
from harness.core.runtime.custom import call, load_function, looked_at
from harness.spec import Backbone, CustomBackbone, HarnessError
from harness.spec.model.corruption import AfterStage, AtInput, Site


class CustomNetwork(nn.Module):
    """A user's network, with a linear classifier on the mean of its last map.

    Attributes:
        body: the module that the user's function returned. head: the classifier; an identity in an encoder.
        stages: for each step of the body its width in channels and its stride in image pixels.
    """

    def __init__(self, body: nn.Module, stages: list[tuple[int, int]], num_classes: int) -> None:
        super().__init__()
        self.body, self.stages = body, stages
        self.head = nn.Linear(stages[-1][0], num_classes) if num_classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, num_classes] of images [B, C, S, S], or their mean features where there is no classifier."""
        found: Tensor = self.head(self.body(images).mean((2, 3)))
        return found

    def get_classifier(self) -> nn.Module:
        """The classifier, named as in timm's models."""
        return self.head


class Custom(Layers):
    """A user's network: a stem and blocks, each block a stage; see `harness.spec.CustomBackbone`."""

    classifier = "head.weight"
    new = ("head.",)

    def arguments(self, backbone: Backbone, *, image_size: int, pool: str) -> dict[str, Any]:
        raise AssertionError("a user's own network is no timm model")

    def pieces(self, model: CustomNetwork) -> list[Piece]:
        steps = _steps(model.body)
        stem, last = len(steps) > 1, len(steps) - 1
        found = []
        for place, ((name, _), (width, stride)) in enumerate(zip(steps, model.stages, strict=True)):
            step = Submodule(f"body.{name}" if name else "body")
            block = place + 1 - stem  # 0 for a stem
            site: Site = AfterStage(stage=block, stride=stride) if place else AtInput()
            found.append(Piece(step, "first", width, stride, (site,) if place < max(last, 1) else (), block or None))
        return found

    def depths(self, model: CustomNetwork) -> list[int]:
        return [1] * max(len(_steps(model.body)) - 1, 1)

    def layer_id(self, model: CustomNetwork, name: str) -> int:
        steps = _steps(model.body)
        if name.startswith("head."):
            return sum(self.depths(model)) + 1
        if len(steps) == 1:
            return 1
        return next(place for place, (child, _) in enumerate(steps) if name.startswith(f"body.{child}."))

    def cuts_patches(self, backbone: Backbone) -> bool:
        raise AssertionError("measured, by mixes_before")


def build_custom(
    backbone: CustomBackbone, *, image_size: int, channels: int, num_classes: int, pool: str, drop_path: float
) -> CustomNetwork:
    """Network of a user's function; arguments as for `harness.core.model.encoder.build`.

    Raises:
        HarnessError: it is no module, gives no maps, or has other strides than stated; it ignores `drop_path`; or a
            class token is to be pooled.
    """
    if pool == "token":
        raise HarnessError(f"{backbone.name} has no class token here; set pool='mean'")
    rate = {"drop_path": drop_path} if drop_path else {}
    function = load_function(backbone.function, backbone.source)
    body = call(function, backbone.name, channels, image_size, **dict(backbone.params), **rate)
    if not isinstance(body, nn.Module):
        raise HarnessError(f"{backbone.name} should return a torch module, not {type(body).__name__}")
    if drop_path and not any(isinstance(layer, DropPath) and layer.drop_prob for layer in body.modules()):
        raise HarnessError(f"{backbone.name} has no DropPath layer of timm; use one, or leave recipe.drop_path out")
    stages = _stages(backbone, body, image_size, channels)
    first, last = stages[0][1], stages[-1][1]
    if last != backbone.stride:
        raise HarnessError(f"{backbone.name} has stride {last}, not the stated {backbone.stride}")
    if len(stages) > 1 and first != backbone.patch_size:
        raise HarnessError(
            f"the stem of {backbone.name} has stride {first}, not the stated patch_size {backbone.patch_size}"
        )
    return CustomNetwork(body, stages, num_classes)


def _stages(backbone: CustomBackbone, body: nn.Module, image_size: int, channels: int) -> list[tuple[int, int]]:
    """Width and stride of each step, from one pass over a blank image."""
    found, x = [], torch.zeros(1, channels, image_size, image_size)
    with looked_at(body):
        for name, step in _steps(body):
            x = step(x)
            what = f"child {name!r} of {backbone.name}" if name else backbone.name
            if not isinstance(x, Tensor) or x.ndim != 4 or len(x) != 1 or not x.is_floating_point():
                got = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
                raise HarnessError(f"{what} should give float maps [B, C, h, w], not {got}")
            rows, columns = x.shape[-2:]
            if rows != columns or image_size % rows:
                raise HarnessError(f"{what} gives maps of {rows} x {columns}, no part of the image of {image_size} px")
            found.append((x.shape[1], image_size // rows))
    return found


@torch.no_grad()
def mixes_before(model: CustomNetwork, image_size: int, channels: int, at: int) -> bool:
    """True if the output of step `at` depends, at some position, on pixels beyond the square under that position.

    Measured at initial weights: noise in one square, which must change no other position.
    """
    pieces = Custom().pieces(model.eval())
    stride = pieces[at].stride
    side, device = image_size // stride, next(model.parameters()).device
    images = torch.randn(1, channels, image_size, image_size, generator=torch.Generator().manual_seed(0)).to(device)
    changed, middle = images.clone(), side // 2 * stride
    # In the middle, so that a layer that reaches beyond the square has neighbours to change on all sides.
    changed[..., middle : middle + stride, middle : middle + stride] += 1.0
    for piece in pieces[: at + 1]:
        images, changed = (piece.run(model, x, None) for x in (images, changed))
    differs = (images != changed).any(1)[0]
    differs[side // 2, side // 2] = False
    return bool(differs.any())


def _steps(body: nn.Module) -> list[tuple[str, nn.Module]]:
    """Steps of the forward pass by name: the children of a Sequential, or the module itself."""
    # A subclass with a forward of its own need not run its children in turn.
    if isinstance(body, nn.Sequential) and type(body).forward is nn.Sequential.forward and len(body) > 1:
        return [(name, child) for name, child in body._modules.items() if child is not None]  # one may stand in twice
    return [("", body)]
