"""report.html in a real browser: sorting, filters, details, sliders, keyboard, narrow screens, hostile text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from fake_study import PAPER, PROTOCOL, SCALE, finish_all, half_finished, scope_cell, scope_plan
from matplotlib.figure import Figure
from test_report_tables import HOSTILE, hostile_plan

from harness import claims
from harness.papers import PaperTable, PublishedValue
from harness.report import write
from harness.report.collect import runs_frame
from harness.report.figures.drawing import png
from harness.report.figures.gallery import Triplets
from harness.report.page import Picture, script_safe
from harness.report.page.content import _pictures
from harness.report.page.images import SMALL, reconstructions
from harness.report.page.sections import checks, paper_section, unbroken
from harness.report.report_cache import current
from harness.report.tables.statistics import summary
from harness.report.tables.table import table
from harness.spec import Knn
from harness.store import Store
from harness.study import Plan, axes

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
FIRST_COLUMN = "[...document.querySelectorAll('#cells > tbody > tr:not(.details)')].map(r => r.cells[{}].textContent)"
SHOWN = "[...document.querySelectorAll('#cells > tbody > tr:not([hidden]):not(.details)')].length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("browser"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """report.html of a finished, a half-finished, an empty and a hostile study."""
    root = tmp_path_factory.mktemp("pages")
    found = {}
    for name in ("finished", "half", "empty", "hostile"):
        store = Store(root / name / "runs")
        plan = hostile_plan(store) if name == "hostile" else scope_plan()
        if name == "finished":
            finish_all(store, plan, lambda row: 80 + 10 * (row.axes["scope"] == "full") + row.seed)
        if name == "half":
            half_finished(store, plan)
        if name == "hostile":
            finish_all(store, plan_without_failures(plan))
        write(plan, store, root / name / "results")
        found[name] = root / name / "results" / "report.html"
    return found


def plan_without_failures(plan: Plan) -> Plan:
    return replace(plan, rows=tuple(row for row in plan.rows if row.axes["k"] == "plain"))


@needs_browser
def test_every_page_is_quiet_and_asks_nothing_of_the_network(browser: Browser, pages: dict[str, Path]) -> None:
    for path in pages.values():
        browser.open(path)
        assert browser.ask("document.querySelectorAll('#cells > tbody > tr > td:last-child > button').length > 0")
        browser.ask("document.querySelectorAll('td button').forEach(button => button.click())")
        assert browser.requests == []
        assert browser.complaints == []


@needs_browser
def test_sorting_by_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["half"])
    column = browser.ask("[...document.querySelectorAll('#cells th')].findIndex(h => h.textContent === 'top-1 (%)')")
    browser.ask(f"document.querySelectorAll('#cells th')[{column}].firstChild.focus()")
    orders = []
    for _ in range(3):
        browser.press("Enter")
        orders.append(browser.ask(FIRST_COLUMN.format(column)))
    rising, falling, original = orders
    assert [text[:5] for text in rising[:3]] == ["71.00", "81.00", "84.50"]
    assert [text[:5] for text in falling[:3]] == ["84.50", "81.00", "71.00"]
    assert set(rising[3:]) == set(falling[3:])
    assert all(not text[:5].replace(".", "").isdigit() for text in rising[3:])
    assert original[0].startswith("81.00")
    assert browser.ask(f"document.querySelectorAll('#cells th')[{column}].ariaSort") is None


@needs_browser
def test_filters(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["finished"])
    assert not browser.ask("document.getElementById('filters').open")  # few rows need none
    browser.ask("document.getElementById('filters').open = true")
    browser.ask("document.getElementById('words').focus()")
    browser.type("FULL 0.6")
    assert browser.ask(SHOWN) == 1
    assert browser.ask("document.getElementById('count').textContent") == "1 of 7 cells"
    browser.ask("document.querySelector('button[type=reset]').click()")
    assert browser.ask(f"new Promise(done => setTimeout(() => done({SHOWN}), 50))") == 7
    choose = "(() => {{ const s = {}; s.value = '{}'; s.dispatchEvent(new Event('input', {{bubbles: true}})) }})()"
    browser.ask(choose.format("document.querySelector('select[data-column=\"0\"]')", 2))
    assert browser.ask(SHOWN) == 3
    browser.ask(choose.format("document.getElementById('standing')", "excluded"))
    assert browser.ask(SHOWN) == 1


@needs_browser
def test_runs_provenance_and_recipe_of_a_cell(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["finished"])
    browser.ask("document.querySelectorAll('#cells td button')[3].focus()")
    browser.press("Enter")
    text = browser.ask("document.querySelector('tr.details').innerText")
    assert "a" * 40 in text
    assert "2.6.0" in text
    assert "node-1" in text
    assert text.count("pretrain-") == 2
    assert re.search(r"start\.mask\.ratio\s+0\.6\s+0\.4", text)
    assert re.search(r"start\.loss\.scope\s+masked\s+full", text)
    assert browser.ask("document.activeElement.getAttribute('aria-expanded')") == "true"
    browser.press("Enter")
    assert browser.ask("document.querySelector('tr.details')") is None


@needs_browser
def test_sliders_by_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["finished"])
    place = "document.querySelectorAll('.pairs')[{}].style.getPropertyValue('--cut')"
    assert browser.ask("document.querySelectorAll('input.cut').length") == 4
    browser.ask("document.querySelectorAll('input.cut')[1].focus()")
    browser.press("ArrowRight")
    assert [browser.ask(place.format(number)) for number in range(2)] == ["50%", "51%"]
    browser.press("Home")
    assert browser.ask(place.format(1)) == "0%"
    browser.ask("document.getElementById('every').focus()")
    browser.press("End")
    assert [browser.ask(place.format(number)) for number in range(4)] == ["100%"] * 4
    size = browser.ask(
        "Promise.all([...document.querySelectorAll('.pair img')].map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert size == [32] * 32


@needs_browser
@pytest.mark.parametrize("name", ["finished", "half", "hostile"])
def test_a_narrow_screen_does_not_scroll_sideways(browser: Browser, pages: dict[str, Path], name: str) -> None:
    browser.open(pages[name], width=320)
    browser.ask("document.querySelectorAll('td button').forEach(button => button.click())")
    assert browser.ask("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert browser.ask("document.documentElement.clientWidth") <= 320


@needs_browser
def test_every_control_has_a_name(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["finished"])
    nameless = browser.ask(
        "[...document.querySelectorAll('input, select, button')].filter(c => !c.labels?.length && "
        "!c.getAttribute('aria-label') && !c.textContent.trim()).length"
    )
    assert nameless == 0
    assert browser.ask("[...document.querySelectorAll('img')].filter(i => !i.alt).length") == 0


@needs_browser
def test_hostile_text_stays_text_in_the_browser(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["hostile"])
    browser.ask("document.querySelectorAll('td button').forEach(button => button.click())")
    assert browser.ask("document.scripts.length") == 2
    assert browser.ask("document.querySelectorAll('main script, iframe, object, embed').length") == 0
    assert '<script>alert("1")</script>' in browser.ask("document.body.innerText")
    assert browser.complaints == []


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_hostile_text_stays_text(pages: dict[str, Path]) -> None:
    text = pages["hostile"].read_text(encoding="utf-8")
    # The page's own no-break spaces keep numbers and their signs together.
    assert all(char.isprintable() or char in "\n\u00a0" for char in text)
    parser = _Tags()
    parser.feed(text)
    assert sum(tag == "script" for tag, _ in parser.found) == 2
    assert not any(name.startswith("on") for _, attributes in parser.found for name in attributes)
    addresses = [
        value for _, attributes in parser.found for name, value in attributes.items() if name in ("src", "href")
    ]
    assert all(str(value).startswith(("data:", "#")) for value in addresses)
    assert HOSTILE not in text


def test_json_cannot_leave_its_element() -> None:
    assert script_safe(["</script><!--", "&\u2028"]) == '["\\u003c/script\\u003e\\u003c!--","\\u0026\\u2028"]'


def test_what_entries_are_sorted_by(tmp_path: Path) -> None:
    plan, store = scope_plan(), Store(tmp_path)
    half_finished(store, plan)
    runs = runs_frame(plan, store)
    found = table(plan, runs, summary(plan, runs))
    entries = [entry for row in found.rows for entry in row[found.axes :]]
    for entry in entries:  # the number that a reader sees first, unless it counts runs
        seen = re.match(r"[−-]?\+?(\d+\.?\d*)(?! (?:done|failed|missing|blocked|interrupted))\b", entry.text)
        assert entry.number == (None if seen is None else float(seen[0].replace("−", "-"))), entry.text
    assert {entry.number for entry in entries} >= {None, 81.0, 84.5, 71.0}


def test_equal_images_are_kept_once_and_large_ones_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 3, SMALL + 1, SMALL + 1, 3), dtype=np.uint8)
    other = noise.copy()
    other[:, 2] = 0
    found = reconstructions([Triplets(label="a", images=noise), Triplets(label="b", images=other)], "arm")
    first, second = (arm["images"] for arm in found["arms"])
    assert len(found["images"]) == 7
    assert [three[:2] for three in first] == [three[:2] for three in second]
    assert second[0][2] == second[1][2]
    assert all(address.startswith("data:image/webp") for address in found["images"])


def test_the_findings_of_an_audit_and_the_papers_values(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), scope_plan()
    finish_all(store, plan)
    folder = tmp_path / "results"
    folder.mkdir()
    findings: list[Any] = [
        {"check": "factors", "verdict": "passed", "text": "differs only in mask", "arm": f"arm {number}"}
        for number in range(5)
    ]
    findings += [{"check": "masked", "verdict": "failed", "text": HOSTILE, "arm": "<b>"}, {"verdict": "odd"}, "torn"]
    (folder / "audit.json").write_text(json.dumps(findings))
    write(plan, store, folder)
    text = plain_cells(folder / "report.html")
    assert re.search(r'<tr class="bad"><td>failed</td><td>masked</td><td>a\|b &lt;script&gt;.*<td>&lt;b&gt;</td>', text)
    assert "<td>arm 0; arm 1; arm 2 and 2 more</td>" in text
    assert text.index("<td>failed</td>") < text.index("<td>passed</td>")
    header = text[: text.index("<nav")]
    assert '<span class="state bad">audit: 1 failed</span>' in header
    assert '<span class="state good">one commit, device and versions</span>' in header
    # Values of two trusts: each protocol is written once, and rows have its number.
    assert "<td>full</td><td>0.6</td><td>81.75</td><td>81.06</td><td>–</td><td>2</td>" in text
    assert text.count("numbers: from memory, unverified.") == text.count("numbers: read in the printed table.") == 1
    assert text.count("<td>1</td></tr>") == 2
    (folder / "audit.json").write_text("{")
    write(plan, store, folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert ">Audit<" not in text
    assert '<span class="state open">not audited</span>' in text


def test_published_values_of_two_evaluations_are_told_apart(tmp_path: Path) -> None:
    def two(scale: Any, scope: str, mask_ratio: float | None, seed: int) -> Any:
        found: Any = scope_cell(scale, scope, mask_ratio, seed)
        return {**found, "knn": Knn(start=found["top1"].start, data=scale.data, seed=seed)}

    value = PublishedValue(49, "image", "by hand", PROTOCOL)
    neighbours = PaperTable("another", "knn", (({"scope": "masked", "mask_ratio": "0.6"}, value),))
    plan, store = scope_plan(cell=two, paper=(PAPER, neighbours)), Store(tmp_path / "runs")
    (section,) = paper_section(plan, summary(plan, runs_frame(plan, store)))
    assert section.header[:4] == ("evaluation", "scope", "mask ratio", "paper")
    assert {row[:4] for row in section.rows if row[1:3] == ("masked", "0.6")} == {
        ("top-1 (%)", "masked", "0.6", "82.8"), ("20-NN (%)", "masked", "0.6", "49.0"),
    }  # fmt: skip


def test_a_number_stays_on_a_line_with_its_unit() -> None:
    assert unbroken("75 % beats 25 %: +0.69, n = 5") == "75\u00a0% beats 25\u00a0%: +0.69, n\u00a0=\u00a05"


def test_what_speaks_against_the_numbers() -> None:
    passed = [{"verdict": "passed"}] * 3
    frame = runs_frame(scope_plan(seeds=1), Store(Path("nowhere")))
    assert checks(passed, frame) == (("1 seed", "open"), ("audit passed", "good"))
    made = frame.assign(state="done", key=range(len(frame)), commit=["a-dirty", *["b"] * (len(frame) - 1)])
    assert checks([*passed, {"verdict": "remark"}], made)[1:] == (
        ("audit passed, 1 remark", "open"),
        ("mixed commit", "open"),
    )
    assert checks([], made.assign(commit="a-dirty", pretrain_key=""))[2] == ("uncommitted changes", "open")
    # What a project changes beside the code that determines numbers moves none of them.
    told = made.assign(code="c", pretrain_key="")
    assert checks([], told)[2] == ("one code, device and versions", "good")
    assert checks([], told.assign(commit="b"))[2] == ("one commit, device and versions", "good")
    assert checks([], told.assign(commit="b-dirty"))[2] == ("one code, device and versions", "good")
    assert checks([], told.assign(code=["c", *["d"] * (len(told) - 1)]))[2] == ("mixed commit, code", "open")


def test_the_figure_of_the_headline_comes_first() -> None:
    found = {name: (name, b"") for name in ("figure-occlusion", "figure-knn-cells", "figure-top1-cells", "curves")}
    run = scope_cell(SCALE, "masked", 0.6, 0)["top1"]
    cell = {"knn": run, "top1": run}
    plan = scope_plan(
        cell=lambda scale, scope, mask_ratio, seed: cell, seeds=1, grid=axes(scope="masked", mask_ratio=0.6)
    )
    order = [picture.text for picture in _pictures(found, plan)]
    assert order == ["figure-occlusion", "figure-top1-cells", "figure-knn-cells", "curves"]
    alone = {name: found[name] for name in ("figure-top1-cells", "curves")}
    assert [picture.text for picture in _pictures(alone, plan)] == list(alone)


def plain_cells(page: Path) -> str:
    """The page's text with cells of tables without attributes."""
    return re.sub(r"<td[^>]*>", "<td>", page.read_text(encoding="utf-8"))


def test_a_new_audit_makes_a_new_page(tmp_path: Path) -> None:
    store, plan, folder = Store(tmp_path / "runs"), scope_plan(), tmp_path / "results"
    assert current(plan, store, folder).written
    assert not current(plan, store, folder).written
    (folder / "audit.json").write_text('[{"check": "live", "verdict": "passed", "text": "all", "arm": ""}]')
    assert current(plan, store, folder).written


def test_claims_stand_first_with_their_verdicts(tmp_path: Path) -> None:
    sentence = "masked <b>beats</b> full"
    claim = claims.better(sentence, {"scope": "masked"}, {"scope": "full"}, at={"mask_ratio": 0.6})
    store, plan = Store(tmp_path / "runs"), scope_plan(claims=(claim,), seeds=4)
    finish_all(store, plan, lambda row: 70 + 10 * (row.axes["scope"] == "masked") + (row.seed * row.seed) / 7)
    write(plan, store, tmp_path / "results")
    text = plain_cells(tmp_path / "results" / "report.html")
    told = "masked &lt;b&gt;beats&lt;/b&gt; full, at mask ratio 0.6"
    assert f'<tr class="good"><td>reproduced</td><td>{told}</td><td>+10.00, ' in text
    places = [text.index(f">{title}</h2>") for title in ("Claims", "Results", "Claims in full")]
    assert places == sorted(places)
    assert f"Reproduced: {told} (+10.00, " in text[: places[0]]


def test_a_figure_of_two_columns_stands_across_the_page() -> None:
    def wide(width: float, height: float) -> bool:
        return Picture(text="", data=png(Figure(figsize=(width, height)))).wide

    assert wide(6.75, 2.5)
    assert not wide(6.75, 5.8)
    assert not wide(3.25, 1.6)
