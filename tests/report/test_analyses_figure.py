"""Curves of analyses: means and bands over seeds from the arrays that runs left, and what a report makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.report.collect import runs_frame
from harness.report.figures import analyses, drawing
from harness.report.figures import pictures as report_pictures
from harness.report.figures.analyses import AnalysisFigure, _by_quantity, analysis_figures, draw, figure_of
from harness.spec import Backbone, FineTune, Interactions, Occlusion, Recipe, RgbStatistics, Scale, Scratch, Shapes
from harness.store import Attempt, Store
from harness.study import Plan, Study, axes, expand

RECIPE = Recipe(epochs=1, batch_size=8, lr=1e-3)
VIT = Backbone(name="vit_tiny_patch16_224", args={"depth": 2}, patch_size=4)
SCALE = Scale(name="tiny", data=Shapes(image_size=16), image_size=16, backbone=VIT, pretrain=RECIPE, finetune=RECIPE)


def cell(scale: Scale, lr: float, seed: int) -> dict[str, Any]:
    start = Scratch(backbone=scale.backbone, image_size=16)
    tuned = FineTune(start=start, data=scale.data, recipe=scale.finetune.replace(lr=lr), seed=seed)
    return {
        "occlusion": Occlusion(start=tuned, size=4, ratios=(0.0, 1.0), draws=2, seed=seed),
        "J": Interactions(start=tuned, grid=4, orders=(0.0, 0.5, 1.0), seed=seed),
        "top1": tuned,
    }


def planned(seeds: int = 2) -> Plan:
    study = Study(cell=cell, grid=axes(lr=(0.1, 0.2)), scales=(SCALE,), reference={"lr": 0.1}, name="s")
    return expand(study, seeds=seeds)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def finish(store: Store, run: Any, arrays: dict[str, Any] | bytes) -> None:
    attempt = store.acquire(run)
    assert isinstance(attempt, Attempt)
    path = attempt.artefact("analysis.npz")
    if isinstance(arrays, bytes):
        path.write_bytes(arrays)
    else:
        np.savez_compressed(path, **arrays)
    attempt.finish(dict.fromkeys(run.metrics, 1.0), 1.0)
    attempt.release()


def occluded(random: list[list[float]], salient: list[float]) -> dict[str, Any]:
    return {"ratios": np.array([0.0, 1.0]), "random": np.array(random), "salient": np.array(salient),
            "nonsalient": np.array(salient), "images": np.array(9)}  # fmt: skip


def test_a_curve_is_the_mean_over_seeds_and_its_band_their_deviation(store: Store) -> None:
    plan = planned()
    rows = [row for row in plan.rows if row.axes["lr"] == 0.1]
    finish(store, rows[0].evaluations["occlusion"], occluded([[80.0, 90.0], [10.0, 10.0]], [85.0, 5.0]))
    finish(store, rows[1].evaluations["occlusion"], occluded([[70.0, 72.0], [10.0, 12.0]], [71.0, 7.0]))
    figures, remarks = analysis_figures(plan, store)
    assert remarks == []
    (figure,) = figures
    assert (figure.column, figure.kind, figure.note) == ("occlusion", "occlusion", "standard deviation over seeds")
    random, salient, _ = figure.panels
    (band,) = random.bands  # the other cell has nothing yet
    assert (figure.title, band.label) == ("lr", "0.1")
    assert band.x.tolist() == [0.0, 1.0]
    assert band.y.tolist() == [(85 + 71) / 2, 10.5]
    assert band.spread == pytest.approx([np.std([85, 71], ddof=1), np.std([10, 11], ddof=1)])
    assert salient.bands[0].y.tolist() == [78.0, 6.0]


def test_each_backbone_has_a_panel_with_its_curves_and_the_level_of_interactions() -> None:
    def interacting(strength: list[float]) -> dict[str, Any]:
        return {"orders": np.array([0.0, 1.0]), "strength": np.array(strength), "error": np.array([0.1, 0.1])}

    def both(one: list[float], two: list[float]) -> AnalysisFigure:
        found = [("random", [interacting(one)]), ("A2MIM", [interacting(two)])]
        return figure_of("interactions", found, column="J", title="init")

    made = {"ViT-S": both([2.0, 1.0], [2.5, 1.5]), "ResNet-50": both([1.0, 0.5], [3.0, 0.75])}
    (figure,) = _by_quantity(made)
    with drawing.style():
        drawn = draw(figure)
    assert [panel.get_title() for panel in drawn.axes] == ["ViT-S", "ResNet-50"]
    curves = [[np.asarray(line.get_ydata()).tolist() for line in panel.lines] for panel in drawn.axes]
    assert curves == [[[1.0, 1.0], [2.0, 1.0], [2.5, 1.5]], [[1.0, 1.0], [1.0, 0.5], [3.0, 0.75]]]
    assert len({panel.get_ylim() for panel in drawn.axes}) == 1


def test_a_single_run_has_its_own_band() -> None:
    figure = figure_of(
        "occlusion", [("a", [occluded([[80.0, 90.0], [10.0, 10.0]], [85.0, 5.0])])], column="c", title=""
    )
    assert figure.note == "standard deviation over draws"
    assert figure.panels[0].bands[0].spread == pytest.approx([np.std([80, 90], ddof=1), 0.0])
    assert np.isnan(figure.panels[1].bands[0].spread).all()


def test_beside_seeds_a_single_run_has_no_band_of_another_kind() -> None:
    one, two = occluded([[80.0, 90.0], [10.0, 10.0]], [85.0, 5.0]), occluded([[70.0, 72.0], [10.0, 12.0]], [71.0, 7.0])
    figure = figure_of("occlusion", [("a", [one, two]), ("b", [one])], column="c", title="")
    assert figure.note == "standard deviation over seeds"
    several, single = figure.panels[0].bands
    assert several.spread == pytest.approx([np.std([85, 71], ddof=1), np.std([10, 11], ddof=1)])
    assert np.isnan(single.spread).all()
    assert single.y.tolist() == [85.0, 10.0]


def test_depth_profile_and_spectrum_of_maps_of_different_sizes() -> None:
    nan = np.nan
    arrays = {
        "names": np.array(["a", "b"]), "sides": np.array([6, 4]),
        "amplitude": np.array([[0.0, -1.0, -3.0], [0.0, -2.0, nan]]),
        "error": np.array([[0.0, 0.1, 0.3], [0.0, 0.2, nan]]), "variance": np.array([1.0, 2.0]),
    }  # fmt: skip
    spectrum, depth, variance = figure_of("fourier", [("a", [arrays])], column="c", title="").panels
    assert spectrum.bands[0].x.tolist() == [0.0, 0.5]  # 2 pi / 4 in units of pi
    assert spectrum.bands[0].y.tolist() == [0.0, -2.0]
    assert depth.bands[0].x.tolist() == [0.0, 1.0]
    assert depth.bands[0].y.tolist() == [-3.0, -2.0]
    assert depth.bands[0].spread.tolist() == [0.3, 0.2]
    assert variance.bands[0].y.tolist() == [1.0, 2.0]


def test_every_fill_has_a_curve() -> None:
    fills = np.array(RgbStatistics.fills)
    arrays = {"fills": fills, "histogram": np.full((6, 3, 4), 0.25), "mean": np.full((6, 3), 0.5),
              "variance": np.full((6, 3), 0.25)}  # fmt: skip
    histogram, moments = figure_of("rgb", [("a", [arrays])], column="c", title="").panels
    assert [band.label for band in histogram.bands] == list(RgbStatistics.fills)
    assert histogram.bands[0].x.tolist() == [0.125, 0.375, 0.625, 0.875]
    assert (moments.bands[2].x.tolist(), moments.bands[2].y.tolist()) == ([0.5], [0.25])


def test_what_an_analysis_waits_for_is_named_in_the_table(store: Store) -> None:
    plan = planned(1)
    first, second = plan.rows
    for run, text in ((first.evaluations["top1"], "Traceback\nValueError: no"),):
        attempt = store.acquire(run)
        assert isinstance(attempt, Attempt)
        attempt.fail(text)
        attempt.release()
    running = store.acquire(second.evaluations["top1"])
    assert isinstance(running, Attempt)
    frame = runs_frame(plan, store).set_index(["cell", "evaluation"])
    running.release()
    assert list(frame.loc[(0, "J"), ["state", "reason"]]) == ["blocked", "its fine-tuning failed: ValueError: no"]
    assert list(frame.loc[(0, "top1"), ["state", "reason"]]) == ["failed", "ValueError: no"]
    assert list(frame.loc[(1, "J"), ["state", "reason"]]) == ["missing", "its fine-tuning is running"]


def test_pages_hold_no_more_curves_than_there_are_colours() -> None:
    found = [(str(number), [occluded([[1.0, 2.0], [1.0, 1.0]], [1.0, 1.0])]) for number in range(9)]
    pages = figure_of("occlusion", found, column="c", title="").pages()
    assert [[len(panel.bands) for panel in page.panels] for page in pages] == [[7, 7, 7], [2, 2, 2]]
    with drawing.style():
        assert drawing.png(draw(pages[0])).startswith(b"\x89PNG")


def test_what_a_first_page_leaves_out_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four backbones of fifteen cells have six pages, of which the first has seven cells of three backbones."""
    curve = occluded([[1.0, 2.0], [1.0, 1.0]], [1.0, 1.0])
    one = figure_of("occlusion", [(str(cell), [curve]) for cell in range(15)], column="c", title="")
    (figure, *_) = _by_quantity({f"backbone {number}": one for number in range(4)})
    assert len(figure.pages()) == 6
    monkeypatch.setattr(analyses, "analysis_figures", lambda *_: ([figure], []))
    with drawing.style():
        made, remarks = report_pictures._analyses(planned(1), store, {}, {})
    assert (list(made), remarks) == (["figure-c-random"], ["figure-c-random shows the first 21 of 60."])


def test_a_report_draws_what_is_there_and_names_what_does_not_read(store: Store) -> None:
    plan = planned(1)
    first, second = plan.rows
    finish(store, first.evaluations["occlusion"], occluded([[80.0, 90.0], [10.0, 10.0]], [85.0, 5.0]))
    finish(store, second.evaluations["occlusion"], b"no zip")
    said: dict[str, str] = {}
    files, remarks = report_pictures._analyses(plan, store, {}, said)
    assert list(files) == ["figure-occlusion-occlusion"]
    assert len(remarks) == 1
    assert "do not read" in remarks[0]
    text = said["figure-occlusion-occlusion"]
    assert text.startswith("occlusion: accuracy over the share of dropped patches; A2MIM publishes its curves without")
