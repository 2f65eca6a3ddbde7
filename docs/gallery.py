"""The gallery, written when the site is built: every shipped study with what `results/` of the repository has of it."""

from __future__ import annotations

import ast
import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

SHOWN = 0.6
"""Pixels of the page that a pixel of a figure takes."""
ROOT = Path(__file__).resolve().parent.parent
ABOUT = (
    "Every study in `studies/` of the repository: what it asks and what was found, read from `results/`. The report of "
    "a result has the rest: claims, curves, reconstructions and provenance. Results of reduced scales speak of these "
    "scales: [what they can say](../explanation/reduced-scale.md)."
)
UNSEEN = "These have no results in the repository yet. The command beside a study computes it at a reduced scale."
NOT_FIRST = ("curves", "reconstructions", "contour", "avgdist", "-paper")
"""Figures that do not answer a question by themselves."""


def write(folder: Path, reports: Path) -> None:
    """Write the page into a folder, and copy the reports that it leads to.

    Args:
        reports: folder of copies, which is part of the site as `reports/`.
    """
    shutil.rmtree(reports, ignore_errors=True)
    for report in ROOT.glob("results/*/*/report.html"):
        copy = reports / "reports" / report.relative_to(ROOT / "results")
        copy.parent.mkdir(parents=True)
        shutil.copy(report, copy)
    (folder / "gallery.md").write_text(gallery())


def gallery() -> str:
    """The text of the page."""
    found = {study: sorted(results(study)) for study in studies()}
    parts = ["# Gallery of studies", ABOUT]
    for study, folders in sorted(found.items(), key=lambda pair: not _reported(pair[1])):
        if folders:
            parts += [f"## {study}", question(study), *(text for folder in folders for text in result(folder))]
    rows = [f"| `{study}` | {question(study)} | `{command(study)}` |" for study in found if not found[study]]
    parts += ["## Without results", UNSEEN, "| study | asks | command |\n| --- | --- | --- |\n" + "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def studies() -> list[str]:
    """Names of the files in studies/ that hold a study or a search."""
    files = sorted(ROOT.glob("studies/*.py"))
    return [file.stem for file in files if re.search(r"^(STUDY|SEARCH) = ", file.read_text(), re.MULTILINE)]


def results(study: str) -> set[Path]:
    """Folders with a table of the study, one for each scale."""
    return {file.parent for name in ("table.md", "search.md") for file in ROOT.glob(f"results/{study}/*/{name}")}


def _reported(folders: list[Path]) -> bool:
    """Whether there is a report: a setting that was only chosen, or searched, comes after what was found."""
    return any((folder / "report.html").is_file() for folder in folders)


def question(study: str) -> str:
    """What the study asks: the first line of its file."""
    return _about(study).splitlines()[0]


def command(study: str) -> str:
    """The command that computes it, as its file says it."""
    said = re.search(r"^Run +(harness [^,\n]*)", _about(study), re.MULTILINE)
    if said is None:
        raise LookupError(f"studies/{study}.py does not say how it is run")
    return said[1]


def _about(study: str) -> str:
    return ast.get_docstring(ast.parse((ROOT / "studies" / f"{study}.py").read_text())) or ""


def result(folder: Path) -> Iterator[str]:
    """What one scale of a study has: its headline, a figure, the compact table, and where all of it is."""
    yield f"### Scale {folder.name}"
    if said := headline(folder):
        yield said
    if picture := figure(folder):
        with Image.open(picture) as image:
            width = round(SHOWN * image.width)  # so that letters have one size, in figures of one column too
        about = f":alt: {picture.stem} of {folder.parent.name}\n:width: {width}px"
        yield f"```{{image}} ../../{picture.relative_to(ROOT)}\n{about}\n```"
    yield table(folder)
    place = folder.relative_to(ROOT)
    there = [name for name in ("report.html", "runs.csv", "trials.csv") if (folder / name).is_file()]
    links = {name: f"{{download}}`{name} <../../{place}/{name}>`" for name in there}
    if "report.html" in links:
        links["report.html"] = f'<a href="../reports/{place.relative_to("results")}/report.html">The report</a>'
    yield " · ".join(links.values())


def headline(folder: Path) -> str:
    """What was found, in the words of the page; nothing if it has none."""
    page = folder / "report.html"
    said = re.search(r'<p class="headline">(.*?)</p>', page.read_text(), re.DOTALL) if page.is_file() else None
    return re.sub("</?strong>", "**", said[1].replace("*", "\\*")).strip() if said else ""


def figure(folder: Path) -> Path | None:
    """The figure of the evaluation that comes first, else any that shows values."""
    pictures = [file for file in sorted(folder.glob("*.png")) if not any(word in file.stem for word in NOT_FIRST)]
    first = _first_evaluation(folder)
    return next((file for file in pictures if file.stem.startswith(f"figure-{first}-")), next(iter(pictures), None))


def _first_evaluation(folder: Path) -> str:
    if not (folder / "runs.csv").is_file():
        return ""
    with (folder / "runs.csv").open(newline="") as file:
        return next((row["evaluation"] for row in csv.DictReader(file)), "")


def table(folder: Path) -> str:
    """The compact table with its notes, without title and without what is folded away below it."""
    file = next(file for name in ("table.md", "search.md") if (file := folder / name).is_file())
    text = file.read_text().partition("<details>")[0]
    return "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip()
