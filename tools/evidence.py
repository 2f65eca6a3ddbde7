"""The front page of the evidence, results/README.md, from the records that lie beside it.

    python tools/evidence.py            # writes results/README.md
    python tools/evidence.py --check    # exit code 1 if it would be another one

Every claim of every study in studies/ is on it, and the search, whose trials are in results/search_masking. A study is
shown at the scales of its records, that is of results/STUDY-SCALE.records, or STUDY-SCALE-N-seeds.records where the
study itself asks for fewer; without any as not run, at scale `cpu` or, if it has none of that name, at its first.
Statistics, verdicts and words are those of `harness report`; nothing is estimated here.
"""

from __future__ import annotations

import ast
import csv
import itertools
import math
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import harness
from harness.api import Results
from harness.core.masks.masking import make_mask
from harness.papers.protocol import protocol_of
from harness.report.claims.contrasts import sides
from harness.report.claims.listing import beside, claim_rows, judged
from harness.report.claims.verdicts import ORDER, Verdict
from harness.report.escape import NOTHING, markdown, markdown_table, shorten
from harness.report.labels import short_label
from harness.report.numbers import number, signed, with_half
from harness.report.search.numbers import Confirmed, confirmed, interval
from harness.report.search.numbers import verdict as winner
from harness.report.tables.footnotes import origin_doubts
from harness.report.tables.paper_values import column_beside, tables_beside
from harness.report.tables.statistics import summary
from harness.search.declaration import FIRST_FRESH, load_search
from harness.search.measure import metric_of
from harness.search.session import Opened, history, open_search
from harness.spec import HarnessError, key, pretraining
from harness.stats.intervals import ERROR, Floats, half_width
from harness.store import Store
from harness.store.exchange import import_records
from harness.store.states import Result
from harness.study import Study, load
from harness.study.claims import InnerMaximum
from harness.study.study import cell_text

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "results"
PAGE = FOLDER / "README.md"
SEARCHED = FOLDER / "search_masking"
PAPERS = {"simmim": "SimMIM", "quickstart": "SimMIM", "a2mim": "A2MIM", "symmim": "SymMIM", "mae": "MAE"}
"""Whose claims a study is about, by the first word of its name."""
OTHERS = "Several papers"
SECTIONS = (*dict.fromkeys(PAPERS.values()), OTHERS)
DECIDED = ("reproduced", "contradicted", "no difference beyond the margin")
WORDS = (*DECIDED, *(word for word in ORDER if word not in DECIDED))
PLAN = FOLDER / "PLAN.md"
REMARKS = {
    "a2mim_components": (
        "`SimMIM` fills hidden pixels with the data set's mean colour before its token takes their place, A2MIM with "
        "the image's own: the claims about the mean colour compare two fills. The released SimMIM fills nothing "
        "(`released SimMIM`, not run).",
    ),
    "downstream_dense": (
        "`ViT-B` names this small model, which stands for it; pictures are scenes put together from Fashion-MNIST's "
        "images. PLAN.md leaves the linear layer on the frozen encoder without a claim, since in the calibration, "
        "after 5 epochs, it was 1.1 points above the most frequent class everywhere (5.8); here pre-training has 10.",
    ),
    "simmim_target": (
        "`BEiT` stands in for DALL-E's tokens, which have no meaning for such small images: 64 words of a k-means over "
        "raw patches. Of the seven classifications two exist at this scale. The default, regression l1 192, is "
        "simmim_scope's, all of an Intel; the other cells are of an Intel with seeds 10 to 14 and of an AMD with 15 to "
        "19, so that with the latter a difference from the default is one between processors too.",
    ),
    "symmim_masks": (
        "A board of 1 or 2 is a checkerboard with squares of so many patches. That of 2 hides 16 of 36 patches (44 %), "
        "none of which reflects a visible one: another mask than the paper's. A complementary pair masks each image "
        "twice, by a mask and by what it leaves visible: it costs two passes a step, so its row compares budgets too.",
    ),
}
"""What a reader must know of the cells of a study that were run."""
GAINS = {"vit_": 1.7, "swin_": 4.0, "resnet": 0.5}
"""Points by fine-tuning that pre-training gains over training from scratch in the calibration, which is of scale `cpu`,
by the first letters of a model's name."""
EFFECTS = (4.0, 2.0, 1.0, 0.5, 0.3)
"""Points. The papers' own contrasts within pre-training are mostly 0.1 to 1."""


@dataclass(frozen=True)
class Shown:
    """A study at one scale, with what the store holds of it. records: its file of records, None if there is none."""

    title: str
    found: Results
    records: Path | None

    @property
    def study(self) -> Study:
        return self.found.plan.study

    @property
    def scale(self) -> str:
        return self.found.plan.scale.name

    @property
    def paper(self) -> str:
        return PAPERS.get(self.study.name.split("_")[0], OTHERS)

    @property
    def folder(self) -> Path:
        return FOLDER / (self.records.stem if self.records else f"{self.study.name}-{self.scale}").replace("-", "/", 1)

    @cached_property
    def runs(self) -> pd.DataFrame:
        return self.found.frame()

    @cached_property
    def cells(self) -> pd.DataFrame:
        return summary(self.found.plan, self.runs)

    @cached_property
    def evaluations(self) -> list[str]:
        """Names of the evaluations, that of the claims first."""
        names = list(dict.fromkeys(self.runs["evaluation"]))
        first = column_beside(self.found.plan, names)
        return [first, *(name for name in names if name != first)]

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        plan = self.found.plan
        if not self.begun:  # without values nothing is looked at, and no error of a look has to be computed
            plan = replace(plan, study=replace(self.study, looks=()))
        return judged(plan, self.runs)

    @property
    def begun(self) -> bool:
        """True if it has records of its own; single cells may be in those of others."""
        return self.records is not None

    @cached_property
    def ran(self) -> tuple[harness.spec.Evaluation, ...]:
        """All evaluations of the cells that have a value of it."""
        done, cells = self.runs[self.runs["value"].notna()], self.study.cells
        names = set(zip(done["cell"], done["evaluation"], strict=True))
        return tuple(
            run
            for row in self.found.plan.rows
            for name, run in row.evaluations.items()
            if (cells.index(row.axes), name) in names
        )

    @cached_property
    def results(self) -> dict[str, Result]:
        """All finished runs by key."""
        results = {name: self.found.store.result(name) for name in self.found.plan.runs()}
        return {name: one for name, one in results.items() if one is not None}


def page(store: Store) -> str:
    """results/README.md, from a store that holds the records."""
    shown = [part for file in sorted((ROOT / "studies").glob("*.py")) for part in studies(file, store)]
    blocks = [*opening(shown), *summary_of(shown)]
    for paper in SECTIONS:
        blocks.append(f"## {paper}")
        for part in sorted((part for part in shown if part.paper == paper), key=lambda part: not part.begun):
            blocks += section(part)
    return "\n\n".join([*blocks, *searched(store), *computed_again(shown), *limits(shown)]) + "\n"


def studies(file: Path, store: Store) -> Iterator[Shown]:
    """The study of a file at the scales it is shown at; nothing if it declares no claims."""
    text = file.read_text(encoding="utf-8")
    if "STUDY = " not in text or not (study := load(file)).claims:
        return
    names = [scale.name for scale in study.scales]
    kept: list[tuple[str, Path | None]] = [
        (name, file) for name in names for file in sorted(FOLDER.glob(f"{study.name}-{name}*.records"))
    ]
    title = (ast.get_docstring(ast.parse(text)) or study.name).splitlines()[0]
    for name, records in kept or [("cpu" if "cpu" in names else names[0], None)]:
        yield Shown(title, results_of(study, name, records, store), records)


def results_of(study: Study | Path, scale: str, records: Path | None, store: Store) -> Results:
    """What a store holds of a study, with as many seeds as the name of its records says, or else as the study asks."""
    _, _, more = (records.stem if records else "").partition(f"-{scale}-")
    seeds = int(more.removesuffix("-seeds")) if more else None
    return harness.results(study, scale, seeds=seeds, store=store).looked()


def opening(shown: Sequence[Shown]) -> Iterator[str]:
    """What the page is, and how it is read."""
    distinct = {name: result for part in shown for name, result in part.results.items()}
    yield "# Evidence"
    yield (
        "What became of the claims of SimMIM, A2MIM, SymMIM and MAE when the shipped studies were run on real "
        "images, at a reduced scale: small models, thousands of images, minutes on a CPU. "
        f"{len(distinct)} runs so far: {hours(distinct.values())}. [PLAN.md](PLAN.md) says what is run and what would "
        "count against a claim; it is older than every run of a seed that a verdict is from (calibrations, the first "
        "search and the quickstart came before). [What this scale can say](#what-this-scale-can-and-cannot-say) "
        "stands at the end."
    )
    yield (
        "`python tools/evidence.py` makes this page from the records beside it (`STUDY-SCALE.records`), which "
        "`harness records import` reads."
    )


def hours(results: Collection[Result]) -> str:
    """How long runs took together; of one that went on in a second attempt, for one, only the clock's time is known."""
    known = sum(one.cpu_seconds or 0.0 for one in results)
    others = [one.seconds for one in results if one.cpu_seconds is None]
    runs = f"{len(others)} run{'s' * (len(others) != 1)} whose CPU time is not known"
    minutes = round(sum(others) / 60)
    clock = f", and {minutes} minute{'s' * (minutes != 1)} by the clock of {runs}" if others else ""
    return f"{known / 3600:.1f} CPU hours{clock}"


def summary_of(shown: Sequence[Shown]) -> Iterator[str]:
    """Numbers of claims by paper and verdict."""
    rows = [counted(paper, [part for part in shown if part.paper == paper]) for paper in SECTIONS]
    rows.append(counted("all", shown))
    wrong = ERROR * sum(verdict.tested for part in shown for verdict in part.verdicts)
    yield markdown_table(["", "claims", *WORDS], ["---", *["---:"] * (len(WORDS) + 1)], rows)
    yield (
        "A verdict is about the measure in the first column of effects; the effect by the other measure "
        "stands beside it, and replaces none. *20-NN*: top-1 by the vote of the 20 nearest of all labelled training "
        "images in the features of the frozen encoder, which saw no label; its level does not compare with that of "
        "fine-tuning on the few labels of a scale. Effects are in points, the first side of the claim minus the "
        "second, with intervals of 95 % (at all looks together for verdicts). Where the best of several cells is "
        "compared, the claim names the best ones by the first measure, and the effect by another its own, if they "
        "differ. *n*: seeds of the cells that a claim compares, the fewest and the most, up to the look that it waits "
        "for; of other cells, which tell of the noise alone, a verdict uses those of the first look. *seeds it takes*: "
        "about how many seeds per cell would decide an open claim, for or against it, if effect and noise are near "
        "what was seen. *paper*: the published values of both sides, of another data set, model and length; † from "
        "memory or unverified, in the table above where one of those counted is. Open claims stay in: none is left "
        f"out. The probability that a claim is decided wrongly is at most {ERROR:.0%}: of those that are tested here "
        f"at most {wrong:.1f} wrong decisions are expected. As few are decided, the share of wrong ones among them may "
        "be larger."
    )


def counted(name: str, parts: Sequence[Shown]) -> list[str]:
    """A row of the summary: claims by verdict, marked where the paper's values of a decided one are unverified."""
    found = [(part, verdict) for part in parts for verdict in part.verdicts]
    counts: Counter[str] = Counter(verdict.word for _, verdict in found)
    marked = {verdict.word for part, verdict in found if verdict.word in DECIDED and unverified(part, verdict)}
    return [
        name,
        str(len(found)),
        *(f"{counts[word]}{'†' * (word in marked)}" if counts[word] else NOTHING for word in WORDS),
    ]


def unverified(part: Shown, verdict: Verdict) -> bool:
    """True if what the paper says of a claim was not checked against a source."""
    values = published(part, verdict)
    return "unverified" in verdict.claim.sentence or (values is not None and not values.verified)


def section(part: Shown) -> Iterator[str]:
    """A study: what is there of it, its claims, and its figures."""
    yield f"### {part.title}"
    yield f"`{part.study.name}`, scale `{part.scale}`. " + " ".join(standing(part))
    if part.begun:
        yield " ".join(setting(part))
    yield claims_table(part)
    if found := " ".join(cautions(part)):
        yield found
    yield from missing(part)
    yield from figures(part)


def standing(part: Shown) -> Iterator[str]:
    """Cells, seeds and hours; or that it was not run, with the command."""
    command = f"`harness run studies/{part.study.name}.py --scale {part.scale}`"
    first = part.cells[part.cells["evaluation"] == part.evaluations[0]]
    possible = first[first["n_planned"] > 0]
    done = possible[possible["n"] > 0]
    if part.begun:
        n = sorted({int(number) for number in done["n"]})
        seeds = f"{n[0]} seeds" if len(n) == 1 else f"{n[0]} to {n[-1]} seeds"
        yield f"{len(done)} of {len(possible)} cells with {seeds}, {hours(part.results.values())}."
        names = ("table.md", "claims.md", "report.html")
        links = [link(part.folder / name) for name in names if (part.folder / name).is_file()]
        yield f"{', '.join([*links, *([link(part.records)] if part.records else [])])}."
        if len(done) < len(possible):
            yield f"The rest: {command}"
    else:
        are = "is" if len(done) == 1 else "are"
        shared = f" ({len(done)} of {len(possible)} cells {are} in other studies' records)" if len(done) else ""
        yield f"Not run yet{shared}: {command}"


def setting(part: Shown) -> Iterator[str]:
    """Model, images and length of what was run, and what a reader must know of this study's cells."""
    yield f"Here: {'; '.join(dict.fromkeys(pretrained_text(run) for run in part.ran if pretraining(run)))}."
    if doubts := origin_doubts(part.runs[part.runs["value"].notna()]):
        yield f"{doubts[0].upper()}{doubts[1:]} among its runs: {link(part.folder / 'runs.csv')} says which."
    # Where it is planned it has a row in a table or a command; it may be named to say that it is not.
    if not re.search(rf"^\| {part.study.name} \||studies/{part.study.name}\.py", PLAN.read_text("utf-8"), re.MULTILINE):
        seeds = sorted({row.seed for row in part.found.plan.rows})
        yield (
            f"An example that is no part of PLAN.md, with seeds {seeds[0]} to {seeds[-1]}, some of whose values were "
            "known when that was written."
        )
    yield from REMARKS.get(part.study.name, ())


def pretrained_text(run: harness.spec.Evaluation) -> str:
    """Model, images and length of an evaluation's pre-training."""
    start, protocol = pretraining(run), protocol_of(run)
    assert start is not None
    images = "all" if start.data.train_images is None else f"{start.data.train_images:,}"
    lasted = f"{protocol.pretrain_epochs} epochs of {images} images of {start.data.caption}"
    return f"{protocol.backbone} at {protocol.pretrain_size} px, pre-trained for {lasted}"


def link(path: Path, text: str = "") -> str:
    """A link of the page to a file below results/."""
    return f"[{text or path.name}]({path.relative_to(FOLDER).as_posix()})"


def claims_table(part: Shown) -> str:
    """All claims of a study, those that failed first."""
    plan = part.found.plan
    effects = {(name, verdict.claim.sentence): verdict for name, verdict in beside(plan, part.runs)}
    measures = [short_label(plan, name).removesuffix(" (%)") for name in part.evaluations]
    header = ["verdict", "claim", "paper", *measures, "n", "seeds it takes", "margin"]
    rows = []
    for verdict in part.verdicts:
        others = [effects[name, verdict.claim.sentence] for name in part.evaluations[1:]]
        (_, sentence, *_, n, needed, margin, _), *_ = claim_rows([verdict])
        takes = needed if needed != NOTHING or verdict.word != "inconclusive" else "> 1,000"
        rows.append(
            [
                told(verdict), markdown(sentence + chosen(verdict)), printed(part, verdict),
                effect(verdict), *(effect(one) + also(one, verdict) for one in others), n, takes, margin,
            ]
        )  # fmt: skip
    rule = ["---", "---", "---", *["---:"] * (len(part.evaluations) + 3)]
    return markdown_table(header, rule, rows)


def cautions(part: Shown) -> Iterator[str]:
    """How much the margin is of what pre-training gains, and which verdicts the paper's own values would give too."""
    if not part.begun or part.scale != "cpu":
        return
    models = {start.backbone.name for run in part.ran if (start := pretraining(run)) is not None}
    gains = {gain for name, gain in GAINS.items() if any(model.startswith(name) for model in models)}
    margins = {verdict.margin for verdict in part.verdicts if math.isfinite(verdict.margin)}
    for margin, gain in itertools.product(margins, gains):
        little = ", so that *no worse*, *the same* and *no difference* say little here" if margin > gain / 2 else ""
        yield (
            f"With this kind of model pre-training gains {gain:g} points by fine-tuning over training from scratch "
            f"(calibration): the margin of {margin:g} is {margin / gain:.0%} of that{little}."
        )
    for verdict in part.verdicts:
        values = published(part, verdict) if verdict.word == "no difference beyond the margin" else None
        if values is not None and abs(difference := values.left - values.right) < verdict.margin:
            yield (
                f"The paper's own difference, {signed(difference, 1)}, is within the margin too: if it holds here, *no "
                f'difference* is the verdict to expect of "{markdown(verdict.claim.sentence)}".'
            )


def told(verdict: Verdict) -> str:
    """The verdict in a few words: what it waits for, or why it cannot be tested."""
    word = verdict.word
    if word == "not run yet" and not any(verdict.n):
        return word
    strong = f"**{word}**" if word in DECIDED else word
    return f"{strong}: {markdown(verdict.reason)}" if verdict.reason else strong


def chosen(verdict: Verdict) -> str:
    """Which cells the effect is of, where the best of several was looked for."""
    return f" (here {verdict.chosen})" if verdict.chosen else ""


def also(other: Verdict, verdict: Verdict) -> str:
    """Which cells the effect by another measure is of, where other ones are best by it."""
    return f", {markdown(other.chosen)}" if other.chosen not in ("", verdict.chosen) else ""


def effect(verdict: Verdict) -> str:
    """Effect and interval as the report writes them."""
    (_, _, value, interval, *_), *_ = claim_rows([verdict])
    return value if interval == NOTHING else f"{value} ({interval})"


@dataclass(frozen=True)
class Published:
    """What a paper prints of both sides of a claim, in per cent. verified: True if all of it was."""

    left: float
    right: float
    verified: bool


def published(part: Shown, verdict: Verdict) -> Published | None:
    """The paper's values of both sides of a claim, over all cells, also those that this scale excludes."""
    study, evaluation = part.study, part.evaluations[0]
    table = tables_beside(part.found.plan, part.evaluations).get(evaluation)
    compared = sides(verdict.claim, study.cells, {})
    if table is None or isinstance(compared, str):
        return None
    values = [table.lookup(cell) for cell in study.cells]
    known = np.array([math.nan if value is None else value.value for value in values])
    left, right = (best(rows, known) for rows in (compared.left, compared.right))
    if math.isnan(left) or math.isnan(right):
        return None
    used = [values[number] for number in compared.cells]
    return Published(left, right, all(value is None or value.verified for value in used))


def printed(part: Shown, verdict: Verdict) -> str:
    """The paper's values of both sides of a claim in a cell of the table."""
    values = published(part, verdict)
    if values is None:
        return NOTHING
    between = "inside, ends" if isinstance(verdict.claim, InnerMaximum) else "to"
    return f"{as_printed(values.left)} {between} {as_printed(values.right)}{'†' * (not values.verified)}"


def as_printed(value: float) -> str:
    """With one digit after the point, or two where there are two."""
    return f"{value:.2f}".removesuffix("0")


def best(rows: Floats, known: Floats) -> float:
    """The largest of the weighted sums whose values are all known; NaN if there is none."""
    sums = [float((row[row != 0] * known[row != 0]).sum()) for row in rows]
    return max((value for value in sums if math.isfinite(value)), default=math.nan)


def missing(part: Shown) -> Iterator[str]:
    """Cells without a value, and those that cannot be at this scale, with the reason; folded where there are many."""
    lines = []
    first = part.cells[part.cells["evaluation"] == part.evaluations[0]]
    none = [part.study.cells[int(cell)] for cell in first[(first["n"] == 0) & (first["n_planned"] > 0)]["cell"]]
    if none:
        lines.append(f"Missing, by {', '.join(part.study.grid.axes)}: {cells_text(none)}.")
    for reason, rows in part.found.plan.excluded().items():
        lines.append(f"Excluded, since {markdown(reason)}: {cells_text(row.axes for row in rows)}.")
    if lines:
        excluded = sum(map(len, part.found.plan.excluded().values()))
        counts = [f"{len(none)} cells missing"] * bool(none) + [f"{excluded} excluded"] * bool(excluded)
        yield f"<details><summary>{', '.join(counts)}</summary>"
        yield from lines
        yield "</details>"


def cells_text(cells: Iterable[dict[str, harness.spec.Scalar]]) -> str:
    """Cells by their values."""
    return "; ".join(markdown(cell_text(cell)) for cell in cells)


def figures(part: Shown) -> Iterator[str]:
    """The figures of the claims' measure beside the paper's values, and links to the others."""
    if not part.begun:
        return
    found = sorted(part.folder.glob("*.png"))
    aside = ("figure-curves", "reconstructions", *(f"figure-{name}-" for name in part.evaluations[1:]))
    mine = [file for file in found if not file.stem.startswith(aside)]
    for file in mine:
        yield image(file, part.study.name)
    if others := [link(file, file.stem.removeprefix("figure-")) for file in found if file not in mine]:
        yield f"More figures: {', '.join(others)}."


def image(file: Path, of: str) -> str:
    """A figure, as wide as the text."""
    return f'<img src="{file.relative_to(FOLDER).as_posix()}" alt="{file.stem} of {of}" width="640">'


def searched(store: Store) -> Iterator[str]:
    """The search: how near it came to the best there is, and its best cells against the default with fresh seeds."""
    opened = opened_search(store)
    trials, _ = history(opened)
    table = pd.read_csv(SEARCHED / "table-tiny.csv").set_index("key_seed0")
    means = table.filter(like="top1_seed").mean(axis=1)
    found = confirmed(trials, opened.measure, store)
    names = [key(opened.measure.wanted(opened.measure.candidate(row.cell, [0]))[0]) for row in found]
    places, ranks = [means[name] for name in names], [rank(means, name) for name in names]
    rows = [
        [
            "SimMIM's default" if row.reference else f"best {place}",
            markdown(cell_text(row.cell)),
            number(row.found, 1),
            f"{number(mean, 2)}, {ranked}",
            with_half(signed(row.difference, 2), row.difference_half),
            *(with_half(signed(mean, 2), half) for mean, half in map(interval, unseen_and_test(opened, row, found[0]))),
        ]
        for place, (row, mean, ranked) in enumerate(zip(found, places, ranks, strict=True))
    ]
    computed, repeated = sum(trial.computed for trial in trials), len(means) - distinct_cells(opened, table)
    yield "## A search"
    yield (
        f"`search_masking`, scale `{opened.scale.name}`: {opened.search.sampler.upper()} computed {computed} of the "
        f"{len(means)} cells, one seed each, and took the best of them; all {len(means)} were computed with two seeds "
        "beside it. Values are top-1 of 20 nearest neighbours, of 1,000 held-out training images (validation) and in "
        "the last column of test images; cells are named by mask type, masked patch size, scope of the loss, layers "
        f"of the head, target, ratio, and the smallest block. {repeated} of the {len(means)} repeat another: of units "
        "of 64 px there are 3 x 3, of which both smallest blocks are one, and squares of 0.25 and of 0.44 are 2 x 2. "
        "[search.md](search_masking/tiny/search.md), [table-tiny.csv](search_masking/table-tiny.csv), "
        "[README.md](search_masking/README.md)."
    )
    yield regret(table, means, names[1])
    yield image(SEARCHED / "regret.png", "samplers")
    yield f"**Claim: the winner beats the default.** {winner(found, opened.search.directions[0])}"
    header = ["", "cell", "its trial", "table: mean, rank", "minus default", "unseen seeds", "at test"]
    yield markdown_table(header, ["---", "---", *["---:"] * 5], rows)
    yield (
        f"Differences are paired over {found[0].n} fresh seeds, by validation and in the last column by test, ± half a "
        "95 % t-interval. Of the default, and of cells that an earlier search had found, half of these seeds had been "
        "seen before: *unseen seeds* are the other half alone."
    )


def regret(table: pd.DataFrame, means: pd.Series, name: str) -> str:
    """What the search missed by choosing a cell: by both seeds of the table, and by the one that did not choose it."""
    own, tied = table["top1_seed1"], int((means == means[name]).sum()) - 1
    return (
        f"**Regret.** The cell that the search calls best has {means[name]:.2f} in the table, rank "
        f"{rank(means, name)} of {len(means)}{f' together with {tied} other' * bool(tied)}; "
        f"the best there has {means.max():.2f}: {means.max() - means[name]:.2f} points are missed. "
        f"But seed 0 chose it. By seed 1 alone it has {own[name]:.1f}, rank {rank(own, name)}; "
        f"the best has {own.max():.1f}: "
        f"{own.max() - own[name]:.1f} points are missed, of a best that is partly the luckiest. One search says "
        "nothing of samplers: [regret.csv](search_masking/regret.csv) has 20 searches by each, replayed on this table."
    )


def rank(values: pd.Series, name: str) -> int:
    """Rank of a cell, 1 = the highest value."""
    return 1 + int((values > values[name]).sum())


def distinct_cells(opened: Opened, table: pd.DataFrame) -> int:
    """How many cells are left if those count once that hide the same places of every image and are equal else."""
    cells = table.loc[:, :"target"].astype(object)
    found, positions = set(), torch.arange(500)
    for row in cells.where(cells.notna(), None).to_dict("records"):
        cell = {str(axis): value for axis, value in row.items()}
        run = pretraining(opened.measure.wanted(opened.measure.candidate(cell, [0]))[0])
        assert run is not None, "each cell has a pre-training"
        hidden = make_mask(run.mask, image_size=run.image_size, seed=0, step=0, steps=1, positions=positions)
        found.add((hidden.numpy().tobytes(), cell["scope"], cell["head_layers"], cell["target"]))
    return len(found)


def opened_search(store: Store) -> Opened:
    """The search, its trials read from the committed journal."""
    opened = open_search(load_search(ROOT / "studies" / "search_masking.py"), store, scale="tiny")
    opened.folder.path.mkdir(parents=True, exist_ok=True)
    shutil.copy(SEARCHED / "tiny.journal", opened.folder.journal)
    return opened


def unseen_and_test(opened: Opened, row: Confirmed, default: Confirmed) -> Iterator[list[float]]:
    """Differences from the default by seed: at validation over the seeds not seen before, and at test over all."""
    seeds, search = range(FIRST_FRESH, FIRST_FRESH + opened.search.fresh_seeds), opened.search
    for column, chosen in ((search.metrics[0], seeds[len(seeds) // 2 :]), (search.test, seeds)):
        own, others = ([top1(opened, cell, column, seed) for seed in chosen] for cell in (row.cell, default.cell))
        yield [] if row.reference else [one - other for one, other in zip(own, others, strict=True)]


def top1(opened: Opened, cell: Mapping[str, harness.spec.Scalar], column: str, seed: int) -> float:
    """Accuracy of a cell and seed."""
    run = opened.measure.candidate(cell, [seed]).rows[0].evaluations[column]
    return metric_of(run, run.shown_metric, opened.store)


def computed_again(shown: Sequence[Shown]) -> Iterator[str]:
    """Which results were computed a second time from their specs, and whether they are equal."""
    yield "## Computed again"
    yield (
        "Runs drawn at random and the pre-trainings they start from, computed a second time by `python "
        "tools/recompute.py results/*.records --table results/FILE`: three of 950 (recomputed-950.csv), and before, "
        "when there were 680, three of these (recomputed.csv) and three of those that an AMD had made "
        "(recomputed-amd.csv, with `--processor AMD`). Equal: all metrics, the weights and what was logged on the way, "
        "to the last bit, which the same kind of processor should give. On another kind sums round differently, and a "
        "training goes another way."
    )
    rows = []
    for row in (row for file in sorted(FOLDER.glob("recomputed*.csv")) for row in csv_rows(file)):
        name, around = row["run"], row["surroundings"].split("; ")
        of = next((part.study.name for part in shown if part.begun and name in part.results), NOTHING)
        processor = next((fact for fact in around if fact.startswith("processor ")), "the same kind of processor")
        told = (markdown(text) for text in (shorten(row["differences"], 120) or NOTHING, processor))
        rows.append([f"`{name}`", of, row["outcome"], *told])
    yield markdown_table(["run", "study", "", "what differs", "computed with"], ["---"] * 5, rows)


def csv_rows(file: Path) -> list[dict[str, str]]:
    """Lines of a CSV file by column."""
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def limits(shown: Sequence[Shown]) -> Iterator[str]:
    """What the scale can and cannot say: noise, seeds that effects take, and what cannot be expressed."""
    yield "## What this scale can and cannot say"
    yield (
        "What any reduced scale says of a paper's is in "
        "[docs/explanation/reduced-scale.md](../docs/explanation/reduced-scale.md): a verdict here is about "
        "this data, this model and this length of training. What follows is measured."
    )
    yield from noise([part for part in shown if part.begun])
    yield from not_expressed([part for part in shown if part.scale == "cpu"])


def noise(begun: Sequence[Shown]) -> Iterator[str]:
    """Noise by study and measure, and the seeds with which an effect of a size is as large as its interval."""
    rows = []
    for part in begun:
        for name in part.evaluations:
            of = part.cells[(part.cells["evaluation"] == name) & part.cells["residual_sd"].notna()]
            if len(of):
                sd, df = float(of["residual_sd"].iloc[0]), int(of["df"].iloc[0])
                label = short_label(part.found.plan, name).removesuffix(" (%)")
                rows.append([part.study.name, label, f"{sd:.2f}", str(df), *(seeds(sd, effect) for effect in EFFECTS)])
    if not rows:
        return
    header = ["study", "measure", "sd", "df", *(f"{effect:g} point{'s' * (effect != 1)}" for effect in EFFECTS)]
    yield (
        "**Noise.** sd: what remains of a value after its cell and its seed, in points; df: degrees of "
        "freedom of this estimate. Then the fewest seeds with which the 95 % interval of one difference of "
        "two cells is no wider to either side than an effect of this size, which is then found in half of all "
        "cases; comparing with the best of several cells, and looking twice, take more."
    )
    yield markdown_table(header, ["---", "---", *["---:"] * (len(header) - 2)], rows)
    yield (
        "In the calibration, with three seeds each (the ResNet two), pre-training gains over training from scratch: "
        f"with the ViT {GAINS['vit_']:g} points by fine-tuning and 13 by 20-NN, with the Swin {GAINS['swin_']:g} and "
        f"12, with the ResNet {GAINS['resnet']:g} and 2 ([calibration](calibration/README.md)). A margin of 1 point is "
        "much of that, or more than all of it. 20-NN sees what was learnt before any label, with more room for "
        "differences; it is not the papers' measure."
    )


def seeds(sd: float, size: float) -> str:
    """Fewest seeds with which the interval of a difference of two cells has at most this half-width."""
    n = np.arange(2, 1001, dtype=np.float64)
    enough = n[half_width(np.full(len(n), sd * math.sqrt(2)), n, n - 1) <= size]
    return str(int(enough[0])) if len(enough) else "> 1,000"


def not_expressed(parts: Sequence[Shown]) -> Iterator[str]:
    """Cells that a small model on a small image does not have, by study and reason."""
    yield (
        "**Not expressed.** At 24 px a ViT of 0.15M parameters sees 6 x 6 patches of 4 px, as many as "
        "SimMIM's images have units of 32: no unit is finer than a patch, and no target finer than a pixel. "
        "Another backbone is used where a question needs it (a Swin for heads that mirror it, a ResNet for "
        "A2MIM). The cells below do not exist here, which need not be for the scale; a claim that needs one of them is "
        "not testable, and the best of several is taken over the rest."
    )
    rows = [
        [part.study.name, str(len(found)), markdown(reason), cells_text(row.axes for row in found)]
        for part in parts
        for reason, found in part.found.plan.excluded().items()
    ]
    yield markdown_table(["study", "cells", "reason", "which"], ["---", "---:", "---", "---"], rows)


def made() -> str:
    """The page of the committed records."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        import_records(store, [*sorted(FOLDER.glob("*.records")), *sorted(SEARCHED.glob("*.records"))])
        return page(store)


def main(arguments: Sequence[str]) -> int:
    """Write the page, or say whether it is another; returns the exit code."""
    if list(arguments) not in ([], ["--check"]):
        sys.exit(__doc__)
    try:
        text = made()
    except HarnessError as error:
        sys.exit(str(error))
    if arguments:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
