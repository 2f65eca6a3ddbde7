"""Several looks: their errors, and that what was decided and what is wanted follow from the store alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_study import evaluation, fail, finish_all, finish_upstream, scope_study
from scipy import stats

from harness import claims
from harness.report import write
from harness.report.claims.listing import judged
from harness.report.claims.sequential import looked, scheduled, standing
from harness.report.collect import runs_frame
from harness.stats.additive import fit
from harness.stats.sequential import _quantile, error_of_a_look
from harness.store import Store
from harness.study import Plan, Row, expand

MASKED, FULL = {"scope": "masked"}, {"scope": "full"}
CLEAR = claims.better("clear", MASKED, FULL, at={"mask_ratio": 0.4})
OPEN = claims.better("open", MASKED, FULL, at={"mask_ratio": 0.6})
LOOKS = (3, 5, 8)


def _plan(**options: Any) -> Plan:
    return expand(scope_study(claims=(CLEAR, OPEN), seeds=3, looks=LOOKS, **options))


def _value(row: Row) -> float:
    """At a ratio of 0.4 the masked scope leads by 5; at 0.6 the scopes are equal, with noise."""
    noise = float(np.random.default_rng((row.seed, len(str(row.axes)))).normal()) / 2
    return 80 + 5 * (row.axes["scope"] == "masked" and row.axes["mask_ratio"] == 0.4) + noise


def _seeds(plan: Plan) -> dict[tuple[object, ...], int]:
    found: dict[tuple[object, ...], int] = {}
    for row in plan.rows:
        if not row.excluded:
            place = tuple(row.axes.values())
            found[place] = max(found.get(place, 0), row.seed + 1)
    return found


def test_a_look_has_less_error_than_all_and_more_than_its_share() -> None:
    for looks in ((3, 5), (3, 5, 8, 10)):
        one = error_of_a_look(looks, 9, 2, 1, 0.05)
        assert 0.025 / len(looks) < one < 0.025
    assert error_of_a_look((5,), 9, 2, 1, 0.05) == 0.025
    assert error_of_a_look((3, 5), 9, 2, 1, 0.05) == error_of_a_look((3, 5), 9, 2, 1, 0.05)


def test_the_error_of_a_look_is_two_standard_errors_on_the_safe_side() -> None:
    uniform = np.random.default_rng(0).permutation(np.arange(10_001) / 10_000)
    assert _quantile(uniform, 0.1) == pytest.approx(0.1 - 2 * np.sqrt(0.1 * 0.9 / 10_000), abs=2e-4)


def test_the_error_of_a_look_by_another_simulation() -> None:
    """Two cells of nine, a t of 16, 18 and 20 degrees of freedom at 3, 5 and 7 seeds; fitted by the model itself."""
    generator, error, false = np.random.default_rng(11), error_of_a_look((3, 5, 7), 9, 2, 1, 0.05), 0
    weights = np.zeros((1, 9))
    weights[0, :2] = 1, -1
    for _ in range(1500):
        values = generator.normal(size=(9, 7))
        for number in (3, 5, 7):
            seen = values.copy()
            seen[2:, 3:] = np.nan
            model = fit(seen[:, :number])
            found = replace(model, own=np.zeros(9, dtype=bool), variances=np.full(9, model.variance)).contrasts(weights)
            if found.value[0] / found.error[0] > stats.t.isf(error, 16 + number - 3):
                false += 1
                break
    assert false <= stats.binom.ppf(0.999, 1500, 0.025)
    assert false >= stats.binom.ppf(0.001, 1500, 0.018)


def test_looks_follow_from_the_store(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), _plan()
    wanted = scheduled(plan, store)
    assert set(_seeds(wanted).values()) == {3}
    finish_all(store, wanted, _value)
    after = scheduled(plan, store)
    more = (("masked", 0.6), ("full", 0.6), ("scratch", None))  # the margin is a share of the reference's gain
    assert _seeds(after) == _seeds(wanted) | dict.fromkeys(more, 5)  # the other claim is decided
    assert _seeds(looked(plan, store)) == _seeds(wanted)  # nothing of the second look was begun
    finish_all(store, after, _value)
    waiting = judged(after, runs_frame(after, store))[0]
    assert waiting.reason == "waits for 8 seeds"
    assert waiting.needed
    assert waiting.needed > 5
    last = scheduled(plan, store)
    assert _seeds(last) == _seeds(wanted) | dict.fromkeys(more, 8)
    finish_all(store, last, _value)
    assert scheduled(plan, store).rows == looked(plan, store).rows == last.rows
    found = judged(last, runs_frame(last, store))
    assert {item.claim.sentence: (item.word, item.n) for item in found} == {
        "clear": ("reproduced", (3, 3)),
        "open": ("inconclusive", (8, 8)),
    }
    assert found[0].reason == "open after all 8 seeds"
    assert found[0].needed
    assert found[0].needed > 8


@pytest.mark.parametrize("first", [1, 10, 400])
def test_seeds_are_labels_to_the_looks(tmp_path: Path, first: int) -> None:
    found = []
    for name, start in (("plain", 0), ("later", first)):
        store, plan = Store(tmp_path / name), _plan(first_seed=start)
        finish_all(store, plan, lambda row, start=start: _value(replace(row, seed=row.seed - start)))
        wanted = scheduled(plan, store)
        finish_all(store, wanted, lambda row, start=start: _value(replace(row, seed=row.seed - start)))
        verdicts = judged(wanted, runs_frame(wanted, store))
        rows = [(row.axes, row.seed - start) for row in looked(plan, store).rows]
        found.append((rows, [(item.word, item.effect, item.low, item.high, item.n) for item in verdicts]))
    assert found[0] == found[1]


def test_a_look_waits_for_every_nested_fine_tuning(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), _plan(repeats=2)
    last = max(
        place for place, row in enumerate(plan.rows) if row.axes == plan.study.complete({**MASKED, "mask_ratio": 0.4})
    )
    finish_all(store, replace(plan, rows=(*plan.rows[:last], *plan.rows[last + 1 :])), _value)
    assert plan.rows[last].repeat == 1
    whole = expand(plan.study, seeds=8)
    assert standing(CLEAR, whole, runs_frame(whole, store)).waits == 3
    finish_all(store, plan, _value)
    found = standing(CLEAR, whole, runs_frame(whole, store))
    assert (found.waits, found.verdict.n) == (0, (3, 3))


def test_what_was_decided_stays_decided(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), _plan()
    finish_all(store, plan, _value)
    whole = expand(plan.study, seeds=8)
    before = standing(CLEAR, whole, runs_frame(whole, store)).verdict
    finish_all(store, whole, lambda row: 0.0)  # further seeds say the contrary
    after = standing(CLEAR, whole, runs_frame(whole, store)).verdict
    assert (before.word, before.low, before.n) == (after.word, after.low, after.n)


def test_a_failed_run_keeps_its_claim_waiting(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), _plan()
    run = evaluation(plan, 2, scope="masked", mask_ratio=0.4)
    finish_upstream(store, run)
    fail(store, run, "Traceback\nValueError: no")
    finish_all(store, Plan(plan.study, plan.scale, plan.rows[:2]), _value)
    whole = expand(plan.study, seeds=8)
    found = standing(CLEAR, whole, runs_frame(whole, store))
    assert (found.waits, found.verdict.word) == (3, "not run yet")
    assert found.verdict.reason == "3 of its 4 cells have no value yet"


def test_a_report_tells_the_looks(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), _plan()
    finish_all(store, plan, _value)
    report = write(looked(plan, store), store, tmp_path / "results")
    text = (tmp_path / "results" / "claims.md").read_text()
    assert "looked at with 3, 5, 8 seeds" in text
    assert "uses so many seeds of the cells that its claim compares, and 3 of all other cells" in text
    assert "waits for 5 seeds" in text
    assert any(line.startswith("Claims: 1 reproduced, 1 inconclusive") for line in report.notes)


def test_a_claim_without_values_is_not_counted_among_the_tested(tmp_path: Path) -> None:
    """One cell of the second claim has no value: the first one's 5 % is all the error there is."""
    store, plan = Store(tmp_path / "runs"), _plan()
    write(plan, store, tmp_path / "before")
    assert "No claim is tested yet." in (tmp_path / "before" / "claims.md").read_text()
    rows = tuple(row for row in plan.rows if tuple(row.axes.values()) != ("full", 0.6))
    finish_all(store, Plan(plan.study, plan.scale, rows), _value)
    write(looked(plan, store), store, tmp_path / "results")
    text = (tmp_path / "results" / "claims.md").read_text()
    assert "that any is, at most 5% (claims tested: 1)." in text
    (line,) = (line for line in text.splitlines() if "| open" in line)
    assert line.startswith("| not run yet |")
    assert "1 of its 3 cells has no value yet" in line


@pytest.mark.parametrize("looks", [(3, 5), (2, 4, 8)])
def test_excluded_claims_want_nothing(tmp_path: Path, looks: tuple[int, ...]) -> None:
    claim = claims.better("x", MASKED, FULL, at={"mask_ratio": 0.99})
    plan = expand(scope_study(claims=(claim,), seeds=looks[0], looks=looks))
    found = standing(claim, plan, runs_frame(plan, Store(tmp_path)))
    assert (found.verdict.word, found.wanted) == ("not testable at this scale", frozenset())
