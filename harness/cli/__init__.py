"""The command `harness`. Only this package prints; each command imports what it needs when it is called."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import typer

from harness.cli import looking, planning, running
from harness.spec import HarnessError

app = typer.Typer(
    help="Ablation studies of masked image modelling: plan, run, and tables with seeds and the paper's numbers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(planning.new)
app.command()(planning.plan)
app.command()(running.run)
app.command()(looking.status)
app.command()(looking.logs)
app.command()(running.retry)
app.command()(looking.report)
app.command()(looking.clean)


def main() -> None:
    """Entry point: mistakes that a user can mend become one line on stderr and exit code 2."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("harness: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt
