"""Progress display and stop signals while runs are computed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Self

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from harness.cli.common import console, printable, say
from harness.launch.queue import Event, Queue
from harness.spec import Run

PATIENCE = 8
"""Seconds after an interrupt from the keyboard at which a second one is taken as given."""
LINE_SECONDS = 10.0
"""Least time between two lines of a run where the output is no terminal, so that logs stay short."""
NAMED = 4
"""Most runs that are named when they are waited for."""


class Display:
    """One bar a run with stage, step, loss, images/s and time left; one bar for the study."""

    def __init__(self, title: str, runs: Mapping[str, Run], labels: Mapping[str, str], queue: Queue) -> None:
        self._runs, self._labels, self._queue = runs, labels, queue
        self._bars: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}
        # Bars would fill a log file with control characters, so there lines are printed instead.
        self._live = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not self._live,
        )
        self._study = self._progress.add_task(
            f"[bold]{escape(printable(title))}", total=len(runs), completed=self._ended(), detail="runs"
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
                self._bars[event.name] = self._progress.add_task(escape(self._name(event.name)), total=None, detail="")
                self._say(event.name, "started")
            case "line":
                self._line(event)
            # No lines come of a run that another process computes, so it has no bar.
            case "elsewhere":
                self._close(event.name)
                self._print(event.name, "another process works on it; waiting")
            case "done" | "failed" | "blocked" | "interrupted":
                self._close(event.name)
                self._progress.update(self._study, completed=self._ended())
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
        count = f"{len(names)} run{'s' if len(names) > 1 else ''}"
        say(f"stopping: {count} to save: {'; '.join(names[:NAMED])}{more}. Once more, and they are not waited for")

    def _ended(self) -> int:
        return sum(self._queue.endings.get(name, "interrupted") != "interrupted" for name in self._runs)

    def _line(self, event: Event) -> None:
        """Show a metrics line: on the bar of its run, or as a line of text at intervals."""
        line = event.line
        # Seconds of all attempts over steps of all attempts, so a resumed run estimates as well as a fresh one.
        left = (line["steps"] - line["step"]) * line["seconds"] / line["step"]
        loss = f"loss {line['loss']:.4f}  " if "loss" in line else ""
        detail = f"{loss}{line['images_per_second']:,.0f} img/s  {duration(left)} left"
        for name in ("top1", "miou", "box_ap"):
            if f"test_{name}" in line:
                detail += f"  {name} {line[f'test_{name}']:.2f}"
        if event.name in self._bars:
            self._progress.update(self._bars[event.name], total=line["steps"], completed=line["step"], detail=detail)
        if not self._live and time.monotonic() - self._said.get(event.name, 0.0) >= LINE_SECONDS:
            self._say(event.name, f"step {line['step']}/{line['steps']}  {detail}")

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


def duration(seconds: float) -> str:
    """Length of time in words: `2 h 5 min`, `3 min 20 s`, `8 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
