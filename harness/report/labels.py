"""Axes and evaluations in words, with units: headers of tables, axes of figures, sentences of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from harness.report.collect import axes_of
from harness.report.escape import clean
from harness.spec import Knn
from harness.study import Plan

MEASURES = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "finetune": "fine-tuning accuracy",
    "finetune_top1": "fine-tuning accuracy",
    "knn": "k-NN accuracy",
    "knn_top1": "k-NN accuracy",
    "probe": "linear probe accuracy",
    "linear_top1": "linear probe accuracy",
    "probe_miou": "mIoU of a frozen encoder",
    "miou": "mIoU",
    "box_ap": "box AP",
    "mask_ap": "mask AP",
}
"""Evaluations by their usual names in a study."""

PERCENT = frozenset(
    {
        "top1",
        "top5",
        "top1_median5",
        "top1_best",
        "miou",
        "macc",
        "aacc",
        "miou_one_class",
        "box_ap",
        "box_ap50",
        "mask_ap",
        "mask_ap50",
    }
)
"""Metrics of results that are percentages."""


@dataclass(frozen=True)
class Words:
    """Labels of a frame's axes, by column, and of its evaluations; a name without one stands for itself."""

    axes: Mapping[str, str] = field(default_factory=dict)
    evaluations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, frame: pd.DataFrame) -> Words:
        """The labels of a plan's frame of runs or cells."""
        return cls(
            {axis: axis_label(plan, axis) for axis in axes_of(frame)},
            {name: evaluation_label(plan, name) for name in plan.columns()},
        )

    def axis(self, column: str) -> str:
        """An axis in words."""
        return self.axes.get(column, column)

    def evaluation(self, name: str) -> str:
        """An evaluation in words, with its unit."""
        return self.evaluations.get(name, name)


def measure_label(name: str) -> str:
    """An evaluation by its usual name, where no plan says more of it."""
    return MEASURES.get(name, clean(name).replace("_", " "))


def axis_words(name: str) -> str:
    """An axis, or its column in a frame of a report, in words, where no plan labels it."""
    return clean(name.removeprefix("axis.").replace("_", " "))


def axis_label(plan: Plan, column: str) -> str:
    """An axis in words: as the study labels it, else its name without underscores.

    Args:
        column: the axis, or its column in a frame of a report (`harness.report.collect.axis_columns`).
    """
    name = column if column in plan.study.grid.axes else column.removeprefix("axis.")
    return clean(plan.study.labels[name]) if name in plan.study.labels else axis_words(name)


def evaluation_label(plan: Plan, name: str) -> str:
    """An evaluation in words with its unit, such as `20-NN accuracy (%)`: as the study labels it, else by its name."""
    if name in plan.study.labels:
        return clean(plan.study.labels[name])
    text = measure_label(name) or "result"
    found = next((row.evaluations[name] for row in plan.rows if name in row.evaluations), None)
    if isinstance(found, Knn):
        text = text.replace("k-NN", f"{found.ks[0]}-NN")
    return f"{text} (%)" if found is not None and found.shown_metric in PERCENT else text


def short_label(plan: Plan, name: str) -> str:
    """`evaluation_label` for the head of a column, such as `top-1 (%)`: what is accuracy everywhere need not say so."""
    label = evaluation_label(plan, name)
    return (
        label
        if name in plan.study.labels
        else label.replace(" accuracy", "").replace(" of a frozen encoder", ", frozen")
    )
