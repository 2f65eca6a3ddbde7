"""Specs: frozen values that determine a run's numbers, their keys, and the facts of a run that need no torch."""

from harness.machine import HarnessError
from harness.spec import analyses, run
from harness.spec.analyses import *
from harness.spec.base import Params, Scalar, Spec, one_line
from harness.spec.data.datasets import CocoFolder, CustomData, Data, Garments, ImageFolder, Images, MaskFolder, Shapes
from harness.spec.dense import detect, segment
from harness.spec.dense.detect import *
from harness.spec.dense.segment import *
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
from harness.spec.masks import masking
from harness.spec.masks.masking import *
from harness.spec.model import heads
from harness.spec.model.backbone import AnyBackbone, Backbone, CustomBackbone
from harness.spec.model.corruption import AfterStage, AtInput, BeforeBlock, Corruption
from harness.spec.model.heads import *
from harness.spec.model.momentum import MomentumEncoder
from harness.spec.objective import targets
from harness.spec.objective.contrastive import Contrastive
from harness.spec.objective.loss import AnyLoss, CustomLoss, FourierLoss, Loss
from harness.spec.objective.targets import *
from harness.spec.recipe import (
    Augment,
    Average,
    Cosine,
    CustomAugment,
    CustomOptimiser,
    MultiStep,
    Poly,
    Recipe,
    Schedule,
)
from harness.spec.run import *
from harness.spec.scale import Scale, Skip
from harness.spec.start import Checkpoint, Scratch

__all__ = [
    "AfterStage", "Analysis", "AnyBackbone", "AnyLoss", "AtInput", "Augment", "Average", "Backbone", "BeforeBlock",
    "Checkpoint", "CocoFolder", "Contrastive", "Corruption", "Cosine", "CustomAugment", "CustomBackbone", "CustomData",
    "CustomLoss", "CustomOptimiser", "Data", "Evaluation", "FourierLoss", "Garments", "HarnessError", "ImageFolder",
    "Images", "Loss", "MaskFolder", "MomentumEncoder", "MultiStep", "Params", "Poly", "Recipe", "Run", "Scalar",
    "Scale", "Schedule", "Scratch", "Shapes", "Skip", "Spec", "key", "one_line", "pretraining", "run_from_json",
    "seed_stream", "snapshot_epoch", "upstream", "upstreams",
]  # fmt: skip
__all__ += analyses.__all__
__all__ += detect.__all__
__all__ += heads.__all__
__all__ += masking.__all__
__all__ += run.__all__
__all__ += segment.__all__
__all__ += targets.__all__
