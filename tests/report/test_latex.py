"""The table as LaTeX: what stands where, and that it compiles and fits the page."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from fake_study import SCALE, finish_all, half_finished, scope_cell, scope_plan
from test_report_tables import hostile_plan

from harness.report.collect import runs_frame
from harness.report.tables.latex import ROWS, latex_text
from harness.report.tables.statistics import summary
from harness.report.tables.table import Entry, Table, table
from harness.spec import Evaluation, FineTune, Knn, Scale
from harness.store import Store
from harness.study import Plan

PDFLATEX = shutil.which("pdflatex")


def of(plan: Plan, store: Store) -> Table:
    runs = runs_frame(plan, store)
    return table(plan, runs, summary(plan, runs))


def made(columns: int, rows: int, text: str = "84.31 ± 0.22") -> Table:
    """A table of one axis: every row has a footnote of its own."""
    return Table(
        caption="Made up.",
        header=("size", *(f"top{number} (n = 5)" for number in range(columns))),
        rows=tuple(
            (Entry(str(row)), *(Entry(text, "ab"[row % 2], bold=not row) for _ in range(columns)))
            for row in range(rows)
        ),
        axes=1,
        footnotes=(("a", "even"), ("b", "odd"), ("c", "nowhere")),
        notes=("last & least",),
    )


def test_bold_marks_and_notes() -> None:
    text = latex_text(made(1, 2), "tab:x")
    assert r"0 & \textbf{84.31 $\pm$ 0.22}\textsuperscript{a} \\" in text
    assert r"1 & 84.31 $\pm$ 0.22\textsuperscript{b} \\" in text
    assert r"\textsuperscript{b}\,odd" in text
    assert "nowhere" not in text
    assert text.count(r"last \& least") == 1
    assert text.count(r"\begin{table}") == text.count(r"\caption{Made up.}") == 1


def test_columns_that_do_not_fit_stand_below_with_the_axes_repeated() -> None:
    text = latex_text(made(9, 3), "tab:x")
    heads = [line for line in text.splitlines() if line.startswith("size &")]
    assert len(heads) > 1
    assert sum(head.count("&") for head in heads) == 9
    assert text.count(r"\begin{table}") == 1
    assert text.count(r"\begin{tabular}") == len(heads)


def test_long_headers_go_on_below() -> None:
    text = latex_text(replace(made(1, 1), header=("mask_ratio", "nearest neighbours vs reference & co")), "tab:x")
    assert r"mask\_ratio & \shortstack[r]{nearest\\neighbours vs\\reference \& co} \\" in text


def test_long_entries_go_on_below() -> None:
    text = latex_text(made(1, 1, "81.00 ± 1.12 (pooled, 1 of 2 failed)"), "tab:x")
    assert r"\textbf{\shortstack[r]{81.00 $\pm$ 1.12\\(pooled, 1 of 2 failed)}}\textsuperscript{a}" in text


def test_rows_that_do_not_fit_a_page_go_on() -> None:
    text = latex_text(made(1, 2 * ROWS + 1), "tab:x")
    assert text.count(r"\begin{table}") == 3
    assert text.count(r"\caption") == 1
    assert text.count(r"Table~\ref{tab:x}, continued") == 2
    assert [int(found) for found in re.findall(r"^(\d+) &", text, re.M)] == list(range(2 * ROWS + 1))
    assert text.count(r"last \& least") == 1


def two_evaluations(scale: Scale, scope: str, mask_ratio: float | None, seed: int) -> dict[str, Evaluation]:
    found = scope_cell(scale, scope, mask_ratio, seed)
    tuned = found["top1"]
    assert isinstance(tuned, FineTune)
    probes = {
        f"{k} nearest neighbours": Knn(start=tuned.start, data=SCALE.data, k=k, image_size=32, seed=seed)
        for k in (5, 10, 20)
        if scope != "scratch"
    }
    return {**found, **probes}


@pytest.mark.skipif(PDFLATEX is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("document", ["article", "article, twocolumn"])
def test_it_compiles_and_fits_the_page(tmp_path: Path, document: str) -> None:
    half, evil, wide = (Store(tmp_path / name) for name in ("half", "evil", "wide"))
    plan, broad = scope_plan(), scope_plan(cell=two_evaluations)
    half_finished(half, plan)
    hostile = hostile_plan(evil)
    finish_all(wide, broad, lambda row: 80 + row.seed / 3)
    bodies = [
        latex_text(found, f"tab:{number}")
        for number, found in enumerate(
            (of(plan, half), of(broad, wide), of(plan, Store(tmp_path)), made(12, 90), made(1, 1), of(hostile, evil))
        )
    ]
    name, _, option = document.partition(", ")
    text = "\n\\clearpage\n".join([*bodies[:-1], "\\typeout{HOSTILE}", bodies[-1]])
    if option:  # as the first line of each says
        text = text.replace("{table}", "{table*}")
    head = f"\\documentclass[{option}]{{{name}}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n"
    (tmp_path / "t.tex").write_text(head + text + "\\end{document}\n")
    assert PDFLATEX is not None
    for _ in range(2):
        done = subprocess.run(
            [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:]
    assert "undefined" not in done.stdout
    assert "Float too large" not in done.stdout
    fitting, _, _ = done.stdout.partition("HOSTILE")  # whose words cannot be broken
    assert [float(size) for size in re.findall(r"Overfull \\hbox \(([0-9.]+)pt", fitting) if float(size) > 5] == []
