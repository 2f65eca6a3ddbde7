"""What determines a run's numbers: frozen values and their keys. No torch here."""

from harness.spec.backbone import Backbone
from harness.spec.base import HarnessError, Params, Scalar, Spec, one_line
from harness.spec.corruption import Corruption
from harness.spec.data import CustomData, Data, ImageFolder, Images, Shapes
from harness.spec.heads import CustomHead, Head, InverseSwinHead, LinearHead, MlpHead
from harness.spec.loss import Loss
from harness.spec.masking import BlockMask, CustomMask, Mask, RandomMask, SquareMask
from harness.spec.memory import target_memory
from harness.spec.naming import key, run_from_json, shown_metric, snapshot_epoch, upstream
from harness.spec.recipe import Augment, Average, Cosine, MultiStep, Recipe, Schedule
from harness.spec.run import (
    CustomEvaluation,
    Evaluation,
    FineTune,
    Knn,
    LinearProbe,
    Pretrain,
    Run,
    Snapshot,
    Start,
    seed_stream,
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
    "Augment", "Average", "Backbone", "BinTarget", "BlockMask", "Checkpoint", "ClusterTarget", "Corruption", "Cosine",
    "CustomData", "CustomEvaluation", "CustomHead", "CustomMask", "CustomTarget", "DalleTokenizer", "Data",
    "Evaluation", "FineTune", "HarnessError", "Head", "ImageFolder", "Images", "InverseSwinHead", "KMeans", "Knn",
    "LinearHead", "LinearProbe", "Loss", "Mask", "MlpHead", "MultiStep", "Params", "PatchWords", "PixelTarget",
    "Pretrain", "RandomMask", "Recipe", "Run", "Scalar", "Scale", "Schedule", "Scratch", "Shapes", "Skip", "Snapshot",
    "Spec", "SquareMask", "Start", "Target", "TokenTarget", "Tokenizer", "key", "one_line", "run_from_json",
    "seed_stream", "shown_metric", "snapshot_epoch", "target_channels", "target_classes", "target_maps",
    "target_memory", "upstream",
]  # fmt: skip
