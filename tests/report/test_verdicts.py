"""Verdicts on claims: what is compared, and what follows from values made by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_study import SCALE, bench, finish, finish_all, finish_upstream, scope_cell, scope_plan, scope_study
from scipy import stats

from harness import claims
from harness.report import write
from harness.report.claims.contrasts import Sides, sides
from harness.report.claims.listing import beside, claims_text, family_error, judged
from harness.report.claims.verdicts import Scored, Verdict, scored, verdict
from harness.report.collect import runs_frame
from harness.spec import HarnessError, Knn, Skip
from harness.stats.additive import fit
from harness.stats.bounds import bounds
from harness.store import Store
from harness.study import Grid, Plan, Study, axes
from harness.study.claims import Claim

A, B = {"arm": "a"}, {"arm": "b"}
BENCH: Any = bench("statistics_truth")


def _plan(grid: Grid, **options: Any) -> Plan:
    study = Study(
        cell=lambda *_, **__: {}, grid=grid, scales=(SCALE,), reference=next(iter(grid)), name="made", **options
    )
    return Plan(study, SCALE, ())


def _judge(claim: Claim, grid: Grid, values: Any, *, excluded: dict[int, str] | None = None) -> Verdict:
    """The verdict on a claim, from values by hand [cells, seeds]; a cell `scratch` gives the margin."""
    plan = _plan(grid, claims=(claim,))
    gain = None
    if (scratch := [number for number, cell in enumerate(plan.study.cells) if cell.get("arm") == "scratch"]) != []:
        gain = np.zeros(len(plan.study.cells))
        gain[[0, scratch[0]]] = 1, -1
    return verdict(claim, Scored(plan, "top1", np.array(values, dtype=float), excluded or {}, gain))


def _alternating(levels: list[float], seeds: int, size: float = 0.1) -> list[list[float]]:
    """Values at these levels with residuals of +-size that differ from cell to cell."""
    signs = np.array([[1 if (cell * (seed + 1) + seed // 2) % 2 else -1 for seed in range(seeds)] for cell in range(9)])
    return [[level + size * sign for sign in signs[cell]] for cell, level in enumerate(levels)]


def test_a_claim_names_what_its_two_cells_share() -> None:
    grid = axes(arm=("a", "b"), mask_ratio=(0.4, 0.6), head=("linear",))
    values = _alternating([1, 2, 3, 4], 3)
    at: dict[str, Any] = {"mask_ratio": 0.6}
    for words, where, told in (
        ("a beats b", at, "a beats b, at mask ratio 0.6"),  # the head is the same everywhere
        ("at 0.6, a beats b", at, "at 0.6, a beats b"),
        ("a beats b by 0.61 to 10.6", at, "a beats b by 0.61 to 10.6, at mask ratio 0.6"),
        ("a beats b", {}, "a beats b"),  # over both ratios
    ):
        assert _judge(claims.better(words, A, B, at=where), grid, values).sentence == told
    best = claims.better("a beats b, each at its best", claims.best(**A), claims.best(**B))
    assert _judge(best, grid, values).sentence == "a beats b, each at its best"


def test_where_one_axis_names_each_cell_a_claim_names_no_other() -> None:
    grid = Grid([{"arm": "a", "fill": "mean"}, {"arm": "b", "fill": "mean"}, {"arm": "c", "fill": "none"}])
    assert _judge(claims.better("a beats b", A, B), grid, _alternating([1, 2, 3], 3)).sentence == "a beats b"


def test_better_compares_cells_that_are_equal_on_all_other_axes() -> None:
    grid = axes(arm=("a", "b"), ratio=(0.4, 0.6)) | Grid([{"arm": "a", "ratio": 0.8}])
    cells = [dict(cell) for cell in grid]
    found = sides(claims.better("", A, B), cells, {})
    assert isinstance(found, Sides)
    np.testing.assert_allclose(found.left, [[0.5, 0.5, 0, 0, 0]])  # a at 0.8 has no partner
    np.testing.assert_allclose(found.right, [[0, 0, 0.5, 0.5, 0]])
    found = sides(claims.better("", A, B), cells, {3: "too large"})
    assert isinstance(found, Sides)
    assert (found.cells, found.remark) == ((0, 2), "1 of 2 pairs is excluded at this scale")
    assert sides(claims.better("", A, B), cells, {0: "x", 3: "too large"}) == "x; too large"
    assert "no two cells" in str(sides(claims.better("", A, B), cells[3:], {}))  # b at 0.6, a at 0.8


def test_the_best_of_a_side_has_a_row_a_candidate() -> None:
    cells = [dict(cell) for cell in axes(arm=("a", "b"), ratio=(0.4, 0.6, 0.8))]
    found = sides(claims.better("", claims.best(arm="a"), B), cells, {1: "x"})
    assert isinstance(found, Sides)
    np.testing.assert_allclose(found.left, np.eye(6)[[0, 2]])
    np.testing.assert_allclose(found.right, [[0, 0, 0, 1 / 3, 1 / 3, 1 / 3]])


def test_an_inner_maximum_sets_inner_values_against_both_ends() -> None:
    grid = axes(ratio=(0.8, 0.2, 0.4, 0.6), arm=("a", "b"))  # not in order
    cells: list[dict[str, Any]] = [dict(cell) for cell in grid]
    claim = claims.inner_maximum("", axis="ratio")
    found = sides(claim, cells, {})
    assert isinstance(found, Sides)
    where = [[cells[number]["ratio"] for number in np.flatnonzero(row)] for row in (*found.left, *found.right)]
    assert where == [[0.4, 0.4], [0.6, 0.6], [0.2, 0.2], [0.8, 0.8]]
    assert sides(claim, cells, {0: "0.8 is too much"}) == "0.8 is too much"
    found = sides(claim, cells, {4: "x"})
    assert isinstance(found, Sides)
    assert len(found.left) == 1
    assert "fewer than three" in str(sides(claim, [cell for cell in cells if cell["ratio"] > 0.5], {}))


def test_an_inner_maximum_says_which_settings_it_is_not_about() -> None:
    claim = claims.inner_maximum("", axis="ratio")
    uneven = axes(arm="a", ratio=(0.2, 0.4, 0.6, 0.8)) | axes(arm="b", ratio=(0.2, 0.4, 0.6))
    found = sides(claim, [dict(cell) for cell in uneven], {})
    assert isinstance(found, Sides)
    assert (found.cells, found.remark) == ((0, 1, 2, 3), "at 4 values; 1 of 2 settings without all values is left out")
    apart = axes(arm="a", ratio=(0.2, 0.4, 0.6)) | axes(arm="b", ratio=(0.4, 0.6, 0.8))
    assert sides(claim, [dict(cell) for cell in apart], {}) == (
        "at no setting of the other axes ratio has all of its 4 values"
    )


def test_bounds_of_two_cells_are_those_of_a_paired_t() -> None:
    values = np.random.default_rng(1).normal(size=(2, 5))
    eye = np.eye(2)
    found = bounds(fit(values), eye[:1], eye[1:], shift=np.zeros(2), offset=0.0, alphas=(0.025, 0.025))
    expected = stats.ttest_rel(values[0], values[1]).confidence_interval(0.95)
    assert found.low == pytest.approx(expected.low)
    assert found.high == pytest.approx(expected.high)


@pytest.mark.parametrize(
    ("claim", "levels", "word"),
    [
        (claims.better("", A, B), [82, 80, 80, 80], "reproduced"),
        (claims.better("", A, B), [80, 82, 80, 80], "contradicted"),
        (claims.better("", A, B), [80, 80, 80, 80], "inconclusive"),
        (claims.better("", A, B, margin=1.0), [80, 80, 80, 80], "no difference beyond the margin"),
        (claims.no_worse("", A, B, margin=1.0), [80, 80.5, 80, 80], "reproduced"),
        (claims.no_worse("", A, B, margin=1.0), [80, 81, 80, 80], "inconclusive"),
        (claims.no_worse("", A, B, margin={SCALE.name: 1.0}), [80, 83, 80, 80], "contradicted"),
        (claims.no_worse("", A, B), [80, 80.5, 80, 80], "not testable at this scale"),
        (claims.same("", A, B, margin=1.0), [80, 80.5, 80, 80], "reproduced"),
        (claims.same("", A, B, margin=1.0), [80, 79, 80, 80], "inconclusive"),
        (claims.same("", A, B, margin=1.0), [80, 77, 80, 80], "contradicted"),
    ],
)
def test_verdicts_on_two_cells(claim: Claim, levels: list[float], word: str) -> None:
    grid = axes(arm=("a", "b", "c", "d"))
    assert _judge(claim, grid, _alternating(levels, 4)).word == word


def test_the_margin_is_a_share_of_what_the_reference_gains() -> None:
    grid = axes(arm=("a", "b", "c", "scratch"))
    found = _judge(claims.no_worse("", A, B), grid, _alternating([80, 80.5, 80, 70], 4))
    assert found.word == "reproduced"
    assert found.margin == pytest.approx(2.0, abs=0.05)
    found = _judge(claims.no_worse("", A, B), grid, _alternating([70, 70.5, 80, 80], 4))
    assert (found.word, "gains nothing" in found.reason) == ("inconclusive", True)
    found = _judge(claims.no_worse("", A, B), grid, _alternating([80, 90, 80, 70], 4))
    assert found.word == "contradicted"


def test_a_plateau_that_reaches_an_end_is_no_inner_maximum() -> None:
    claim = claims.inner_maximum("", axis="ratio")
    grid = axes(ratio=(0.1, 0.3, 0.5, 0.7, 0.9))
    assert _judge(claim, grid, _alternating([76, 80, 80, 80, 80], 4)).word == "inconclusive"
    found = _judge(claim, grid, _alternating([76, 78, 80, 78, 76.2], 4))
    assert (found.word, found.chosen) == ("reproduced", "0.5 against 0.9")
    assert _judge(claim, grid, _alternating([76, 77, 78, 79, 80], 4)).word == "contradicted"


def test_many_candidates_need_a_larger_lead() -> None:
    generator = np.random.default_rng(3)
    noise = generator.normal(size=(23, 4))
    noise -= noise.mean(axis=1, keepdims=True)  # the cell means are exact
    cells = axes(side="few", member=(0, 1, 2)) | axes(side="many", member=tuple(range(20)))
    many, few = claims.best(side="many"), claims.best(side="few")
    values = noise.copy()
    values[3] += 1.9
    lone = _judge(claims.better("", {"side": "many", "member": 0}, few), cells, values)
    chosen = _judge(claims.better("", many, few), cells, values)
    assert chosen.effect == pytest.approx(lone.effect) == pytest.approx(1.9)
    assert (lone.chosen[:14], chosen.chosen[:14]) == ("many 0 against", "many 0 against")
    assert chosen.low < lone.low


def test_what_is_missing_is_told() -> None:
    grid = axes(arm=("a", "b", "c"))
    found = _judge(claims.better("", A, B), grid, [[80, 81], [math.nan, math.nan], [79, 79]])
    assert (found.word, found.reason) == ("not run yet", "1 of its 2 cells has no value yet")
    found = _judge(claims.better("", A, B), grid, [[80], [70], [79]])
    assert (found.word, found.reason, found.needed) == ("inconclusive", "one seed shows no spread", None)
    found = _judge(claims.better("", A, B), grid, [[80, 81], [math.nan, 80], [79, 79]], excluded={0: "too small"})
    assert (found.word, found.reason) == ("not testable at this scale", "too small")


@pytest.mark.parametrize("cells", [2, 30])
def test_the_seeds_it_would_need(cells: int) -> None:
    """One that decides and one fewer that does not, by the t that the verdict uses."""
    noise = np.random.default_rng(0).normal(size=(cells, 4))
    noise -= noise.mean(axis=1, keepdims=True)
    grid, claim = axes(arm=tuple(range(cells))), claims.better("", {"arm": 1}, {"arm": 0})
    half, df = _judge(claim, grid, noise).high, (cells - 1) * 3
    noise[1] += 0.6 * half
    found = _judge(claim, grid, noise)
    assert found.effect == pytest.approx(0.6 * half)
    assert found.high - found.effect == pytest.approx(half)
    bound = stats.t.ppf(0.975, df) / math.sqrt(df / stats.chi2.median(df))
    truths = np.linspace(0, 8, 80_001)
    shares = stats.norm.cdf(0.6 * bound - truths) / stats.norm.cdf(bound - truths)
    truth = truths[np.argmin(np.abs(shares - 0.5))]
    decides = [truth * math.sqrt(n / 4) > stats.t.ppf(0.975, (cells - 1) * (n - 1)) for n in range(2, 31)]
    assert found.needed == 2 + decides.index(True)
    noise[1] += 0.3999 * half  # all but decided
    assert _judge(claim, grid, noise).needed == 5


@pytest.mark.parametrize("cells", [2, 9])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_seeds_that_are_told_are_about_those_that_are_needed(cells: int, seeds: int) -> None:
    """Effects of one sd of the noise; 1,000 studies here, and other effects, in tests/bench."""
    told, needed = BENCH.told_and_needed(cells, seeds, "equal", 1.0, 300, np.random.default_rng(seeds))
    assert 0.7 <= np.median(told) / needed <= 1.5


def test_a_shorter_way_by_the_margin_is_taken() -> None:
    """Equal cells: no number of seeds tells them apart, but with a margin of 1 some say that they are."""
    grid, values = axes(arm=("a", "b", "c", "d")), _alternating([80, 80.01, 79, 79], 4, size=1.0)
    alone, within = (_judge(claims.better("", A, B, margin=m), grid, values).needed for m in (None, 1.0))
    assert alone is None
    assert within is not None
    assert within == _judge(claims.same("", A, B, margin=1.0), grid, values).needed


def test_an_excluded_reference_gains_nothing(tmp_path: Path) -> None:
    def without(scale: Any, scope: str, mask_ratio: float | None, seed: int) -> Any:
        if (scope, mask_ratio) == ("masked", 0.6):
            raise Skip("the reference does not fit")
        return scope_cell(scale, scope, mask_ratio, seed)

    claim = claims.no_worse("0.4 is no worse", {"scope": "masked"}, {"scope": "full"}, at={"mask_ratio": 0.4})
    plan = scope_plan(cell=without, claims=(claim,), seeds=3)
    store = Store(tmp_path)
    finish_all(store, plan)
    data = scored(plan, runs_frame(plan, store))
    assert data.gain is None
    assert "no margin is declared" in verdict(claim, data).reason


def _claimed(**options: Any) -> Study:
    made = (
        claims.better("masked <b> beats | full", {"scope": "masked"}, {"scope": "full"}),
        claims.better("full beats masked", {"scope": "full"}, {"scope": "masked"}, at={"mask_ratio": 0.6}),
        claims.no_worse("0.4 is no worse", {"mask_ratio": 0.4}, {"mask_ratio": 0.6}, at={"scope": "full"}),
        claims.inner_maximum("0.6 is inside", axis="mask_ratio", at={"scope": "masked"}),
    )
    return scope_study(claims=made, seeds=3, **options)


def test_claims_are_listed_failed_ones_first(tmp_path: Path) -> None:
    plan = scope_plan(claims=_claimed().claims, seeds=3)
    store = Store(tmp_path / "runs")
    levels = {"masked": 84.0, "full": 80.0, "scratch": 70.0}
    finish_all(store, plan, lambda row: levels[row.axes["scope"]] + 0.1 * (row.seed * len(str(row.axes)) % 3))
    found = judged(plan, runs_frame(plan, store))
    assert [item.word for item in found] == ["contradicted", "not testable at this scale", "reproduced", "reproduced"]
    assert found[1].reason == "0.99 hides all 16 units"
    assert found[2].remark == "mean over 2 pairs; 1 of 3 pairs is excluded at this scale"
    assert found[3].margin == pytest.approx(0.2 * 14, abs=0.1)
    assert family_error(found) == pytest.approx(0.15)
    report = write(plan, store, tmp_path / "results")
    text = (tmp_path / "results" / "claims.md").read_text()
    assert "claims.md" in report.files
    assert any(line.startswith("Claims: 2 reproduced, 1 not testable") for line in report.notes)
    assert text == claims_text(plan, found)
    assert "masked &lt;b&gt; beats \\| full" in text
    assert text.index("contradicted") < text.index("not testable") < text.index("reproduced")
    assert "at most 15%" in text
    assert "needs about: " not in text  # all are decided
    assert "needs about: seeds with which the claim would be decided in half of all cases" in claims_text(
        plan, [replace(found[0], word="inconclusive", needed=6)]
    )


def test_what_a_second_evaluation_says_of_the_claims_stands_below_them(tmp_path: Path) -> None:
    """Fine-tuning differs by 4 as the claim says, neighbours by -1: the verdict is of fine-tuning."""

    def two(scale: Any, scope: str, mask_ratio: float | None, seed: int) -> Any:
        found: Any = scope_cell(scale, scope, mask_ratio, seed)
        return {**found, "knn": Knn(start=found["top1"].start, data=scale.data, seed=seed)}

    at = {"mask_ratio": 0.4}
    claim = claims.better("masked beats full", {"scope": "masked"}, {"scope": "full"}, at=at)
    plan, store = scope_plan(cell=two, claims=(claim,), seeds=3), Store(tmp_path / "runs")
    noise = (0.1, -0.2, 0.1)
    for row in plan.rows:
        masked = row.axes["scope"] == "masked"
        for name, run in row.evaluations.items():
            accuracy = 80.0 + noise[row.seed] * masked + (4 if name == "top1" else -1) * masked
            if name == "top1" and row.axes["scope"] != "scratch":
                finish_upstream(store, run)
            finish(store, run, {"top1": accuracy})
    runs = runs_frame(plan, store)
    (name, other), (judge,) = *beside(plan, runs), judged(plan, runs)
    assert (name, round(judge.effect, 9), round(other.effect, 9)) == ("knn", 4.0, -1.0)
    assert judge.word == "reproduced"
    assert other.low == pytest.approx(judge.low - 5)
    text = claims_text(plan, [judge], (), [(name, other)])
    assert text.index("reproduced") < text.index("by other evaluations") < text.index("−1.00")
    assert write(plan, store, tmp_path / "results").complete
    assert (tmp_path / "results" / "claims.md").read_text() == text
    assert "other evaluations" not in claims_text(plan, [judge])


def test_another_evaluation_names_its_own_best_cells(tmp_path: Path) -> None:
    """Fine-tuning is best at 0.6 under the mask, neighbours at 0.4."""

    def two(scale: Any, scope: str, mask_ratio: float | None, seed: int) -> Any:
        found: Any = scope_cell(scale, scope, mask_ratio, seed)
        return {**found, "knn": Knn(start=found["top1"].start, data=scale.data, seed=seed)}

    claim = claims.better("masked beats full", claims.best(scope="masked"), claims.best(scope="full"))
    plan, store = scope_plan(cell=two, claims=(claim,), seeds=3), Store(tmp_path / "runs")
    for row in plan.rows:
        for name, run in row.evaluations.items():
            best = row.axes["mask_ratio"] == (0.6 if name == "top1" else 0.4)
            if name == "top1" and row.axes["scope"] != "scratch":
                finish_upstream(store, run)
            finish(store, run, {"top1": 80.0 + 0.1 * row.seed + 3 * best + (row.axes["scope"] == "masked")})
    runs = runs_frame(plan, store)
    ((name, other),), (judge,) = beside(plan, runs), judged(plan, runs)
    assert judge.chosen == "masked 0.6 against full 0.6"
    assert other.chosen == "masked 0.4 against full 0.4"
    assert claims_text(plan, [judge], (), [(name, other)]).count(f"| {other.chosen} |") == 1


def test_the_evaluation_beside_the_paper_is_judged(tmp_path: Path) -> None:
    plan = scope_plan(seeds=3)
    data = scored(plan, runs_frame(plan, Store(tmp_path)))
    assert data.evaluation == "top1"
    assert set(data.excluded) == {2, 5}
    assert data.gain is not None
    assert list(np.flatnonzero(data.gain)) == [1, 6]


def test_margins_and_looks_are_checked_at_once() -> None:
    with pytest.raises(HarnessError, match="a margin for scale 'huge'; this study has fake"):
        scope_study(claims=(claims.same("x", {"scope": "masked"}, {"scope": "full"}, margin={"huge": 1.0}),))
    with pytest.raises(HarnessError, match="positive number of points, not -1"):
        scope_study(claims=(claims.same("x", {"scope": "masked"}, {"scope": "full"}, margin=-1.0),))
    with pytest.raises(HarnessError, match="looks should rise from the study's 2 seeds"):
        scope_study(looks=(3, 5))
    with pytest.raises(HarnessError, match="margin_share should be between 0 and 1"):
        scope_study(margin_share=1.5)


def test_a_study_without_a_cell_at_this_scale(tmp_path: Path) -> None:
    def skipped(scale: Any, scope: str, mask_ratio: float | None, seed: int) -> Any:
        raise Skip("too small")

    plan = scope_plan(cell=skipped, claims=_claimed().claims)
    report = write(plan, Store(tmp_path / "runs"), tmp_path / "results")
    assert any(line.startswith("Claims: 4 not testable") for line in report.notes)
    assert "too small" in (tmp_path / "results" / "claims.md").read_text()
