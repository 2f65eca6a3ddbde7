"""A finished run with its weights, from the store or from a file that was exported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor

from harness.core.data.datasets import IMAGENET_COLOURS, Facts, facts_of
from harness.core.model.backbones import layers_for
from harness.core.weights.checkpoint import read_noted, read_weights
from harness.core.weights.formats import Weights, named_as_timm
from harness.spec import Detect, FineTune, HarnessError, Pretrain, Run, Segment, key, run_from_json
from harness.store import RunFolder, Store
from harness.store.files import sha256

SHOWN = 5
"""Most keys that an error message lists."""


@dataclass(frozen=True)
class Trained:
    """A finished run and its weights.

    name: the run's key, or the name of an exported file. weights: with timm's names. facts: of the run's data set.
    """

    name: str
    run: Pretrain | FineTune
    weights: Weights
    facts: Facts

    @property
    def num_classes(self) -> int:
        """Number of classes of a classifier; 0 for a pre-training."""
        # Read from the weights, so that the data set need not be on this machine.
        name = layers_for(self.run.built).classifier
        return len(self.weights.encoder[name]) if name in self.weights.encoder else 0


@dataclass(frozen=True)
class TrainedDense:
    """A finished segmentation or detection and its weights, by the names of its own model.

    store: that holds it, with the weights of what it starts from.
    """

    name: str
    run: Segment | Detect
    weights: dict[str, Tensor]
    facts: Facts
    store: Store


def opened(source: Run | str | Path, store: Store) -> Trained:
    """A trained model by its spec, key (or a unique prefix of it), run folder, or exported file.

    Raises:
        HarnessError: no such run, or it is not done; its weights are not stored, were cleaned away or are damaged.
    """
    place = _place(source, store)
    if isinstance(place, Path):
        return _of_file(place)
    name, store = place
    run = store.spec(name)
    if not isinstance(run, Pretrain | FineTune):
        raise HarnessError(f"{name} is a {run.kind}, whose model is not opened here; valid: pretrain, finetune")
    return Trained(name, run, named_as_timm(_weights(name, store)), facts_of(run.data))


def opened_dense(source: Run | str | Path, store: Store) -> TrainedDense | None:
    """A segmentation or detection, named as for `opened`; None if it is another run or a file.

    Raises:
        HarnessError: as `opened`.
    """
    place = _place(source, store)
    if isinstance(place, Path):
        return None
    name, store = place
    run = store.spec(name)
    if not isinstance(run, Segment | Detect):
        return None
    return TrainedDense(name, run, _weights(name, store), facts_of(run.data), store)


def _place(source: Run | str | Path, store: Store) -> Path | tuple[str, Store]:
    """An exported file, or the key of a run and the store that holds it."""
    if isinstance(source, Run):
        name = key(source)
        if not RunFolder(store.root / name).spec.is_file():
            raise HarnessError(f"{name} is not in {store.root}: it has not been computed there")
        return name, store
    if not isinstance(source, str | Path):
        raise HarnessError(f"a trained model is a run, its key, a folder or a file, not a {type(source).__name__}")
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if RunFolder(path).spec.is_file():
        # A run folder is named by its key and lies in its store, which need not be that of the project.
        return path.resolve().name, Store(path.resolve().parent)
    return found_key(str(source), store), store


def found_key(text: str, store: Store) -> str:
    """The only key with a given prefix; the prefix may also be one of its hash digits alone.

    Raises:
        HarnessError: no key or several keys have this prefix.
    """
    found = [name for name in store.keys() if text and text in (name, *_beginnings(name, len(text)))]  # noqa: SIM118
    if text in found:  # a whole key, although another may begin with it
        return text
    if len(found) == 1:
        return found[0]
    if not found:
        raise HarnessError(f"{text!r} names no run in {store.root}, and is neither a run folder nor an exported file")
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    raise HarnessError(f"{text!r} begins several keys: {', '.join(found[:SHOWN])}{more}")


def _beginnings(name: str, length: int) -> tuple[str, str]:
    return name[:length], name.rpartition("-")[2][:length]


def _weights(name: str, store: Store) -> dict[str, Tensor]:
    """Weights of a finished run of a store, by its whole key."""
    result, path = store.result(name), store.weights(name)
    if result is None:
        raise HarnessError(f"{name} is not done: it is {store.state(name).word}")
    if path is None:
        raise HarnessError(
            f"the weights of {name} were cleaned away; delete {store.folder(name).path} and run again to get them back"
        )
    # The result records the digest of its weights, so damage on the disk is seen before anything is predicted.
    if sha256(path) != result.weights:
        raise HarnessError(f"{path} is damaged; delete the run's folder and run again")
    return read_weights(path)


def _of_file(path: Path) -> Trained:
    """A model from an exported file, which says the run that it comes from."""
    tensors, notes = read_noted(path)
    try:
        run, facts = run_from_json(notes["run"]), Facts.from_plain(json.loads(notes["facts"]))
    except (KeyError, TypeError, ValueError):
        raise HarnessError(
            f"{path} does not say which run it comes from; harness export writes files that do"
        ) from None
    if not isinstance(run, Pretrain | FineTune):
        raise HarnessError(f"{path} comes from a {run.kind}; valid: pretrain, finetune")
    return Trained(path.name, run, named_as_timm(tensors), facts)


def published(run: Pretrain | FineTune, path: Path) -> Trained:
    """A model with a file of published weights, for the run of its recipe on ImageNet-1K.

    Raises:
        HarnessError: the file cannot be read, or is no file of weights.
    """
    # The data set need not be here, and a folder of it may hold a part of the classes.
    facts = Facts(3, *IMAGENET_COLOURS, tuple(ImageNetInfo().label_descriptions()))
    return Trained(path.name, run, named_as_timm(read_weights(path)), facts)


def notes_of(trained: Trained) -> dict[str, str]:
    """Metadata of an exported file: spec and data facts, so that it opens without the store and the data set."""
    return {"run": json.dumps(trained.run.to_plain()), "facts": json.dumps(trained.facts.to_plain())}
