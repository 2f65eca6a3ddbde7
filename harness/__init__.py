"""Ablation studies of masked image modelling. Importing this loads no torch; names are loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness import claims as claims
    from harness.papers import paper_table as paper_table
    from harness.papers import simmim as simmim
    from harness.papers import simmim_backbone as simmim_backbone
    from harness.papers import simmim_finetune as simmim_finetune
    from harness.papers import simmim_pretrain as simmim_pretrain
    from harness.papers import simmim_probe as simmim_probe
    from harness.search import Rungs as Rungs
    from harness.search import Search as Search
    from harness.spec import (
        Augment as Augment,
    )
    from harness.spec import (
        Average as Average,
    )
    from harness.spec import (
        Backbone as Backbone,
    )
    from harness.spec import (
        BinTarget as BinTarget,
    )
    from harness.spec import (
        BlockMask as BlockMask,
    )
    from harness.spec import (
        Checkpoint as Checkpoint,
    )
    from harness.spec import (
        ClusterTarget as ClusterTarget,
    )
    from harness.spec import (
        Corruption as Corruption,
    )
    from harness.spec import (
        Cosine as Cosine,
    )
    from harness.spec import (
        CustomData as CustomData,
    )
    from harness.spec import (
        CustomEvaluation as CustomEvaluation,
    )
    from harness.spec import (
        CustomHead as CustomHead,
    )
    from harness.spec import (
        CustomMask as CustomMask,
    )
    from harness.spec import (
        CustomTarget as CustomTarget,
    )
    from harness.spec import (
        DalleTokenizer as DalleTokenizer,
    )
    from harness.spec import (
        FineTune as FineTune,
    )
    from harness.spec import (
        HarnessError as HarnessError,
    )
    from harness.spec import (
        ImageFolder as ImageFolder,
    )
    from harness.spec import (
        Images as Images,
    )
    from harness.spec import (
        InverseSwinHead as InverseSwinHead,
    )
    from harness.spec import (
        Knn as Knn,
    )
    from harness.spec import (
        LinearHead as LinearHead,
    )
    from harness.spec import (
        LinearProbe as LinearProbe,
    )
    from harness.spec import (
        Loss as Loss,
    )
    from harness.spec import (
        MlpHead as MlpHead,
    )
    from harness.spec import (
        MultiStep as MultiStep,
    )
    from harness.spec import (
        PatchWords as PatchWords,
    )
    from harness.spec import (
        PixelTarget as PixelTarget,
    )
    from harness.spec import (
        Pretrain as Pretrain,
    )
    from harness.spec import (
        RandomMask as RandomMask,
    )
    from harness.spec import (
        Recipe as Recipe,
    )
    from harness.spec import (
        Scale as Scale,
    )
    from harness.spec import (
        Scratch as Scratch,
    )
    from harness.spec import (
        Shapes as Shapes,
    )
    from harness.spec import (
        Skip as Skip,
    )
    from harness.spec import (
        Snapshot as Snapshot,
    )
    from harness.spec import (
        SquareMask as SquareMask,
    )
    from harness.spec import (
        TokenTarget as TokenTarget,
    )
    from harness.study import Study as Study
    from harness.study import around as around
    from harness.study import axes as axes
    from harness.study import zipped as zipped
    from harness.use import export_weights as export_weights
    from harness.use import predict as predict
    from harness.use import reconstruct as reconstruct

_HOME = {
    "harness.spec": (
        "Augment", "Average", "Backbone", "BinTarget", "BlockMask", "Checkpoint", "ClusterTarget", "Corruption",
        "Cosine", "CustomData", "CustomEvaluation", "CustomHead", "CustomMask", "CustomTarget", "DalleTokenizer",
        "FineTune", "HarnessError", "ImageFolder", "Images", "InverseSwinHead", "Knn", "LinearHead", "LinearProbe",
        "Loss", "MlpHead", "MultiStep", "PatchWords", "PixelTarget", "Pretrain", "RandomMask", "Recipe", "Scale",
        "Scratch", "Shapes", "Skip", "Snapshot", "SquareMask", "TokenTarget",
    ),
    "harness.papers": (
        "paper_table", "simmim", "simmim_backbone", "simmim_finetune", "simmim_pretrain", "simmim_probe",
    ),
    "harness.search": ("Rungs", "Search"),
    "harness.study": ("Study", "around", "axes", "zipped"),
    "harness.use": ("export_weights", "predict", "reconstruct"),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["claims", *_MODULE_OF]


def __getattr__(name: str) -> object:
    if name == "claims":
        return importlib.import_module("harness.claims")
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
