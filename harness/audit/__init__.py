"""Checks of a study before anything is computed, on the CPU and on small batches."""

from harness.audit.contract import (
    Batch,
    Finding,
    Step,
    dead_parameters,
    first_step,
    fixed_batch,
    is_clean,
    is_masked,
    leak,
    leak_beside_mean,
    noise,
    reach_of_visible,
)
from harness.audit.factors import Arm, arms
from harness.audit.findings import audit
from harness.spec.differences import Difference, differences

__all__ = [
    "Arm", "Batch", "Difference", "Finding", "Step", "arms", "audit", "dead_parameters", "differences",
    "first_step", "fixed_batch", "is_clean", "is_masked", "leak", "leak_beside_mean", "noise",
    "reach_of_visible",
]  # fmt: skip
