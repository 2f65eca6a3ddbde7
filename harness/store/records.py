"""Records: small JSON files that state their schema and end with a digest of every byte before it.

Schema 1 had no digest. Its records are read for ever, and rewritten only on request (`harness.store.cleaning.seal`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.spec import HarnessError
from harness.store.files import parsed, read_bytes

SCHEMA = 2
_SEALED = re.compile(rb'(.*),\n "digest": "([0-9a-f]{64})"\n\}\n', re.DOTALL)


def sealed(content: Mapping[str, Any]) -> bytes:
    """The text of a record: its schema, its content (at least one field), and the SHA-256 (hex) of the text so far."""
    text = json.dumps({"schema": SCHEMA, **content}, indent=1).removesuffix("\n}").encode()
    return text + b',\n "digest": "' + hashlib.sha256(text).hexdigest().encode() + b'"\n}\n'


def read_record(path: Path) -> dict[str, Any] | None:
    """The fields of a record; None where it is missing, or is not what was written once.

    Raises:
        HarnessError: a later version of harness wrote it, or the disk refuses.
    """
    data = read_bytes(path)
    return None if data is None else record_in(data, str(path))


def record_in(data: bytes, where: str) -> dict[str, Any] | None:
    """The fields of a record from its bytes; `where` says in an error whose bytes they are. Otherwise as `read_record`.

    Raises:
        HarnessError: a later version of harness wrote it.
    """
    record = parsed(data)
    if not isinstance(record, dict):
        return None
    schema = record.get("schema", 1)  # owners of schema 1 did not state it
    if type(schema) is int and schema > SCHEMA:
        raise HarnessError(
            f"{where} has schema {schema}, and this version of harness reads up to {SCHEMA}: use the one that wrote it"
        )
    if schema == SCHEMA:
        found = _SEALED.fullmatch(data)
        return record if found and hashlib.sha256(found[1]).hexdigest() == found[2].decode() else None
    return record if schema == 1 and "digest" not in record else None
