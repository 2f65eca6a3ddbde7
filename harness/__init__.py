"""Ablation studies of masked image modelling. Importing this loads neither torch nor pandas."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from harness import papers, spec
from harness.papers import *
from harness.search import Rungs, Search
from harness.spec import *
from harness.study import Study, around, axes, claims, zipped

if TYPE_CHECKING:
    from harness.api import Results, models, plan, results, results_frame, run
    from harness.launch.resources import Resources

    # again, as mypy does not follow `__all__ += run.__all__`: the names would be objects to it
    from harness.spec.analyses import *
    from harness.spec.dense.detect import *
    from harness.spec.dense.segment import *
    from harness.spec.masks.masking import *
    from harness.spec.model.heads import *
    from harness.spec.objective.targets import *
    from harness.spec.run import *
    from harness.use import export_weights, load_classifier, load_encoder, predict, reconstruct

_LAZY = {  # these load torch or pandas, which takes seconds
    "export_weights": "harness.use",
    "predict": "harness.use",
    "reconstruct": "harness.use",
    "load_classifier": "harness.use",
    "load_encoder": "harness.use",
    "Resources": "harness.launch.resources",
    "Results": "harness.api",
    "models": "harness.api",
    "plan": "harness.api",
    "results": "harness.api",
    "results_frame": "harness.api",
    "run": "harness.api",
}

__all__ = [
    "Resources", "Results", "Rungs", "Search", "Study", "around", "axes", "claims", "export_weights",
    "load_classifier", "load_encoder", "models", "plan", "predict", "reconstruct", "results", "results_frame", "run",
    "zipped",
]  # fmt: skip
__all__ += papers.__all__
__all__ += spec.__all__


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
