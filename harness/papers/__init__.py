"""The papers: presets that give their exact points, and their published tables."""

from harness.papers.mae import mae, mae_finetune, mae_pretrain, mae_probe
from harness.papers.masks import compared_masks
from harness.papers.simmim import simmim
from harness.papers.simmim_recipes import simmim_backbone, simmim_finetune, simmim_pretrain, simmim_probe
from harness.papers.symmim import symmim
from harness.papers.tables import PaperTable, PublishedValue, paper_table

__all__ = [
    "PaperTable", "PublishedValue", "compared_masks", "mae", "mae_finetune", "mae_pretrain", "mae_probe",
    "paper_table", "simmim", "simmim_backbone", "simmim_finetune", "simmim_pretrain", "simmim_probe", "symmim",
]  # fmt: skip
