"""A study: axes, cells, the runs they need, the paper's claims. No torch here."""

from harness.study import claims
from harness.study.grid import Grid, around, axes, zipped
from harness.study.study import CellFunction, Plan, Refused, Row, Study, cell_text, expand, load, resolve, select

__all__ = [
    "CellFunction", "Grid", "Plan", "Refused", "Row", "Study", "around", "axes", "cell_text", "claims",
    "expand", "load", "resolve", "select", "zipped",
]  # fmt: skip
