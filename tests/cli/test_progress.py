"""Progress of runs on a terminal: what is read of it, at the widths that terminals have."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from harness.cli.launch import live
from harness.launch.queue import Event, Queue
from harness.spec import Backbone, Knn, Run, Scratch, Shapes, key
from harness.store import Store

CELL = "masked area and its border 0.6 hierarchical backbone of three stages seed {seed} repeat 1"
LINE = {"step": 40_100, "steps": 125_100, "seconds": 4010.0, "loss": 0.1234, "images_per_second": 12_345.0}
LEFT = "2 h 21 min left"


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Console:
    console = Console(width=request.param, height=40, force_terminal=True, color_system=None, file=io.StringIO())
    monkeypatch.setattr(live, "console", console)
    return console


def lines(display: live.Display, console: Console) -> list[str]:
    with console.capture() as captured:
        console.print(display._progress.get_renderable(), soft_wrap=False)
    return captured.get().splitlines()


def display_of(number: int, tmp_path: Path) -> tuple[live.Display, Queue, list[str]]:
    start = Scratch(backbone=Backbone(name="vit_tiny_patch16_224", patch_size=4), image_size=16)
    runs: dict[str, Run] = {key(run): run for run in (Knn(start=start, data=Shapes(), k=k + 1) for k in range(number))}
    labels = {name: CELL.format(seed=seed) for seed, name in enumerate(runs)}
    queue = Queue(runs, Store(tmp_path))
    return live.Display("a study of a long name · scale", runs, labels, queue), queue, list(runs)


@pytest.mark.parametrize("screen", [60, 80, 120], indirect=True)
def test_counts_and_time_left_are_never_cut(screen: Console, tmp_path: Path) -> None:
    display, queue, names = display_of(130, tmp_path)
    for name in names[:101]:
        display.show(Event("started", name))
        queue.end(Event("done", name))
        display.show(Event("done", name))
    for name in names[101:121]:
        display.show(Event("started", name))
        display.show(Event("line", name, line=LINE))
    display.show(Event("started", names[121]))
    first, *bars, last = lines(display, screen)
    assert len(bars) == 20
    assert "101/130 runs" in first
    assert max(map(len, (first, *bars, last))) <= screen.width
    for seed, bar in enumerate(bars, 101):
        assert " 40100/125100 " in bar
        assert LEFT in bar
        assert f"seed {seed} repeat 1" in bar  # which of the bars it is
        assert ("loss 0.1234" in bar, "12,345 img/s" in bar) == ((screen.width > 100,) * 2)
    assert "?" not in last
    assert "starts" in last


@pytest.mark.parametrize("screen", [80], indirect=True)
def test_a_study_says_how_long_it_takes_once_a_run_of_each_kind_does(screen: Console, tmp_path: Path) -> None:
    """Two of five runs at work with 8505 s left each, three waiting that take 12515 s: two at a time."""
    display, _, names = display_of(5, tmp_path)
    assert "left" not in lines(display, screen)[0]
    for name in names[:2]:
        display.show(Event("started", name))
    assert "left" not in lines(display, screen)[0]
    for name in names[:2]:
        display.show(Event("line", name, line={**LINE, "step": 40_000, "seconds": 4000.0}))
    assert "0/5 runs" in lines(display, screen)[0]
    assert "about 7 h 34 min left" in lines(display, screen)[0]  # (2 x 8510 + 3 x 12510) / 2 s
