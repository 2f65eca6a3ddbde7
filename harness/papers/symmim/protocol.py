"""Protocol of SymMIM's published number, of which nothing is known but the number."""

from __future__ import annotations

from collections.abc import Mapping

from harness.papers.protocol import UNKNOWN, Protocol


def published_protocol(table: str, column: str, record: Mapping[str, str]) -> Protocol:
    """Protocol of a value; nothing of it is published."""
    return UNKNOWN
