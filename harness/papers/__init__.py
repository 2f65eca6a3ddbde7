"""The papers: presets that give their exact points, and their published tables."""

from collections.abc import Callable
from functools import partial

from harness.papers.a2mim.finetune import a2mim_finetune
from harness.papers.a2mim.preset import a2mim, a2mim_corruption, a2mim_site, released_simmim_cnn, simmim_cnn
from harness.papers.a2mim.recipes import a2mim_backbone, a2mim_pretrain, simmim_cnn_pretrain
from harness.papers.downstream.recipes import (
    a2mim_detect,
    a2mim_segment,
    ade20k,
    coco,
    dense_probe,
    mae_segment,
    swin_segment,
    upernet_20k,
    vitdet,
)
from harness.papers.mae.preset import mae, mae_finetune, mae_pretrain, mae_probe
from harness.papers.masks import compared_masks
from harness.papers.protocol import Protocol, protocol_of
from harness.papers.simmim.preset import simmim
from harness.papers.simmim.recipes import simmim_backbone, simmim_finetune, simmim_pretrain, simmim_probe
from harness.papers.symmim.preset import symmim
from harness.papers.tables import PaperTable, PublishedValue, paper_table
from harness.spec import Pretrain

__all__ = [
    "PaperTable", "Protocol", "PublishedValue", "a2mim", "a2mim_backbone", "a2mim_corruption", "a2mim_detect",
    "a2mim_finetune", "a2mim_pretrain", "a2mim_segment", "a2mim_site", "ade20k", "coco", "compared_masks",
    "dense_probe", "mae", "mae_finetune", "mae_pretrain", "mae_probe", "mae_segment", "paper_table", "protocol_of",
    "released_simmim_cnn", "simmim", "simmim_backbone", "simmim_cnn", "simmim_cnn_pretrain", "simmim_finetune",
    "simmim_pretrain", "simmim_probe", "swin_segment", "symmim", "upernet_20k", "vitdet",
]  # fmt: skip

PRESETS: tuple[Callable[..., Pretrain], ...] = (
    simmim, simmim_cnn, released_simmim_cnn, a2mim, partial(a2mim, variant="released"), mae, symmim,
)  # fmt: skip
"""Functions that make a pre-training for a scale, with pieces that fit the scale's backbone and image."""
