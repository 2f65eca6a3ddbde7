"""The table as LaTeX: what stands where, and that it compiles and fits the page."""

from __future__ import annotations

import re
import shutil
import subprocess
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
    assert text.count(r"\parbox") == 1  # paragraphs of one box are as far apart


def test_signs_and_repeated_axis_values() -> None:
    rows = tuple(
        (Entry(scope), Entry(ratio), Entry("84.50 ± 0.71", bold=scope == "full", sign=sign))
        for scope, ratio, sign in (
            ("masked", "0.4", "↓"),
            ("masked", "0.6", "•"),
            ("full", "0.4", "↑"),
            ("full", "0.6", ""),
        )
    )
    failed = (Entry("full"), Entry("0.8"), Entry("84.50 (1/2)", mark="a", sign="↓"))
    rows = (*rows, failed)
    found = Table(caption="Made up.", header=("scope", "mask ratio", "top-1 (%)"), rows=rows, axes=2)
    lines = [line.removesuffix(r" \\") for line in latex_text(found, "tab:x").splitlines()]
    first = lines.index(r"masked & 0.4 & 84.50 $\pm$ 0.71\rlap{\,$\downarrow$}")
    assert lines[first + 1 : first + 5] == [
        r" & 0.6 & 84.50 $\pm$ 0.71\rlap{\,$\bullet$}",
        r"\addlinespace",
        r"full & 0.4 & \textbf{84.50 $\pm$ 0.71}\rlap{\,$\uparrow$}",
        r" & 0.6 & \textbf{84.50 $\pm$ 0.71}",
    ]
    # The sign takes no width: before the letter it would stand over it.
    assert lines[first + 5] == r" & 0.8 & 84.50 (1/2)\textsuperscript{a}\rlap{\,$\downarrow$}"


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (3, 5), (12, 3), (2, ROWS + 1), (12, 90)])
def test_it_is_always_one_table(columns: int, rows: int) -> None:
    text = latex_text(made(columns, rows), "tab:x")
    assert text.count(r"\begin{table}") == text.count(r"\begin{tabular}") == text.count(r"\caption") == 1
    assert (r"\resizebox" in text) == (columns == 12 or rows > ROWS)


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
            (of(plan, half), of(broad, wide), of(plan, Store(tmp_path)), made(12, 90), made(2, 70), of(hostile, evil))
        )
    ]
    name, _, option = document.partition(", ")
    text = "\n\\clearpage\n".join([*bodies[:-1], "\\typeout{HOSTILE}", bodies[-1]])
    if option:  # as the first line of each says
        text = text.replace("{table}", "{table*}")
    head = f"\\documentclass[{option}]{{{name}}}\n\\usepackage{{booktabs,graphicx}}\n\\begin{{document}}\n"
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
