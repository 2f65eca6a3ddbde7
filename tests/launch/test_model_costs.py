"""Descriptions of models: asked once in a process of its own, kept in the store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.core.model.complexity import classifier, pretraining
from harness.launch.cost import ModelCost, count_models, known_models, read_model_cost, timm_models, write_model_cost
from harness.spec import (
    Backbone,
    CustomData,
    FineTune,
    HarnessError,
    Images,
    Knn,
    LinearProbe,
    MlpHead,
    Pretrain,
    RandomMask,
    Recipe,
    Run,
    Shapes,
    key,
)
from harness.spec.model.described import costed_model, costed_models
from harness.store import Store
from harness.store.layout import description_file

VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 32, "depth": 2, "num_heads": 2}, patch_size=4)
RECIPE = Recipe(epochs=2, batch_size=16, lr=1e-3)
FIRST = Pretrain(data=Shapes(), image_size=32, backbone=VIT, mask=RandomMask(size=8, ratio=0.5), recipe=RECIPE)
TUNED = FineTune(start=FIRST, recipe=RECIPE)
WRONG = FIRST.replace(backbone=VIT.replace(name="vit_tinny_patch16_224"))


@pytest.mark.slow
def test_counted_in_another_process_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [costed_model(run) for run in (FIRST, TUNED, WRONG)]
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "torch")  # a process that has it asks itself
        answers = count_models(tmp_path, models)
    first = pretraining(VIT, image_size=32, channels=3, head=FIRST.head, target=FIRST.target)
    tuned = classifier(VIT, image_size=32, channels=3, num_classes=6)
    assert [answer.found for answer in answers] == [
        ModelCost(first.parameters, first.multiply_adds, 16 * first.parameters, first.activation_bytes, first.head),
        ModelCost(tuned.parameters, tuned.multiply_adds, 16 * tuned.parameters, tuned.activation_bytes, tuned.head),
        None,
    ]
    assert answers[2].error.startswith("timm has no model 'vit_tinny_patch16_224'")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("asked twice"))
    assert [answer.found for answer in count_models(tmp_path, models[:2])] == [answer.found for answer in answers[:2]]
    assert [answer.found is None for answer in known_models(tmp_path, models)] == [False, False, True]


def test_a_process_that_has_torch_asks_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("asked another process"))
    (answer,) = count_models(tmp_path, [costed_model(FIRST)])
    assert answer.found == ModelCost(
        (first := pretraining(VIT, image_size=32, channels=3, head=FIRST.head, target=FIRST.target)).parameters,
        first.multiply_adds,
        16 * first.parameters,
        first.activation_bytes,
        first.head,
    )


def test_names_and_families_are_timms_own() -> None:
    import timm

    assert timm_models() == {
        name: timm.model_entrypoint(name).__module__.rpartition(".")[2] for name in timm.list_models()
    }


def test_a_resnet_whose_last_map_is_one_position_is_counted(tmp_path: Path) -> None:
    """In training a batch norm refuses it; what is counted does not depend on that."""
    backbone = Backbone(name="resnet18", patch_size=4, stride=32)
    (answer,) = count_models(tmp_path, [costed_model(TUNED.replace(start=FIRST.replace(backbone=backbone)))])
    assert answer.found is not None
    # torchvision's ResNet-18: 11,689,512 parameters with 1,000 classes; 6 classes take 994 * 513 fewer
    assert answer.found.parameters == 11_689_512 - 994 * 513


def test_a_process_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.CompletedProcess([], 1, "", "Traceback:\nImportError: no torch here\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    models = [costed_model(FIRST)]
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "torch")  # a process that has it asks itself
        with pytest.raises(HarnessError, match="models could not be described: ImportError: no torch here"):
            count_models(tmp_path, models)


def test_a_damaged_description_counts_as_none(tmp_path: Path) -> None:
    model = costed_model(FIRST)
    write_model_cost(tmp_path, model, ModelCost(1, 2, 3, 4))
    assert read_model_cost(tmp_path, model) == ModelCost(1, 2, 3, 4)
    path = description_file(tmp_path, model.digest)
    assert json.loads(path.read_text())["model"]["image_size"] == 32
    path.write_text(path.read_text()[:20])
    assert read_model_cost(tmp_path, model) is None
    assert Store(tmp_path).keys() == [], "descriptions are no runs"


def test_runs_that_share_a_model_are_described_once() -> None:
    runs: list[Run] = [
        FIRST,
        FIRST.replace(seed=1),
        FIRST.replace(mask=RandomMask(size=4, ratio=0.25)),
        FIRST.replace(head=MlpHead()),
        TUNED,
        TUNED.replace(recipe=RECIPE.replace(lr=2e-3)),
        LinearProbe(start=FIRST, recipe=RECIPE),
        Knn(start=FIRST),
        Knn(start=FIRST, k=3),
        Knn(start=FIRST, block=1),
    ]
    found = costed_models({key(run): run for run in runs})
    assert [model.text for model in found] == [
        "vit_tiny_patch16_224 at 32 px, pretrain, linear head",
        "vit_tiny_patch16_224 at 32 px, pretrain, mlp head",
        "vit_tiny_patch16_224 at 32 px, finetune",
        "vit_tiny_patch16_224 at 32 px, frozen",
        "vit_tiny_patch16_224 at 32 px, frozen, up to block 1",
    ]


def test_a_fine_tuning_is_described_with_the_backbone_it_builds() -> None:
    wider = VIT.replace(args={"embed_dim": 64, "depth": 2, "num_heads": 2})
    assert costed_model(TUNED.replace(backbone=wider)).backbone == wider


def test_classes_are_counted_where_they_are_known_without_reading() -> None:
    assert costed_model(TUNED).num_classes == 6
    assert costed_model(TUNED.replace(data=Images(name="cifar100"))).num_classes == 100
    assert costed_model(TUNED.replace(data=CustomData(function="a:b", source="c"))).num_classes is None


def test_no_torch_is_loaded_to_ask() -> None:
    program = "import sys, harness.launch.cost; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
