"""Specs: frozen values that determine a run's numbers, their keys, and the facts of a run that need no torch."""

from harness.machine import HarnessError
from harness.spec import analyses, heads, masking, run, targets
from harness.spec.analyses import *
from harness.spec.backbone import AnyBackbone, Backbone, CustomBackbone
from harness.spec.base import Params, Scalar, Spec, one_line
from harness.spec.contrastive import Contrastive
from harness.spec.corruption import AfterStage, AtInput, BeforeBlock, Corruption
from harness.spec.data import CustomData, Data, ImageFolder, Images, Shapes
from harness.spec.heads import *
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
from harness.spec.masking import *
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
from harness.spec.run import *
from harness.spec.scale import Scale, Skip
from harness.spec.start import Checkpoint, Scratch
from harness.spec.targets import *

__all__ = [
    "AfterStage", "Analysis", "AnyBackbone", "AnyLoss", "AtInput", "Augment", "Average", "Backbone", "BeforeBlock",
    "Checkpoint", "Contrastive", "Corruption", "Cosine", "CustomAugment", "CustomBackbone", "CustomData", "CustomLoss",
    "CustomOptimiser", "Data", "Evaluation", "FourierLoss", "HarnessError", "ImageFolder", "Images", "Loss",
    "MomentumEncoder", "MultiStep", "Params", "Recipe", "Run", "Scalar", "Scale", "Schedule", "Scratch", "Shapes",
    "Skip", "Spec", "key", "one_line", "pretraining", "run_from_json", "seed_stream", "snapshot_epoch", "upstream",
    "upstreams",
]  # fmt: skip
__all__ += analyses.__all__
__all__ += heads.__all__
__all__ += masking.__all__
__all__ += run.__all__
__all__ += targets.__all__
