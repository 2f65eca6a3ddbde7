"""Which failed run an unfinished one waits for: the nearest, unless a done one lies between."""

from __future__ import annotations

from typing import Any

import pytest
from made_runs import finetuning, pretraining

from harness.spec import Occlusion, key
from harness.store.states import failed_upstream

FIRST = pretraining()
SECOND = finetuning(FIRST)
LAST = Occlusion(start=SECOND, size=4, ratios=(0.0, 0.5, 1.0))


@pytest.mark.parametrize(
    ("first", "second", "last", "expected"),
    [
        ("failed", "missing", "missing", FIRST),
        ("failed", "queued", "lost", FIRST),
        ("failed", "failed", "cancelled", SECOND),
        ("failed", "done", "missing", None),  # the weights are there
        ("lost", "missing", "missing", None),  # goes on
        ("failed", "missing", "running", None),
        ("failed", "missing", "done", None),
        ("failed", "missing", "failed", None),
    ],
)
def test_the_nearest_failed_run_blocks_those_that_wait(first: Any, second: Any, last: Any, expected: object) -> None:
    states = {key(FIRST): first, key(SECOND): second, key(LAST): last}
    assert failed_upstream(LAST, states.__getitem__) == expected
