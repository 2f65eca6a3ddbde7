"""Two results of one study: paired by seed, judged against noise, with every hole named."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_study import bench, half_finished, scope_plan
from scipy import stats

from harness.report.collect import PROVENANCE, runs_frame
from harness.report.compare import compare, mixed, of_other_code, read_runs
from harness.report.tables.table import csv_text
from harness.spec import HarnessError
from harness.store import Store

BENCH: Any = bench("statistics_truth")


def frame(values: dict[str, list[float]], **columns: str) -> pd.DataFrame:
    """Runs of cells that one axis names, a value a seed, as `read_runs` gives them."""
    plain = {
        "evaluation": "top1", "state": "done", "key": "k", "commit": "c", "device": "cpu", "torch": "2", "timm": "1",
        "harness": "1",
    }  # fmt: skip
    plain |= {name: "" for name in PROVENANCE if name not in plain}
    plain |= {f"pretrain_{name}": "" for name in ("key", *PROVENANCE)}
    return pd.DataFrame(
        {"cell": str(number), "arm": arm, "seed": str(seed), "value": value, **plain, **columns}
        for number, (arm, found) in enumerate(values.items())
        for seed, value in enumerate(found)
    )[["cell", "arm", "seed", "evaluation", "state", "value", *list(plain)[2:]]]


@pytest.mark.parametrize("axis", ["unit", "repeat", "difference", "name", "value_x"])
def test_an_axis_may_have_any_name(axis: str) -> None:
    before, after = (
        frame({"a": [1.0, 2.0, 3.0], "b": [1.0, 1.5, 2.0]}),
        frame({"a": [9.1, 9.9, 11.0], "b": [1.1, 1.4, 2.0]}),
    )
    renamed = compare(*(each.rename(columns={"arm": axis}) for each in (before, after)))
    assert (renamed.axes, renamed.changes) == ((axis,), compare(before, after).changes)
    assert [change.axes for change in renamed.changes] == [("a",), ("b",)]


def test_pooled_noise_by_hand() -> None:
    third = 0.1 / 3**0.5
    before = frame({"a": [80.0, 81.0, 82.0], "b": [70.0, 70.0, 70.0], "c": [60.0, 61.0, 62.0]})
    after = frame({"a": [80.1, 81.0, 81.9], "b": [72 + third, 72 - 2 * third, 72 + third], "c": [60.0, 61.0, 62.0]})
    found = compare(before, after)
    a, b, c = found.changes
    # Differences (0.1, 0, -0.1) and 2 + (1, -2, 1) / 10 sqrt(3): both with variance 0.01, and uncorrelated, so that the
    # seeds' part and the residuals' are equal: 2 + 2 degrees of freedom; c tells nothing.
    assert [change.verdict for change in found.changes] == ["within noise", "changed", "identical"]
    t = 2.0 / math.sqrt(0.01 / 3)
    assert b.p == pytest.approx(2 * 2 * stats.t.sf(t, 4))
    assert (b.low, b.high) == pytest.approx((2 - 2.776445 * 0.1 / 3**0.5, 2 + 2.776445 * 0.1 / 3**0.5))
    assert a.difference == pytest.approx(0.0, abs=1e-9)
    assert a.p == pytest.approx(1.0)
    assert (b.before, b.n, c.difference) == (70.0, 3, 0.0)
    assert b.after == pytest.approx(72.0)
    assert "sd 0.1, pooled, 4 degrees of freedom" in found.notes[0]


def test_a_cell_that_varies_more_than_the_rest_is_judged_by_its_own_variance() -> None:
    noise = np.array([[-1.5, -0.5, 0.0, 0.5, 1.5], [1.0, -2.0, 1.0, 0.5, -0.5], [0.5, 1.0, -2.0, -0.5, 1.0]])
    names = ("calm", "quiet", "wild")
    before = frame({name: [0.0] * 5 for name in names})
    after = frame({name: list(1 + size * row) for name, size, row in zip(names, (0.1, 0.1, 3), noise, strict=True)})
    found = compare(before, after)
    assert found.changes[2].verdict == "within noise"
    single = stats.ttest_1samp(1 + 3 * noise[2], 0)
    assert found.changes[2].p == pytest.approx(max(single.pvalue, *(change.p for change in found.changes[:2])))
    assert found.changes[2].high == pytest.approx(single.confidence_interval(0.95).high)
    assert "to be safe, 1 of 3 cells has its own variance" in found.notes[0]


def test_p_values_are_corrected_by_holm_not_by_bonferroni() -> None:
    """The smallest of two is doubled, the largest is not: 0.03 alone is a change beside a clear one."""
    t = np.array([stats.t.isf(0.03 / 2, 3), 40.0])
    noise = np.array([[-1.0, 1.0, -1.0, 1.0], [1.0, 1.0, -1.0, -1.0]])  # uncorrelated, equal: 3 + 3 degrees of freedom
    error = math.sqrt(4 / 3) / 2
    t[0] = stats.t.isf(0.03 / 2, 6)
    before = frame({"slight": [0.0] * 4, "clear": [0.0] * 4})
    after = frame({"slight": list(t[0] * error + noise[0]), "clear": list(t[1] * error + noise[1])})
    slight, clear = compare(before, after).changes
    assert slight.verdict == "changed"
    assert slight.p == pytest.approx(0.03)
    assert clear.p == pytest.approx(2 * 2 * stats.t.sf(40.0, 6))


def test_equal_differences_that_are_not_zero_are_a_change() -> None:
    before, after = frame({"a": [80.0, 81.0, 82.0]}), frame({"a": [80.5, 81.5, 82.5]})
    (found,) = compare(before, after).changes
    assert (found.verdict, found.p, found.difference) == ("changed", 0.0, 0.5)


def test_each_evaluation_has_its_own_noise_and_a_pretraining_is_one_unit() -> None:
    draw = np.random.default_rng(2)
    before, after = (frame({"a": list(draw.normal(size=4)), "b": list(draw.normal(size=4))}) for _ in range(2))
    both = [pd.concat([part, part.assign(evaluation="knn", value=part["value"] * 100)]) for part in (before, after)]
    alone, found = compare(before, after).changes, compare(*both).changes
    assert (found[0].high, found[1].high) == (alone[0].high, alone[1].high)
    assert found[2].high == pytest.approx(100 * alone[0].high)
    nested = [part.assign(pretrain_key=part["arm"] + part["seed"].map(lambda seed: str(int(seed) // 2)))
              for part in (before, after)]  # fmt: skip
    halves = [
        frame(
            {str(arm): list(rows["value"].to_numpy().reshape(2, 2).mean(axis=1)) for arm, rows in part.groupby("arm")}
        )
        for part in (before, after)
    ]
    for one, other in zip(compare(*nested).changes, compare(*halves).changes, strict=True):
        assert one.n == 2
        assert one.low == pytest.approx(other.low)
        assert one.p == pytest.approx(other.p)


def test_a_single_seed_borrows_the_noise_of_the_others_or_is_not_judged() -> None:
    before, after = frame({"a": [1.0, 2.0, 3.0], "b": [1.0]}), frame({"a": [1.1, 1.9, 3.0], "b": [9.0]})
    assert compare(before, after).changes[1].verdict == "changed"
    alone = compare(frame({"a": [1.0], "b": [1.0]}), frame({"a": [1.5], "b": [1.0]}))
    assert [change.verdict for change in alone.changes] == ["one seed", "identical"]
    assert "no noise to judge by" in alone.notes[0]


@pytest.mark.parametrize("kind", ["equal", "first x 3", "second x 3"])
@pytest.mark.parametrize("seeds", [3, 5])
def test_nothing_true_is_called_changed_too_often(kind: str, seeds: int) -> None:
    """Of 2,000 pairs of results of 8 cells without any change, at most about 5 % name a cell; 4,000 in tests/bench."""
    share = BENCH.false_alarms(8, seeds, kind, 2000, np.random.default_rng(3))
    assert share <= stats.binom(2000, 0.05).ppf(0.999) / 2000


def test_holes_and_other_recipes_are_named() -> None:
    nan = math.nan
    before = frame({"a": [1.0, 2.0], "b": [1.0, nan], "c": [nan, nan], "d": [1.0, 2.0]})
    after = frame({"a": [1.0, 2.0], "b": [nan, nan], "d": [1.0, 2.0], "e": [5.0, 6.0]}, key="other")
    found = {change.axes: (change.verdict, change.n, change.other_spec) for change in compare(before, after).changes}
    assert found == {
        ("a",): ("identical", 2, True), ("b",): ("only before", 0, True), ("c",): ("no value", 0, False),
        ("d",): ("identical", 2, True), ("e",): ("only after", 0, False),
    }  # fmt: skip


def test_where_they_come_from() -> None:
    before = frame({"a": [1.0, 2.0]}, commit="one")
    after = pd.concat([frame({"a": [1.0]}, commit="two", device="H100"), frame({"b": [1.0]}, commit="three", key="k2")])
    found = compare(before, after)
    assert "commit: before one; after two, three." in found.notes
    assert "device: before cpu; after H100, cpu." in found.notes
    assert [text.split(":")[0:2] for text in mixed(before, after)] == [
        ["after", " Mixed commit"],
        ["after", " Mixed device"],
    ]


def test_results_of_other_commits_or_code_are_told_from_those_of_one() -> None:
    one = frame({"a": [1.0, 2.0]}, commit="one")
    assert of_other_code(one, frame({"a": [1.0, 2.0]}, commit="one", device="H100")) == ()
    assert of_other_code(one, frame({"a": [1.0]}, commit="two")) == ("commit: before one; after two.",)
    assert of_other_code(one, frame({"a": [1.0]}, commit="one", code="c")) == ("code: before unknown; after c.",)
    two = pd.concat([one, frame({"b": [1.0]}, commit="two")])
    assert of_other_code(two, two.iloc[::-1]) == ()


def test_a_table_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    whole = frame({"a": [1.0, 2.0]}).drop(columns=["code", "pretrain_code", "processor", "python"])
    (tmp_path / "runs.csv").write_text(csv_text(whole))
    found = read_runs(tmp_path)
    assert set(found["code"]) == {""}
    assert compare(found, found).changes[0].verdict == "identical"


def test_a_csv_a_folder_and_a_store_read_alike(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), scope_plan()
    half_finished(store, plan)
    text = csv_text(runs_frame(plan, store))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "runs.csv").write_text(text)
    frames = [
        read_runs(tmp_path / "results" / "runs.csv"),
        read_runs(tmp_path / "results"),
        read_runs(tmp_path / "runs", plan),
    ]
    pd.testing.assert_frame_equal(frames[0], frames[1])
    pd.testing.assert_frame_equal(frames[0], frames[2])
    verdicts = [change.verdict for change in compare(frames[0], frames[2]).changes]
    assert verdicts == [
        "identical",
        "identical",
        "no value",
        "no value",
        "identical",
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "nowhere", "there is no"),
        (lambda path: path, "holds no runs.csv; if it is a store, name the study with --study"),
        (lambda path: _written(path / "odd.csv", "a,b\n1,2\n"), "lacks the column cell"),
        (lambda path: _written(path / "empty.csv", ""), "is no table of runs"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        read_runs(make(tmp_path))


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_other_axes_or_no_common_cell_are_refused() -> None:
    one = frame({"a": [1.0]})
    with pytest.raises(HarnessError, match=r"different axes: \(arm\) and \(leg\)"):
        compare(one, one.rename(columns={"arm": "leg"}))
    with pytest.raises(HarnessError, match="no cell has a value in both"):
        compare(one, frame({"b": [1.0]}))
    with pytest.raises(HarnessError, match="second result has a cell and seed twice"):
        compare(one, pd.concat([one, one]))
