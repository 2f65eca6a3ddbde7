"""Grids, cells, plans, and loading a study file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness import claims
from harness.cli.common import selection
from harness.papers import simmim
from harness.spec import (
    Backbone,
    Evaluation,
    FineTune,
    HarnessError,
    Knn,
    RandomMask,
    Recipe,
    Scale,
    Scratch,
    Shapes,
    Skip,
    key,
)
from harness.study import Grid, Study, around, axes, expand, load, zipped
from harness.study.file import line_of

RECIPE = Recipe(epochs=1, batch_size=8, lr=1e-3)


def scale(name: str = "small", image_size: int = 48) -> Scale:
    return Scale(
        name=name,
        data=Shapes(image_size=image_size),
        image_size=image_size,
        backbone=Backbone(name="vit_tiny", patch_size=4),
        pretrain=RECIPE,
        finetune=RECIPE,
    )


def cell(scale: Scale, size: int | None, ratio: float | None, seed: int) -> dict[str, Evaluation]:
    """A mask size and a ratio; without either, from scratch."""
    if size is None or ratio is None:
        start: Any = Scratch(backbone=scale.backbone, image_size=scale.image_size)
    else:
        start = simmim(scale, mask=RandomMask(size=scale.pixels(size), ratio=ratio), seed=seed)
    return {
        "top1": FineTune(start=start, data=scale.data, recipe=scale.finetune, seed=seed),
        "knn": Knn(start=start, data=scale.data, seed=seed),
    }


def study(**changes: Any) -> Study:
    plain = {
        "cell": cell,
        "grid": axes(size=(32, 4), ratio=(0.4, 0.6)) | Grid([{"size": None}]),
        "scales": (scale(), scale("paper", 192)),
        "reference": {"size": 32, "ratio": 0.6},
        "seeds": 2,
        "name": "sizes",
    }
    return Study(**{**plain, **changes})


# Grids


def test_axes_are_a_product_the_first_axis_slowest() -> None:
    assert list(axes(a=(1, 2), b=("x", "y"), c=None)) == [
        {"a": 1, "b": "x", "c": None},
        {"a": 1, "b": "y", "c": None},
        {"a": 2, "b": "x", "c": None},
        {"a": 2, "b": "y", "c": None},
    ]


def test_zipped_axes_go_together() -> None:
    assert list(zipped(a=(1, 2), b=(10, 20))) == [{"a": 1, "b": 10}, {"a": 2, "b": 20}]


def test_around_changes_one_factor_at_a_time() -> None:
    grid = around({"a": 1, "b": 2}, a=(1, 5), b=(2, 6, 7))
    assert list(grid) == [{"a": 1, "b": 2}, {"a": 5, "b": 2}, {"a": 1, "b": 6}, {"a": 1, "b": 7}]


def test_a_union_keeps_the_order_and_drops_what_is_there_already() -> None:
    assert list(axes(a=(1, 2)) | axes(a=(2, 3))) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_product_crosses_grids() -> None:
    grid = zipped(a=(1, 2), b=(3, 4)) * axes(c=(5, 6))
    assert [tuple(point.values()) for point in grid] == [(1, 3, 5), (1, 3, 6), (2, 4, 5), (2, 4, 6)]
    assert grid.axes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: axes(a=(1, 2, 1)), "axis a repeats the value 1"),
        (lambda: axes(a=(0.5, 0.5)), "axis a repeats the value 0.5"),
        (lambda: axes(a=()), "axis a has no value"),
        (lambda: axes(a=([1],)), r"axis a should hold plain values, not \[1\]"),  # type: ignore[arg-type]
        (lambda: zipped(a=(1, 2), b=(1,)), "differ in length.*'a': 2, 'b': 1"),
        (lambda: zipped(a=(1, 1), b=(2, 2)), "repeat a pair"),
        (lambda: around({"a": 1}, b=(1, 2)), "b is no axis of the reference"),
        (lambda: around({"a": 1}, a=(1, 2, 2)), "axis a repeats the value 2"),
        (lambda: axes(a=1) * axes(a=2), "repeats the axis a"),
        (lambda: axes(a=(1, "1")), "axis a has two values that read alike: 1 and '1'"),
        (lambda: axes(a=(1, 2)) | axes(a="1"), "axis a has two values that read alike: 1 and '1'"),
        (lambda: axes(a=1) | axes(a=True), "axis a has two values that read alike: 1 and True"),
        (lambda: zipped(a=(1, 1.0), b=(2, 3)), "axis a has two values that read alike: 1 and 1.0"),
        (lambda: around({"a": 1, "b": 0.0}, b=False), "axis b has two values that read alike: 0.0 and False"),
        (lambda: Grid([{"a": None}, {"a": "None"}]), "axis a has two values that read alike: None and 'None'"),
    ],
)
def test_grids_that_cannot_be_meant_are_refused(build: Any, message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        build()


# Studies


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scales": ()}, "at least one scale"),
        ({"scales": (scale("paper"), scale())}, "the first scale is the default.*paper"),
        ({"scales": scale()}, "a tuple of scales"),
        ({"scales": (scale(), scale())}, "the same name: small, small"),
        ({"seeds": 0}, "1 or more, not 0"),
        ({"repeats": 0}, "repeats should be a whole number from 1 to 1,000, not 0"),
        ({"repeats": 2.0}, "repeats should be a whole number"),
        ({"first_seed": -1}, "first_seed should be a whole number from 0 to 100,000, not -1"),
        ({"first_seed": 0.5}, "first_seed should be a whole number"),
        ({"first_seed": True}, "first_seed should be a whole number"),
        ({"first_seed": "10"}, "first_seed should be a whole number"),
        ({"reference": {"size": 32, "ratio": 0.9}}, "is no cell of the grid; ratio has 0.4, 0.6, None"),
        ({"reference": {"size": 32}}, "is no cell of the grid; one like it is {'size': 32, 'ratio': 0.4}"),
        ({"reference": {"size": 32, "ratio": 0.6, "raito": 1}}, "no axis with 'raito'.*size, ratio"),
        ({"grid": axes(size=32, ratio=0.6, seed=(1, 2))}, "seed is no axis"),
        ({"reference": {"size": 32.0, "ratio": 0.6}}, "axis size has two values that read alike: 32 and 32.0"),
        ({"grid": axes(size=32, ratio=0.6, scale="x")}, "scale is no axis"),
        ({"name": "../../etc"}, "no name for a study"),
        ({"name": "a\\b"}, "no name for a study"),
        ({"name": ".."}, "no name for a study"),
        ({"name": "a\x1b[31mb"}, "no name for a study"),
        ({"claims": (claims.better("x", {"size": 32}, {"size": 33}),)}, "claim 'x': no cell has {'size': 33}"),
        ({"claims": (claims.better("x", {"size": 32}, {"szie": 4}),)}, "no axis with 'szie'; this study has size"),
        (
            {"claims": (claims.same("x", {"size": 32}, {"size": 4}, at={"ratio": 0.5}),)},
            "no cell has {'ratio': 0.5, 'size': 32}",
        ),
        ({"claims": (claims.no_worse("x", claims.best(size=5), claims.best(size=4)),)}, "no cell has {'size': 5}"),
        ({"claims": (claims.inner_maximum("x", axis="raito"),)}, "no axis with 'raito'"),
        ({"claims": (claims.inner_maximum("x", axis="ratio", at={"size": 5}),)}, "no cell has {'size': 5}"),
    ],
)
def test_studies_that_cannot_be_meant_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HarnessError, match=message) as caught:
        study(**changes)
    assert "\n" not in str(caught.value)


def test_a_selection_that_leaves_no_cell_is_refused() -> None:
    """Each value is there, and no cell has both."""
    with pytest.raises(HarnessError, match="no cell has size=4 and ratio=None"):
        expand(study(), where={"size": ["4"], "ratio": ["None"]})


def test_the_first_scale_is_the_default() -> None:
    assert expand(study()).scale.name == "small"
    assert expand(study(), scale="paper").scale.name == "paper"
    with pytest.raises(HarnessError, match="no scale 'papre'; this study has small, paper"):
        expand(study(), scale="papre")


def test_cells_are_completed_with_none() -> None:
    assert study().cells[-1] == {"size": None, "ratio": None}
    assert [list(point) for point in study().cells] == [["size", "ratio"]] * 5


def test_lacking_an_axis_and_having_none_there_is_the_same_cell() -> None:
    grid = axes(size=32, ratio=0.6) | Grid([{"size": None}, {"ratio": None}, {"size": None, "ratio": None}])
    assert study(grid=grid).cells == [{"size": 32, "ratio": 0.6}, {"size": None, "ratio": None}]


def test_a_skip_excludes_the_cell_with_its_reason() -> None:
    def returns(scale: Scale, size: int | None, ratio: float | None, seed: int) -> Any:
        return Skip("too small") if size == 4 else cell(scale, size, ratio, seed)

    for function, reason in (
        (cell, "4 px is 1 px at 48 px, smaller than one 4-px patch of vit_tiny"),  # raised
        (returns, "too small"),
    ):
        rows = expand(study(cell=function)).rows
        assert [row.excluded for row in rows] == [""] * 4 + [reason] * 4 + [""] * 2
        assert all(bool(row.evaluations) is not bool(row.excluded) for row in rows)


def test_rows_are_cells_times_seeds() -> None:
    rows = expand(study(), seeds=3).rows
    assert [row.seed for row in rows] == [0, 1, 2] * 5
    assert [row.evaluations["top1"].seed for row in rows if row.evaluations] == [0, 1, 2] * 3


def test_seeds_count_from_the_first_and_are_labels() -> None:
    later, plain = expand(study(first_seed=3)), expand(study(), seeds=5)
    assert [row.seed for row in later.rows] == [3, 4] * 5
    assert list(later.rows) == [row for row in plain.rows if row.seed in (3, 4)]
    assert set(later.runs()) <= set(plain.runs())
    by_scale = study(scales=(scale(), scale("paper", 192).replace(first_seed=10)))
    assert scale().digest == scale().replace(first_seed=0).digest
    assert [expand(by_scale, scale=name, seeds=1).rows[0].seed for name in ("small", "paper")] == [0, 10]
    assert [row.seed for row in expand(later.study, seeds=1).rows] == [row.seed for row in later.firsts()] == [3] * 5


def test_fine_tunings_nested_in_a_pre_training_are_rows_of_its_seed() -> None:
    plain, nested = expand(study()), expand(study(repeats=3))
    assert [row for row in nested.rows if not row.repeat] == list(plain.rows)
    assert set(plain.runs()) < set(nested.runs())
    assert nested.firsts() == plain.firsts()
    counts = Counter(run.kind for run in nested.runs().values())
    assert counts == Counter(run.kind for run in plain.runs().values()) | {"finetune": 2 * 2 * 3 + 2}
    rows = [row for row in nested.rows if row.seed == 1 and row.axes == study().complete(study().reference)]
    assert [(row.repeat, list(row.evaluations), row.evaluations["top1"].seed) for row in rows] == [
        (0, ["top1", "knn"], 1), (1, ["top1"], 2001), (2, ["top1"], 2002),
    ]  # fmt: skip
    assert len({row.evaluations["top1"].start.digest for row in rows}) == 1
    scratch = [row for row in nested.rows if row.axes["size"] is None]
    assert [row.repeat for row in scratch] == [0, 0]


def test_a_shared_pre_training_is_one_run_before_its_evaluations() -> None:
    plan = expand(study(), scale="paper")
    runs = plan.runs()
    kinds = [run.kind for run in runs.values()]
    # 2 sizes x 2 ratios x 2 seeds are pre-trained, each fine-tuned and probed; from scratch adds 2 evaluations a seed
    assert (kinds.count("pretrain"), kinds.count("finetune"), kinds.count("knn")) == (8, 10, 10)
    places = {name: place for place, name in enumerate(runs)}
    for row in plan.rows:
        for evaluation in row.evaluations.values():
            if not isinstance(evaluation.start, Scratch):
                assert places[key(evaluation.start)] < places[key(evaluation)]  # type: ignore[arg-type]
    assert plan.columns() == ("top1", "knn")


def test_where_keeps_cells_by_text_or_value() -> None:
    by_text = expand(study(), where={"size": ["32"], "ratio": ["0.4"]}, seeds=1)
    by_value = expand(study(), where={"size": [32], "ratio": [0.4]}, seeds=1)
    assert [row.axes for row in by_text.rows] == [row.axes for row in by_value.rows] == [{"size": 32, "ratio": 0.4}]
    both = expand(study(), where={"ratio": ["0.4", "None"]}, seeds=1)
    assert [row.axes["ratio"] for row in both.rows] == [0.4, 0.4, None]


@given(st.lists(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), min_size=1))
def test_where_can_name_every_value(values: list[Any]) -> None:
    try:
        grid = Grid([{"size": value} for value in values])
    except HarnessError:
        return  # they read alike
    sizes = study(grid=grid, reference={"size": values[0]}, cell=lambda scale, size, seed: Skip("none"))
    for cell in grid:
        assert [row.axes for row in expand(sizes, where=selection([f"size={cell['size']}"]), seeds=1).rows] == [cell]


def test_where_takes_several_values_between_commas_where_no_value_is_that_text() -> None:
    grid = axes(size=("a", "b", "a,b", " x=1, y"))
    sizes = study(grid=grid, reference={"size": "a"}, cell=lambda scale, size, seed: Skip("none"))

    def named(*where: str) -> list[Any]:
        return [row.axes["size"] for row in expand(sizes, where=selection(where), seeds=1).rows]

    assert named("size=a,b") == ["a,b"]
    assert named("size=b, a") == named("size=a", "size=b") == ["a", "b"]
    assert named("size= x=1, y", "size=b") == ["b", " x=1, y"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": {"raito": ["1"]}}, "no axis 'raito'; this study has size, ratio"),
        ({"where": {"ratio": ["0.5"]}}, "axis ratio has no value '0.5'; it has 0.4, 0.6, None"),
        ({"seeds": 0}, "seeds should be 1 or more, not 0"),
        ({"seeds": -1}, "seeds should be 1 or more, not -1"),
    ],
)
def test_selections_that_cannot_be_meant_are_refused(options: Any, message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        expand(study(), **options)


def _raise(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda scale, size, ratio, seed: {}, r"cell \(size=32, ratio=0.4\): should return evaluations"),
        (lambda scale, size, ratio, seed: 3, "should return evaluations by name, not 3"),
        (lambda scale, size, ratio, seed: {"a": RECIPE}, "'a' should be an evaluation such as FineTune"),
        (lambda scale, size, seed: {}, "unexpected keyword argument 'ratio'"),
        (lambda scale, size, ratio, seed: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda scale, size, ratio, seed: [][1], "IndexError: list index out of range"),
        (lambda scale, size, ratio, seed: _raise(RuntimeError("two\nlines")), "RuntimeError: two lines"),
        (lambda scale, size, ratio, seed: {"a": RandomMask(size=size, ratio=2.0)}, "RandomMask.ratio: Input should"),
    ],
)
def test_a_cell_function_that_fails_is_named_with_its_cell(function: Any, message: str) -> None:
    with pytest.raises(HarnessError, match=message) as caught:
        expand(study(cell=function))
    assert "\n" not in str(caught.value)
    assert "size=32, ratio=0.4" in str(caught.value)


# Study files


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, and everything that loading from it changes put back afterwards."""
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HARNESS_PROJECT", "")
    (tmp_path / "harness.toml").touch()
    (tmp_path / "studies").mkdir()
    return tmp_path


FILE = """
from harness import Backbone, FineTune, Recipe, Scale, Scratch, Shapes, Study, axes
R = Recipe(epochs=1, batch_size=8, lr=1e-3)
S = Scale(name="s", data=Shapes(), image_size=32, backbone=Backbone(name="v", patch_size=4), pretrain=R, finetune=R)
def cell(scale, a, seed):
    start = Scratch(backbone=scale.backbone, image_size=32)
    return {"top1": FineTune(start=start, data=scale.data, recipe=R, seed=seed)}
STUDY = Study(cell=cell, grid=axes(a=(1, 2)), scales=(S,), reference={"a": 1})
"""


def test_a_study_is_named_after_its_file_and_rooted_at_its_project(project: Path) -> None:
    path = project / "studies" / "widths.py"
    path.write_text(FILE)
    found = load(path)
    assert (found.name, found.root) == ("widths", project)
    path.write_text(FILE.replace('reference={"a": 1}', 'reference={"a": 1}, name="depths"'))
    assert load(path).name == "depths"


def test_a_study_may_define_dataclasses(project: Path) -> None:
    """They look their module up where annotations are texts."""
    path = project / "studies" / "widths.py"
    own = "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass Width:\n    value: int"
    path.write_text(own + "\n" + FILE.replace("a=(1, 2)", "a=(Width(3).value, 4)").replace('"a": 1', '"a": 3'))
    assert [point["a"] for point in load(path).cells] == [3, 4]


def test_a_study_can_import_its_neighbours(project: Path) -> None:
    (project / "neighbour_of_widths.py").write_text("A = (5, 6, 7)\n")
    path = project / "studies" / "widths.py"
    path.write_text("from neighbour_of_widths import A\n" + FILE.replace("a=(1, 2)", "a=A").replace('"a": 1', '"a": 5'))
    assert [point["a"] for point in load(path).cells] == [5, 6, 7]


def test_an_edit_within_the_same_second_is_seen_and_nothing_is_left_beside_the_file(project: Path) -> None:
    path = project / "studies" / "widths.py"
    path.write_text(FILE)
    assert len(load(path).grid) == 2
    path.write_text(FILE.replace("a=(1, 2)", "a=(1, 9)"))  # as long as before
    assert [point["a"] for point in load(path).cells] == [1, 9]
    assert [file.name for file in path.parent.iterdir()] == ["widths.py"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (\n", r"bad\.py, line 1: '\(' was never closed"),
        ("x = 1\n", r"bad\.py has no STUDY = Study"),
        ("STUDY = 3\n", r"bad\.py has no STUDY = Study"),
        ("1 / 0\n", r"bad\.py, line 1: ZeroDivisionError: division by zero"),
        ("import not_installed_anywhere\n", "ModuleNotFoundError.*not_installed_anywhere"),
        ("raise SystemExit(0)\n", "SystemExit"),
        ("raise ValueError('a\\nb')\n", "ValueError: a b"),
        ("x = 'a\0b'\n", "null bytes"),
        ("from harness import RandomMask\nRandomMask(size=4, ratio=3.0)\n", "RandomMask.ratio"),
        ("from harness import axes\naxes(a=(1, 1))\n", r"bad\.py, line 2: axis a repeats the value 1"),
        ("from harness import NoSuchName\n", "NoSuchName"),
    ],
)
def test_a_bad_study_file_is_refused_in_one_line(project: Path, text: str, message: str) -> None:
    path = project / "studies" / "bad.py"
    path.write_text(text)
    with pytest.raises(HarnessError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_neighbour_that_does_not_parse_is_the_one_named(project: Path) -> None:
    (project / "broken_neighbour.py").write_text("x = 1\ny = (\n")
    path = project / "studies" / "fine.py"
    path.write_text("import broken_neighbour\n" + FILE)
    with pytest.raises(HarnessError, match=r"^broken_neighbour\.py, line 2"):
        load(path)


PACKAGE = Path(harness.__file__).parent


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("/home/me", "run.py, line 1: "),
        (f"{PACKAGE}_of_my_own", "run.py, line 1: "),
        (str(PACKAGE / "spec"), "first.py, line 3: "),
        ("/usr/lib/python3/dist-packages/pydantic", "first.py, line 3: "),
        ("/home/me/venv/lib/python3.11/site-packages/pydantic", "first.py, line 3: "),
    ],
)
def test_an_error_is_named_by_the_last_line_of_the_users_own_files(folder: str, line: str) -> None:
    inner = compile("1 / 0", f"{folder}/run.py", "exec")
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile("\n\nexec(inner)", "/home/me/first.py", "exec"), {"inner": inner})
    assert line_of(caught.value) == line


@pytest.mark.parametrize("name", ["nowhere.py", ".", "text.txt"])
def test_what_is_no_study_file_is_refused(project: Path, name: str) -> None:
    (project / "text.txt").write_text("hello")
    with pytest.raises(HarnessError, match=r"no study file|no Python file"):
        load(project / name)
