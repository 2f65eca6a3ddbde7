"""Ablation studies of masked image modelling. Importing this loads no torch; names are loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness import claims as claims
    from harness.papers import Protocol as Protocol
    from harness.papers import a2mim as a2mim
    from harness.papers import a2mim_backbone as a2mim_backbone
    from harness.papers import a2mim_corruption as a2mim_corruption
    from harness.papers import a2mim_finetune as a2mim_finetune
    from harness.papers import a2mim_pretrain as a2mim_pretrain
    from harness.papers import a2mim_site as a2mim_site
    from harness.papers import mae as mae
    from harness.papers import mae_finetune as mae_finetune
    from harness.papers import mae_pretrain as mae_pretrain
    from harness.papers import mae_probe as mae_probe
    from harness.papers import paper_table as paper_table
    from harness.papers import released_simmim_cnn as released_simmim_cnn
    from harness.papers import simmim as simmim
    from harness.papers import simmim_backbone as simmim_backbone
    from harness.papers import simmim_cnn as simmim_cnn
    from harness.papers import simmim_cnn_pretrain as simmim_cnn_pretrain
    from harness.papers import simmim_finetune as simmim_finetune
    from harness.papers import simmim_pretrain as simmim_pretrain
    from harness.papers import simmim_probe as simmim_probe
    from harness.papers import symmim as symmim
    from harness.results import results_frame as results_frame
    from harness.search import Rungs as Rungs
    from harness.search import Search as Search
    from harness.spec import (
        AfterStage as AfterStage,
    )
    from harness.spec import (
        AtInput as AtInput,
    )
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
        BeforeBlock as BeforeBlock,
    )
    from harness.spec import (
        BinTarget as BinTarget,
    )
    from harness.spec import (
        BlockMask as BlockMask,
    )
    from harness.spec import (
        CheckerboardMask as CheckerboardMask,
    )
    from harness.spec import (
        Checkpoint as Checkpoint,
    )
    from harness.spec import (
        ClusterTarget as ClusterTarget,
    )
    from harness.spec import (
        ColourMask as ColourMask,
    )
    from harness.spec import (
        ComplementMask as ComplementMask,
    )
    from harness.spec import (
        Contrastive as Contrastive,
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
        DecoderHead as DecoderHead,
    )
    from harness.spec import (
        DisjointMask as DisjointMask,
    )
    from harness.spec import (
        FeatureTarget as FeatureTarget,
    )
    from harness.spec import (
        FineTune as FineTune,
    )
    from harness.spec import (
        Fourier as Fourier,
    )
    from harness.spec import (
        FourierLoss as FourierLoss,
    )
    from harness.spec import (
        FrequencyMask as FrequencyMask,
    )
    from harness.spec import (
        GridMask as GridMask,
    )
    from harness.spec import (
        GuidedMask as GuidedMask,
    )
    from harness.spec import (
        HardMask as HardMask,
    )
    from harness.spec import (
        HarnessError as HarnessError,
    )
    from harness.spec import (
        HogTarget as HogTarget,
    )
    from harness.spec import (
        ImageFolder as ImageFolder,
    )
    from harness.spec import (
        Images as Images,
    )
    from harness.spec import (
        Interactions as Interactions,
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
        LocalMask as LocalMask,
    )
    from harness.spec import (
        Loss as Loss,
    )
    from harness.spec import (
        LossPredictor as LossPredictor,
    )
    from harness.spec import (
        LowPassTarget as LowPassTarget,
    )
    from harness.spec import (
        MlpHead as MlpHead,
    )
    from harness.spec import (
        MomentumEncoder as MomentumEncoder,
    )
    from harness.spec import (
        MomentumTarget as MomentumTarget,
    )
    from harness.spec import (
        MultiStep as MultiStep,
    )
    from harness.spec import (
        NormPixelTarget as NormPixelTarget,
    )
    from harness.spec import (
        Occlusion as Occlusion,
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
        RgbStatistics as RgbStatistics,
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
        TokenMask as TokenMask,
    )
    from harness.spec import (
        TokenTarget as TokenTarget,
    )
    from harness.spec import (
        TransformerHead as TransformerHead,
    )
    from harness.spec import (
        UniformMask as UniformMask,
    )
    from harness.spec import (
        VisibleSquareMask as VisibleSquareMask,
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
        "AfterStage", "AtInput", "Augment", "Average", "Backbone", "BeforeBlock", "BinTarget", "BlockMask",
        "CheckerboardMask", "Checkpoint", "ClusterTarget", "ColourMask", "ComplementMask", "Contrastive",
        "Corruption", "Cosine", "CustomData", "CustomEvaluation", "CustomHead", "CustomMask", "CustomTarget",
        "DalleTokenizer", "DecoderHead", "DisjointMask", "FeatureTarget", "FineTune", "Fourier", "FourierLoss",
        "FrequencyMask", "GridMask", "GuidedMask", "HardMask", "HarnessError", "HogTarget", "ImageFolder", "Images",
        "Interactions", "InverseSwinHead", "Knn", "LinearHead", "LinearProbe", "LocalMask", "Loss", "LossPredictor",
        "LowPassTarget", "MlpHead", "MomentumEncoder", "MomentumTarget", "MultiStep", "NormPixelTarget", "Occlusion",
        "PatchWords", "PixelTarget", "Pretrain", "RandomMask", "Recipe", "RgbStatistics", "Scale", "Scratch",
        "Shapes", "Skip", "Snapshot", "SquareMask", "TokenMask", "TokenTarget", "TransformerHead", "UniformMask",
        "VisibleSquareMask",
        "CheckerboardMask", "Checkpoint", "ClusterTarget", "ColourMask", "ComplementMask", "Contrastive", "Corruption",
        "Cosine", "CustomData", "CustomEvaluation", "CustomHead", "CustomMask", "CustomTarget", "DalleTokenizer",
        "DecoderHead", "DisjointMask", "FeatureTarget", "FineTune", "Fourier", "FourierLoss", "FrequencyMask",
        "GridMask", "GuidedMask", "HardMask", "HarnessError", "HogTarget", "ImageFolder", "Images", "Interactions",
        "InverseSwinHead", "Knn", "LinearHead", "LinearProbe", "LocalMask", "Loss", "LossPredictor", "LowPassTarget",
        "MlpHead", "MomentumEncoder", "MomentumTarget", "MultiStep", "NormPixelTarget", "Occlusion", "PatchWords",
        "PixelTarget", "Pretrain", "RandomMask", "Recipe", "RgbStatistics", "Scale", "Scratch", "Shapes", "Skip",
        "Snapshot", "SquareMask", "TokenMask", "TokenTarget", "TransformerHead", "UniformMask", "VisibleSquareMask",
    ),
    "harness.papers": (
        "Protocol", "a2mim", "a2mim_backbone", "a2mim_corruption", "a2mim_finetune", "a2mim_pretrain", "a2mim_site",
        "paper_table", "released_simmim_cnn", "simmim", "simmim_backbone", "simmim_cnn", "simmim_cnn_pretrain",
        "simmim_finetune", "simmim_pretrain", "simmim_probe",
        "a2mim", "a2mim_backbone", "a2mim_corruption", "a2mim_finetune", "a2mim_pretrain", "a2mim_site", "mae",
        "mae_finetune", "mae_pretrain", "mae_probe", "paper_table", "released_simmim_cnn", "simmim", "simmim_backbone",
        "simmim_cnn", "simmim_cnn_pretrain", "simmim_finetune", "simmim_pretrain", "simmim_probe", "symmim",
    ),
    "harness.results": ("results_frame",),
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
