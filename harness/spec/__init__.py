"""Specs: frozen values that determine a run's numbers, their keys, and the facts of a run that need no torch."""

from harness.machine import HarnessError
from harness.spec.analyses import Fourier, Interactions, Occlusion, RgbStatistics
from harness.spec.backbone import AnyBackbone, Backbone, CustomBackbone
from harness.spec.base import Params, Scalar, Spec, one_line
from harness.spec.contrastive import Contrastive
from harness.spec.corruption import AfterStage, AtInput, BeforeBlock, Corruption
from harness.spec.data import CustomData, Data, ImageFolder, Images, Shapes
from harness.spec.heads import (
    CustomHead,
    DecoderHead,
    Head,
    InverseSwinHead,
    LinearHead,
    LossPredictor,
    MlpHead,
    TransformerHead,
)
from harness.spec.keys import (
    Analysis,
    Evaluation,
    Run,
    key,
    pretraining,
    run_from_json,
    seed_stream,
    snapshot_epoch,
    upstream,
    upstreams,
)
from harness.spec.loss import AnyLoss, CustomLoss, FourierLoss, Loss
from harness.spec.masking import Mask
from harness.spec.masks.blocks import BlockMask
from harness.spec.masks.custom import CustomMask
from harness.spec.masks.frequency import FrequencyMask
from harness.spec.masks.guided import GuidedMask, HardMask
from harness.spec.masks.local import LocalMask
from harness.spec.masks.noise import ColourMask
from harness.spec.masks.pairs import ComplementMask, DisjointMask
from harness.spec.masks.patterns import CheckerboardMask, GridMask, UniformMask
from harness.spec.masks.units import RandomMask, SquareMask, TokenMask, VisibleSquareMask
from harness.spec.momentum import MomentumEncoder
from harness.spec.recipe import (
    Augment,
    Average,
    Cosine,
    CustomAugment,
    CustomOptimiser,
    MultiStep,
    Recipe,
    Schedule,
)
from harness.spec.run import CustomEvaluation, FineTune, Knn, LinearProbe, LogisticProbe, Pretrain, Snapshot, Start
from harness.spec.scale import Scale, Skip
from harness.spec.start import Checkpoint, Scratch
from harness.spec.targets import (
    BinTarget,
    ClusterTarget,
    CustomTarget,
    DalleTokenizer,
    FeatureTarget,
    HogTarget,
    KMeans,
    LowPassTarget,
    MomentumTarget,
    NormPixelTarget,
    PatchWords,
    PixelTarget,
    Target,
    Tokenizer,
    TokenTarget,
)

__all__ = [
    "AfterStage", "Analysis", "AnyBackbone", "AnyLoss", "AtInput", "Augment", "Average", "Backbone", "BeforeBlock",
    "BinTarget", "BlockMask", "CheckerboardMask", "Checkpoint", "ClusterTarget", "ColourMask", "ComplementMask",
    "Contrastive", "Corruption", "Cosine", "CustomAugment", "CustomBackbone", "CustomData", "CustomEvaluation",
    "CustomHead", "CustomLoss", "CustomMask", "CustomOptimiser", "CustomTarget", "DalleTokenizer", "Data",
    "DecoderHead", "DisjointMask", "Evaluation", "FeatureTarget", "FineTune", "Fourier", "FourierLoss", "FrequencyMask",
    "GridMask", "GuidedMask", "HardMask", "HarnessError", "Head", "HogTarget", "ImageFolder", "Images", "Interactions",
    "InverseSwinHead", "KMeans", "Knn", "LinearHead", "LinearProbe", "LocalMask", "LogisticProbe", "Loss",
    "LossPredictor", "LowPassTarget", "Mask", "MlpHead", "MomentumEncoder", "MomentumTarget", "MultiStep",
    "NormPixelTarget", "Occlusion", "Params", "PatchWords", "PixelTarget", "Pretrain", "RandomMask", "Recipe",
    "RgbStatistics", "Run", "Scalar", "Scale", "Schedule", "Scratch", "Shapes", "Skip", "Snapshot", "Spec",
    "SquareMask", "Start", "Target", "TokenMask", "TokenTarget", "Tokenizer", "TransformerHead", "UniformMask",
    "VisibleSquareMask", "key", "one_line", "pretraining", "run_from_json", "seed_stream", "snapshot_epoch", "upstream",
    "upstreams",
]  # fmt: skip
