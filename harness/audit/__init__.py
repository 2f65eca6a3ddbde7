"""Do arms do what they say? Checks on the CPU, on small batches, before anything is computed."""

from harness.audit.contract import (
    Arm,
    Batch,
    Step,
    arms,
    dead_arms,
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
from harness.audit.finding import Finding
from harness.audit.findings import audit
from harness.spec.differences import Difference, differences

__all__ = [
    "Arm", "Batch", "Difference", "Finding", "Step", "arms", "audit", "dead_arms", "dead_parameters", "differences",
    "first_step", "fixed_batch", "is_clean", "is_masked", "leak", "leak_beside_mean", "noise",
    "reach_of_visible",
]  # fmt: skip
