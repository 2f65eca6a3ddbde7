"""The table in every format, with hand-made values, holes and hostile text."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_study import (
    ENVIRONMENT,
    SCALE,
    begin,
    evaluation,
    fail,
    finish_all,
    finish_upstream,
    half_finished,
    scope_cell,
    scope_plan,
)

from harness.papers import PaperTable, PublishedValue
from harness.report import write
from harness.report.collect import runs_frame
from harness.report.escape import clean, file_stem, latex, markdown
from harness.report.headline import headline
from harness.report.tables.footnotes import mixed_provenance, origin_doubts
from harness.report.tables.latex import latex_text
from harness.report.tables.statistics import summary
from harness.report.tables.table import ESTIMATED, Table, csv_text, decimals, markdown_text, table
from harness.spec import Augment, Evaluation, FineTune, Knn, Scale, upstream
from harness.store import Store
from harness.study import Grid, Plan, axes, expand

HOSTILE = (
    'a|b\x1b[31m\x1b]0;title\x07 <script>alert("1")</script> \\input{x} $x_1$ & % # ~ ^ {  [x](y) *b* '
    "\u202e中é\n../../up"
)
HOSTILE_NAME = "".join(letter for letter in HOSTILE if letter.isprintable() and letter not in "/\\")
"""A study refuses separators and what cannot be printed in its name, since a folder is named after it."""


def _table(plan: Plan, store: Store, *, wide: bool = False) -> Table:
    runs = runs_frame(plan, store)
    return table(plan, runs, summary(plan, runs), wide=wide)


def test_a_finished_study(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    values = {("masked", 0.4): 80.0, ("masked", 0.6): 84.0, ("full", 0.4): 84.0, ("full", 0.6): 81.5}
    slope = {"full": 1.2}
    finish_all(
        store,
        plan,
        lambda row: values.get(tuple(row.axes.values()), 70.0) + slope.get(row.axes["scope"], 1.0) * row.seed,
    )
    found = _table(plan, store, wide=True)
    assert found.header == (
        "scope", "mask ratio", "top-1 (%)", "top-1 paper", "top-1 n", "top-1 95 % interval", "top-1 vs reference",
    )  # fmt: skip
    # The second seed adds 1, and 0.2 more where the scope is full: residuals of 0.06 and 0.04 on 4 degrees of freedom.
    # The intervals are the t of one degree of freedom, 12.706, times half the difference of both seeds.
    assert found.plain_rows() == (
        ("masked", "0.4", "80.50 ± 0.71", "82.5", "2", "74.15 to 86.85", "−4.00 p < 0.001"),
        ("masked", "0.6", "84.50 ± 0.71", "82.8", "2", "78.15 to 90.85", "reference"),
        ("masked", "0.99", "excluded [a]", "–", "–", "–", "–"),
        ("full", "0.4", "84.60 ± 0.85", "–", "2", "76.98 to 92.22", "+0.10 n.s."),
        ("full", "0.6", "82.10 ± 0.85", "81.75 (unverified)", "2", "74.48 to 89.72", "−2.40 p < 0.001"),
        ("full", "0.99", "excluded [a]", "–", "–", "–", "–"),
        ("scratch", "–", "70.50 ± 0.71", "–", "2", "64.15 to 76.85", "−14.00 p < 0.001"),
    )
    # What a note explains stands in the table.
    assert (
        "reference: scope masked, mask ratio 0.6; vs reference: difference, adjusted p; n.s.: p of 0.05 or more."
        in (found.notes)
    )
    assert not any("↑" in note for note in found.notes)
    # The same comparisons as signs, where only 0.10 is not told from the reference.
    compact = _table(plan, store)
    assert compact.header == ("scope", "mask ratio", "top-1 (%)", "paper")
    assert [row[2:] for row in compact.plain_rows()] == [
        ("80.50 ± 0.71 ↓", "82.5"), ("84.50 ± 0.71 •", "82.8"), ("excluded [a]", "–"), ("84.60 ± 0.85", "–"),
        ("82.10 ± 0.85 ↓", "81.75?"), ("excluded [a]", "–"), ("70.50 ± 0.71 ↓", "–"),
    ]  # fmt: skip
    assert "after the last epoch, on the test split of shapes (32 px)" in compact.caption
    assert compact.caption.endswith("Mean ± standard deviation over seeds (n = 2).")
    assert compact.plain_notes() == (
        "[a] excluded: 0.99 hides all 16 units",
        "• reference (scope masked, mask ratio 0.6); ↑ better, ↓ worse than it (adjusted p < 0.05).",
        "paper: another protocol, so compare its differences, not its level; ? = not checked against a source.",
    )
    reading = "\n".join(compact.reading)
    assert "made_up_table" in reading
    assert "unverified:" in reading
    assert "Assumed, where the paper does not say: beta2 is 0.999" in reading
    assert "Mixed" not in reading


@pytest.mark.parametrize("mixed", [{"mixup": 0.8}, {"cutmix": 1.0}, {}])
def test_beside_a_papers_values_it_is_said_how_a_batch_is_mixed(tmp_path: Path, mixed: dict[str, Any]) -> None:
    recipe = SCALE.finetune.replace(augment=Augment(**mixed))
    store, plan = Store(tmp_path), scope_plan(scales=(SCALE.replace(finetune=recipe),))
    finish_all(store, plan)
    reading = " ".join(_table(plan, store).reading)
    assert ("draw one ratio, and one choice of the two, for the whole batch here" in reading) is bool(mixed)


def test_a_half_finished_study(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    half_finished(store, plan)
    run = evaluation(plan, 0, scope="full", mask_ratio=0.4)
    finish_upstream(store, run)
    attempt = begin(store, run)
    found = _table(plan, store, wide=True)
    attempt.release()
    assert found.header[2:] == (
        "top-1 (%)", "top-1 paper", "top-1 n", "top-1 95 % interval", "top-1 vs reference",
    )  # fmt: skip
    assert [(row[2], row[4]) for row in found.plain_rows()] == [
        ("81.00 (1 of 2 failed) [a]", "1 of 2"),
        ("84.50 ± 0.71", "2"),
        ("excluded [b]", "–"),
        ("1 missing, 1 running", "0 of 2"),
        ("1 blocked, 1 interrupted [c]", "0 of 2"),
        ("excluded [b]", "–"),
        ("71.00 ± 1.41", "2"),
    ]
    assert found.footnotes == (
        ("a", "failed: RuntimeError: out of memory"),
        ("b", "excluded: 0.99 hides all 16 units"),
        ("c", "blocked: its pre-training failed: ValueError: loss is nan"),
    )
    assert found.notes[0].startswith("Unfinished: 5 of 10 values are there")
    compact = _table(plan, store)
    assert compact.rows[0][2].plain() == "81.00 (1/2) [a]"
    assert compact.notes[0].endswith("; (k/n): k of n seeds.")


def test_few_footnotes_and_short_ones(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan(seeds=1, grid=axes(scope="masked", mask_ratio=(0.3, 0.4, 0.5, 0.6, 0.7)))
    for number, row in enumerate(plan.rows):
        finish_upstream(store, row.evaluations["top1"])
        fail(store, row.evaluations["top1"], f"Error {number}: " + "x" * 500)
    found = _table(plan, store)
    assert [row[1].mark for row in found.rows] == ["a", "b", "c", "d", "d"]
    assert found.footnotes[3] == ("d", "2 other reasons, in runs.csv")
    assert [len(text) for _, text in found.footnotes[:3]] == [100] * 3


def test_nothing_done(tmp_path: Path) -> None:
    rows = _table(scope_plan(), Store(tmp_path)).plain_rows()
    assert [row[2] for row in rows[:2]] == ["missing", "missing"]


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan(seeds=1)
    finish_all(store, plan, lambda row: 80.0)
    found = _table(plan, store)
    assert found.caption.endswith(" One seed.")
    assert found.plain_rows()[0][2] == "80.00"
    assert "Where n = 1, one seed shows no spread." in found.notes


def test_a_part_of_the_cells_without_the_reference(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), expand(scope_plan().study, where={"scope": ["full"]})
    finish_all(store, plan)
    found = _table(plan, store, wide=True)
    assert found.header == ("scope", "mask ratio", "top-1 (%)", "top-1 paper", "top-1 n", "top-1 95 % interval")
    compact = _table(plan, store)
    # All cells share the scope, which stands in the caption.
    assert compact.header == ("mask ratio", "top-1 (%)", "paper")
    assert "at scale fake, scope full." in compact.caption
    assert any("is not among these cells" in note for note in found.notes)


def test_a_group_of_columns_for_each_evaluation(tmp_path: Path) -> None:
    def two(scale: Scale, scope: str, mask_ratio: float | None, seed: int) -> dict[str, Evaluation]:
        found = scope_cell(scale, scope, mask_ratio, seed)
        if scope == "scratch":
            return found
        tuned = found["top1"]
        assert isinstance(tuned, FineTune)
        return {"knn": Knn(start=tuned.start, data=SCALE.data, image_size=32, seed=seed), **found}

    store, plan = Store(tmp_path), scope_plan(cell=two)
    finish_all(store, plan, lambda row: 0.5)
    found = _table(plan, store, wide=True)
    assert found.header[2:] == (
        "20-NN (%)", "20-NN n", "20-NN 95 % interval", "20-NN vs reference", "top-1 (%)", "top-1 paper", "top-1 n",
        "top-1 95 % interval", "top-1 vs reference",
    )  # fmt: skip
    shown = ("–", "–", "–", "–", "0.5000 ± 0.0000", "–", "2", "0.5000 to 0.5000", "0.0000 n.s.")
    assert found.plain_rows()[-1][2:] == shown
    assert _table(plan, store).header[2:] == ("20-NN (%)", "top-1 (%)", "paper")
    told = (
        "20-NN (%): accuracy of 20 nearest neighbours.",
        "top-1 (%): fine-tuning accuracy after the last epoch.",
        "All on the test split of shapes (32 px).",
    )
    assert found.measures == found.reading[:3] == told
    assert "nearest" not in found.caption
    assert (found.groups, _table(plan, store).groups) == ((4, 5), (1, 2))


def test_mixed_commits_devices_and_versions_are_told(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    first = evaluation(plan, 0, scope="masked", mask_ratio=0.4)
    finish_upstream(store, first)  # this pre-training alone has the usual environment
    other = {**ENVIRONMENT, "commit": "b" * 40, "dirty": True, "device": "GPU", "versions": {"torch": "2.7.1"}}
    finish_all(store, plan, environment=other)
    notes = mixed_provenance(runs_frame(plan, store))
    assert notes[0] == "Mixed commit: the finished runs come from bbbbbbbbbbbb-dirty (17), aaaaaaaaaaaa (1)."
    assert notes[1] == "Mixed device: the finished runs come from GPU (17), cpu (1)."
    assert notes[2] == "Mixed torch: the finished runs come from 2.7.1 (17), 2.6.0 (1)."
    assert notes[3] == "Mixed timm: the finished runs come from unknown (17), 1.0.20 (1)."
    assert notes[-1] == "17 of 18 finished runs were made with uncommitted changes."
    runs = runs_frame(plan, store).assign(code="c", pretrain_code="c")
    assert mixed_provenance(runs)[0].endswith("aaaaaaaaaaaa (1); the code that determines numbers is the same.")
    assert origin_doubts(runs).startswith("mixed device, torch")


def test_another_release_of_the_same_code_is_no_doubt(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    finish_upstream(store, evaluation(plan, 0, scope="masked", mask_ratio=0.4))
    versions = {"torch": "2.6.0", "timm": "1.0.20", "harness": "9.9"}
    finish_all(store, plan, environment={**ENVIRONMENT, "versions": versions})
    runs = runs_frame(plan, store)
    assert origin_doubts(runs) == "mixed harness"
    runs = runs.assign(code="c", pretrain_code="c")
    assert origin_doubts(runs) == ""
    (note,) = mixed_provenance(runs)
    assert note.startswith("Mixed harness: ")
    assert note.endswith("; the code that determines numbers is the same.")


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"code": "cd"}, "Mixed code: the finished runs come from cd (9), ab (9)."),
        ({"threads": 8}, "Mixed threads: the finished runs come from 8 (9), 1 (9)."),
        ({"processor": "other"}, "Mixed processor: the finished runs come from other (9), one (9)."),
        ({"versions": {"numpy": "2.4.0"}}, "Mixed numpy: the finished runs come from 2.4.0 (9), 2.3.0 (9)."),
        ({"versions": {"python": "3.12.1"}}, "Mixed python: the finished runs come from 3.12.1 (9), 3.11.7 (9)."),
        ({"versions": {"torchvision": "0.29"}}, "Mixed torchvision: the finished runs come from 0.29 (9), 0.21 (9)."),
    ],
)
def test_all_that_may_move_a_number_is_told_where_it_is_mixed(tmp_path: Path, change: Any, note: str) -> None:
    store, plan = Store(tmp_path), scope_plan()
    versions = {"numpy": "2.3.0", "python": "3.11.7", "torchvision": "0.21"}
    usual = {**ENVIRONMENT, "code": "ab", "processor": "one", "versions": versions}
    other = {**usual, **change, "versions": versions | change.get("versions", {})}
    for seed, environment in enumerate((other, usual)):
        finish_all(
            store, replace(plan, rows=tuple(row for row in plan.rows if row.seed == seed)), environment=environment
        )
    assert mixed_provenance(runs_frame(plan, store)) == (note,)


def test_runs_of_before_that_code_was_recorded_are_not_mixed_with_each_other(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    finish_all(store, plan)
    assert mixed_provenance(runs_frame(plan, store)) == ()


def test_estimates_in_csv_do_not_show_the_last_bits_of_a_processor(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    finish_all(store, plan, lambda row: 80 + row.seed / 3)
    cells = summary(plan, runs_frame(plan, store))
    floats = cells.select_dtypes("float").columns
    other = cells.copy()
    other[floats] = np.nextafter(np.nextafter(cells[floats], np.inf), np.inf) + 1e-14  # zeros are not exact either
    assert csv_text(cells) != csv_text(other)
    assert csv_text(cells, ESTIMATED) == csv_text(other, ESTIMATED)
    first, *_ = csv.DictReader(csv_text(cells, ESTIMATED).splitlines())
    assert float(first["mean"]) == 80.16666667  # half of 80 and 80 1/3


def test_csv_of_runs_has_full_precision_and_every_cell(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    finish_all(store, plan, lambda row: 80 + row.seed / 3)
    runs = runs_frame(plan, store)
    records = list(csv.DictReader(csv_text(summary(plan, runs)).splitlines()))
    assert len(records) == 7
    assert float(records[0]["mean"]) == (80 + (80 + 1 / 3)) / 2
    assert (records[-1]["mask_ratio"], records[2]["mean"]) == ("", "")
    assert len(list(csv.DictReader(csv_text(runs).splitlines()))) == 14


def hostile_plan(store: Store) -> Plan:
    def cell(scale: Scale, seed: int, **point: str) -> dict[str, Evaluation]:
        found = scope_cell(scale, "masked", 0.4 if point["k"] == HOSTILE else 0.6, seed)
        return {HOSTILE: found["top1"]}

    paper = PaperTable(HOSTILE, HOSTILE, (({"k": "plain"}, PublishedValue(1.0, "ai", HOSTILE)),))
    plan = scope_plan(
        cell=cell, grid=axes(k=(HOSTILE, "plain"), **{HOSTILE: ("[", "*")}), name=HOSTILE_NAME, paper=paper,
        reference={"k": "plain", HOSTILE: "["}, claims=(),
    )  # fmt: skip
    run = plan.rows[0].evaluations[HOSTILE]
    finish_upstream(store, run)
    fail(store, run, f"Traceback\nValueError: {HOSTILE}")
    return plan


def test_hostile_text_does_no_harm(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plan = hostile_plan(store)
    found = _table(plan, store)
    plain = "\n".join(["".join(row) for row in found.plain_rows()] + [*found.header, *found.plain_notes()])
    for text in (plain, csv_text(runs_frame(plan, store)), markdown_text(found), latex_text(found, "tab:x")):
        assert all(char.isprintable() or char == "\n" for char in text)
    marked = markdown_text(found)
    assert "<script" not in marked
    assert "](y)" not in marked.replace(r"\]", "")
    lines = [line for line in marked.splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in lines} == {len(found.header) + 1}
    assert latex_text(found, "tab:x").isascii()


def test_no_text_of_a_csv_is_a_formula_and_numbers_stay_numbers() -> None:
    texts = ["=1+1", "+cmd", "-x", "@SUM(A1)", "\t=1", "-0.5", "+3", "-1e-3", "plain", "a=b"]
    for kind in ("object", "str"):
        frame = pd.DataFrame({"self": pd.Series(texts, dtype=kind), "=value": [-1.5] * len(texts)})
        lines = list(csv.reader(csv_text(frame).splitlines()))
        assert lines[0] == ["self", "'=value"]
        assert [line[0] for line in lines[1:]] == [
            "'=1+1", "'+cmd", "'-x", "'@SUM(A1)", "'=1", "-0.5", "+3", "-1e-3", "plain", "a=b",
        ]  # fmt: skip
        assert {line[1] for line in lines[1:]} == {"-1.5"}


def test_hostile_names_stay_in_their_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    plan = hostile_plan(store)
    finish_all(store, replace(plan, rows=tuple(row for row in plan.rows if row.axes["k"] == "plain")))
    report = write(plan, store, tmp_path / "results")
    assert {path.name for path in (tmp_path / "results").iterdir()} == set(report.files)
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "results"}
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+\.(csv|md|tex|html|png|pdf|svg)", name) for name in report.files)


def test_escapes() -> None:
    assert clean("a\x1b[1mb\x07c\u202ed\ud800\u2028e") == "ab cd e"
    assert markdown("$a$ a_b _c_ <i> a|b & `x`") == r"\$a\$ a_b \_c\_ &lt;i&gt; a\|b &amp; \`x\`"
    assert latex("50% of_é ± 1 [a] 中 ß") == r"50\% of\_\'{e} $\pm$ 1 {[}a{]} {[}U+4E2D{]} \ss{}"
    assert file_stem("../../etc/passwd", "\x00 ", "ok_1") == "etc_passwd-x-ok_1"
    assert [decimals([value]) for value in (84.3, 5.0, 0.5, 0.0, float("nan"))] == [2, 3, 4, 2, 2]


def test_a_grid_of_one_cell(tmp_path: Path) -> None:
    plan = scope_plan(grid=Grid([{"scope": "masked", "mask_ratio": 0.6}]))
    store = Store(tmp_path)
    finish_all(store, plan)
    assert _table(plan, store, wide=True).plain_rows()[0][-1] == "reference"
    assert _table(plan, store).plain_rows() == (("masked", "0.6", "80.06 ± 0.09 •", "82.8"),)
    assert upstream(evaluation(plan, 0, scope="masked", mask_ratio=0.6)) is not None


def test_bold_says_something_or_is_left_out(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "a"), scope_plan(seeds=4)
    finish_all(store, plan, lambda row: 80.0 + row.seed / 7 - 5 * (row.axes["scope"] == "scratch"))
    found = _table(plan, store)
    assert [row[2].bold for row in found.rows] == [True, True, False, True, True, False, False]
    assert any("the best, and what cannot be told from it" in note for note in found.notes)
    store = Store(tmp_path / "b")
    finish_all(store, plan, lambda row: 80.0 + row.seed / 7)
    found = _table(plan, store)
    assert not any(entry.bold for row in found.rows for entry in row)
    assert any("no cell can be told from the best" in note for note in found.notes)


def test_labels_of_a_study_and_cells_from_scratch(tmp_path: Path) -> None:
    grid = axes(mask_ratio=(0.4, 0.6), scope=("masked",)) | Grid([{}])

    def cell(scale: Scale, seed: int, mask_ratio: float | None, scope: str | None) -> dict[str, Evaluation]:
        return scope_cell(scale, scope or "", mask_ratio, seed)

    labels = {"mask_ratio": "share hidden", "top1": "accuracy after fine-tuning (%)"}
    plan = scope_plan(cell=cell, grid=grid, paper=None, labels=labels)
    found = _table(plan, Store(tmp_path))
    assert found.header == ("share hidden", "scope", "accuracy after fine-tuning (%)")
    assert [row[0].text for row in found.rows] == ["0.4", "0.6", "from scratch"]
    assert "accuracy after fine-tuning (%): fine-tuning accuracy after the last epoch" in found.caption


def test_at_most_four_notes_the_gravest_first(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    half_finished(store, plan)
    rows = tuple(row for row in plan.rows if row.axes["scope"] == "full" and row.axes["mask_ratio"] == 0.4)
    finish_all(store, replace(plan, rows=rows), environment={**ENVIRONMENT, "device": "GPU"})
    found = _table(plan, store)
    assert [note.split()[0] for note in found.notes] == ["Unfinished:", "Where", "Mixed", "•"]
    assert found.notes[2] == "Mixed device among these runs: see how to read this."
    assert any(text.startswith("Mixed device: the finished runs come from") for text in found.reading)


def test_what_beats_the_reference_has_an_arrow_up(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan(seeds=4)
    level = {"masked": 80.0, "full": 85.0, "scratch": 70.0}
    finish_all(store, plan, lambda row: level[str(row.axes["scope"])] + row.seed / 7)
    found = _table(plan, store)
    assert [row[2].sign for row in found.rows] == ["", "•", "", "↑", "↑", "", "↓"]
    runs = runs_frame(plan, store)
    text = headline(plan, summary(plan, runs))
    assert "Better than the reference: scope full" in text
    assert "Worse" not in text
