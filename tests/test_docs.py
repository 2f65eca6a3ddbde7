"""The documentation: its Python is run, its commands exist, and every public name is in the reference.

A block that begins with `# name.py` is a file of the reader's project; the others of a page run in its order.
"""

from __future__ import annotations

import importlib
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from PIL import Image

import harness

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
WRITTEN = sorted(file for file in DOCS.rglob("*.md") if not {"generated", "_build"} & set(file.parts))
TINY = """
MINI = MINI.replace(
    data=FASHION.replace(train_images=20), labelled=FASHION.replace(train_images=20),
    pretrain=MINI.pretrain.replace(epochs=1, warmup_epochs=0, batch_size=20),
    finetune=MINI.finetune.replace(epochs=1, warmup_epochs=0, batch_size=20),
)
"""
"""Comes behind the quickstart's text."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w/]+\.\w+)\n")


def blocks(file: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(file.read_text()) if language in languages]


def named(files: list[Path]) -> list[Any]:
    return [pytest.param(file, id=str(file.relative_to(ROOT))) for file in files]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project folder that is the current one: its `studies` are not those of this repository, which another test may
    have imported, and are forgotten afterwards."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "studies"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    (tmp_path / "harness.toml").touch()
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


@pytest.fixture(scope="module")
def beside() -> Iterator[None]:
    """The modules that lie beside docs/conf.py can be imported."""
    sys.path.insert(0, str(DOCS))
    yield
    sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def pages(beside: None) -> ModuleType:
    return importlib.import_module("pages")


@pytest.fixture(scope="module")
def gallery(beside: None) -> ModuleType:
    return importlib.import_module("gallery")


@pytest.mark.parametrize("file", named([file for file in WRITTEN if blocks(file, "python")]))
def test_python_of_a_page_runs(file: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for text in blocks(file, "python"):
        if found := FILE.match(text):
            (project / found[1]).parent.mkdir(parents=True, exist_ok=True)
            (project / found[1]).write_text(text)
        else:
            exec(compile(text, str(file), "exec"), names)
    if file.name == "tutorial.md":  # which says what is printed
        assert capsys.readouterr().out in blocks(file, "text")


@pytest.mark.parametrize(
    "file", named([README, *(file for file in WRITTEN if "harness " in " ".join(blocks(file, "console")))])
)
def test_commands_of_a_page_exist(file: Path, pages: ModuleType) -> None:
    known = pages.command_tree()
    lines = "\n".join(blocks(file, "console")).splitlines()
    for line in (line.partition("#")[0].strip() for line in lines if line.startswith("harness ")):
        words = shlex.split(line)[1:]
        count = 2 if words[0] == "records" else 1
        assert " ".join(words[:count]) in known, line
        parameters = known[" ".join(words[:count])].params
        options = {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= options | {"--help"}, line


def test_python_of_the_readme_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its study and its search, at the quickstart's scale made tiny."""
    (project / "studies").mkdir()
    monkeypatch.chdir(project)
    quickstart = (ROOT / "studies" / "quickstart.py").read_text()
    (project / "studies" / "quickstart.py").write_text(quickstart + TINY)
    (project / "results").symlink_to(ROOT / "results")
    for text in blocks(README, "python"):
        if found := FILE.match(text):
            (project / found[1]).write_text(text)
    monkeypatch.setattr(harness, "run", partial(harness.run, on="inline", where={"mask_ratio": 0.5}, seeds=1))
    names: dict[str, Any] = {}
    exec(compile(next(text for text in blocks(README, "python") if not FILE.match(text)), str(README), "exec"), names)
    assert len(names["results"].frame()) == 2
    assert tuple(names["maps"][-1].shape[-2:]) == (4, 4)
    assert len(harness.plan("studies/ratios.py").rows) == 30
    assert importlib.import_module("studies.search_ratios").SEARCH.trials == {"mini": 20}


def test_the_readme_opens_with_a_figure_and_claims_of_the_evidence() -> None:
    """Its rows are those of results/README.md, without the seeds that claims take and the margin."""
    opening = README.read_text(encoding="utf-8").partition("\n## ")[0]
    (figure,) = re.findall(r"!\[[^]]+\]\((results/[\w/.-]+\.png)\)", opening)
    page = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert f'src="{figure.removeprefix("results/")}"' in page
    header, _, *table = rows_of(opening)
    there = [row[:6] for row in rows_of(page) if len(row) == 8]
    assert header in there
    assert len(table) >= 3
    assert [row for row in table if row not in there] == []
    (order,) = re.findall(
        r"separates: (\d+), in the same order here: (\d+); .* excludes zero: (\d+), in the same order: (\d+)\. "
        r".* pairs that differ: (\d+), in the same order: (\d+)\.",
        (ROOT / figure).with_name("table.md").read_text(encoding="utf-8"),
    )
    pairs, alike, beyond, alike_beyond, closer, alike_closer = map(int, order)
    (by_knn, pairs_by_knn), (closer_by_knn, all_pairs) = (
        in_the_papers_order((ROOT / figure).parent, "knn_top1", least) for least in (0.25, 0.01)
    )
    assert (pairs_by_knn, all_pairs) == (pairs, pairs + closer)
    said = f"Of {pairs} pairs of masks that the paper's Table 1 separates, {alike} stand in the same order here "
    told = " ".join(opening.split())
    assert (
        f"{said}by top-1, {by_knn} by 20-NN, and {alike_beyond} of the {beyond} whose own interval by top-1, " in told
    )
    assert f"of all {all_pairs} that it does not print alike, {alike + alike_closer} and {closer_by_knn}." in told


def test_the_readme_counts_the_claims_that_the_evidence_decides() -> None:
    """From the row of all claims: all but those that are not testable or not run are tested."""
    page = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    (header,) = (row for row in rows_of(page) if "claims" in row)
    (row,) = (row for row in rows_of(page) if row[0] == "all")
    counts = {name: int(text.strip("–†") or 0) for name, text in zip(header[1:], row[1:], strict=True)}
    tested = counts["claims"] - counts["not testable at this scale"] - counts["not run yet"]
    opening = " ".join(README.read_text(encoding="utf-8").partition("\n## ")[0].split())
    assert f"Of the {tested} claims that are tested there, {tested - counts['inconclusive']} are decided" in opening


def test_the_cells_that_the_readme_tells_from_the_default_are_all_there_are() -> None:
    """By fine-tuning, beyond noise, in SimMIM's four studies."""
    told = []
    for study in ("masking", "scope", "target", "head"):
        table = pd.read_csv(ROOT / "results" / f"simmim_{study}" / "cpu" / "table.csv")
        rows = table[(table["evaluation"] == "top1") & ~table["reference"]]
        rows = rows[(rows["simultaneous_low"] > 0) | (rows["simultaneous_high"] < 0)]
        bounds = rows[["difference", "simultaneous_low", "simultaneous_high"]].itertuples(index=False)
        told += ["{:+.1f} ({:.1f} to {:.1f})".format(*found).replace("-", "−") for found in bounds]
    opening = " ".join(README.read_text(encoding="utf-8").partition("\n## ")[0].split())
    assert sorted(re.findall(r"by ([+−][\d.]+ \([^)]+\))", opening)) == sorted(told)
    count = ("no cell differs", "one differs", "two differ", "three differ", "four differ")[len(told)]
    assert f"Of all cells {count}" in opening


def in_the_papers_order(folder: Path, evaluation: str, least: float) -> tuple[int, int]:
    """Pairs of cells in the paper's order, by the seeds they share, and all that are at least so far apart in it."""
    runs = pd.read_csv(folder / "runs.csv")
    table = pd.read_csv(folder / "table.csv")
    paper = table[table["evaluation"] == "top1"].set_index("cell")["paper"].dropna()
    values = runs[runs["evaluation"] == evaluation].pivot_table(index="cell", columns="seed", values="value")
    pairs = [
        (paper[one] - paper[other], (values.loc[one] - values.loc[other]).mean())
        for one, other in itertools.combinations([cell for cell in values.index if cell in paper], 2)
    ]
    apart = [(there, here) for there, here in pairs if abs(there) > least - 1e-9]
    return sum(there * here > 0 for there, here in apart), len(apart)


def rows_of(text: str) -> list[list[str]]:
    """Cells of all lines of tables."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_every_public_name_is_in_the_reference(pages: ModuleType) -> None:
    groups = pages.grouped()
    assert sorted(name for names in groups.values() for name in names) == sorted(set(harness.__all__))
    for group, names in groups.items():
        text = pages.reference(group, names)
        assert all(f"harness.{name}\n" in text or f"harness.{name}`" in text or name == "claims" for name in names)
        assert f"generated/{group.file}\n" in (DOCS / "reference.md").read_text()


def test_modules_list_their_own_functions_alone(pages: ModuleType) -> None:
    studies = next(pages.reference(group, names) for group, names in pages.grouped().items() if "claims" in names)
    (listed,) = re.findall(r"automodule:: harness\.study\.claims\n   :members: (.*)", studies)
    assert "better" in listed.split(", ")
    assert not {"assert_never", "dataclass", "field"} & set(listed.split(", "))


def test_every_command_is_in_the_reference(pages: ModuleType) -> None:
    text = pages.commands()
    for words in ("run", "records export", "plan"):
        assert f"\n## {words}\n" in text
    assert text.count("\n## ") == len(pages.command_tree())


def test_the_gallery_has_every_study_and_every_report(gallery: ModuleType) -> None:
    text = gallery.gallery()
    with_results, without = text.split("\n## Without results\n")
    for file in (ROOT / "studies").glob("*.py"):
        if re.search(r"^(STUDY|SEARCH) = ", file.read_text(), re.MULTILINE):
            asked = file.read_text().removeprefix('"""').splitlines()[0]
            done = list((ROOT / "results" / file.stem).glob("*/*.md"))
            row = f"| `{file.stem}` | {asked} | `harness "
            assert (f"\n## {file.stem}\n\n{asked}\n" in with_results) if done else (row in without), file.stem
    for folder in {file.parent for file in (ROOT / "results").glob("*/*/table.md")}:
        assert f"\n### Scale {folder.name}\n" in text.split(f"\n## {folder.parent.name}\n")[1].split("\n## ")[0]


def test_a_result_in_the_gallery(gallery: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its finding, the figure of what claims are about, the table without what is folded, and its report."""
    monkeypatch.setattr(gallery, "ROOT", tmp_path)
    folder = tmp_path / "results" / "quickstart" / "mini"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text('<p class="headline"><strong>It helps.</strong> +3 (p &lt; 0.05)</p>')
    (folder / "runs.csv").write_text("scope,evaluation\nfull,top1\nfull,knn\n")
    (folder / "table.md").write_text("A title.\n\n| scope |\n| --- |\n\n<details>folded</details>\n")
    for name in ("figure-curves", "figure-knn-scope", "figure-top1-scope"):
        Image.new("L", (650, 600)).save(folder / f"{name}.png")
    assert list(gallery.result(folder)) == [
        "### Scale mini",
        "**It helps.** +3 (p &lt; 0.05)",
        "```{image} ../../results/quickstart/mini/figure-top1-scope.png\n"
        ":alt: figure-top1-scope of quickstart\n:width: 390px\n```",
        "A title.\n\n| scope |\n| --- |",
        '<a href="../reports/quickstart/mini/report.html">The report</a> · '
        "{download}`runs.csv <../../results/quickstart/mini/runs.csv>`",
    ]


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, beside: None) -> None:
    (tmp_path / "a.html").write_text('<a id="here" href="b.html#there"></a><a href="https://example.org/none">')
    (tmp_path / "b.html").write_text('<a href="a.html#here"></a><a href="c.html">')
    links = importlib.import_module("links")
    assert links.broken(tmp_path) == ["a.html: b.html#there", "b.html: c.html"]
