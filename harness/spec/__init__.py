"""What determines a run's numbers: frozen values and their keys. No torch here."""

from harness.spec.backbone import Backbone
from harness.spec.base import HarnessError, Params, Scalar, Spec, one_line
from harness.spec.corruption import AfterStage, AtInput, BeforeBlock, Corruption
from harness.spec.data import CustomData, Data, ImageFolder, Images, Shapes
from harness.spec.heads import CustomHead, DecoderHead, Head, InverseSwinHead, LinearHead, MlpHead
from harness.spec.loss import FourierLoss, Loss
from harness.spec.masking import (
    BlockMask,
    CheckerboardMask,
    ColourMask,
    ComplementMask,
    CustomMask,
    DisjointMask,
    FrequencyMask,
    GridMask,
    GuidedMask,
    HardMask,
    LocalMask,
    Mask,
    RandomMask,
    SquareMask,
    TokenMask,
    UniformMask,
    VisibleSquareMask,
)
from harness.spec.memory import target_memory
from harness.spec.momentum import MomentumEncoder
from harness.spec.recipe import Augment, Average, Cosine, MultiStep, Recipe, Schedule
from harness.spec.run import (
    CustomEvaluation,
    Evaluation,
    FineTune,
    Knn,
    LinearProbe,
    Pretrain,
    Run,
    Start,
    key,
    run_from_json,
    seed_stream,
    shown_metric,
    upstream,
)
from harness.spec.scale import Scale, Skip
from harness.spec.start import Checkpoint, Scratch
from harness.spec.targets import (
    BinTarget,
    ClusterTarget,
    CustomTarget,
    DalleTokenizer,
    KMeans,
    PatchWords,
    PixelTarget,
    Target,
    Tokenizer,
    TokenTarget,
    target_channels,
    target_classes,
    target_maps,
)

__all__ = [
    "AfterStage", "AtInput", "Augment", "Average", "Backbone", "BeforeBlock", "BinTarget", "BlockMask",
    "CheckerboardMask", "Checkpoint", "ClusterTarget", "ColourMask", "ComplementMask", "Corruption", "Cosine",
    "CustomData", "CustomEvaluation", "CustomHead", "CustomMask", "CustomTarget", "DalleTokenizer", "Data",
    "DecoderHead", "DisjointMask", "Evaluation", "FineTune", "FourierLoss", "FrequencyMask", "GridMask", "GuidedMask",
    "HardMask", "HarnessError", "Head", "ImageFolder", "Images", "InverseSwinHead", "KMeans", "Knn", "LinearHead",
    "LinearProbe", "LocalMask", "Loss", "Mask", "MlpHead", "MomentumEncoder", "MultiStep", "Params", "PatchWords",
    "PixelTarget", "Pretrain", "RandomMask", "Recipe", "Run", "Scalar", "Scale", "Schedule", "Scratch", "Shapes",
    "Skip", "Spec", "SquareMask", "Start", "Target", "TokenMask", "TokenTarget", "Tokenizer", "UniformMask",
    "VisibleSquareMask", "key", "one_line", "run_from_json", "seed_stream", "shown_metric", "target_channels",
    "target_classes", "target_maps", "target_memory", "upstream",
]  # fmt: skip
