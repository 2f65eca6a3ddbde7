"""Two results of one study: paired by seed, judged against noise, with every hole named."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_study import half_finished, scope_plan
from scipy import stats

from harness.report.collect import runs_frame
from harness.report.compare import compare, mixed, read_runs
from harness.report.tables import csv_text
from harness.spec import HarnessError
from harness.store import Store


def frame(values: dict[str, list[float]], **columns: str) -> pd.DataFrame:
    """Runs of cells that one axis names, a value a seed, as `read_runs` gives them."""
    plain = {
        "evaluation": "top1", "state": "done", "key": "k", "commit": "c", "device": "cpu", "torch": "2", "timm": "1",
        "harness": "1",
    }  # fmt: skip
    plain |= {f"pretrain_{name}": "" for name in ("key", "commit", "device", "torch", "timm", "harness")}
    return pd.DataFrame(
        {"cell": str(number), "arm": arm, "seed": str(seed), "value": value, **plain, **columns}
        for number, (arm, found) in enumerate(values.items())
        for seed, value in enumerate(found)
    )[["cell", "arm", "seed", "evaluation", "state", "value", *list(plain)[2:]]]


def test_pooled_noise_by_hand() -> None:
    before = frame({"a": [80.0, 81.0, 82.0], "b": [70.0, 70.0, 70.0], "c": [60.0, 61.0, 62.0]})
    after = frame({"a": [80.1, 81.0, 81.9], "b": [71.9, 72.0, 72.1], "c": [60.0, 61.0, 62.0]})
    found = compare(before, after)
    a, b, c = found.changes
    # Differences (0.1, 0, -0.1) and (1.9, 2, 2.1): both with variance 0.01, 4 degrees of freedom; c tells nothing.
    assert [change.verdict for change in found.changes] == ["within noise", "changed", "identical"]
    t = 2.0 / math.sqrt(0.01 / 3)
    assert b.p == pytest.approx(2 * 2 * stats.t.sf(t, 4))
    assert (b.low, b.high) == pytest.approx((2 - 2.776445 * 0.1 / 3**0.5, 2 + 2.776445 * 0.1 / 3**0.5))
    assert (a.difference, a.p) == (pytest.approx(0.0, abs=1e-9), pytest.approx(1.0))
    assert (b.before, b.after, b.n, c.difference) == (70.0, pytest.approx(72.0), 3, 0.0)
    assert "sd 0.1, pooled, 4 degrees of freedom" in found.notes[0]


def test_unequal_spreads_are_judged_by_their_own() -> None:
    noise = np.array([-1.5, -0.5, 0.0, 0.5, 1.5])
    before = frame({"calm": [0.0] * 5, "wild": [0.0] * 5})
    after = frame({"calm": list(0.1 + 0.01 * noise), "wild": list(0.1 + 10 * noise)})
    calm, wild = compare(before, after).changes
    assert (calm.verdict, wild.verdict) == ("changed", "within noise")
    assert calm.p == pytest.approx(2 * stats.ttest_1samp(0.1 + 0.01 * noise, 0).pvalue)


def test_a_single_seed_borrows_the_noise_of_the_others_or_is_not_judged() -> None:
    before, after = frame({"a": [1.0, 2.0, 3.0], "b": [1.0]}), frame({"a": [1.1, 1.9, 3.0], "b": [9.0]})
    assert compare(before, after).changes[1].verdict == "changed"
    alone = compare(frame({"a": [1.0], "b": [1.0]}), frame({"a": [1.5], "b": [1.0]}))
    assert [change.verdict for change in alone.changes] == ["one seed", "identical"]
    assert "no noise to judge by" in alone.notes[0]


def test_nothing_true_is_called_changed_too_often() -> None:
    """Of 400 pairs of results of 20 cells and 3 seeds without any change, at most about 5 % name a cell."""
    draw = np.random.default_rng(3)
    names = [f"cell {number}" for number in range(20)]
    wrong = 0
    for _ in range(400):
        one, two = ({name: list(draw.normal(80, 0.2, 3)) for name in names} for _ in range(2))
        wrong += any(change.verdict == "changed" for change in compare(frame(one), frame(two)).changes)
    assert wrong <= stats.binom(400, 0.05).ppf(0.999)


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
    with pytest.raises(HarnessError, match="other axes: arm and leg"):
        compare(one, one.rename(columns={"arm": "leg"}))
    with pytest.raises(HarnessError, match="no cell has a value in both"):
        compare(one, frame({"b": [1.0]}))
    with pytest.raises(HarnessError, match="second result has a cell and seed twice"):
        compare(one, pd.concat([one, one]))
