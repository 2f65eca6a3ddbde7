"""Studies from Python: planned, computed in this process, shown as table and figure; encoders of their runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import harness
from harness import FineTune, HarnessError, Knn, LinearHead, Loss, Pretrain, RandomMask, Recipe, Scale, Scratch, Shapes
from harness.store import Store
from harness.study import Grid, Study, axes
from harness.use import Prediction

VIT = harness.Backbone(
    name="vit_tiny_patch16_224", args={"embed_dim": 16, "depth": 2, "num_heads": 2, "class_token": False}, patch_size=4
)
SWIN = harness.Backbone(
    name="swin_tiny_patch4_window7_224",
    args={"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4},
    patch_size=4,
    stride=8,
)
RECIPE = Recipe(epochs=1, batch_size=8, lr=1e-3)
SMALL = Scale(
    name="small", data=Shapes(image_size=32, train=16, test=8), image_size=32, backbone=VIT, pretrain=RECIPE,
    finetune=RECIPE,
)  # fmt: skip


def cell(scale: Scale, backbone: str, pretrained: bool, seed: int) -> dict[str, harness.Evaluation]:
    model = VIT if backbone == "vit" else SWIN
    if not pretrained:
        start: Pretrain | Scratch = Scratch(backbone=model, image_size=32)
        return {"top1": FineTune(start=start, data=scale.data, recipe=scale.finetune, seed=seed)}
    start = Pretrain(
        data=scale.data, image_size=32, backbone=model, mask=RandomMask(size=8, ratio=0.5), head=LinearHead(),
        loss=Loss(), recipe=scale.pretrain, seed=seed,
    )  # fmt: skip
    top1 = FineTune(start=start, recipe=scale.finetune, seed=seed)
    return {"top1": top1, "knn": Knn(start=start, k=3, seed=seed)}


STUDY = Study(
    cell=cell,
    grid=axes(backbone=("vit", "swin"), pretrained=True) | Grid([{"backbone": "vit", "pretrained": False}]),
    scales=(SMALL,),
    seeds=1,
    reference={"backbone": "vit", "pretrained": True},
    name="from_python",
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> harness.Results:
    return harness.run(STUDY, on="inline", store=tmp_path_factory.mktemp("api") / "runs")


def test_everything_is_computed_and_not_again(results: harness.Results) -> None:
    assert set(results.frame()["state"]) == {"done"}
    before = results.frame()["value"].tolist()
    assert harness.run(STUDY, on="inline", store=results.store).frame()["value"].tolist() == before


def test_tables_figures_and_sentences(results: harness.Results) -> None:
    table = results.table()
    assert table.header[2:] == ("top-1 (%)", "3-NN (%)")
    assert table._repr_html_() == results._repr_html_()
    assert "<td>swin</td>" in results._repr_html_()
    names = list(results.figures())
    assert "figure-top1-cells" in names
    assert results.figure("figure-top1").axes[-1].get_xlabel().startswith("top-1 accuracy (%)")
    with pytest.raises(HarnessError, match="figures begin with 'figure-x'; there are figure-top1-cells"):
        results.figure("figure-x")
    assert results.headline().startswith("Whether pre-training helps is open: ")
    assert results.claims() == ()


def test_runs_by_study_and_cell(results: harness.Results) -> None:
    first = results.run(backbone="swin", seed=0)
    assert isinstance(first, Pretrain)
    assert first.backbone == SWIN
    assert results.run("top1", backbone="vit", pretrained=False).kind == "finetune"
    with pytest.raises(HarnessError, match=r"2 cells have .* at seed 0; pretrained is True or False"):
        results.run(backbone="vit")
    with pytest.raises(HarnessError, match="no evaluation 'probe' in this cell; it has top1, knn"):
        results.run("probe", backbone="swin")
    with pytest.raises(HarnessError, match="no axis 'mask'; this study has backbone, pretrained"):
        results.run(mask=1)
    with pytest.raises(HarnessError, match="axis backbone has no value 'resnet'; it has vit, swin"):
        results.run(backbone="resnet")
    with pytest.raises(HarnessError, match="no seed 7; this study has 0"):
        results.run(backbone="swin", seed=7)


def test_a_run_of_a_study_with_repeats_is_the_first_one(tmp_path: Path) -> None:
    one, two = (harness.results(replace(STUDY, repeats=repeats), store=tmp_path) for repeats in (1, 2))
    assert len(two.plan.rows) > len(one.plan.rows)
    for evaluation in (None, "top1"):
        assert two.run(evaluation, backbone="swin") == one.run(evaluation, backbone="swin")


def test_plan_takes_values_and_selections() -> None:
    assert len(harness.plan(STUDY).rows) == 3
    assert len(harness.plan(STUDY, where={"backbone": "vit"}, seeds=2).rows) == 4
    assert len(harness.plan(STUDY, where={"backbone": ["vit", "swin"], "pretrained": True}).rows) == 2
    chosen: Any
    for chosen in (np.bool_(True), np.array([True]), [np.bool_(True)]):  # values of a table
        assert len(harness.plan(STUDY, where={"pretrained": chosen}).rows) == 2


def test_feature_maps_of_an_encoder(results: harness.Results) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for backbone, strides, widths in (("vit", (4, 4), (16, 16)), ("swin", (4, 8), (8, 16))):
        run = results.run(backbone=backbone, pretrained=True)
        encoder = harness.load_encoder(run, store=results.store.root)
        images = encoder.prepare(picture)
        assert images.shape == (1, 3, 32, 32)
        maps = encoder(images)
        assert (encoder.strides, encoder.widths) == (strides, widths)
        assert [tuple(found.shape) for found in maps] == [
            (1, width, 32 // stride, 32 // stride) for stride, width in zip(strides, widths, strict=True)
        ]
        assert not encoder.training
        # The weights are those of the run, not new ones, and are in the module once.
        stored = torch.cat([tensor.flatten() for tensor in encoder.state_dict().values() if tensor.is_floating_point()])
        again = harness.load_encoder(run, store=results.store.root)
        assert all(a.equal(b) for a, b in zip(maps, again(images), strict=True))
        assert len(stored) == sum(parameter.numel() for parameter in encoder.parameters())
    shallow = results.run(backbone="vit", pretrained=True)
    assert harness.load_encoder(shallow, store=results.store.root).blocks == (1, 2)  # not 1, 1, 2, 2
    assert harness.load_encoder(shallow, blocks=(2, 2), store=results.store.root).blocks == (2, 2)
    with pytest.raises(HarnessError, match="ascending blocks"):
        harness.load_encoder(run, blocks=(9,), store=results.store.root)


def test_logits_are_those_of_predict(results: harness.Results, tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    run = results.run("top1", backbone="vit", pretrained=True)
    model = harness.load_classifier(run, store=results.store.root)
    scores = model(model.prepare(picture)).softmax(1)[0].numpy()
    prediction = harness.predict(run, picture, store=results.store.root)
    assert isinstance(prediction, Prediction)
    assert np.array_equal(scores, prediction.pred_scores)
    assert results.report(tmp_path / "report").written
    assert not results.report(tmp_path / "report", always=False).written
    assert isinstance(results.store, Store)
