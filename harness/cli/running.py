"""`harness run` and `harness retry`."""

from __future__ import annotations

import signal
from collections import Counter
from enum import StrEnum
from typing import Annotated

import typer

from harness.cli import deciding, on_cluster
from harness.cli.common import (
    ScaleName,
    Seeds,
    StorePath,
    StudyFile,
    Where,
    labels,
    planned,
    reported,
    results_folder,
    runs_of,
    say,
)
from harness.cli.live import Display
from harness.cli.looking import show_report
from harness.cli.planning import missing_data, refuse_folders
from harness.launch.cost import check_models
from harness.launch.inline import run_inline
from harness.launch.local.pool import default_slots, gpus, run_local
from harness.launch.queue import Queue
from harness.launch.resources import Resources, slow_bf16
from harness.launch.slurm.run_states import overview
from harness.launch.slurm.task import open_to_group
from harness.spec import HarnessError, Run, key, upstreams
from harness.spec.costed_model import costed_models
from harness.store import Store
from harness.study import Plan, expand


class Executor(StrEnum):
    """Where runs are computed."""

    inline = "inline"
    local = "local"
    slurm = "slurm"


class Device(StrEnum):
    """What they are computed with."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


On = Annotated[
    Executor, typer.Option("--on", help="inline: this process; local: processes of this machine; slurm: queue jobs")
]
Slots = Annotated[
    int | None,
    typer.Option("--slots", min=1, help="runs side by side; default: one a GPU, or one a CPU thread"),
]
OnDevice = Annotated[Device, typer.Option("--device", help="auto takes a GPU where there is one")]
Processes = Annotated[
    int, typer.Option("--processes", min=1, help="processes that compute one run together, each on its own GPU")
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="CPU threads of one process")]
Workers = Annotated[
    int, typer.Option("--workers", min=0, help="loader processes of one process, for folders of images")
]
MicroBatch = Annotated[
    int | None,
    typer.Option("--micro-batch", min=1, help="images on the device at once; gradients are added up"),
]
UntilDecided = Annotated[
    bool,
    typer.Option("--until-decided", help="add seeds where claims are open, at the study's looks; waits, on Slurm too"),
]
Deterministic = Annotated[bool, typer.Option("--deterministic", help="only deterministic algorithms on a GPU")]


def run(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    on: On = Executor.local,
    slots: Slots = None,
    device: OnDevice = Device.auto,
    processes: Processes = 1,
    threads: Threads = 1,
    workers: Workers = 0,
    micro_batch: MicroBatch = None,
    deterministic: Deterministic = False,
    until_decided: UntilDecided = False,
) -> None:
    """Compute what is missing, then write tables and figures. Done runs are never computed again.

    Example: harness run studies/quickstart.py --where mask_ratio=0.6
    """
    plan, runs = planned(study, scale, where, seeds, store)
    resources = Resources(
        device=device.value,
        processes=processes,
        threads=threads,
        workers=workers,
        micro_batch=micro_batch,
        deterministic=deterministic,
    )
    if until_decided:
        deciding.require_looks(plan, selected=bool(where or seeds))
        _until_decided(plan, runs, resources, on, slots)
        return
    _compute(plan, runs, runs_of(plan), resources, on, slots, retry=False)


def _until_decided(plan: Plan, store: Store, resources: Resources, on: Executor, slots: int | None) -> None:
    def here(wanted: Plan) -> None:
        try:
            _compute(wanted, store, runs_of(wanted), resources, on, slots, retry=False)
        except typer.Exit as ended:
            if ended.exit_code != 1:  # failures leave other claims to be decided
                raise

    failed = deciding.follow(plan, store, deciding.on_slurm(store, resources) if on is Executor.slurm else here)
    show_report(reported(plan, store), store, results_folder(plan))
    if failed:
        say(f"{failed} runs failed or wait for one that did. harness logs shows why, harness retry runs them again.")
        raise typer.Exit(1)


def retry(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    on: On = Executor.local,
    slots: Slots = None,
    device: OnDevice = Device.auto,
    processes: Processes = 1,
    threads: Threads = 1,
    workers: Workers = 0,
    micro_batch: MicroBatch = None,
    deterministic: Deterministic = False,
) -> None:
    """Compute failed, cancelled and lost runs again, and what waits for them.

    Example: harness retry studies/quickstart.py --where mask_ratio=0.6
    """
    plan, runs = planned(study, scale, where, seeds, store)
    resources = Resources(
        device=device.value,
        processes=processes,
        threads=threads,
        workers=workers,
        micro_batch=micro_batch,
        deterministic=deterministic,
    )
    specs = runs_of(plan)
    again = ("failed", "cancelled", "lost")
    failed = {name for name, place in overview(specs, runs).places.items() if place.word in again}
    if not failed:
        say("nothing has failed")
        return
    chosen = {name: spec for name, spec in specs.items() if {name, *_before(spec)} & failed}
    needed = {first for spec in chosen.values() for first in _before(spec)}
    wanted = {name: spec for name, spec in specs.items() if name in chosen or name in needed}
    _compute(plan, runs, wanted, resources, on, slots, retry=True)


def _before(run: Run) -> list[str]:
    return [key(first) for first in upstreams(run)]


def _compute(
    plan: Plan,
    store: Store,
    specs: dict[str, Run],
    resources: Resources,
    on: Executor,
    slots: int | None,
    *,
    retry: bool,
) -> None:
    folder = results_folder(plan)
    queue = Queue(specs, store, retry=retry)
    if on is Executor.slurm and slots is not None:
        raise HarnessError("--slots belongs to --on local; on Slurm the site profile says pack and slots")
    wanted = [queue.run(name) for name in queue.open()]
    if missing := missing_data(wanted):
        raise HarnessError(missing[0])
    refuse_folders(wanted)
    open_to_group(store.root)
    check_models(store.root, costed_models(dict(zip(queue.open(), wanted, strict=True))))
    if on is not Executor.slurm:
        for line in slow_bf16(wanted, resources.device, gpus):
            say(line)
    if on is Executor.slurm:
        on_cluster.submit_plan(plan, store, specs, resources, retry=retry)
        return
    for name in queue.open()[:1]:
        store.register(queue.run(name))  # a store that cannot be written shows before anything is started
    stop = Stop()
    if len(queue):
        with Display(f"{plan.study.name} · {plan.scale.name}", specs, labels(plan), queue) as display:
            if on is Executor.inline:
                run_inline(queue, store, resources, report=display.show, stopping=stop)
            else:
                slots = slots or default_slots(resources)
                run_local(queue, store, resources, slots, report=display.show, stopping=stop)
    else:
        say(f"nothing to compute: {_counts(queue)}")
    seeds = len({row.seed for row in plan.rows})
    whole = len(plan.rows) == seeds * len(plan.study.cells)  # a selection must not narrow the study's tables
    shown = plan if whole or plan.study.looks else expand(plan.study, scale=plan.scale.name, seeds=seeds)
    show_report(reported(shown, store), store, folder)
    counts = Counter(queue.endings.values())
    if counts["failed"] or counts["blocked"]:
        say(f"{_counts(queue)}. harness logs shows why, harness retry runs them again.")
        raise typer.Exit(1)
    if counts["interrupted"]:
        say(f"{_counts(queue)}. The same command goes on from here.")
        raise typer.Exit(130)


def _counts(queue: Queue) -> str:
    words = {"interrupted": "not finished"}
    counts = Counter(words.get(ending, ending) for ending in queue.endings.values())
    return ", ".join(f"{count} {ending}" for ending, count in counts.items()) or "no runs"


class Stop:
    """True once Ctrl-C or a termination signal came; a second one ends the process at once."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGINT, self._ask)
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def __call__(self) -> bool:
        return self._asked
