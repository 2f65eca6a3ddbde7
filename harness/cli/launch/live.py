"""Progress display and stop signals while runs are computed."""

from __future__ import annotations

import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from statistics import mean
from types import FrameType
from typing import Any, Self

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from harness.cli.common import console, counted, printable, say
from harness.launch.queue import Event, Queue
from harness.spec import Run

PATIENCE = 8
"""Seconds after an interrupt from the keyboard at which a second one is taken as given."""
LINE_SECONDS = 10.0
"""Least time between two lines of a run where the output is no terminal, so that logs stay short."""
NAMED = 4
"""Most runs that are named when they are waited for."""
ROOMY, NARROW = 100, 72
"""Columns of a terminal from which on losses and images a second are shown, and below which bars are not."""


class _Name(ProgressColumn):
    """Name of a run, the only column that gives way: before its seed, which tells it from other runs of its cell."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=False))

    def render(self, task: Task) -> _Cut:
        return _Cut(task.description, task.fields.get("style", ""))


class _Cut:
    """A text in one line, cut before ` seed `."""

    def __init__(self, text: str, style: str) -> None:
        self._text, self._style = text, style

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, cell_len(self._text))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cell, seed, number = self._text.rpartition(" seed ")
        shown = Text(cell or number, self._style, no_wrap=True, overflow="ellipsis")
        end = seed + number if cell else ""
        shown.truncate(max(1, options.max_width - cell_len(end)))
        yield shown.append(end)


class _Count(ProgressColumn):
    """Steps or runs done, of how many."""

    def render(self, task: Task) -> Text:
        count = "starts" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}{task.fields.get('of', '')}"
        return Text(count, style="progress.download")


class Display:
    """A bar for the study and one a run: steps done and time left, and where there is room loss and images a second."""

    def __init__(self, title: str, runs: Mapping[str, Run], labels: Mapping[str, str], queue: Queue) -> None:
        self._runs, self._labels, self._queue = runs, labels, queue
        self._bars: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}
        self._whole: dict[str, float] = {}  # seconds that a run takes, by what is known of it so far
        self._left: dict[str, float] = {}  # seconds that a run at work still takes
        # Bars would fill a log file with control characters, so there lines are printed instead.
        self._live = console.is_terminal
        bar = [BarColumn(bar_width=10)] if console.width >= NARROW else []
        elapsed = [TimeElapsedColumn()] if console.width >= NARROW else []
        detail = TextColumn("{task.fields[detail]}", markup=False)
        self._progress = Progress(_Name(), *bar, _Count(), detail, *elapsed, console=console, disable=not self._live)
        self._study = self._progress.add_task(
            printable(title), total=len(runs), completed=self._ended(), detail="", of=" runs", style="bold"
        )
        if not self._live:
            say(f"{title}: {len(queue)} of {len(runs)} runs to compute")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        """Take in one event."""
        match event.kind:
            case "started":
                self._bars[event.name] = self._progress.add_task(self._name(event.name), total=None, detail="")
                self._say(event.name, "started")
            case "line":
                self._line(event)
            # No lines come of a run that another process computes, so it has no bar.
            case "elsewhere":
                self._close(event.name)
                self._print(event.name, "another process works on it; waiting")
            case "done" | "failed" | "blocked" | "interrupted":
                self._close(event.name)
                self._left.pop(event.name, None)
                self._progress.update(self._study, completed=self._ended(), detail=self._study_left())
                if event.kind == "done":
                    self._say(event.name, "done")
                else:
                    self._print(event.name, f"{event.kind}: {event.text}")

    def stopping(self) -> None:
        """Say which runs an interruption waits for."""
        names = [" ".join(self._name(name).split()) for name in list(self._bars)]
        if not names:
            say("stopping")
            return
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        shown = f"{'; '.join(names[:NAMED])}{more}"
        say(f"stopping: {counted(len(names), 'run')} to save: {shown}. Once more, and they are not waited for")

    def _ended(self) -> int:
        return sum(self._queue.endings.get(name, "interrupted") != "interrupted" for name in self._runs)

    def _line(self, event: Event) -> None:
        """Show a metrics line: on the bar of its run, or as a line of text at intervals."""
        line = event.line
        # Seconds of all attempts over steps of all attempts, so a resumed run estimates as well as a fresh one.
        whole = line["steps"] * line["seconds"] / line["step"]
        self._whole[event.name], self._left[event.name] = whole, whole - line["seconds"]
        detail = f"{duration(whole - line['seconds'])} left"
        if not self._live or console.width >= ROOMY:
            detail += "".join(f"  {text}" for text in _figures(line))
        if event.name in self._bars:
            self._progress.update(self._bars[event.name], total=line["steps"], completed=line["step"], detail=detail)
            self._progress.update(self._study, detail=self._study_left())
        if not self._live and time.monotonic() - self._said.get(event.name, 0.0) >= LINE_SECONDS:
            self._say(event.name, f"step {line['step']}/{line['steps']}  {detail}")

    def _study_left(self) -> str:
        """Time that the study still takes, by the runs seen so far; empty until one of each kind has shown its own."""
        if not self._live:
            return ""
        kinds: dict[str, list[float]] = defaultdict(list)
        for name, seconds in self._whole.items():
            kinds[self._runs[name].kind].append(seconds)
        means = {kind: mean(seconds) for kind, seconds in kinds.items()}
        left = [self._left.get(name, means.get(self._runs[name].kind)) for name in self._queue.open()]
        known = [seconds for seconds in left if seconds is not None]
        at_work = len(self._bars)
        return f"about {duration(sum(known) / at_work)} left" if at_work and len(known) == len(left) else ""

    def _name(self, name: str) -> str:
        return printable(f"{self._runs[name].kind:<9} {self._labels.get(name, name)}")

    def _close(self, name: str) -> None:
        if name in self._bars:
            self._progress.remove_task(self._bars.pop(name))

    def _say(self, name: str, text: str) -> None:
        if not self._live:
            self._said[name] = time.monotonic()
            self._print(name, text)

    def _print(self, name: str, text: str) -> None:
        say(f"{self._name(name)}: {text}")


class Stop:
    """Stop flag for executors: true after a stop signal; a second signal ends the process at once.

    Listens to SIGINT, SIGTERM and `others` until it is left as a context. by: the signal that asked, None before.

    Args:
        tell: called at once after the first signal, in a thread of its own, to say what is waited for.
    """

    def __init__(self, *others: signal.Signals, tell: Callable[[], None] = lambda: None) -> None:
        self.by: int | None = None
        self._tell = tell
        listened = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, *others)
        self._before: dict[int, Any] = {number: signal.signal(number, self._ask) for number in listened}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        # The first signal lets runs write their checkpoints; whoever asks twice does not want to wait for that.
        if self.by is not None:
            raise KeyboardInterrupt
        self.by = number
        # Not here: what the signal came into may be in the middle of printing.
        threading.Thread(target=self._tell, daemon=True).start()
        if number == signal.SIGINT:  # somebody sits there and waits
            signal.alarm(PATIENCE)

    def __call__(self) -> bool:
        return self.by is not None


def _figures(line: Mapping[str, Any]) -> list[str]:
    """Loss, images a second and scores of a metrics line."""
    loss = [f"loss {line['loss']:.4f}"] if "loss" in line else []
    scores = [f"{name} {line[f'test_{name}']:.2f}" for name in ("top1", "miou", "box_ap") if f"test_{name}" in line]
    return [*loss, f"{line['images_per_second']:,.0f} img/s", *scores]


def duration(seconds: float) -> str:
    """Length of time in words: `2 h 5 min`, `3 min 20 s`, `8 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
