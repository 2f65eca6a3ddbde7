"""Families of timm models that can be encoders, one module each.

To add one: a module with a `Layers` of its own, its timm class in `Family` and a case in each of the two functions
here. Nothing else knows the names of a family's layers.
"""

from __future__ import annotations

from typing import assert_never

import timm
from timm.models.beit import Beit
from timm.models.convnext import ConvNeXt
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from harness.core.model.backbones.convnext import ConvNext
from harness.core.model.backbones.custom import Custom, CustomNetwork
from harness.core.model.backbones.pieces import Layers, Piece
from harness.core.model.backbones.resnet import ResNets
from harness.core.model.backbones.swin import Swin
from harness.core.model.backbones.vit import BEiT, ViT
from harness.spec import AnyBackbone, CustomBackbone, HarnessError
from harness.spec.model.backbone import FAMILIES, check_model

__all__ = ["Family", "Layers", "Piece", "layers_for", "layers_named", "layers_of", "supported"]

Family = VisionTransformer | Beit | SwinTransformer | SwinTransformerV2 | ConvNeXt | ResNet | CustomNetwork


def layers_of(model: Family) -> Layers:
    """Description of the layers of a model's family."""
    match model:
        case VisionTransformer():
            return ViT()
        case Beit():
            return BEiT()
        case SwinTransformer() | SwinTransformerV2():
            return Swin()
        case ConvNeXt():
            return ConvNext()
        case ResNet():
            return ResNets()
        case CustomNetwork():
            return Custom()
        case _:
            assert_never(model)


def layers_for(backbone: AnyBackbone) -> Layers:
    """Description of the layers of a backbone, without building it.

    Raises:
        HarnessError: there is no such timm model, or it belongs to no family that is known here.
    """
    return Custom() if isinstance(backbone, CustomBackbone) else layers_named(backbone.name)


def layers_named(name: str) -> Layers:
    """Description of the layers of a timm model by its name, without building it.

    Raises:
        HarnessError: there is no such model, or it belongs to no family that is known here.
    """
    check_model(
        name, {found: timm.model_entrypoint(found).__module__.rpartition(".")[2] for found in timm.list_models()}
    )
    # timm keeps a family in a module of its own, so the module's name tells the family without building a model.
    match timm.model_entrypoint(name).__module__.rpartition(".")[2]:
        # timm's DeiTs are VisionTransformers.
        case "vision_transformer" | "deit":
            return ViT()
        case "beit":
            return BEiT()
        case "swin_transformer" | "swin_transformer_v2":
            return Swin()
        case "convnext":
            return ConvNext()
        case "resnet":
            return ResNets()
        case other:
            raise AssertionError(f"{other} is among the families, and has no layers here")


def supported(model: nn.Module, name: str) -> Family:
    """The model itself, checked to be of a supported family.

    Raises:
        HarnessError: it is of none.
    """
    if not isinstance(model, Family):
        raise HarnessError(f"{name} is timm's {type(model).__name__}; valid families: {', '.join(FAMILIES)}")
    return model
