"""A JSON of COCO as it lies on the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.spec import HarnessError


def contents(source: Path) -> Any:
    """Content of a JSON of COCO, its pictures sorted by their files' names.

    Raises:
        HarnessError: it is missing or no such JSON.
    """
    try:
        content = json.loads(source.read_text())
    except OSError as error:
        raise HarnessError(f"cannot read {source}: {error.strerror}") from None
    except ValueError as error:
        raise HarnessError(f"{source} is no JSON: {error}") from None
    needed = {"images": ("id", "file_name", "height", "width"), "annotations": ("image_id",), "categories": ("id",)}
    for name, fields in needed.items():
        listed = content.get(name) if isinstance(content, dict) else None
        if not isinstance(listed, list):
            raise HarnessError(f"{source} has no list {name!r}, as COCO's annotations have")
        for number, one in enumerate(listed):
            if missing := [field for field in fields if not isinstance(one, dict) or field not in one]:
                raise HarnessError(f"{source}: entry {number} of {name!r} has no {missing[0]}")
    return content | {"images": sorted(content["images"], key=lambda one: str(one["file_name"]))}
