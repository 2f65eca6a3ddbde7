"""Using what was trained: classes of a picture, reconstructions of hidden parts, weights for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from harness.core.data.pictures import Picture, as_tested
from harness.core.evaluate.start import classifier_of
from harness.core.masks.masking import make_mask
from harness.core.pretrain.mim import masked_image_model_of
from harness.core.pretrain.reconstruct import reconstructed
from harness.core.pretrain.reconstruction_sheet import sheet
from harness.core.weights.export import SUFFIXES, Exported, ExportFormat, export
from harness.core.weights.finished_run import Trained
from harness.core.weights.finished_run import opened as opened
from harness.spec import Analysis, FineTune, HarnessError, Mask, MomentumTarget, Pretrain, Run, one_line
from harness.store import open_store

DeviceName = Literal["auto", "cpu", "cuda"]
MASKS: dict[str, type[Any]] = {kind.model_fields["kind"].default: kind for kind in get_args(get_args(Mask)[0])}
"""The kinds of masks by name."""
ANALYSES: dict[str, type[Any]] = {kind.model_fields["kind"].default: kind for kind in get_args(Analysis)}
"""The kinds of analyses by name."""


class Ranked(NamedTuple):
    """A class among the likeliest. name: None if it is not known."""

    label: int
    name: str | None
    score: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a classifier says of one picture, under the names that mmpretrain's `inference_model` uses.

    pred_scores: float32 [K], softmax over the classes. pred_label: the likeliest class. pred_score: its score.
    pred_class: its name, None if the names are not known. classes: all names, or none.
    """

    pred_scores: NDArray[np.float32]
    pred_label: int
    pred_score: float
    pred_class: str | None
    classes: tuple[str, ...] = ()

    @property
    def top5(self) -> tuple[Ranked, ...]:
        """The five likeliest classes, or all if there are fewer, likeliest first."""
        order = np.argsort(-self.pred_scores, kind="stable")[:5].tolist()
        return tuple(
            Ranked(label, self.classes[label] if self.classes else None, float(self.pred_scores[label]))
            for label in order
        )


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What a pre-trained model makes of one masked picture.

    original, masked, predicted, pasted: uint8 [S, S, C], the picture as the model sees it, with hidden pixels grey, the
    prediction, and the prediction in hidden places and the original elsewhere. hidden: bool [S, S], True = hidden.
    """

    original: NDArray[np.uint8]
    masked: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    pasted: NDArray[np.uint8]
    hidden: NDArray[np.bool_]
    run: str
    mask: Mask
    seed: int

    def save(self, path: Path | str, title: str = "") -> None:
        """Write a PNG with the four pictures side by side."""
        values = ", ".join(
            f"{name} {value}" for name, value in self.mask.values.items() if name not in ("kind", "source")
        )
        detail = f"{self.mask.kind} mask, {values}, seed {self.seed}, {self.hidden.mean():.0%} hidden      {self.run}"
        panels = (
            ("original", self.original),
            ("masked", self.masked),
            ("prediction", self.predicted),
            ("prediction where hidden", self.pasted),
        )
        sheet(panels, title or "reconstruction", detail).save(path, format="PNG")


class Classifier:
    """A fine-tuned model that is ready to predict."""

    def __init__(self, trained: Trained, device: torch.device) -> None:
        self.trained, self.device = trained, device
        self._model = classifier_of(trained, device)

    @torch.no_grad()
    def __call__(self, picture: Picture) -> Prediction:
        """The classes of one picture."""
        run, facts = self.trained.run, self.trained.facts
        assert isinstance(run, FineTune)
        images = as_tested(picture, run.data, facts, image_size=run.image_size, crop=run.crop).to(self.device)
        scores = self._model(images).float().softmax(1)[0].cpu().numpy()
        names = facts.classes if len(facts.classes) == len(scores) else ()
        label = int(scores.argmax())
        return Prediction(scores, label, float(scores[label]), names[label] if names else None, names)


def _masked_by(run: Pretrain, mask: Mask | None) -> Pretrain:
    """A run with another mask, and without the momentum encoder where only its own mask looked at that."""
    if mask is None:
        return run
    looks = mask.scored_by is not None or run.contrastive is not None or isinstance(run.target, MomentumTarget)
    return run.replace(mask=mask, momentum=run.momentum if looks else None)


class Reconstructor:
    """A pre-trained model that is ready to reconstruct. mask: instead of the run's own."""

    def __init__(self, trained: Trained, device: torch.device, mask: Mask | None = None) -> None:
        self.trained, self.device = trained, device
        self._model = masked_image_model_of(trained, device)
        assert isinstance(trained.run, Pretrain)
        try:
            self.run = _masked_by(trained.run, mask)
        except ValidationError as error:
            raise HarnessError(one_line(error)) from None

    def __call__(self, picture: Picture, *, seed: int | None = None, position: int = 0) -> Reconstruction:
        """One picture; the mask is that of the picture at a position of a batch. seed: None for the run's own."""
        run, facts = self.run, self.trained.facts
        seed = run.seed if seed is None else seed
        images = as_tested(picture, run.data, facts, image_size=run.image_size, crop=1.0).to(self.device)
        positions = torch.tensor([position], device=self.device)
        units = make_mask(
            run.mask,
            image_size=run.image_size,
            seed=seed,
            step=0,
            steps=1,
            positions=positions,
            scores=self._model.scores(images),
        )
        found = reconstructed(self._model, images, units, facts.mean, facts.std)
        if found is None:
            raise HarnessError(f"the target of {self.trained.name} is {run.target.kind}, which is no picture")
        original, masked, predicted, hidden = (array[0] for array in found)
        pasted = np.where(hidden[..., None], predicted, original)
        return Reconstruction(
            original, masked, predicted, pasted, hidden, run=self.trained.name, mask=run.mask, seed=seed
        )


def predict(
    run: Run | str | Path, picture: Picture, *, store: Path | str | None = None, device: DeviceName = "auto"
) -> Prediction:
    """The classes of one picture, prepared as the run prepares its test images.

    Args:
        run: a fine-tuning: its spec, its key or a beginning of it, its folder, or a file that `export_weights` wrote.
        picture: of any size and mode; see `harness.core.data.pictures.as_tested`.
        store: folder of the runs; by default where the profile of the project that the current folder lies in says, or
            `runs` in the project root.

    Raises:
        HarnessError: no such run, not a fine-tuning, not done, without weights; or not a picture.
    """
    return Classifier(opened(run, open_store(store)), torch_device(device))(picture)


def reconstruct(
    run: Run | str | Path,
    picture: Picture,
    *,
    mask: Mask | None = None,
    seed: int | None = None,
    store: Path | str | None = None,
    device: DeviceName = "auto",
) -> Reconstruction:
    """What a pre-trained model makes of one masked picture, of which it sees the central square.

    Args:
        run: a pre-training, named as for `predict`.
        mask, seed: instead of the run's own.

    Raises:
        HarnessError: as `predict`; the mask does not fit the model, or its target is no picture.
    """
    return Reconstructor(opened(run, open_store(store)), torch_device(device), mask)(picture, seed=seed)


def export_weights(
    run: Run | str | Path, file: Path | str, *, format: ExportFormat = "timm", store: Path | str | None = None
) -> Exported:
    """Write a trained encoder or classifier for other programs; see `harness.core.weights.export.export`.

    Args:
        run: a pre-training or a fine-tuning, named as for `predict`.
        format: timm (a .safetensors file, which the result's `call` loads) or official (a .pth file with the names of
            microsoft/SimMIM).

    Raises:
        HarnessError: as `predict`; a format that is unknown or does not suit the model or the file's name.
    """
    if format not in SUFFIXES:
        raise HarnessError(f"no format {format!r}; valid: {', '.join(SUFFIXES)}")
    return export(opened(run, open_store(store)), Path(file), format)


def chosen_mask(own: Mask, kind: str | None = None, **values: object) -> Mask:
    """A mask of a kind; what is not given is taken from a run's own mask where that has it.

    Raises:
        HarnessError: no such kind, or a value does not suit it.
    """
    if kind is not None and kind not in MASKS:
        raise HarnessError(f"no mask {kind!r}; valid: {', '.join(MASKS)}")
    made = MASKS[kind] if kind else type(own)
    kept = (
        own.values
        if made is type(own)
        else {name: own.values[name] for name in ("size", "ratio") if name in own.values}
    )
    given = {name: value for name, value in values.items() if value is not None}
    try:
        found: Mask = made(**{**{name: value for name, value in kept.items() if name in made.model_fields}, **given})
    except ValidationError as error:
        raise HarnessError(one_line(error)) from None
    return found


def analysis_of(kind: str, start: Pretrain | FineTune, **values: object) -> Analysis:
    """An analysis of a run: interactions, occlusion, fourier or rgb.

    Raises:
        HarnessError: no such kind, or a value or the start does not suit it.
    """
    if kind not in ANALYSES:
        raise HarnessError(f"no analysis {kind!r}; valid: {', '.join(ANALYSES)}")
    try:
        found: Analysis = ANALYSES[kind](start=start, **values)
    except ValidationError as error:
        raise HarnessError(one_line(error)) from None
    return found


def torch_device(name: DeviceName) -> torch.device:
    """cpu or cuda; auto takes a GPU where there is one.

    Raises:
        HarnessError: a GPU was asked for and there is none.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise HarnessError("device cuda: torch sees no GPU here")
    return torch.device("cuda" if found and name != "cpu" else "cpu")
