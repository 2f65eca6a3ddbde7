"""The papers: presets that give their exact points, and their published tables."""

from harness.papers.simmim import simmim
from harness.papers.tables import PaperTable, PublishedValue, paper_table

__all__ = ["PaperTable", "PublishedValue", "paper_table", "simmim"]
