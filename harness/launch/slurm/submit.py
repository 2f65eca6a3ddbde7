"""Submission to Slurm through submitit: the intent is written, sbatch is called, its answer is recorded."""

from __future__ import annotations

import secrets
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.launch import snapshot
from harness.launch.doctor import problems
from harness.launch.executor import PROGRAM, Overview, Report, Submitted
from harness.launch.queue import Queue, upstream_key
from harness.launch.resources import Resources
from harness.launch.site import STAGES, Site, Stage, read_site
from harness.launch.slurm import questions
from harness.launch.slurm.arrays import arrays, within
from harness.launch.slurm.run_states import latest_entries, states_on_cluster
from harness.launch.slurm.task import Task, open_to_group
from harness.machine import data_location, data_variable
from harness.spec import HarnessError, Run, upstreams
from harness.spec.data.datasets import Folder
from harness.store import Store
from harness.store.submissions import Array, Entry, Submissions, asked_for

PASS_SECONDS = 1.0
"""Pause of a process that waits for the cluster, which computes by itself."""


def wanted(
    runs: Mapping[str, Run], store: Store, *, retry: bool = False, reading: bool = False
) -> tuple[dict[str, Run], Overview]:
    """The runs that should be submitted now, and the states of all.

    Args:
        retry: also submit failed runs. reading: True leaves the store as it is.
    """
    seen = states_on_cluster(runs, store)
    if seen.silent:
        raise HarnessError(f"cannot tell what is queued already: {seen.silent}")
    words = {"missing", "interrupted", "cancelled", "done"}  # done and in the queue: its weights are needed again
    words |= {"failed", "blocked"} if retry else set()
    open_ = Queue(runs, store, retry=True, reading=reading).open()
    chosen = {name: runs[name] for name in open_ if seen.places[name].word in words and not seen.places[name].job}
    # Computed by a process that is no job, or by one whose id is not known yet: no dependency can name it. So what
    # starts from such a run has to wait for a later submission, and so on down the chain.
    nameless = {name for name, place in seen.places.items() if place.word in ("running", "queued") and not place.job}
    for name in sorted(chosen, key=lambda name: len(upstreams(chosen[name]))):  # starts before what starts from them
        if upstream_key(chosen[name]) in nameless:
            nameless.add(name)
    return {name: run for name, run in chosen.items() if name not in nameless}, seen


@dataclass(frozen=True)
class Slurm:
    """Jobs of a cluster, one array element for each pack of runs. They go on when this process ends.

    Attributes:
        study: in whose name runs are submitted and cancelled.
        site: partition, time and packs of each stage. project: folder whose code the jobs get.
    """

    store: Store
    study: str = ""
    site: Mapping[Stage, Site] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    project: Path = Path()
    program: str = PROGRAM

    @classmethod
    def ready(cls, store: Store, resources: Resources, *, study: str, project: Path, program: str = PROGRAM) -> Slurm:
        """The cluster with the site profile of a project, checked for submissions.

        Raises:
            HarnessError: the cluster, the profile or the store would stop the jobs.
        """
        site = read_site(project)
        if found := [problem for problem in problems(store.root, site) if problem.stops]:
            raise HarnessError(f"{found[0].text}; harness doctor shows all it finds")
        log = Submissions(store.root)
        for entry in log.entries():  # those that are not read again
            if all(store.result(name) for name in entry.wants):
                log.close(entry.number)
        return cls(store, study, site, resources, project, program)

    def submit(self, runs: Mapping[str, Run], *, retry: bool = False) -> Submitted:
        """Submit all runs that are neither done, queued nor running.

        Raises:
            HarnessError: there is no cluster, or the store cannot be written.
        """
        questions.require_slurm()
        store, site = self.store, self.site
        open_to_group(store.root)
        log = Submissions(store.root)
        frozen = snapshot.freeze(store, self.project)
        # Decide by what the log holds, then publish the next number; if another process was faster, decide again.
        while True:
            number = log.last() + 1
            chosen, seen = wanted(runs, store, retry=retry)
            waiting = sum(place.word in ("running", "queued") for place in seen.places.values())
            # Also what is done but computed again for its weights: what starts from it waits for it.
            open_names = [name for name, place in seen.places.items() if place.word != "done" or name in chosen]
            # Runs that wait for jobs of another study are entered, too, so that its `cancel` spares them.
            if not chosen and (not waiting or set(open_names) <= asked_for(log.entries()).get(self.study, set())):
                return Submitted(waiting=waiting)
            made, left = _arrays(chosen, seen, site)
            # Before the entry is there: a job finds the specs of its runs in the store.
            store.register_all(runs[name] for array in made for element in array.elements for name in element)
            settings = {stage: _settings(site[stage], self.resources, self.program) for stage in STAGES} | {
                "retry": retry
            }
            if (entry := log.publish(number, "submission", self.study, open_names, made, settings)) is not None:
                break
        refused = _call_sbatch(log, entry, store, site, frozen, runs)
        kept = [array for place, array in enumerate(entry.arrays) if "id" in log.answer(number, place)]
        elements = [element for array in kept for element in array.elements]
        return Submitted(sum(map(len, elements)), len(elements), len(kept), left, waiting, refused)

    def states(self, runs: Mapping[str, Run]) -> Overview:
        """States by the store's files, the submission log and Slurm's answers."""
        return states_on_cluster(runs, self.store)

    def cancel(self, runs: Mapping[str, Run]) -> tuple[list[str], list[str]]:
        """Cancel runs that are queued or running. A job that holds further runs goes on with those.

        Raises:
            HarnessError: there is no cluster, or it does not say what is queued.
        """
        questions.require_slurm()
        store, study = self.store, self.study
        open_to_group(store.root)
        log = Submissions(store.root)
        while True:
            number = log.last() + 1
            seen = self.states(runs)
            if seen.silent:
                raise HarnessError(f"cannot tell what is queued: {seen.silent}")
            live = [name for name, place in seen.places.items() if place.job or place.word == "queued"]
            entries = log.entries()
            others = {name for other, names in asked_for(entries).items() if other != study for name in names}
            chosen = [name for name in live if name not in others]
            if not chosen:
                return [], sorted(set(live))
            if log.publish(number, "cancel", study, chosen) is not None:
                break
        questions.cancel(_emptied(set(chosen), seen, entries, store))
        return chosen, sorted(set(live) - set(chosen))

    def logs(self, runs: Mapping[str, Run]) -> dict[str, Path]:
        """Newest log file of the job of each run that has one."""
        log = Submissions(self.store.root)
        entries = latest_entries(log.entries(), runs)
        found = {name: _log_of(log, entry, name) for name, entry in entries.items() if entry.kind == "submission"}
        return {name: path for name, path in found.items() if path is not None}

    def pending(self) -> bool:
        """False: jobs go on without this process."""
        return False

    def wait(self, report: Report, stopping: Callable[[], bool]) -> None:
        """Sleep."""
        time.sleep(PASS_SECONDS)

    def close(self, report: Report) -> None:
        """Leave the jobs alone: they go on."""


def scripts(
    runs: Mapping[str, Run], store: Store, site: Mapping[Stage, Site], *, retry: bool = False
) -> tuple[list[Array], dict[Stage, str]]:
    """The arrays that `submit` would queue, and the sbatch script of each stage. Changes nothing."""
    questions.require_slurm()
    chosen, seen = wanted(runs, store, retry=retry, reading=True)
    made, _ = _arrays(chosen, seen, site)
    shown: dict[Stage, str] = {}
    log = Submissions(store.root)
    entry = log.folder(log.last() + 1)
    for place, array in enumerate(made):
        if array.stage not in shown:
            executor = _executor(entry.jobs(place), site[array.stage], array, {}, "")
            shown[array.stage] = str(executor._make_submission_file_text(executor._submitit_command_str, "preview"))
    return made, shown


def _emptied(chosen: Set[str], seen: Overview, entries: Sequence[Entry], store: Store) -> list[str]:
    """Jobs of chosen runs in which no other run is still to be computed."""
    latest = latest_entries(entries, chosen)
    given_up = {name: entry.number for entry in entries if entry.kind == "cancel" for name in entry.wants}
    jobs = set()
    for name in chosen:
        entry, job = latest[name], seen.places[name].job
        array, index = entry.places[name]
        rest = set(entry.arrays[array].elements[index]) - chosen
        # A job drops a run that is given up after its own submission, even if a later job takes that run again.
        if job and all(given_up.get(other, 0) > entry.number or store.result(other) for other in rest):
            jobs.add(job)
    return sorted(jobs)


def _log_of(log: Submissions, entry: Entry, name: str) -> Path | None:
    array, index = entry.places[name]
    folder = log.folder(entry.number).jobs(array)
    suffix = f"_{index}_0_log" if len(entry.arrays[array].elements) > 1 else "_0_log"
    found = [path for end in (".out", ".err") for path in folder.glob(f"*{suffix}{end}") if path.stat().st_size]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _arrays(chosen: Mapping[str, Run], seen: Overview, site: Mapping[Stage, Site]) -> tuple[list[Array], int]:
    """The arrays of chosen runs for which the queue has room, and how many runs are left out."""
    limits = [site[stage].submit_limit for stage in STAGES] + [questions.submit_limit()]
    known = [limit for limit in limits if limit is not None]
    room = max(0, min(known) - questions.jobs_of_user()) if known else None
    largest = questions.largest_array()
    elsewhere = {name: place.job for name, place in seen.places.items() if place.job}
    packs: dict[Stage, int] = {stage: site[stage].pack for stage in STAGES}
    found = arrays(
        chosen, token=secrets.token_hex(4), packs=packs, largest=min(largest, room or largest), elsewhere=elsewhere
    )
    return within(found, room)


def _settings(site: Site, resources: Resources, program: str) -> dict[str, Any]:
    together = replace(resources, processes=site.nodes * site.processes_per_node)
    return {"resources": asdict(together), "slots": site.slots, "attempts": site.attempts, "program": program}


def _call_sbatch(
    log: Submissions, entry: Entry, store: Store, site: Mapping[Stage, Site], frozen: Path, runs: Mapping[str, Run]
) -> str:
    ids: dict[int, str] = {}
    refused = ""
    extra = snapshot.environment(frozen) | _locations(runs.values())
    for place, array in enumerate(entry.arrays):
        if refused:  # the next ones may depend on the array that was refused
            log.record(entry.number, place, {"error": refused})
            continue
        dependency = array.dependency
        if array.after is not None:
            dependency = _dependency(ids[array.after], entry.arrays[array.after], array)
        folder = log.folder(entry.number).jobs(place)
        folder.mkdir(parents=True, exist_ok=True)
        executor = _executor(folder, site[array.stage], array, extra, dependency)
        tasks = [Task(str(store.root), entry.number, place, index) for index in range(len(array.elements))]
        try:
            jobs = executor.submit_array(tasks)
        except Exception as error:  # submitit raises what sbatch printed in exceptions of several types
            said = [line for line in str(error).splitlines() if "error" in line.lower()] or [str(error)]
            refused = said[-1].strip()
            log.record(entry.number, place, {"error": refused})
            continue
        ids[place] = jobs[0].job_id.partition("_")[0]
        log.record(entry.number, place, {"id": ids[place]})
    return refused


def _dependency(job: str, upper: Array, lower: Array) -> str:
    """sbatch dependency of an array on the one it starts from: each element on the element of the same index.

    An array of one element becomes a single job, which has no index.
    """
    if len(upper.elements) == 1:
        return f"afterok:{job}"
    return f"aftercorr:{job}" if len(lower.elements) > 1 else f"afterok:{job}_0"


def _locations(runs: Iterable[Run]) -> dict[str, str]:
    """Environment variables with the folders of the data sets.

    Jobs run a copy of the project, from which relative paths of its profile would lead elsewhere.
    """
    names = {run.data.name for run in runs if isinstance(run.data, Folder)}
    places = {name: data_location(name) for name in sorted(names)}
    return {data_variable(name): str(place) for name, place in places.items() if place}


def _executor(folder: Path, site: Site, array: Array, extra: Mapping[str, str], dependency: str) -> Any:
    import submitit

    python = f"{site.container or ''} {site.python or shlex.quote(sys.executable)}".strip()
    executor = submitit.SlurmExecutor(folder, max_num_timeout=site.attempts, python=python)
    further = {
        "reservation": site.reservation,
        "kill-on-invalid-dep": "yes" if dependency else None,  # True would be a bare flag, which sbatch refuses
    }
    given: dict[str, Any] = {
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "gres": site.gres,
        "gpus_per_node": site.gpus_per_node,
        "mem": f"{site.mem_gb}GB" if site.mem_gb else None,
        "srun_args": _srun_args(site),
        "dependency": dependency or None,
        "additional_parameters": {name: value for name, value in further.items() if value} or None,
    }
    executor.update_parameters(
        job_name=array.name,
        time=site.allocation_minutes(max(map(len, array.elements))),
        nodes=site.nodes,
        ntasks_per_node=site.processes_per_node,
        cpus_per_task=site.cpus_per_task,
        signal_delay_s=site.signal_seconds,
        array_parallelism=site.parallel or len(array.elements),
        stderr_to_stdout=True,
        setup=_setup(site, extra),
        **{name: value for name, value in given.items() if value is not None},
    )
    return executor


def _srun_args(site: Site) -> list[str] | None:
    """Arguments for srun; in a distributed run a failed process must end the others, which would wait for ever."""
    return [*(["--kill-on-bad-exit=1"] * (site.nodes * site.processes_per_node > 1)), *site.srun_args] or None


def _setup(site: Site, extra: Mapping[str, str]) -> list[str]:
    """Shell lines that run before the job; the first one that fails ends it."""
    exports = [
        f"export {name}={shlex.quote(value)}" + ('"${PYTHONPATH:+:$PYTHONPATH}"' if name == "PYTHONPATH" else "")
        for name, value in extra.items()
    ]
    return [
        "set -eo pipefail",
        "export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}",
        *(f"module load {shlex.quote(module)}" for module in site.modules),
        *site.setup,
        *exports,
    ]
