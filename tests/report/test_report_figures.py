"""What figures show, asserted as data; drawing, smoke-tested."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fake_study import (
    begin,
    evaluation,
    fail,
    finish,
    finish_all,
    half_finished,
    loss_log,
    pictures,
    scope_cell,
    scope_plan,
)
from matplotlib.collections import LineCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from harness.papers import PaperTable, PublishedValue
from harness.report.collect import arms, runs_frame
from harness.report.figures import drawing, gallery
from harness.report.figures import pictures as report_pictures
from harness.report.figures.data import Curve, Point, axis_figures, cell_labels, cells_figures, curves
from harness.report.labels import Words
from harness.report.tables.statistics import summary
from harness.spec import Evaluation, Scalar, Scale, upstream
from harness.store import Store
from harness.study import Plan, around, axes

PNG = b"\x89PNG"


def _frames(plan: Plan, store: Store) -> tuple[pd.DataFrame, pd.DataFrame, Words]:
    runs = runs_frame(plan, store)
    cells = summary(plan, runs)
    return runs, cells, Words.of(plan, cells)


def _drawn(figure: Figure) -> bytes:
    return drawing.png(figure)


def test_lines_controls_and_paper_over_a_numeric_axis(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    finish_all(store, plan, lambda row: 80.0 + 2 * row.seed - 10 * (row.axes["scope"] == "scratch"))
    (figure,) = axis_figures(*_frames(plan, store))
    assert (figure.axis, figure.evaluation, figure.title, figure.log) == ("mask_ratio", "top1", "scope", False)
    assert (figure.over, figure.measure) == ("mask ratio", "top-1 accuracy (%)")
    assert [line.label for line in figure.lines] == ["masked", "full"]
    assert figure.values == (0.4, 0.6)
    first = figure.lines[0].points[0]
    assert (first.x, first.mean, first.seeds, first.paper) == (0.4, 81.0, (80.0, 82.0), 82.5)
    assert first.sd == pytest.approx(math.sqrt(2))
    assert [point.hole for point in figure.lines[0].points] == ["", "", "excluded"]
    assert [(point.label, point.mean) for point in figure.controls] == [("scratch", 71.0)]
    assert [point.reference for point in figure.lines[0].points] == [False, True, False]
    assert figure.absent == "2 excluded"
    assert figure.shows_paper
    assert cells_figures(*_frames(plan, store)) == []
    with drawing.style():
        drawn = drawing.draw_axis(figure)
        assert _drawn(drawn).startswith(PNG)
        assert drawing.svg(drawn).startswith(b"<?xml")
    ours = drawn.axes[0]
    assert ours.get_xlabel() == "mask ratio"
    assert ours.get_ylabel() == "top-1 accuracy (%)\nmean ± sd (n = 2)"
    # The means stand where the table has them, beside each other by at most a twentieth of the axis.
    bars = [found.lines[0] for found in ours.containers if isinstance(found, ErrorbarContainer)]
    for bar in bars:
        x, y = (np.asarray(values, dtype=float)[:2] for values in (bar.get_xdata(), bar.get_ydata()))
        assert y.tolist() == [81.0, 81.0]
        assert np.abs(x - np.array([0.4, 0.6])).max() < 0.05 * 0.2
    assert len(bars) == 2


def test_what_the_paper_has_of_a_control_is_a_level_that_looks_like_ours(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    finish_all(store, plan)
    (figure,) = axis_figures(*_frames(plan, store))
    (control,) = figure.controls
    for unverified in (False, True):
        known = replace(control, paper=80.25, unverified=unverified)
        drawn = drawing.draw_axis(replace(figure, controls=(known,)))
        ours, theirs = ([line for line in panel.lines if line.get_label() == "scratch"] for panel in drawn.axes)
        assert [(line.get_linestyle(), line.get_color()) for line in theirs] == [
            (line.get_linestyle(), line.get_color()) for line in ours
        ]
        assert np.asarray(theirs[0].get_ydata()).tolist() == [80.25, 80.25]
        assert _legend(drawn).count("scratch") == 1
        signs = [line for line in drawn.axes[1].lines if np.asarray(line.get_ydata()).tolist() == [80.25]]
        assert [line.get_label() for line in signs] == ["unverified"] * unverified


def test_a_numeric_axis_alone_is_one_line_and_no_axis_a_point(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plan = scope_plan(cell=_named_cell, grid=axes(depth=(1, 2, 4)), reference={"depth": 1}, paper=None)
    finish_all(store, plan)
    (figure,) = axis_figures(*_frames(plan, store))
    assert [[point.x for point in line.points] for line in figure.lines] == [[1, 2, 4]]
    only = scope_plan(cell=_named_cell, grid=axes(), reference={}, paper=None)
    finish_all(store, only)
    (beside,) = cells_figures(*_frames(only, store))
    assert len(beside.points) == 1


def test_figures_begin_with_the_first_value_and_lines_with_theirs(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan(paper=None)
    assert axis_figures(*_frames(plan, store)) == []
    assert cells_figures(*_frames(plan, store)) == []
    half_finished(store, plan)
    (figure,) = axis_figures(*_frames(plan, store))
    assert figure.absent == "1 blocked, 2 excluded, 1 missing"
    assert [line.label for line in figure.lines] == ["masked"]  # "full" has no value yet
    with drawing.style():
        drawn = drawing.draw_axis(figure)
        assert drawing.pdf(drawn).startswith(b"%PDF")
    assert _legend(drawn) == ["masked", "scratch", "reference"]


def test_faint_points_are_pretrainings_not_their_repeats(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan(repeats=2)
    finish_all(store, plan, lambda row: 80.0 + 4 * (row.seed % 2) + row.repeat)
    (figure,) = axis_figures(*_frames(plan, store))
    point = figure.lines[0].points[0]
    assert point.seeds == (80.5, 84.5)
    assert point.mean == 82.5
    assert point.sd == pytest.approx(math.sqrt(8))
    with drawing.style():
        axes = drawing.draw_axis(figure).axes[0]
    assert axes.get_ylabel().endswith("mean ± sd (n = 2)")
    faint = [line for line in axes.lines if line.get_marker() == "."]
    assert [_signs(line)[1] for line in faint[:2]] == [[80.5, 84.5]] * 2


KINDS = axes(kind=("random", "blocks"), size=(16, 8), ratio=(0.4, 0.6)) | axes(kind="square", size=16, ratio=(0.1, 0.4))
TABLE = PaperTable(
    "made_up_table",
    "top1",
    tuple(
        ({"kind": kind, "size": size, "ratio": ratio}, PublishedValue(value, "image", "by hand"))
        for kind, size, ratio, value in (
            ("random", "8", "0.4", 81.0), ("random", "8", "0.6", 82.0), ("square", "16", "0.1", 80.5),
            ("square", "16", "0.4", 80.0),
        )
    ),
)  # fmt: skip


def test_an_svg_does_not_show_the_last_bits_of_a_processor() -> None:
    def drawn(left: float) -> str:
        with drawing.style():
            figure = Figure()
            axes = figure.add_axes((left, 0.2, 0.7, 0.7))
            axes.plot([0, 1], [0.3, 0.6], marker="o")
            axes.imshow(np.eye(3))
            return drawing.svg(figure).decode()

    one, two, other = drawn(0.1), drawn(float(np.nextafter(0.1, 1))), drawn(0.2)
    assert one == two != other
    named = re.findall(r'id="((?:p|m|image)[0-9a-f]{9,})"', one)
    used = set(re.findall(r'(?:url\(#|href="#)(\w+)', one))
    assert used <= set(named)
    assert len(set(named)) == len(named)
    assert not set(named) & set(re.findall(r'id="(\w+)"', other))


def test_a_category_has_panels_with_shared_axes_and_one_legend(tmp_path: Path) -> None:
    reference: dict[str, Scalar] = {"kind": "random", "size": 16, "ratio": 0.6}
    plan, store = scope_plan(cell=_named_cell, grid=KINDS, reference=reference, paper=TABLE), Store(tmp_path)
    finish_all(store, plan, lambda row: 70 + row.axes["size"] / 4 + 10 * row.axes["ratio"])
    (figure,) = [found for found in axis_figures(*_frames(plan, store)) if found.axis == "ratio"]
    assert (figure.panels, figure.labels, figure.title) == (("random", "blocks", "square"), ("8", "16"), "size")
    with drawing.style():
        drawn = drawing.draw_axis(figure)
    above, below = drawn.axes[:3], drawn.axes[3:]
    assert [panel.get_title() for panel in drawn.axes] == ["random", "blocks", "square", "", "", ""]
    assert drawn.get_size_inches()[0] == drawing.TWO
    drawn.draw_without_rendering()
    assert above[0].yaxis.label.get_window_extent().height < above[0].bbox.height
    for row in (above, below):
        assert len({panel.get_ylim() for panel in row}) == 1
    assert len({panel.get_xlim() for panel in drawn.axes}) == 1
    drawn_lines = [
        [
            (line.get_color(), [float(y) for y in np.asarray(line.get_ydata())])
            for line in (bars.lines[0] for bars in panel.containers if isinstance(bars, ErrorbarContainer))
        ]
        for panel in above
    ]
    eight, sixteen = (drawing.COLOURS[0], [76.0, 78.0]), (drawing.COLOURS[1], [78.0, 80.0])
    assert drawn_lines == [[eight, sixteen], [eight, sixteen], [(drawing.COLOURS[1], [75.0, 78.0])]]
    theirs = [[_signs(line) for line in panel.lines if line.get_linestyle() == "None"] for panel in below]
    assert theirs == [[([0.4, 0.6], [81.0, 82.0])], [], [([0.1, 0.4], [80.5, 80.0])]]
    assert _legend(drawn) == ["8", "16", "reference"]


def test_a_value_that_only_the_paper_has_is_on_the_axis_and_the_longest_axis_first(tmp_path: Path) -> None:
    def cell(scale: Scale, seed: int, size: int, ratio: float) -> dict[str, Evaluation]:
        return scope_cell(scale, "masked", 0.99 if size == 4 else ratio + size / 1000, seed)

    rows = [(4, 0.4, 80.0), (4, 0.5, 80.5), (8, 0.4, 81.0), (8, 0.5, 82.0)]
    table = PaperTable(
        "made_up_table",
        "top1",
        tuple(
            ({"size": str(size), "ratio": str(ratio)}, PublishedValue(value, "image", "by hand"))
            for size, ratio, value in rows
        ),
    )
    grid = axes(size=(4, 8), ratio=(0.4, 0.5, 0.6))
    plan, store = scope_plan(cell=cell, grid=grid, reference={"size": 8, "ratio": 0.4}, paper=table), Store(tmp_path)
    finish_all(store, plan)
    over_ratio, over_size = axis_figures(*_frames(plan, store))
    assert (over_ratio.axis, over_ratio.values) == ("ratio", (0.4, 0.5, 0.6))
    assert (over_size.axis, over_size.values) == ("size", (4.0, 8.0))
    with drawing.style():
        drawn = drawing.draw_axis(over_ratio)
    # The line that only the paper has comes first where its label is the least.
    assert _legend(drawn) == ["4", "8", "reference"]
    theirs = [_signs(line) for line in drawn.axes[1].lines if line.get_linestyle() == "None"]
    assert theirs == [([0.4, 0.5], [80.0, 80.5]), ([0.4, 0.5], [81.0, 82.0])]


def test_backbones_have_panels_of_their_own_and_name_the_files(tmp_path: Path) -> None:
    grid = axes(backbone=("a", "b", "c", "d"), method=("x", "yyy"))
    plan = scope_plan(cell=_named_cell, grid=grid, reference={"backbone": "a", "method": "x"}, paper=None)
    store = Store(tmp_path)
    finish_all(store, plan, lambda row: 80.0 + 2 * (row.axes["method"] == "yyy") + ord(row.axes["backbone"]))
    runs, cells, words = _frames(plan, store)
    (figure,) = cells_figures(runs, cells, words)
    first, second = figure.pages(40)
    assert [(page.name, page.panels) for page in (first, second)] == [("a, b, c", ("a", "b", "c")), ("d", ("d",))]
    with drawing.style():
        drawn = drawing.draw_cells(first)
    names = [name for name in report_pictures.figures(plan, store) if "curves" not in name]
    assert [panel.get_title(loc="left") for panel in drawn.axes] == ["a", "b", "c"]
    assert len({panel.get_xlim() for panel in drawn.axes}) == 1
    places = [[text.get_text() for text in panel.get_yticklabels()] for panel in drawn.axes]
    assert places == [["x", "yyy"]] * 3
    means = [
        [
            float(np.asarray(bars.lines[0].get_xdata())[0])
            for bars in panel.containers
            if isinstance(bars, ErrorbarContainer)
        ]
        for panel in drawn.axes
    ]
    assert means == [[177.0, 179.0], [178.0, 180.0], [179.0, 181.0]]
    assert names == ["figure-top1-cells-a_b_c", "figure-top1-cells-d"]


def _signs(line: Any) -> tuple[list[float], list[float]]:
    return [float(x) for x in line.get_xdata()], [float(y) for y in line.get_ydata()]


def _legend(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def _named_cell(scale: Scale, seed: int, **point: object) -> dict[str, Evaluation]:
    ratio = (1 + sum(map(ord, repr(sorted(point.items())))) % 800) / 1000
    return scope_cell(scale, "masked", ratio, seed)


def test_cells_side_by_side_where_no_axis_is_numeric(tmp_path: Path) -> None:
    plan = scope_plan(
        cell=_named_cell, grid=axes(head=("linear", "$mlp$ 中" + "x" * 90)), reference={"head": "linear"}, paper=None
    )
    store = Store(tmp_path)
    finish_all(store, plan, lambda row: 80.0)
    fail(store, evaluation(scope_plan(seeds=9), 8, scope="full", mask_ratio=0.6), "unrelated")
    frames = _frames(plan, store)
    assert axis_figures(*frames) == []
    (figure,) = cells_figures(*frames)
    assert figure.title == "head"
    assert [point.mean for point in figure.points] == [80.0, 80.0]
    with drawing.style():
        assert _drawn(drawing.draw_cells(figure)).startswith(PNG)


def test_one_factor_at_a_time(tmp_path: Path) -> None:
    reference: dict[str, Scalar] = {"head": "linear", "depth": 2}
    grid = around(reference, head=("linear", "mlp"), depth=(1, 2, 4, 16))
    plan = scope_plan(cell=_named_cell, grid=grid, reference=reference, paper=None)
    store = Store(tmp_path)
    finish_all(store, plan)
    frames = _frames(plan, store)
    (over,) = axis_figures(*frames)
    assert over.log
    assert [[point.x for point in line.points] for line in over.lines] == [[1, 2, 4, 16]]
    (beside,) = cells_figures(*frames)
    assert [point.label for point in beside.points] == [
        "reference (linear, 2)", "head mlp", "depth 1", "depth 4", "depth 16",
    ]  # fmt: skip


def test_what_stands_at_one_value_only_is_said_to_be_left_out(tmp_path: Path) -> None:
    """Of five cells that of the scope full has no second depth: one is not drawn over the depth."""
    reference: dict[str, Scalar] = {"head": "linear", "depth": 2}
    plan = scope_plan(
        cell=_named_cell,
        grid=around(reference, head=("linear", "mlp"), depth=(1, 2, 4)),
        reference=reference,
        paper=None,
    )
    store = Store(tmp_path)
    finish_all(store, plan)
    (figure,) = axis_figures(*_frames(plan, store))
    assert figure.aside == 1
    with drawing.style():
        text = drawing.draw_axis(figure).get_suptitle()
    assert text == "not drawn: 1 that would be single points"


def test_the_deviations_of_many_controls_stand_beside_each_other() -> None:
    """Three levels of 1, 2 and 3 with deviations of a tenth: bars from 0.9 to 1.1 and so on, at places of their own."""

    def level(value: float) -> Point:
        return Point(
            x=0.0, label=f"board {value:g}", mean=value, sd=value / 10, seeds=(), hole="", reference=False,
            paper=math.nan, unverified=False,
        )  # fmt: skip

    with drawing.style():
        axes = Figure().subplots()
        drawing._draw_controls(axes, [level(1.0), level(2.0), level(3.0)], 1)
    bars = [part for found in axes.collections if isinstance(found, LineCollection) for part in found.get_segments()]
    assert [list(segment[:, 1]) for segment in bars] == [
        pytest.approx([0.9, 1.1]), pytest.approx([1.8, 2.2]), pytest.approx([2.7, 3.3]),
    ]  # fmt: skip
    assert len({float(segment[0, 0]) for segment in bars}) == 3


def test_the_heading_of_reconstructions_fits_the_picture() -> None:
    images = np.zeros((4, 3, 8, 8, 1), dtype=np.uint8)
    found = [gallery.Triplets(label=label, images=images + shade) for shade, label in enumerate(("a", "b"))]
    with drawing.style():
        figure = gallery.draw(found, "mask type, masked patch size (px of 192), mask ratio")
        heading = figure.texts[0]
        figure.draw_without_rendering()
        box = heading.get_window_extent()
    assert heading.get_text().replace("\n", " ").endswith("masked patch size (px of 192), mask ratio")
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= figure.axes[0].get_window_extent().y1


def test_many_lines_go_on_several_pages(tmp_path: Path) -> None:
    plan = scope_plan(
        cell=_named_cell, grid=axes(arm=tuple("abcdefghij"), size=(1, 2)), reference={"arm": "a", "size": 1},
        paper=None,
    )  # fmt: skip
    runs, cells, words = _frames(plan, Store(tmp_path))
    done = cells.assign(n=1, mean=80.0)
    (figure,) = [found for found in axis_figures(runs, done, words) if found.axis == "size"]
    assert [len(page.lines) for page in figure.pages()] == [7, 3]


def test_labels() -> None:
    points: list[dict[str, Scalar]] = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}, {"a": None, "b": None}]
    assert cell_labels(points) == ("a, b", ["1, x", "2, y", "control"])
    assert cell_labels(points[:1]) == ("", [""])
    assert cell_labels([]) == ("", [])
    arms: list[dict[str, Scalar]] = [{"a": 1, "arm": "x"}, {"a": 1, "arm": "y"}, {"a": None, "arm": "z"}]
    assert cell_labels(arms) == ("arm", ["x", "y", "z"])
    assert cell_labels([*arms, arms[0]]) == ("arm", ["x", "y", "z", "x"])  # beside the one that it is compared with


def test_learning_curves_average_the_seeds(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    runs = [upstream(evaluation(plan, seed, scope="full", mask_ratio=0.4)) for seed in (0, 1)]
    assert runs[0] is not None
    assert runs[1] is not None
    odd = {"step": 9, "epoch": 9.0, "loss": float("nan")}
    finish(store, runs[0], {"loss": 1.0}, log=[{"step": 1, "epoch": 0.5, "loss": 1.0}, odd, {"note": "x"}])
    live = begin(store, runs[1])
    live.log({"step": 1, "epoch": 0.5, "loss": 2.0, "lr": 0.1})
    live.log({"step": 2, "epoch": 1.0, "loss": 1.0, "lr": 0.1})
    found = arms(plan)
    (curve,) = curves(found, [str(number) for number in range(len(found))], store)
    live.release()
    assert (curve.label, curve.epochs, curve.losses, curve.seeds) == ("2", (0.5,), (1.5,), 2)
    with drawing.style():
        assert _drawn(drawing.draw_curves([curve], "scope")).startswith(PNG)


def test_a_long_title_of_the_legend_is_broken_into_lines_that_fit() -> None:
    title = "mask type, masked patch size (px of 192), mask ratio, decoder depth"
    curve = Curve(label="random, 32, 0.5, 1", epochs=(1.0, 2.0), losses=(2.0, 1.0), seeds=1)
    with drawing.style():
        figure = drawing.draw_curves([curve], title)
        figure.draw_without_rendering()
    told = figure.legends[0].get_title()
    assert " ".join(told.get_text().split("\n")) == title
    extent = told.get_window_extent()
    assert 0 <= extent.x0 < extent.x1 <= figure.bbox.width


def test_epochs_have_whole_ticks() -> None:
    curve = Curve(label="2", epochs=(1.0, 2.0, 3.0), losses=(3.0, 2.0, 1.0), seeds=1)
    figure = drawing.draw_curves([curve], "scope")
    ticks = figure.axes[0].get_xticks()
    assert all(tick == round(tick) for tick in ticks)
    assert {1.0, 2.0, 3.0} <= set(ticks)


def test_gallery_shows_the_first_finished_seed_and_skips_damage(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    made = [
        ((0, "masked", 0.4), pictures(0, channels=1)),
        ((1, "masked", 0.6), pictures(1, count=2)),
        ((0, "full", 0.4), {"original": pictures(0)["original"].astype(float)}),
    ]
    for (seed, scope, ratio), arrays in made:
        run = upstream(evaluation(plan, seed, scope=scope, mask_ratio=ratio))
        assert run is not None
        finish(store, run, {"loss": 1.0}, log=loss_log(0), pictures=arrays)
    found, remarks = gallery.gallery(arms(plan), ["a", "b", "c", "d"], store)
    assert [(arm.label, arm.images.shape) for arm in found] == [("a", (4, 3, 32, 32, 1)), ("b", (2, 3, 32, 32, 3))]
    made_up = pictures(0, channels=1)
    assert (found[0].images[0, 0] == made_up["original"][0]).all()
    # Where nothing was hidden the prediction shows the image itself.
    hidden = made_up["hidden"][0]
    assert (found[0].images[0, 2][hidden] == made_up["predicted"][0][hidden]).all()
    assert (found[0].images[0, 2][~hidden] == made_up["original"][0][~hidden]).all()
    assert len(remarks) == 1
    assert "should be uint8" in remarks[0]
    with drawing.style():
        assert _drawn(gallery.draw(found, "scope")).startswith(PNG)
    assert [len(page) for page in gallery.pages([found[0]] * 25)] == [12, 12, 1]


def test_gallery_shows_one_image_a_class_and_what_arms_share_once(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    made = pictures(0, channels=1)
    for ratio, change in ((0.4, 0), (0.6, 5)):
        run = upstream(evaluation(plan, 0, scope="masked", mask_ratio=ratio))
        assert run is not None
        kept = {**made, "predicted": made["predicted"] + np.uint8(change), "labels": np.array([9, 2, 2, 9, 1, 0])}
        finish(store, run, {"loss": 1.0}, pictures=kept)
    found, _ = gallery.gallery(arms(plan)[:2], ["a", "b"], store)
    assert [(arm.images[:, 0] == made["original"][[0, 1, 4, 5]]).all() for arm in found] == [True, True]
    with drawing.style():
        drawn = gallery.draw(found, "scope")
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["original, masked", "a", "b"]
    shared, first, second = (np.asarray(axes.images[0].get_array()) for axes in drawn.axes)
    # Four images of 32 px with white lines of 2 px between them.
    assert (shared.shape, first.shape) == ((66, 134), (32, 134))
    assert (shared[34:, 34:66] == made["masked"][1, ..., 0]).all()
    hidden = made["hidden"][5]
    assert (second[:, 102:][hidden] == made["predicted"][5, ..., 0][hidden] + 5).all()
    assert (second[:, 102:][~hidden] == made["original"][5, ..., 0][~hidden]).all()


def test_the_users_style_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 23)
    with drawing.style():
        assert matplotlib.rcParams["font.size"] == 8
    assert matplotlib.rcParams["font.size"] == 23
