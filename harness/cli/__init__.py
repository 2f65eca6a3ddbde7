"""The command `harness`. Only this package prints; each command imports what it needs when it is called."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from harness.cli import audit, avgdist, bench, doctor, metrics, models, new, pack, plan, records
from harness.cli.common import errors, joined_paragraphs, say
from harness.cli.finished import analyse, compare, export, predict, reconstruct, report
from harness.cli.launch import cancel, clean, logs, run, search, status
from harness.spec import HarnessError


class _Interrupted(Exception):
    """Ctrl-C in a command that had nothing to save."""


class _Commands(TyperGroup):
    """The commands. Typer makes a silent exit of an interrupt, so it leaves them under another name."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _Interrupted from None


app = typer.Typer(
    cls=_Commands,
    help="Ablation studies of masked image modelling: plan, run, and tables with seeds and the paper's numbers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order of --help: from a new project to the use of its models.
for command in (
    new.new, plan.plan, audit.audit, run.run, search.search, status.status, logs.logs, run.retry, cancel.cancel,
    report.report, compare.compare, metrics.metrics, clean.clean, pack.pack, doctor.doctor, bench.bench, models.models,
    avgdist.avgdist, analyse.analyse, predict.predict, reconstruct.reconstruct, export.export,
):  # fmt: skip
    app.command(help=joined_paragraphs(command.__doc__ or ""))(command)
app.add_typer(records.records, name="records")
DEBUG = "--debug"
"""Option that is valid anywhere in the command line; `main` takes it out before typer reads the rest."""


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option(DEBUG, help="show where in Python a mistake was met")] = False,
) -> None:
    del debug  # declared for --help alone; `main` has taken it out of the command line


def main() -> None:
    """Entry point: mistakes that a user can mend become one line on stderr and exit code 2."""
    # As an interrupt from the keyboard, so that runs are left as resumable as by Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    arguments = [word for word in sys.argv[1:] if word != DEBUG]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        # Not standalone, as typer would then print mistakes and exit in its own way.
        code = app(args=arguments, standalone_mode=False)
    except typer.TyperException as error:
        close = getattr(error, "possibilities", None)  # names like the unknown one, the closest first
        _end(f"{error.message}; did you mean {close[0]}?" if close else error.format_message(), 2)
    except (HarnessError, OSError) as error:
        if debug:
            traceback.print_exception(error)
        # A reader such as `head` has seen enough, which is no mistake to report.
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or flushing it at the exit fails again
            sys.exit(141)  # as a shell reports a program that SIGPIPE ended
        _end(str(error), 2)
    except typer.Abort:
        _end("nothing was done", 1)
    except (KeyboardInterrupt, _Interrupted):
        _end("interrupted", 130)  # as a shell reports a program that SIGINT ended
    sys.exit(code)


def _end(message: str, code: int) -> NoReturn:
    """Exit with a message of one line on stderr."""
    if message:  # none beside the help that a bare `harness` gets
        say(f"harness: {' '.join(message.split())}", on=errors)
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt
