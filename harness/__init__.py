"""Ablation studies of masked image modelling. Importing this loads neither torch nor pandas."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from harness.papers import (
    Protocol,
    a2mim,
    a2mim_backbone,
    a2mim_corruption,
    a2mim_finetune,
    a2mim_pretrain,
    a2mim_site,
    mae,
    mae_finetune,
    mae_pretrain,
    mae_probe,
    paper_table,
    released_simmim_cnn,
    simmim,
    simmim_backbone,
    simmim_cnn,
    simmim_cnn_pretrain,
    simmim_finetune,
    simmim_pretrain,
    simmim_probe,
    symmim,
)
from harness.search import (
    Rungs,
    Search,
)
from harness.spec import (
    AfterStage,
    AtInput,
    Augment,
    Average,
    Backbone,
    BeforeBlock,
    BinTarget,
    BlockMask,
    CheckerboardMask,
    Checkpoint,
    ClusterTarget,
    ColourMask,
    ComplementMask,
    Contrastive,
    Corruption,
    Cosine,
    CustomAugment,
    CustomBackbone,
    CustomData,
    CustomEvaluation,
    CustomHead,
    CustomLoss,
    CustomMask,
    CustomOptimiser,
    CustomTarget,
    DalleTokenizer,
    DecoderHead,
    DisjointMask,
    FeatureTarget,
    FineTune,
    Fourier,
    FourierLoss,
    FrequencyMask,
    GridMask,
    GuidedMask,
    HardMask,
    HarnessError,
    HogTarget,
    ImageFolder,
    Images,
    Interactions,
    InverseSwinHead,
    Knn,
    LinearHead,
    LinearProbe,
    LocalMask,
    LogisticProbe,
    Loss,
    LossPredictor,
    LowPassTarget,
    MlpHead,
    MomentumEncoder,
    MomentumTarget,
    MultiStep,
    NormPixelTarget,
    Occlusion,
    PatchWords,
    PixelTarget,
    Pretrain,
    RandomMask,
    Recipe,
    RgbStatistics,
    Scale,
    Scratch,
    Shapes,
    Skip,
    Snapshot,
    SquareMask,
    TokenMask,
    TokenTarget,
    TransformerHead,
    UniformMask,
    VisibleSquareMask,
)
from harness.study import Study, around, axes, claims, zipped

if TYPE_CHECKING:
    from harness.results import results_frame
    from harness.use import export_weights, predict, reconstruct

_LAZY = {  # these load torch or pandas, which takes seconds
    "export_weights": "harness.use",
    "predict": "harness.use",
    "reconstruct": "harness.use",
    "results_frame": "harness.results",
}

__all__ = [
    "AfterStage", "AtInput", "Augment", "Average", "Backbone", "BeforeBlock", "BinTarget", "BlockMask",
    "CheckerboardMask", "Checkpoint", "ClusterTarget", "ColourMask", "ComplementMask", "Contrastive", "Corruption",
    "Cosine", "CustomAugment", "CustomBackbone", "CustomData", "CustomEvaluation", "CustomHead", "CustomLoss",
    "CustomMask", "CustomOptimiser", "CustomTarget", "DalleTokenizer", "DecoderHead", "DisjointMask", "FeatureTarget",
    "FineTune", "Fourier", "FourierLoss", "FrequencyMask", "GridMask", "GuidedMask", "HardMask", "HarnessError",
    "HogTarget", "ImageFolder", "Images", "Interactions", "InverseSwinHead", "Knn", "LinearHead", "LinearProbe",
    "LocalMask", "LogisticProbe", "Loss", "LossPredictor", "LowPassTarget", "MlpHead", "MomentumEncoder",
    "MomentumTarget", "MultiStep", "NormPixelTarget", "Occlusion", "PatchWords", "PixelTarget", "Pretrain", "Protocol",
    "RandomMask", "Recipe", "RgbStatistics", "Rungs", "Scale", "Scratch", "Search", "Shapes", "Skip", "Snapshot",
    "SquareMask", "Study", "TokenMask", "TokenTarget", "TransformerHead", "UniformMask", "VisibleSquareMask", "a2mim",
    "a2mim_backbone", "a2mim_corruption", "a2mim_finetune", "a2mim_pretrain", "a2mim_site", "around", "axes", "claims",
    "export_weights", "mae", "mae_finetune", "mae_pretrain", "mae_probe", "paper_table", "predict", "reconstruct",
    "released_simmim_cnn", "results_frame", "simmim", "simmim_backbone", "simmim_cnn", "simmim_cnn_pretrain",
    "simmim_finetune", "simmim_pretrain", "simmim_probe", "symmim", "zipped",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
