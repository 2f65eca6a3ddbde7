"""The papers: presets that give their exact points, and their published tables."""

from harness.papers.masks import compared_masks
from harness.papers.simmim import simmim
from harness.papers.simmim_recipes import simmim_backbone, simmim_finetune, simmim_pretrain, simmim_probe
from harness.papers.tables import PaperTable, PublishedValue, paper_table

__all__ = [
    "PaperTable", "PublishedValue", "compared_masks", "paper_table", "simmim", "simmim_backbone", "simmim_finetune",
    "simmim_pretrain", "simmim_probe",
]  # fmt: skip
