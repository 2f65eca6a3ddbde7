"""The published models by name: their presets, other names of theirs, files of weights, sizes and accuracies.

A name is `paper/model-epochs`, and of what follows pre-training `paper/model-epochs-how`: `simmim/swin-b-100e-192` is
fine-tuned at 192 px. `paper/model` alone is one of its pre-trainings. `models.csv` holds the sizes, so that they can be
listed without torch; the tests count them again.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from importlib.resources import files
from typing import Any

from harness.papers.a2mim.finetune import a2mim_finetune
from harness.papers.a2mim.recipes import CNNS, VITS, a2mim_pretrain, simmim_cnn_pretrain
from harness.papers.mae.preset import BACKBONES, EPOCHS, mae_finetune, mae_pretrain, mae_probe
from harness.papers.simmim.recipes import (
    BORROWED,
    FINETUNED,
    PRETRAINED,
    borrowed,
    simmim_finetune,
    simmim_pretrain,
    simmim_probe,
)
from harness.papers.symmim.preset import symmim
from harness.papers.tables import PublishedValue, paper_table
from harness.spec import (
    Backbone,
    Data,
    FineTune,
    HarnessError,
    LinearProbe,
    Pretrain,
    Scalar,
    Scale,
    Start,
    pretraining,
)

Preset = Pretrain | FineTune | LinearProbe
TITLES = {"simmim": "SimMIM", "mmpretrain": "SimMIM in mmpretrain", "a2mim": "A2MIM", "mae": "MAE", "symmim": "SymMIM"}
"""Papers, and re-implementations, by the first part of their models' names."""

MMPRETRAIN: dict[str, tuple[tuple[str, ...], str]] = {
    "swin-b-100e": (
        ("simmim_swin-base-w6_8xb256-amp-coslr-100e_in1k-192px",),
        "simmim_swin-base_8xb256-amp-coslr-100e_in1k-192_20220829-0e15782d.pth",
    ),
    "swin-b-800e": (
        ("simmim_swin-base-w6_16xb128-amp-coslr-800e_in1k-192px",),
        "simmim_swin-base_16xb128-amp-coslr-800e_in1k-192_20220916-a0e931ac.pth",
    ),
    "swin-l-800e": (
        (
            "simmim_swin-large-w12_16xb128-amp-coslr-800e_in1k-192px",
            "simmim_swin-large_16xb128-amp-coslr-800e_in1k-192",
        ),
        "simmim_swin-large_16xb128-amp-coslr-800e_in1k-192_20220916-4ad216d3.pth",
    ),
    "swin-b-100e-192": (
        ("swin-base-w6_simmim-100e-pre_8xb256-coslr-100e_in1k-192px",),
        "swin-base_ft-8xb256-coslr-100e_in1k_20220829-9cf23aa1.pth",
    ),
    "swin-b-100e-224": (("swin-base-w7_simmim-100e-pre_8xb256-coslr-100e_in1k",), ""),
    # The name says window 6 and 192 px; the weights are of window 7 at 224 px.
    "swin-b-800e-224": (
        ("swin-base-w6_simmim-800e-pre_8xb256-coslr-100e_in1k-192px",),
        "swin-base_ft-8xb256-coslr-100e_in1k-224_20221208-155cc6e6.pth",
    ),
    "swin-l-800e-224": (
        ("swin-large-w14_simmim-800e-pre_8xb256-coslr-100e_in1k",),
        "swin-large_ft-8xb256-coslr-ws14-100e_in1k-224_20220916-d4865790.pth",
    ),
}
"""mmpretrain's names and files by ours (open-mmlab/mmpretrain configs/simmim/README.md and metafile.yml)."""


LENT = "SymMIM publishes no recipe: it has that of MAE's ViT-L"


@dataclass(frozen=True)
class Size:
    """Counts of a model for one image of `image_size` px in colour, with 1,000 classes.

    multiply_adds: of encoder and pooling, as mmpretrain counts. head: those of the prediction head or classifier.
    """

    image_size: int
    parameters: int
    multiply_adds: int
    head: int


@dataclass(frozen=True)
class PublishedSize:
    """Counts of a model as published. image_size: side that multiply-adds were counted at; None where none are."""

    parameters: int
    multiply_adds: int | None
    image_size: int | None
    source: str


@dataclass(frozen=True)
class Model:
    """A published model.

    make: its preset, which takes the keyword `data` of another data set. aliases: other names. file: name of the file
    of its weights as it is published, empty if none is. accuracy_of: table, column and cell of its published accuracy.
    lent: True if its recipe is that of another model, as its own is not published.
    """

    name: str
    make: Callable[..., Preset]
    aliases: tuple[str, ...] = ()
    file: str = ""
    accuracy_of: tuple[str, str, Mapping[str, Scalar]] | None = field(default=None, hash=False)
    lent: bool = False

    @property
    def paper(self) -> str:
        """Title of its paper."""
        return TITLES[self.name.partition("/")[0]]

    @cached_property
    def run(self) -> Preset:
        """The run of its recipe, with ImageNet-1K as a folder."""
        return self.make()

    @property
    def size(self) -> Size:
        """Its counts, from models.csv."""
        return sizes()[self.name]

    @property
    def accuracy(self) -> PublishedValue | None:
        """Its published top-1 accuracy in percent."""
        if self.accuracy_of is None:
            return None
        table, column, cell = self.accuracy_of
        return paper_table(table, metric=column).lookup(cell)

    @property
    def trainings(self) -> tuple[Preset, ...]:
        """The trainings of its recipe, in their order."""
        start = None if isinstance(self.run, Pretrain) else pretraining(self.run)
        return (self.run,) if start is None else (start, self.run)

    @property
    def epochs(self) -> str:
        """Lengths of its trainings: `100 + 100` of a pre-training and what follows it, with * if lent."""
        return " + ".join(str(run.recipe.epochs) for run in self.trainings) + "*" * self.lent

    @property
    def recipe(self) -> str:
        """Its recipe in a few words."""
        return "; then ".join(map(_recipe, self.trainings))

    @property
    def weights(self) -> str:
        """Name of the file of its weights in a folder: as it is published, else its own name with a dash."""
        return self.file or f"{self.name.replace('/', '-')}.pth"

    @property
    def names(self) -> tuple[str, ...]:
        """All of its names."""
        return self.name, *self.aliases


@cache
def published_models() -> dict[str, Model]:
    """All published models by name, in the order of the papers."""
    makers = (_simmim, _mmpretrain, _simmim_cnn, _a2mim, _mae, _symmim)
    return {model.name: model for maker in makers for model in maker()}


def find(name: str) -> Model | None:
    """The model that has this name, or this other name."""
    return next((model for model in published_models().values() if name in model.names), None)


def named(name: str) -> Model:
    """The model that has this name.

    Raises:
        HarnessError: there is none.
    """
    if (found := find(name)) is None:
        raise HarnessError(f"there is no published model {name!r}; harness models lists them{nearest(name)}")
    return found


def nearest(name: str) -> str:
    """`; did you mean 'simmim/swin-b'?` if a published model has a similar name, else nothing."""
    every = [other for model in published_models().values() for other in model.names]
    close = difflib.get_close_matches(name, every, n=1, cutoff=0.8)
    return f"; did you mean {close[0]!r}?" if close else ""


@cache
def sizes() -> dict[str, Size]:
    """Counts by name of a model, from models.csv; `python tests/papers/test_models.py --update` writes it anew."""
    columns = ("image_size", "parameters", "multiply_adds", "head")
    return {row["model"]: Size(*(int(row[name]) for name in columns)) for row in _rows("models.csv")}


@cache
def published_sizes() -> dict[str, PublishedSize]:
    """Counts as their authors publish them, by name of a model (published_sizes.csv)."""
    found = {}
    for row in _rows("published_sizes.csv"):
        multiply_adds, size = (int(row[name]) if row[name] else None for name in ("multiply_adds", "image_size"))
        found[row["model"]] = PublishedSize(int(row["parameters"]), multiply_adds, size, row["source"])
    return found


def _rows(name: str) -> Iterator[dict[str, str]]:
    return csv.DictReader((files("harness.papers") / name).read_text(encoding="utf-8").splitlines())


def _recipe(run: Preset) -> str:
    recipe, kinds = run.recipe, ""
    if isinstance(run, Pretrain):
        kinds = f", {run.mask.kind} mask, {run.target.kind}, {run.loss.kind}"
    rate = f"{recipe.lr:g}" + (f" for {recipe.lr_batch}" if recipe.lr_batch else "")
    optimiser = recipe.optimizer if isinstance(recipe.optimizer, str) else recipe.optimizer.function
    return (
        f"{run.kind} {recipe.epochs} epochs at {run.image_size} px, {recipe.batch_size:,} images a step, {optimiser}, "
        f"rate {rate}{kinds}"
    )


def _title(model: str) -> str:
    """`Swin-B` of swin-b, `ResNet-50` of r50, as tables print it."""
    if model.startswith("r") and model[1:].isdigit():
        return f"ResNet-{model[1:]}"
    family, _, size = model.partition("-")
    return f"{ {'vit': 'ViT', 'swin': 'Swin', 'convnext': 'ConvNeXt', 'deit': 'DeiT'}[family] }-{size.upper()}"


def _simmim() -> Iterator[Model]:
    long = {"swin-b": "swin_base", "swin-l": "swin_large", "vit-b": "vit_base"}
    windows = {"swin-b": "_window6", "swin-l": "_window12", "vit-b": ""}
    for model, epochs in PRETRAINED:
        first = epochs == dict(reversed(PRETRAINED))[model]
        side = simmim_pretrain(model, epochs=epochs).image_size
        yield Model(
            f"simmim/{model}-{epochs}e",
            partial(simmim_pretrain, model, epochs=epochs),
            aliases=(f"simmim/{model}",) if first else (),
            file=f"simmim_pretrain__{long[model]}__img{side}{windows[model]}__{epochs}ep.pth",
        )
    for model in BORROWED:
        epochs = dict(reversed(PRETRAINED))[borrowed(model)[0]]
        make = partial(simmim_pretrain, model, epochs=epochs)
        yield Model(f"simmim/{model}-{epochs}e", make, aliases=(f"simmim/{model}",), lent=True)
    for (model, epochs, side), found in FINETUNED.items():
        window = f"_window{found.window}" if found.window else ""
        cell: dict[str, Scalar] = {"model": _title(model), "pretrain_epochs": epochs, "finetune_size": side}
        yield Model(
            f"simmim/{model}-{epochs}e-{side}",
            partial(simmim_finetune, model, epochs=epochs, image_size=side),
            file=f"simmim_finetune__{long[model]}__img{side}{window}__{epochs}ep.pth",
            accuracy_of=("simmim_table7_scaling", "simmim_top1", cell),
        )
    probed = ("simmim_table6_vit_b", "linear_top1", {"method": "SimMIM"})
    yield Model("simmim/vit-b-800e-probe", simmim_probe, accuracy_of=probed)


def _mmpretrain() -> Iterator[Model]:
    for model, epochs in PRETRAINED:
        if model != "vit-b":
            make: Callable[..., Preset] = partial(simmim_pretrain, model, epochs=epochs, variant="mmpretrain")
            yield Model(f"mmpretrain/{model}-{epochs}e", make, *MMPRETRAIN[f"{model}-{epochs}e"])
    for model, epochs, side in FINETUNED:
        if model != "vit-b":
            make = partial(simmim_finetune, model, epochs=epochs, image_size=side, variant="mmpretrain")
            cell: dict[str, Scalar] = {"model": _title(model), "pretrain_epochs": epochs, "finetune_size": side}
            place = f"{model}-{epochs}e-{side}"
            yield Model(f"mmpretrain/{place}", make, *MMPRETRAIN[place], ("mmpretrain_simmim", "top1", cell))


def _simmim_cnn() -> Iterator[Model]:
    """A2MIM's baselines, hiding what they say they hide."""
    for model in CNNS:
        make = partial(simmim_cnn_pretrain, model)
        yield Model(f"simmim/{model}-300e", make, aliases=(f"simmim/{model}",))


def _a2mim() -> Iterator[Model]:
    lengths = [(model, epochs) for model in CNNS for epochs in ((300, 100) if model == "r50" else (300,))]
    lengths += [(model, 800) for model in VITS]
    for model, epochs in lengths:
        make: Callable[..., Preset] = partial(a2mim_pretrain, model, epochs=epochs)
        yield Model(f"a2mim/{model}-{epochs}e", make, aliases=(f"a2mim/{model}",) if epochs != 100 else ())
    for model, epochs in lengths:
        for protocol in ("rsb-a2", "rsb-a3") if model in CNNS else ("beit",):
            if epochs != 100 or protocol == "rsb-a3":  # the other is not published
                make = partial(_a2mim_finetune, model, epochs, protocol)
                yield Model(f"a2mim/{model}-{epochs}e-{protocol}", make, (), "", _a2mim_row(model, epochs, protocol))


def _a2mim_finetune(model: Any, epochs: int, protocol: Any, *, data: Data | None = None) -> FineTune:
    start: Start = a2mim_pretrain(model, epochs=epochs, data=data)
    return a2mim_finetune(model, protocol=protocol, start=start, data=data)


def _a2mim_row(model: str, epochs: int, protocol: str) -> tuple[str, str, Mapping[str, Scalar]] | None:
    if protocol == "rsb-a3":
        cell: dict[str, Scalar] = {
            "backbone": _title(model),
            "method": "A2MIM",
            "finetune_recipe": "RSB A3",
            "pretrain_epochs": epochs,
        }
        return ("a2mim_finetune_rows", "top1", cell) if model == "r50" else None
    return ("a2mim_imagenet", "a2mim", {"backbone": _title(model)}) if model not in ("deit-s", "convnext-t") else None


def _mae() -> Iterator[Model]:
    long = {"vit-b": "vit_base", "vit-l": "vit_large", "vit-h": "vit_huge"}
    for model in BACKBONES:
        for epochs in EPOCHS:  # what is published as a file was trained for 1600
            file = f"mae_pretrain_{long[model]}.pth" if epochs == max(EPOCHS) else ""
            make = partial(mae_pretrain, model, epochs=epochs)
            yield Model(f"mae/{model}-{epochs}e", make, (f"mae/{model}",) if epochs == min(EPOCHS) else (), file)
    for model in BACKBONES:
        row = {"backbone": _title(model)}
        file, accuracy = f"mae_finetuned_{long[model]}.pth", ("mae_models", "finetune_top1", row)
        yield Model(f"mae/{model}-1600e-224", partial(mae_finetune, model), (), file, accuracy)
        probed = ("mae_models", "linear_top1", row)
        yield Model(f"mae/{model}-1600e-probe", partial(mae_probe, model), (), "", probed)


def _symmim() -> Iterator[Model]:
    """The model whose accuracy SymMIM publishes, on MAE's recipes, as its own are unknown."""
    yield Model("symmim/vit-l", _symmim_pretrain, lent=True)
    found = ("symmim_abstract", "finetune_top1", {"crops": "same"})
    yield Model("symmim/vit-l-224", _symmim_finetune, accuracy_of=found, lent=True)


def _symmim_pretrain(*, data: Data | None = None) -> Pretrain:
    lent, given = mae_finetune("vit-l", data=data), mae_pretrain("vit-l", data=data)
    scale = Scale(
        name="paper",
        data=given.data,
        image_size=224,
        backbone=Backbone(name="vit_large_patch16_224", patch_size=16, stride=16),
        pretrain=given.recipe,
        finetune=lent.recipe,
    )
    run = symmim(scale)
    return run.replace(assumed=(*run.assumed, LENT))


def _symmim_finetune(*, data: Data | None = None) -> FineTune:
    lent, start = mae_finetune("vit-l", data=data), _symmim_pretrain(data=data)
    return lent.replace(start=start, assumed=(*lent.assumed, LENT))
