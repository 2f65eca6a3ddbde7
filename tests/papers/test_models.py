"""The published models by name: every preset, its names, and counts that are kept and counted again here.

`python tests/papers/test_models.py --update` writes harness/papers/models.csv anew, in about a minute.
"""

from __future__ import annotations

import csv
import re
import sys
from functools import cache
from pathlib import Path

import pytest

import harness
from harness.papers.models import Model, Size, find, named, published_models, published_sizes, sizes
from harness.runs import complexity_of
from harness.spec import HarnessError, Pretrain, Shapes
from harness.spec.model.described import Described, costed_model

FILE = Path(harness.__file__).parent / "papers" / "models.csv"
CLASSES = 1000
"""Of ImageNet-1K: how many a folder has is not known here."""
QUICK = ("mmpretrain/swin-b-100e-192", "simmim/vit-s-800e", "a2mim/r50-300e-rsb-a3", "mae/vit-b-1600e")


def counted(model: Model, image_size: int | None = None) -> Size:
    """Counts of a model, by default at the size of images that it is trained with."""
    described = costed_model(model.run)
    classes = CLASSES if described.stage == "finetune" else None
    return _counted(described.replace(image_size=image_size or described.image_size, num_classes=classes))


@cache
def _counted(described: Described) -> Size:
    found = complexity_of(described)
    return Size(described.image_size, found.parameters, found.encoder + found.pooling, found.head)


@pytest.mark.parametrize("name", QUICK)
def test_kept_counts_are_those_of_the_models(name: str) -> None:
    assert counted(named(name)) == named(name).size


@pytest.mark.slow
def test_all_kept_counts_are_those_of_the_models() -> None:
    assert {name: counted(model) for name, model in published_models().items()} == sizes()


def test_every_model_has_facts_and_names_of_its_own() -> None:
    models = published_models()
    assert set(models) == set(sizes())
    names = [name for model in models.values() for name in model.names]
    assert len(set(names)) == len(names)
    assert set(published_sizes()) <= set(models)
    for name, model in models.items():
        assert find(name) is model
        assert model.recipe.startswith("pretrain ")
        assert model.epochs.rstrip("*") == " + ".join(str(run.recipe.epochs) for run in model.trainings)
        assert model.accuracy_of is None or model.accuracy is not None, f"{name} has no published accuracy"


def test_every_preset_of_the_papers_is_listed() -> None:
    """Counted by hand: SimMIM's 4 pre-trainings, 5 fine-tunings and probe, mmpretrain's 3 and 4, and so on."""
    kinds: dict[str, list[str]] = {}
    for model in published_models().values():
        kinds.setdefault(model.name.partition("/")[0], []).append(model.run.kind)
    found = {paper: {kind: every.count(kind) for kind in dict.fromkeys(every)} for paper, every in kinds.items()}
    assert found == {
        "simmim": {"pretrain": 4 + 3 + 7, "finetune": 5, "linear-probe": 1},
        "mmpretrain": {"pretrain": 3, "finetune": 4},
        "a2mim": {"pretrain": 8 + 4, "finetune": 7 + 7 + 1 + 4},
        "mae": {"pretrain": 6, "finetune": 3, "linear-probe": 3},
        "symmim": {"pretrain": 1, "finetune": 1},
    }


def test_accuracies_as_the_pages_print_them() -> None:
    printed = {
        "swin-base-w6_simmim-100e-pre_8xb256-coslr-100e_in1k-192px": 82.7,
        "swin-base-w7_simmim-100e-pre_8xb256-coslr-100e_in1k": 83.5,
        "swin-base-w6_simmim-800e-pre_8xb256-coslr-100e_in1k-192px": 83.8,
        "swin-large-w14_simmim-800e-pre_8xb256-coslr-100e_in1k": 84.8,
        "simmim/swin-b-800e-224": 84.0, "simmim/vit-b-800e-224": 83.8, "a2mim/r50-300e-rsb-a2": 80.4,
        "a2mim/r50-100e-rsb-a3": 78.8, "a2mim/vit-b-800e-beit": 84.2, "mae/vit-h-1600e-224": 86.9,
        "mae/vit-l-1600e-probe": 75.8, "symmim/vit-l-224": 85.9,
    }  # fmt: skip
    for name, top1 in printed.items():
        found = named(name).accuracy
        assert found is not None
        assert (found.value, found.verified) == (top1, True), name


def test_a_name_that_is_none_is_answered_by_the_nearest() -> None:
    with pytest.raises(
        HarnessError, match=r"no published model 'simmim/swinb-100e'; .* did you mean 'simmim/swin-b-100e"
    ):
        named("simmim/swinb-100e")


def test_presets_take_another_data_set() -> None:
    data = Shapes()
    for model in published_models().values():
        run = model.make(data=data)
        assert run.data == data
        assert isinstance(run, Pretrain) or run.start.data == data  # type: ignore[union-attr]


def test_models_as_a_frame() -> None:
    frame = harness.models().set_index("name")
    assert len(frame) == len(published_models())
    row = frame.loc["mmpretrain/swin-b-100e-192"]
    assert (row["parameters"], row["multiply_adds"], row["top1"]) == (87_750_176, 11_303_976_960, 82.7)
    assert row["aliases"] == ("swin-base-w6_simmim-100e-pre_8xb256-coslr-100e_in1k-192px",)
    assert row["weights"] == "swin-base_ft-8xb256-coslr-100e_in1k_20220829-9cf23aa1.pth"
    assert frame["top1"].isna().sum() == sum(model.accuracy is None for model in published_models().values())
    assert frame["parameters"].min() > 1e7


def test_the_stages_of_the_frame_are_those_that_its_docstring_names() -> None:
    told = re.search(r"`stage` \(([^)]*)\)", " ".join(str(harness.models.__doc__).split()))
    assert told is not None
    assert set(re.split(", | or ", told[1])) == set(harness.models()["stage"])


def update() -> None:
    """Write the counts of all models anew."""
    with FILE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("model", "image_size", "parameters", "multiply_adds", "head"))
        writer.writerows((name, *vars(counted(model)).values()) for name, model in published_models().items())


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit(__doc__)
    update()
