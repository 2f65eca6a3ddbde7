"""What determines a run's numbers: frozen values and their keys. No torch here."""

from harness.spec.analyses import Fourier, Interactions, Occlusion, RgbStatistics
from harness.spec.backbone import Backbone
from harness.spec.base import HarnessError, Params, Scalar, Spec, one_line
from harness.spec.corruption import AfterStage, AtInput, BeforeBlock, Corruption
from harness.spec.data import CustomData, Data, ImageFolder, Images, Shapes
from harness.spec.heads import CustomHead, Head, InverseSwinHead, LinearHead, MlpHead
from harness.spec.keys import (
    Analysis,
    Evaluation,
    Run,
    key,
    pretraining,
    run_from_json,
    seed_stream,
    shown_metric,
    upstream,
    upstreams,
)
from harness.spec.loss import FourierLoss, Loss
from harness.spec.masking import BlockMask, CustomMask, Mask, RandomMask, SquareMask
from harness.spec.memory import target_memory
from harness.spec.recipe import Augment, Average, Cosine, MultiStep, Recipe, Schedule
from harness.spec.run import CustomEvaluation, FineTune, Knn, LinearProbe, Pretrain, Start
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
    "AfterStage", "Analysis", "AtInput", "Augment", "Average", "Backbone", "BeforeBlock", "BinTarget", "BlockMask",
    "Checkpoint", "ClusterTarget", "Corruption", "Cosine", "CustomData", "CustomEvaluation", "CustomHead",
    "CustomMask", "CustomTarget", "DalleTokenizer", "Data", "Evaluation", "FineTune", "Fourier", "FourierLoss",
    "HarnessError", "Head", "ImageFolder", "Images", "Interactions", "InverseSwinHead", "KMeans", "Knn",
    "LinearHead", "LinearProbe", "Loss", "Mask", "MlpHead", "MultiStep", "Occlusion", "Params", "PatchWords",
    "PixelTarget", "Pretrain", "RandomMask", "Recipe", "RgbStatistics", "Run", "Scalar", "Scale", "Schedule",
    "Scratch", "Shapes", "Skip", "Spec", "SquareMask", "Start", "Target", "TokenTarget", "Tokenizer", "key",
    "one_line", "pretraining", "run_from_json", "seed_stream", "shown_metric", "target_channels", "target_classes",
    "target_maps", "target_memory", "upstream", "upstreams",
]  # fmt: skip
