"""Use of trained models: prediction, reconstruction of masked pictures, export of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn

from harness.core.data.pictures import Picture, as_tested, pixels_of
from harness.core.data.scenes import class_names
from harness.core.evaluate.detect import detector_of, objects_in, objects_told_apart
from harness.core.evaluate.segment import classes_in, classes_of, segmenter_of
from harness.core.evaluate.start import classifier_of, encoder_of
from harness.core.masks.masking import make_mask
from harness.core.model.encoder import Encoder
from harness.core.model.taps import Taps
from harness.core.pretrain.mim import masked_image_model_of
from harness.core.pretrain.reconstruct import reconstructed
from harness.core.pretrain.reconstruction_sheet import sheet
from harness.core.weights.export import SUFFIXES, Exported, ExportFormat, export
from harness.core.weights.finished_run import Trained, TrainedDense, opened_dense, published
from harness.core.weights.finished_run import opened as finished
from harness.machine import weights_file
from harness.overlay import Thing, boxed, enlarged, indexed, tinted, with_legend
from harness.papers.models import find, nearest
from harness.spec import (
    Analysis,
    Detect,
    FineTune,
    FrequencyMask,
    HarnessError,
    Mask,
    MomentumTarget,
    Pretrain,
    Run,
    Segment,
    one_line,
)
from harness.spec.dense.detect import SHOWN_SCORE
from harness.store import Store, open_store
from harness.store.files import disk_errors

DeviceName = Literal["auto", "cpu", "cuda"]
Where = Path | str | None
"""Folder of a store, or a file or folder of weights."""
SIDE = 256
"""Least length of the longer side of a drawn picture in pixels."""
MASKS: dict[str, type[Any]] = {kind.model_fields["kind"].default: kind for kind in get_args(get_args(Mask)[0])}
"""Classes of masks by kind."""
ANALYSES: dict[str, type[Any]] = {kind.model_fields["kind"].default: kind for kind in get_args(Analysis)}
"""Classes of analyses by kind."""


class Ranked(NamedTuple):
    """One of the most likely classes. name: None if unknown. score: softmax, 0 to 1."""

    label: int
    name: str | None
    score: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """Prediction of a classifier for one picture, with the field names of mmpretrain's `inference_model`.

    pred_scores: float32 [K], softmax over the classes. pred_label: index of the most likely class. pred_score: its
    score. pred_class: its name, None if unknown. classes: all names, empty if unknown.
    """

    pred_scores: NDArray[np.float32]
    pred_label: int
    pred_score: float
    pred_class: str | None
    classes: tuple[str, ...] = ()

    @property
    def top5(self) -> tuple[Ranked, ...]:
        """The five most likely classes, best first; all classes if there are fewer."""
        # Stable, so that equal scores keep the order of the labels.
        order = np.argsort(-self.pred_scores, kind="stable")[:5].tolist()
        return tuple(
            Ranked(label, self.classes[label] if self.classes else None, float(self.pred_scores[label]))
            for label in order
        )


class Share(NamedTuple):
    """A class in a picture. share: of the pixels, 0 to 1."""

    label: int
    name: str
    share: float


@dataclass(frozen=True, eq=False)
class Segments:
    """Classes of the pixels of one picture.

    picture: uint8 [H, W, C], as it was given. classes: uint8 [H, W], for each pixel an index into names.
    """

    picture: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    names: tuple[str, ...]

    @property
    def shares(self) -> tuple[Share, ...]:
        """The classes that are there, the largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=len(self.names))
        order = np.argsort(-counts, kind="stable").tolist()
        return tuple(
            Share(label, self.names[label], float(counts[label] / self.classes.size))
            for label in order
            if counts[label]
        )

    def drawn(self) -> Image.Image:
        """The picture in the colours of its classes, above their names."""
        image = enlarged(tinted(self.picture, self.classes, self.names), SIDE)
        return with_legend(image, self.names, [found.label for found in self.shares])

    def map(self) -> Image.Image:
        """The classes as a picture of mode P: the value of a pixel is its class, and the palette its colour."""
        return indexed(self.classes, self.names)

    def save(self, folder: Path | str, stem: str) -> tuple[Path, ...]:
        """Write `<stem>-segments.png`, which is `drawn`, and `<stem>-map.png`, which is `map`; returns their paths."""
        return _saved(folder, {f"{stem}-segments.png": self.drawn(), f"{stem}-map.png": self.map()})


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found in one picture, the best first.

    picture: uint8 [H, W, C], as it was given. boxes: float32 [n, 4], x0, y0, x1, y1 in its pixels. scores: float32 [n].
    classes: int64 [n], indices into names. masks: bool [n, H, W]; None of a model without masks.
    """

    picture: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    masks: NDArray[np.bool_] | None
    names: tuple[str, ...]

    def drawn(self) -> Image.Image:
        """The picture with boxes, names, scores and masks."""
        masks = [None] * len(self.boxes) if self.masks is None else list(self.masks)
        things = [
            Thing(*found)
            for found in zip(self.classes.tolist(), self.boxes.tolist(), self.scores.tolist(), masks, strict=True)
        ]
        return boxed(self.picture, things, self.names, SIDE)

    def save(self, folder: Path | str, stem: str) -> tuple[Path, ...]:
        """Write `<stem>-objects.png`, which is `drawn`; returns its path."""
        return _saved(folder, {f"{stem}-objects.png": self.drawn()})


def _saved(folder: Path | str, images: dict[str, Image.Image]) -> tuple[Path, ...]:
    """Paths of images that are written into a folder."""
    with disk_errors(Path(folder)):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, image in images.items():
            image.save(Path(folder) / name, format="PNG")
    return tuple(Path(folder) / name for name in images)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Reconstruction of one masked picture by a pre-trained model.

    original, masked, predicted, pasted: uint8 [S, S, C]: the picture as prepared for the model, the picture with hidden
    pixels grey, the prediction, and the prediction in hidden pixels with the original elsewhere. hidden: bool [S, S],
    True = hidden. run: key of the model's run. seed: seed of the mask.
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
        """Write a PNG of the four pictures side by side."""
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
    """Fine-tuned model for prediction."""

    def __init__(self, trained: Trained, device: torch.device) -> None:
        self.trained, self.device = trained, device
        self._model = classifier_of(trained, device)

    @torch.no_grad()
    def __call__(self, picture: Picture) -> Prediction:
        """Predict the classes of one picture, prepared as the run's test images are."""
        run, facts = self.trained.run, self.trained.facts
        assert isinstance(run, FineTune)
        images = as_tested(picture, run.data, facts, image_size=run.tested_size, crop=run.crop).to(self.device)
        scores = self._model(images).float().softmax(1)[0].cpu().numpy()
        # Names of another number than the outputs would be given to the wrong classes.
        names = facts.classes if len(facts.classes) == len(scores) else ()
        label = int(scores.argmax())
        return Prediction(scores, label, float(scores[label]), names[label] if names else None, names)


class SegmentModel:
    """Trained segmentation for prediction."""

    def __init__(self, trained: TrainedDense, device: torch.device) -> None:
        assert isinstance(trained.run, Segment)
        self.trained, self._run = trained, trained.run
        self._model, self._classes = segmenter_of(trained, device), classes_of(trained)
        self._names = _named(class_names(self._run.data, "segments"), self._classes)

    def __call__(self, picture: Picture) -> Segments:
        """Predict the class of each pixel of a picture, shown as the run's test pictures are."""
        pixels = pixels_of(picture, self.trained.facts.channels)
        found = classes_in(self._run, self._model, pixels, self.trained.facts, classes=self._classes)
        return Segments(pixels.permute(1, 2, 0).numpy(), found.numpy(), self._names)


class DetectModel:
    """Trained detector for prediction. least: score of the objects that are told, or more."""

    def __init__(self, trained: TrainedDense, device: torch.device, least: float = SHOWN_SCORE) -> None:
        assert isinstance(trained.run, Detect)
        if not 0 <= least <= 1:
            raise HarnessError(f"a score is 0 to 1, not {least:g}")
        self.trained, self._run, self._least = trained, trained.run, least
        self._model = detector_of(trained, device)
        self._names = _named(class_names(self._run.data, "objects"), objects_told_apart(trained))

    def __call__(self, picture: Picture) -> Detections:
        """Find the objects in a picture, shown as the run's test pictures are."""
        pixels = pixels_of(picture, self.trained.facts.channels)
        found = objects_in(self._run, self._model, pixels, self.trained.facts, least=self._least)
        boxes, scores, classes = (field.numpy() for field in found[:3])
        masks = None if found.masks is None else found.masks.numpy()
        return Detections(pixels.permute(1, 2, 0).numpy(), boxes, scores, classes, masks, self._names)


def _named(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """The names of so many classes, or their numbers where as many names are not known."""
    return names if len(names) == count else tuple(map(str, range(count)))


def predictor(
    run: Run | str | Path, store: Store, device: torch.device, score: float | None = None, weights: Where = None
) -> Classifier | SegmentModel | DetectModel:
    """The model of a finished fine-tuning, segmentation or detection, for pictures; arguments as for `predict`."""
    named = isinstance(run, str) and find(run) is not None
    dense = None if named or weights is not None else opened_dense(run, store)
    if dense is not None and isinstance(dense.run, Detect):
        return DetectModel(dense, device, SHOWN_SCORE if score is None else score)
    trained = dense or opened(run, store, weights)
    if score is not None:
        raise HarnessError(f"score: {trained.name} is a {trained.run.kind}, which finds no objects; leave it out")
    return SegmentModel(trained, device) if isinstance(trained, TrainedDense) else Classifier(trained, device)


class Prepared(nn.Module):
    """A trained model that takes images as it was tested with.

    Attributes:
        run: spec of the run. image_size: side of its input in pixels. mean, std: per channel of values in [0, 1], by
            which its images are normalised. classes: names of the classes, empty if unknown.
    """

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.run, self._facts = trained.run, trained.facts
        self.image_size = self.run.tested_size if isinstance(self.run, FineTune) else self.run.image_size
        self.mean, self.std, self.classes = trained.facts.mean, trained.facts.std, trained.facts.classes

    def prepare(self, picture: Picture, *, crop: float | None = None) -> Tensor:
        """A picture of any size and mode as images float32 [1, C, S, S], cropped and normalised for this model.

        Args:
            crop: side of the square that is cropped from the middle, as a share of the shorter side. By default that of
                the fine-tuning, and 1 for a pre-training, which has none; evaluations have their own (`Knn.crop`).
        """
        if crop is None:
            crop = self.run.crop if isinstance(self.run, FineTune) else 1.0
        images = as_tested(picture, self.run.data, self._facts, image_size=self.image_size, crop=crop)
        return images.to(next(self.parameters()).device)


class FeatureMaps(Prepared):
    """Encoder of a trained model: normalised images [B, C, S, S] to a list of maps [B, C', h, w].

    Attributes:
        blocks: of the maps, counted from 1 over all stages. strides: side in image pixels of a position of each map.
        widths: channels of each map.
        encoder: the network alone: the same images to one map [B, C, h, w] after its last norm. The mean of this map
            over its positions is the vector of a picture that `Knn` compares.
    """

    def __init__(self, trained: Trained, encoder: Encoder, blocks: Sequence[int] | None) -> None:
        super().__init__(trained)
        taps = Taps(encoder, blocks)
        if blocks is None:  # a head may need four maps of two blocks; here each is given once
            taps = Taps(encoder, sorted(set(taps.blocks)))
        self.blocks, self.strides, self.widths = taps.blocks, taps.strides, taps.widths
        self.encoder, self._taps = encoder, [taps]  # in a list: torch would save the encoder twice

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps of a batch, one for each of `blocks`, as the blocks give them."""
        return self._taps[0].raw(images)

    @torch.no_grad()
    def features(self, picture: Picture) -> list[Tensor]:
        """The maps [1, C', h, w] of a picture of any size and mode."""
        return self.forward(self.prepare(picture))


class Logits(Prepared):
    """Classifier of a fine-tuning: normalised images [B, C, S, S] to logits [B, K]."""

    def __init__(self, trained: Trained, model: nn.Module) -> None:
        super().__init__(trained)
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """The logits of a batch."""
        logits: Tensor = self.model(images)
        return logits


def _masked_by(run: Pretrain, mask: Mask | None) -> Pretrain:
    """A run with another mask, without a momentum encoder that only its own mask needed."""
    if mask is None:
        return run
    # The spec refuses a momentum encoder that nothing uses.
    if isinstance(mask, FrequencyMask) != isinstance(run.mask, FrequencyMask):
        raise HarnessError("a model that learnt from hidden patches fills in no frequencies, nor the other way round")
    looks = mask.scored_by is not None or run.contrastive is not None or isinstance(run.target, MomentumTarget)
    return run.replace(mask=mask, momentum=run.momentum if looks else None)


class Reconstructor:
    """Pre-trained model for reconstruction. mask: replaces the run's own mask."""

    def __init__(self, trained: Trained, device: torch.device, mask: Mask | None = None) -> None:
        self.trained, self.device = trained, device
        self._model = masked_image_model_of(trained, device)
        assert isinstance(trained.run, Pretrain)
        try:
            self.run = _masked_by(trained.run, mask)
        except ValidationError as error:
            raise HarnessError(one_line(error)) from None

    def __call__(self, picture: Picture, *, seed: int | None = None, position: int = 0) -> Reconstruction:
        """Reconstruct one picture, masked as the picture at `position` of a batch. seed: by default the run's own."""
        run, facts = self.run, self.trained.facts
        seed = run.seed if seed is None else seed
        # crop=1.0: the whole central square, without the margin that test images lose.
        images = as_tested(picture, run.data, facts, image_size=run.image_size, crop=1.0).to(self.device)
        positions = torch.tensor([position], device=self.device)
        units = make_mask(
            run.mask,
            image_size=run.image_size,
            seed=seed,
            step=0,
            steps=1,
            positions=positions,
            scores=self._model.scores(images, run.mask),
        )
        found = reconstructed(self._model, images, units, facts.mean, facts.std)
        if found is None:
            raise HarnessError(f"the target of {self.trained.name} is {run.target.kind}, which is no picture")
        original, masked, predicted, hidden = (array[0] for array in found)
        # A loss on hidden pixels leaves visible ones untrained, so the original is shown there.
        pasted = np.where(hidden[..., None], predicted, original)
        return Reconstruction(
            original, masked, predicted, pasted, hidden, run=self.trained.name, mask=run.mask, seed=seed
        )


def opened(run: Run | str | Path, store: Store, weights: Path | str | None = None) -> Trained:
    """A trained model of a store, of a file, or of a published name with a file of its weights.

    Args:
        run: as `predict` takes it. weights: the file, or a folder that holds it under its published name.

    Raises:
        HarnessError: as `predict`.
    """
    model = find(run) if isinstance(run, str) else None
    if model is None:
        if weights is not None:
            raise HarnessError(f"weights belong to a published model, and {str(run)!r} names none{nearest(str(run))}")
        return finished(run, store)
    if not isinstance(model.run, Pretrain | FineTune):
        raise HarnessError(
            f"{model.name} is a {model.run.kind}, whose model is not opened here; valid: pretrain, finetune"
        )
    path = weights_file(model.names, model.weights) if weights is None else Path(weights).expanduser()
    path = path / model.weights if path.is_dir() else path
    if not path.is_file():
        if weights is not None:
            raise HarnessError(f"the weights of {run} are not at {path}")
        where = "or say where they are by --weights or in [weights] of harness.toml"
        none = "" if model.file else "; no file of them is published"
        raise HarnessError(f"the weights of {run} are not here: put {path.name} into {path.parent}, {where}{none}")
    return published(model.run, path)


@overload
def predict(
    run: FineTune, picture: Picture, *, weights: Where = None, store: Where = None, device: DeviceName = "auto"
) -> Prediction: ...
@overload
def predict(
    run: Segment, picture: Picture, *, weights: Where = None, store: Where = None, device: DeviceName = "auto"
) -> Segments: ...
@overload
def predict(
    run: Detect,
    picture: Picture,
    *,
    score: float | None = None,
    weights: Where = None,
    store: Where = None,
    device: DeviceName = "auto",
) -> Detections: ...
@overload
def predict(
    run: Run | str | Path,
    picture: Picture,
    *,
    score: float | None = None,
    weights: Where = None,
    store: Where = None,
    device: DeviceName = "auto",
) -> Any: ...
def predict(
    run: Run | str | Path,
    picture: Picture,
    *,
    score: float | None = None,
    weights: Where = None,
    store: Where = None,
    device: DeviceName = "auto",
) -> Prediction | Segments | Detections:
    """Predict the classes of one picture, of its pixels, or its objects, shown as the run's test pictures are.

    What is said of pixels and objects is in pixels of the picture as it was given, whatever its size.

    Args:
        run: a fine-tuning, a segmentation or a detection: its spec, its key or the beginning of it, its folder, or, of
            a fine-tuning, a file from `export_weights`, or the name of a published model, such as
            "swin-base-w6_simmim-100e-pre_8xb256-coslr-100e_in1k-192px".
        weights: of a published model, its file or a folder that holds it; by default where [weights] of harness.toml
            says, or `weights` in the project root.
        picture: picture of any size and mode; see `harness.core.data.pictures.as_tested`.
        score: of a detection, least score of the objects that are told, 0 to 1; by default 0.5.
        store: folder of the runs; by default `store` of harness.toml or site.toml, or `runs` in the current folder's
            project root.
        device: cpu or cuda; auto is a GPU where there is one.

    Returns:
        Prediction of a fine-tuning, Segments of a segmentation, Detections of a detection.

    Raises:
        HarnessError: the run does not exist, is of another kind, is not done or has no weights, or they do not fit; a
            score is given for what is no detection; or the picture cannot be read.
    """
    return predictor(run, open_store(store), torch_device(device), score, weights)(picture)


def load_encoder(
    run: Run | str | Path,
    *,
    blocks: Sequence[int] | None = None,
    weights: Path | str | None = None,
    store: Path | str | None = None,
    device: DeviceName = "auto",
) -> FeatureMaps:
    """The encoder of a trained model, as a module that gives feature maps; in evaluation mode, without gradients.

    Args:
        run: a pre-training or a fine-tuning: its spec, its key or the beginning of it, its folder, a file from
            `export_weights`, or the name of a published model.
        blocks: blocks whose maps are wanted, counted from 1 over all stages. By default the last block of each stride;
            of an encoder with one stride, such as a ViT, those at a quarter, a half, three quarters and the end of its
            depth, each once: 3, 6, 9 and 12 of twelve blocks, 1 and 2 of two. The result's `blocks` says which.
        weights: of a published model, its file or folder, as in `predict`.
        store, device: as in `predict`.

    Raises:
        HarnessError: as in `predict`; or the encoder has no such block.
    """
    trained = opened(run, open_store(store), weights)
    return FeatureMaps(trained, encoder_of(trained, torch_device(device)), blocks).eval()


def load_classifier(
    run: Run | str | Path,
    *,
    weights: Path | str | None = None,
    store: Path | str | None = None,
    device: DeviceName = "auto",
) -> Logits:
    """The classifier of a fine-tuning, as a module that gives logits; in evaluation mode, without gradients.

    Args:
        run: a fine-tuning: its spec, its key or the beginning of it, its folder, a file from `export_weights`, or the
            name of a published model.
        weights: of a published model, its file or folder, as in `predict`.
        store, device: as in `predict`.

    Raises:
        HarnessError: as in `predict`.
    """
    trained, found = opened(run, open_store(store), weights), torch_device(device)
    return Logits(trained, classifier_of(trained, found)).eval()


def reconstruct(
    run: Run | str | Path,
    picture: Picture,
    *,
    mask: Mask | None = None,
    seed: int | None = None,
    weights: Path | str | None = None,
    store: Path | str | None = None,
    device: DeviceName = "auto",
) -> Reconstruction:
    """Reconstruct one picture, cropped to its central square and masked, with a pre-trained model.

    Args:
        run: a pre-training: its spec, its key or the beginning of it, its folder, or the name of a published model.
        picture: as in `predict`.
        mask: replaces the run's own, in the same units.
        seed: of the mask; by default the run's own.
        weights: of a published model, its file or folder, as in `predict`.
        store, device: as in `predict`.

    Raises:
        HarnessError: as in `predict`; or the mask does not fit the model, or its target is no picture.
    """
    return Reconstructor(opened(run, open_store(store), weights), torch_device(device), mask)(picture, seed=seed)


def export_weights(
    run: Run | str | Path, file: Path | str, *, format: ExportFormat = "timm", store: Path | str | None = None
) -> Exported:
    """Export a trained encoder or classifier for other programs; see `harness.core.weights.export.export`.

    Args:
        run: a pre-training or a fine-tuning: its spec, its key or the beginning of it, its folder, or the name of a
            published model whose weights lie where [weights] of harness.toml says.
        file: the file to write; one that is there is replaced.
        format: timm (a .safetensors file, which the result's `call` loads) or official (a .pth file with the names of
            microsoft/SimMIM).
        store: as in `predict`.

    Raises:
        HarnessError: as in `predict`; or the format is unknown, or does not suit the model or the file's name.
    """
    if format not in SUFFIXES:
        raise HarnessError(f"no format {format!r}; valid: {', '.join(SUFFIXES)}")
    return export(opened(run, open_store(store)), Path(file), format)


def chosen_mask(own: Mask, kind: str | None = None, **values: object) -> Mask:
    """Mask of a kind, with values that are not given taken from a run's own mask.

    Raises:
        HarnessError: the kind is unknown, or a value is invalid for it.
    """
    if kind is not None and kind not in MASKS:
        raise HarnessError(f"no mask {kind!r}; valid: {', '.join(MASKS)}")
    made = MASKS[kind] if kind else type(own)
    # Of a mask of another kind only size and ratio mean the same.
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
    """Analysis of a run, by its kind: interactions, occlusion, fourier or rgb.

    Raises:
        HarnessError: the kind is unknown, or a value or the start is invalid for it.
    """
    if kind not in ANALYSES:
        raise HarnessError(f"no analysis {kind!r}; valid: {', '.join(ANALYSES)}")
    try:
        found: Analysis = ANALYSES[kind](start=start, **values)
    except ValidationError as error:
        raise HarnessError(one_line(error)) from None
    return found


def torch_device(name: DeviceName) -> torch.device:
    """Device of a name: cpu or cuda; auto is cuda where a GPU exists, else cpu.

    Raises:
        HarnessError: cuda without a GPU, or another name.
    """
    if name not in get_args(DeviceName):
        raise HarnessError(f"no device {name!r}; valid: {', '.join(get_args(DeviceName))}")
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise HarnessError("device cuda: torch sees no GPU here")
    return torch.device("cuda" if found and name != "cpu" else "cpu")
