"""What a check of an audit says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["passed", "failed", "remark"]


@dataclass(frozen=True)
class Finding:
    """One sentence of an audit.

    check: its name, such as `masked`. arm: the cells that it speaks of, in words; empty for the whole study.
    A remark is for the reader to judge: it does not fail the audit.
    """

    check: str
    verdict: Verdict
    text: str
    arm: str = ""
