"""The papers: presets that give their exact points, and their published tables."""

from harness.papers.protocol import Protocol, protocol_of
from harness.papers.simmim import simmim
from harness.papers.simmim_recipes import simmim_backbone, simmim_finetune, simmim_pretrain, simmim_probe
from harness.papers.tables import PaperTable, PublishedValue, paper_table

__all__ = [
    "PaperTable", "Protocol", "PublishedValue", "paper_table", "protocol_of", "simmim", "simmim_backbone",
    "simmim_finetune", "simmim_pretrain", "simmim_probe",
]  # fmt: skip
