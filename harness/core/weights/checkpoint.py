"""Checkpoints of training loops, and files of weights. Nothing here executes code from a pickle."""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from harness.core.model.backbones import layers_of
from harness.core.model.encoder import Family, own_biases, own_positions
from harness.core.runtime.session import Session
from harness.core.weights.formats import Weights, named_as_timm, resized
from harness.spec import Checkpoint, HarnessError
from harness.spec.data.external_content import file_sha256
from harness.store.snapshots import epochs_asked_for


@dataclass
class Progress:
    """Progress of a training loop.

    step: steps done. seconds: time spent over all attempts. total: sum of the losses since the last metrics line, over
    `since` steps, of which `waited` seconds were spent before the last checkpoint.
    """

    total: Tensor
    step: int = 0
    since: int = 0
    seconds: float = 0.0
    waited: float = 0.0


def save_state(
    session: Session,
    loop: Progress,
    *,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Write a checkpoint of everything that a step changes; random draws are stateless and need none."""
    state = {
        "loop": vars(loop),
        "model": model.state_dict(),
        "optimiser": _with_numbers(optimiser.state_dict()),
        "scaler": scaler.state_dict(),
    }
    write_state(session, loop.step, state)


IMPLEMENTATION = ("foreach", "fused", "capturable")
"""Settings of torch's optimisers that say how, not what is computed."""


def _with_numbers(state: dict[str, Any]) -> dict[str, Any]:
    """State of an optimiser whose learning rates are numbers, also where they are tensors on a GPU."""
    # A run may go on with another device or PyTorch, where the rates are kept as the other kind.
    groups = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def _with_settings_of(optimiser: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """Saved state with the present implementation: a run may go on where another one is better."""
    pairs = zip(saved["param_groups"], optimiser.param_groups, strict=True)
    groups = [group | {name: own[name] for name in IMPLEMENTATION if name in own} for group, own in pairs]
    return {**saved, "param_groups": groups}


def write_state(session: Session, step: int, state: dict[str, Any]) -> None:
    """Write a checkpoint of `state`, plain values and tensors, with the run's key and the metrics lines so far."""
    whole = {"key": session.attempt.key, "lines": session.attempt.lines(), **state}
    session.attempt.write_checkpoint(step, lambda file: _save(whole, file))


def _save(state: dict[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # torch covers up what the disk said
            raise error.__context__ from None
        raise


def restore_state(
    session: Session,
    loop: Progress,
    *,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Restore the latest complete checkpoint, if there is one, and the metrics lines up to its step.

    Raises:
        HarnessError: the checkpoint belongs to another spec.
    """
    state = latest_state(session, session.device)
    if state is None:
        return
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(_with_settings_of(optimiser, state["optimiser"]))
    if state["scaler"]:  # empty unless the precision is fp16
        scaler.load_state_dict(state["scaler"])
    vars(loop).update(state["loop"])


def latest_state(session: Session, device: torch.device) -> dict[str, Any] | None:
    """State of the latest complete checkpoint, on `device`; None if there is none.

    The metrics of the attempt begin with the lines of that checkpoint.

    Raises:
        HarnessError: the checkpoint belongs to another spec.
    """
    for file in session.attempt.checkpoints():
        # weights_only: a checkpoint is read as data; nothing in it is executed.
        state: dict[str, Any] = torch.load(file.path, map_location=device, weights_only=True)
        if state["key"] != session.attempt.key:
            raise HarnessError(f"{file.path} is a checkpoint of another spec, {state['key']}; move it away")
        # Checkpoints of schema 1 hold no lines.
        session.attempt.begin_metrics(state["lines"] if "lines" in state else session.attempt.lines_before(file))
        return state
    session.attempt.begin_metrics()
    return None


def weights_of(model: nn.Module) -> bytes:
    """All parameters and persistent buffers as a safetensors file."""
    # Contiguous: safetensors stores no strides, and on a GPU weights may lie channels-last.
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})


def write_snapshot(model: nn.Module, epoch: float, session: Session) -> None:
    """Store the weights at the end of an epoch for which an evaluation asked for them."""
    if epoch != int(epoch):
        return
    # Rank 0 decides for all: evaluations may ask for an epoch at any time, and ranks could read different answers.
    wanted = session.group.share(epochs_asked_for(session.attempt.store.folder(session.attempt.key)))
    if int(epoch) in wanted:
        session.attempt.write_snapshot(int(epoch), weights_of(model))


INERT: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (OrderedDict, "yacs.config.CfgNode"),
    (OrderedDict, "argparse.Namespace"),
]
"""Classes that files of SimMIM and MAE contain besides tensors; they are read as plain dicts, without their code."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file, or from a torch file of tensors and plain values.

    Of the dicts that training scripts save, the entry `model` or `state_dict` is taken.

    Raises:
        HarnessError: the file does not read, or holds anything that would have to be executed.
    """
    return read_noted(path)[0]


def read_noted(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors as `read_weights` gives them, and notes of the file: safetensors metadata, or the entry `harness`."""
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    found = _read_torch(path)
    notes = found.get("harness") if isinstance(found, dict) else None
    found = found.get("model", found.get("state_dict", found)) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise HarnessError(f"{path} holds no dict of tensors")
    return dict(found), notes if isinstance(notes, dict) else {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HarnessError(f"{path} does not read as a safetensors file: {reason}") from None


def _read_torch(path: Path) -> Any:
    """Contents of a torch file of tensors and plain values; nothing in it is executed."""
    try:
        with torch.serialization.safe_globals(INERT), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about the versions of pickles
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # damaged or hostile files make the reader raise exceptions of any type
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise HarnessError(f"{path} holds more than tensors: reading {found[1]} would execute code") from None
        raise HarnessError(f"{path} does not read as a file of tensors, or of tensors and plain values") from None


def load_encoder(model: Family, tensors: dict[str, Tensor], source: str) -> None:
    """Load encoder weights with timm's names into a model, which may have a new classifier.

    The model's family says which parameters are loaded and which are new (`harness.core.model.backbones`).

    A model that pools the mean of patch tokens has a new `fc_norm` instead of the pre-training's final `norm`, as
    SimMIM's fine-tuning does. A relative position table that all blocks shared is copied to each, and one of another
    window is resized (`harness.core.weights.formats.positions`), as are absolute positions of another image size
    (`harness.core.model.encoder.own_positions`). A Swin V2 has no table: how it was built says on which scale it reads
    positions (`harness.spec.model.windows`). Any other missing or additional parameter is an error.

    Raises:
        HarnessError: names or shapes do not fit.
    """
    # Shared tables are copied before they are resized: each block's copy is then compared with its own shape.
    own = model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    sized = own_positions(model, resized(own_biases(model, tensors), shapes))
    layers = layers_of(model)
    taken = layers.taken(sized, own)
    given = {name: tensor for name, tensor in sized.items() if name in taken}
    wanted = {name for name in own if not name.startswith(layers.new)}
    _refuse(source, "the backbone", {name: own[name] for name in wanted}, given)
    model.load_state_dict({**own, **given})  # strict: the parameters of new layers come from the model itself


def load_own(model: nn.Module, tensors: dict[str, Tensor], name: str) -> None:
    """Load the weights of a finished run into a model built from the same spec.

    Raises:
        HarnessError: the weights do not fit.
    """
    _refuse(name, "its own model", model.state_dict(), tensors)
    model.load_state_dict(tensors)


def _refuse(source: str, model: str, wanted: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Refuse tensors that are not those wanted, by their names and shapes."""
    differing = [name for name in wanted.keys() & given.keys() if wanted[name].shape != given[name].shape]
    for complaint, names in (
        ("lacks", wanted.keys() - given.keys()),
        ("has besides", given.keys() - wanted.keys()),
        ("has in another shape", differing),
    ):
        if names:
            shown = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise HarnessError(f"the weights of {source} do not fit {model}: it {complaint} {shown}")


def checkpoint_weights(start: Checkpoint) -> Weights:
    """Parts of a checkpoint file of any known format.

    Raises:
        HarnessError: the file cannot be read, or its SHA-256 is not the one in the spec.
    """
    # The key names the file by its content: weights that changed meanwhile would give another run's numbers.
    file = Path(start.path).expanduser()
    if file_sha256(file) != start.sha256:
        raise HarnessError(f"{start.path} has changed since this run was planned; plan again")
    return named_as_timm(read_weights(file))
