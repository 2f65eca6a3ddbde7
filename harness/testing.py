"""Contract tests for the pieces of a study, shipped ones and your own.

Each function checks one piece and raises an AssertionError of one line that says what is wrong. They need no test
runner; in pytest a test is one call:

    from harness import CustomMask
    from harness.testing import check_mask

    def test_stripe():
        check_mask(CustomMask(function="masks:stripe", size=8, params={"width": 2}))

Modules of your own are found as in a run: from the project root, which has to be on Python's path (`python -m pytest`
from there). `harness audit` runs the same checks on every piece of your own in a study.
"""

from harness.audit.pieces import (
    check_augment,
    check_backbone,
    check_data,
    check_evaluation,
    check_head,
    check_loss,
    check_mask,
    check_optimiser,
    check_target,
)

__all__ = [
    "check_augment", "check_backbone", "check_data", "check_evaluation", "check_head", "check_loss", "check_mask",
    "check_optimiser", "check_target",
]  # fmt: skip
