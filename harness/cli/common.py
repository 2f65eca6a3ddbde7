"""Options that commands share, what a study or run on the command line stands for, and printing."""

from __future__ import annotations

import functools
import gc
import inspect
import itertools
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.api import Results, results
from harness.launch.executor import ExecutorName
from harness.launch.resources import Choice, Resources
from harness.spec import HarnessError, key, upstreams
from harness.store import Store, open_store
from harness.study import Plan, Study

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="a study file, such as studies/quickstart.py")]
ScaleName = Annotated[str | None, typer.Option("--scale", help="size of the study; default: the study's first")]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", "-w", metavar="AXIS=VALUE", help="only cells with this value; repeat, or AXIS=A,B"),
]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="replicates of each cell instead of the study's")]
StorePath = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="folder of the runs; default: `store` of harness.toml or site.toml, or runs/ in the project root",
    ),
]
On = Annotated[
    ExecutorName, typer.Option("--on", help="inline: this process; local: processes of this machine; slurm: queue jobs")
]
Slots = Annotated[
    int | None,
    typer.Option("--slots", min=1, help="runs side by side; default: one a GPU, or one a CPU thread"),
]
OnDevice = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto takes a GPU where there is one")
]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="a run's key or a beginning of it, its folder, an exported file, a name of harness models, or a study "
        "with --where",
    ),
]
WeightsFile = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        # Without the backslash the name of the table would be read as a style.
        help=r"of a published model: its file, or a folder; default: \[weights] of harness.toml or site.toml, or "
        "weights/ in the project root",
    ),
]
Pictures = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="pictures, of any size")]
SHOWN = 6
"""Most runs that the message on an ambiguous selection names."""
LABEL = re.compile(r" *(\S+  +|• )?")
"""What a broken line is indented by: its own indentation, with a label in a column of its own, or a bullet."""
NAME = 30
"""Width to which an axis of a table gives way before columns go below."""


def _options(
    device: OnDevice = "auto",
    in_flight: Annotated[
        int,
        typer.Option("--in-flight", min=1, help="runs that share one process and its device, if small"),
    ] = 1,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="processes that compute one run together, each on its own GPU")
    ] = 1,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads of one process")] = 1,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="loader processes of one process, for folders of images")
    ] = 0,
    micro_batch: Annotated[
        int | None,
        typer.Option("--micro-batch", min=1, help="images on the device at once; gradients are added up"),
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="only deterministic algorithms on a GPU")
    ] = False,
    compile: Annotated[
        Choice, typer.Option("--compile", help="compile models; auto: long trainings on a GPU")
    ] = "auto",
    capture: Annotated[
        Choice, typer.Option("--capture", help="replay steps as a CUDA graph: the same bits, fewer launches")
    ] = "auto",
    recompute: Annotated[
        bool, typer.Option("--recompute", help="recompute activations: the same bits, less memory, more time")
    ] = False,
) -> None:
    """Options that give the fields of `Resources` of the same names; read for its signature alone."""


def with_resources(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `resources` is replaced by the options of `_options`, of which it is then made."""
    # Annotations are text under `from __future__ import annotations`, and typer needs the types.
    own, options = (inspect.signature(function, eval_str=True).parameters for function in (command, _options))

    @functools.wraps(command)
    def called(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in options}
        command(**given, resources=Resources(**chosen))

    # typer reads options from the signature, so the new one has to stand on the function itself.
    kept = [parameter for name, parameter in own.items() if name != "resources"]
    shown = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*kept, *options.values())]
    called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return called


def joined_paragraphs(text: str) -> str:
    """Text with a line a paragraph: a help that is broken as its source is would be broken again by a terminal."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))


# Lines are for reading and for scripts: not coloured by guess, and broken by `say` alone.
console = Console(highlight=False, soft_wrap=True)
errors = Console(highlight=False, soft_wrap=True, stderr=True)


def printable(text: str) -> str:
    """Text without control characters: names, values and logs must not steer the terminal."""
    return "".join(character if character.isprintable() or character == "\t" else "�" for character in text)


def say(text: str, *, style: str | None = None, whole: bool = False, on: Console | None = None) -> None:
    """Print one line: no markup, no control characters; broken at spaces where a terminal ends, and there alone.

    whole: leave it as it is in a terminal too, since it is copied from there, or is a line of a log.
    on: `errors` for stderr; by default stdout.
    """
    to = on or console
    lines = [printable(text)] if whole or not to.is_terminal else _wrapped(printable(text), to.width)
    # Without markup, as brackets in a name would be read as a style.
    to.print("\n".join(lines), markup=False, style=style)


def counted(number: int, thing: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number} {thing}{'s' * (number != 1)}"


def _wrapped(text: str, width: int) -> list[str]:
    """A line broken at spaces, the rest below what follows its label, bullet or indentation."""
    label = LABEL.match(text)
    indent = label.end() if label and label.end() <= width // 3 else 2
    return textwrap.wrap(
        text,
        width,
        subsequent_indent=" " * indent,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [text]


def show_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, axes: int = 1, groups: Sequence[int] = ()
) -> None:
    """Print a table whose texts come from studies: without markup and control characters.

    Columns that do not fit beside each other follow below, with the first `axes` columns repeated.

    Args:
        groups: numbers of columns after the axes that belong together, and stay so where a line has room for them.
    """
    texts = [[printable(text) for text in row] for row in rows]
    headers = [_broken(printable(text), [row[place] for row in texts]) for place, text in enumerate(header)]
    columns = zip(headers, *texts, strict=True)
    widths = [max(cell_len(line) for text in column for line in text.split("\n")) for column in columns]
    for group in _beside_each_other(widths, axes, groups, console.width):
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in group:
            # Numbers are never broken; the words of an axis are, where they would leave no room.
            table.add_column(escape(headers[column]), no_wrap=column >= axes, overflow="fold")
        for row in texts:
            table.add_row(*(escape(row[column]) for column in group))
        console.print(table, soft_wrap=False)


def _broken(header: str, below: Sequence[str]) -> str:
    """A header broken at spaces, no wider than its column needs to be."""
    longest = max(map(len, (*below, *header.split())), default=1)
    return "\n".join(textwrap.wrap(header, longest, break_long_words=False, break_on_hyphens=False)) or header


def _beside_each_other(widths: Sequence[int], axes: int, groups: Sequence[int], width: int) -> Iterator[list[int]]:
    """Columns that fit a line together, the first `axes` ones in every group; two blanks stand between columns."""
    # Words of an axis can be broken, so it need not be as wide as it is.
    wide = [2 + (min(width, NAME) if place < axes else width) for place, width in enumerate(widths)]
    first = list(range(axes))
    room = max(width - sum(wide[:axes]), width // 2)
    kept: list[int] = []
    ends = [axes + end for end in itertools.accumulate(groups)] or range(axes + 1, len(wide) + 1)
    for column in range(axes, len(wide)):
        group = range(column, next(end for end in ends if end > column))
        together = group if sum(wide[place] for place in group) <= room else [column]
        if kept and sum(wide[place] for place in (*kept, *together)) > room:
            yield first + kept
            kept = []
        kept.append(column)
    yield first + kept


def selection(where: Sequence[str] | None) -> dict[str, list[str]]:
    """`["mask_ratio=0.4,0.6", "mask_ratio=0.8"]` as axis -> texts, `["0.4,0.6", "0.8"]`.

    Raises:
        HarnessError: an item has another form.
    """
    chosen: dict[str, list[str]] = {}
    for item in where or ():
        axis, equals, text = item.partition("=")
        if not equals or not axis.strip():
            raise HarnessError(f"--where {item}: should read axis=value, such as --where mask_ratio=0.6")
        chosen.setdefault(axis.strip(), []).append(text)
    return chosen


def planned(
    study: Study | Path, scale: str | None, where: Sequence[str] | None, seeds: int | None, store: Store | Path | None
) -> Results:
    """Plan and store that the options of a command select."""
    found = results(study, scale, where=selection(where), seeds=seeds, store=store)
    gc.freeze()  # a plan stays until the command ends: Python need not go through it again and again
    return found


def results_folder(plan: Plan) -> Path:
    """Folder for the tables and figures of a study at a scale.

    Raises:
        HarnessError: the folder holds those of another study file.
    """
    # Here and not above, as in every command: `plan`, `status` and --help load neither pandas nor matplotlib.
    from harness.report.report_cache import check_own

    folder = plan.study.root / "results" / plan.study.name / plan.scale.name
    check_own(plan, folder)
    return folder


def labels(plan: Plan) -> dict[str, str]:
    """Cell and seed that first need a run, in words, by run key."""
    found: dict[str, str] = {}
    for row in plan.rows:
        # A run that several cells share is named by the first one.
        text = f"{row.text} seed {row.seed}" + (f" repeat {row.repeat}" if row.repeat else "")
        for evaluation in row.evaluations.values():
            for run in (evaluation, *upstreams(evaluation)):
                found.setdefault(key(run), text)
    return found


def refuse_mixed(sentences: tuple[str, ...]) -> None:
    """Refuse results of several origins.

    Raises:
        HarnessError: there is a sentence about any.
    """
    if sentences:
        raise HarnessError(f"--strict refuses mixed results: {' '.join(sentences)}")


def stems(paths: Sequence[Path]) -> list[str]:
    """A name of its own for what is written of each picture: those of several folders may have one name."""
    taken: Counter[str] = Counter()
    found = []
    for path in paths:
        taken[path.stem] += 1
        found.append(path.stem + (f"-{taken[path.stem]}" if taken[path.stem] > 1 else ""))
    return found


def chosen_run(
    run: str, kinds: Collection[str], scale: str | None, where: list[str] | None, seeds: int | None, store: Path | None
) -> tuple[str, Store]:
    """The run to open and its store; for a study file the only finished run of one of the kinds in the selection.

    Raises:
        HarnessError: none or several runs of the selection are finished, or a selection is given without a study.
    """
    # A study is told by its suffix: keys, folders and exported files have none, or others.
    if Path(run).suffix != ".py":
        if scale or where or seeds:
            raise HarnessError("--scale, --where and --seeds select from a study; name a study's file instead of a run")
        return run, open_store(store)
    found = planned(Path(run), scale, where, seeds, store)
    names = [name for name, spec in found.plan.runs().items() if spec.kind in kinds]
    done = [name for name, state in found.store.states(names).items() if state.word == "done"]
    if not done:
        raise HarnessError(f"none of the {len(names)} {' or '.join(kinds)} runs of this selection is done")
    if len(done) > 1:
        cells = labels(found.plan)
        shown = ", ".join(f"{name} ({cells[name]})" for name in done[:SHOWN]) + (", ..." if len(done) > SHOWN else "")
        several = len({name.partition("-")[0] for name in done}) > 1
        ways = f"--where and --seeds 1{', --kind' * several}"
        raise HarnessError(f"{len(done)} runs are done: {shown}; narrow with {ways}, or name a key")
    return done[0], found.store
