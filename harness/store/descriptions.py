"""What was once counted of models: parameters, multiply-adds, memory. Kept beside the runs; can be deleted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from harness.spec.described import Described
from harness.store.files import write_atomically
from harness.store.layout import description_file
from harness.store.records import read_record, sealed


@dataclass(frozen=True)
class Description:
    """What a model costs.

    multiply_adds: of one forward pass for one image. memory_bytes: of weights, and of gradients and optimiser state
    where they are trained; not of activations.
    """

    parameters: int
    multiply_adds: int
    memory_bytes: int


def read_description(root: Path, model: Described) -> Description | None:
    """What is kept of a model; None where it was never counted or the file is damaged."""
    record = read_record(description_file(root, model.digest)) or {}
    found = {name: record[name] for name in Description.__dataclass_fields__ if type(record.get(name)) is int}
    return Description(**found) if len(found) == len(Description.__dataclass_fields__) else None


def write_description(root: Path, model: Described, found: Description) -> None:
    """Keep what was counted of a model, with the model itself so that a reader of the file knows which one it is.

    Raises:
        HarnessError: the disk refuses.
    """
    path = description_file(root, model.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, sealed({**asdict(found), "model": model.to_plain()}))
