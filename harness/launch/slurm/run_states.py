"""States of runs on a cluster, from the store's files, the submission log and Slurm's answers. Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from harness.launch.executor import Overview, Place, from_files, with_blocked
from harness.launch.queue import last_line
from harness.launch.slurm import questions
from harness.launch.slurm.questions import GOES_ON, Job, Jobs
from harness.spec import HarnessError, Run
from harness.store import State, Store
from harness.store.files import text_of
from harness.store.lease import clock, is_alive, modified
from harness.store.submissions import Entry, Submissions

GRACE_SECONDS = 60.0
"""Seconds after the last sign of a job in which its run does not count as interrupted: files and accounting lag."""


def states_on_cluster(runs: Mapping[str, Run], store: Store) -> Overview:
    """The state of each run."""
    states = store.states(runs)
    undone = {name for name, state in states.items() if state.word != "done"}
    log = Submissions(store.root)
    entries = log.entries() if undone else []
    latest = latest_entries(entries, undone)
    waited_for = {entry.number: entry for entry in latest.values() if entry.kind == "submission"}
    jobs: Jobs = {}
    silent = ""
    if waited_for:
        sizes = {array.name: len(array.elements) for entry in waited_for.values() for array in entry.arrays}
        try:
            jobs = questions.look(sizes, min(entry.time for entry in waited_for.values()))
        except HarnessError as error:
            silent = str(error)
        # Read again after Slurm has answered: a job that ended in between has left a result, which counts.
        states |= store.states(latest)
    now = clock(store.root) if waited_for else 0.0  # once: it makes a file
    counts = Counter(name for entry in entries for name in entry.places)
    places = from_files(states)
    for name, entry in latest.items():
        if entry.kind == "submission":
            place = _submitted(name, states[name], entry, log, jobs, silent, store, now)
            places[name] = replace(place, submissions=counts[name])
        elif states[name].word in ("missing", "interrupted"):
            places[name] = Place("cancelled", "harness run submits it again", states[name])
    return Overview(with_blocked(runs, places, store), silent)


def latest_entries(entries: Iterable[Entry], names: Collection[str]) -> dict[str, Entry]:
    """The last log entry about each of some runs that was submitted or cancelled."""
    found: dict[str, Entry] = {}
    for entry in entries:
        about = entry.wants if entry.kind == "cancel" else entry.places
        for name in about:
            if name in names:
                found[name] = entry
    return found


def _submitted(
    name: str, state: State, entry: Entry, log: Submissions, jobs: Jobs, silent: str, store: Store, now: float
) -> Place:
    number, index = entry.places[name]
    array = entry.arrays[number]
    job = jobs.get(array.name, {}).get(index)
    if state.word == "done" or (state.word == "running" and not _ended(job, state)):
        return Place(state.word, "", state, job.id if job and job.live else "")
    if state.word == "failed" and _later(store.folder(name).attempt(state.attempt).error, entry.time):
        return Place("failed", last_line(state.error), state)
    if silent:
        return Place("queued", f"submitted; {silent}", state)
    recently = _recently(store, name, state, entry, log, number, now)
    begun = _later(store.folder(name).attempt(state.attempt).path, entry.time)
    if job is not None:
        place = _by_slurm(job, state, recently=recently, alone=len(array.elements[index]) == 1)
        if (
            not job.live
            and place.word in ("failed", "missing", "queued")
            and (why := _let_go(store, name, entry, log, number, index))
        ):
            place = Place("interrupted" if begun else "missing", f"{why}; harness run goes on with it", state)
    elif "error" in (answer := log.answer(entry.number, number)):
        place = Place("missing", f"sbatch refused it: {answer['error']}", state)
    elif array.name in jobs and not begun and len(jobs[array.name]) < len(array.elements):
        place = Place("cancelled", "taken out of the queue", state)
    elif "id" not in answer and _submitting(entry, log, now):
        return Place("queued", "being submitted", state)
    elif recently:
        return Place("queued", "just left the queue", state)
    elif "id" not in answer and state.word == "missing":
        place = _by_files(name, state)  # the process that wrote the entry died before sbatch
    else:
        place = Place("interrupted", "its job is gone; harness run goes on with it", state)
    if state.word == "failed" and not place.job and place.word != "failed":
        return _by_files(name, state)  # submitted again, and never begun
    return place


def _by_files(name: str, state: State) -> Place:
    return from_files({name: state})[name]


def _ended(job: Job | None, state: State) -> bool:
    """True if Slurm reports that the owner's job is not running; this counts more than a fresh heartbeat."""
    return bool(job and state.owner and state.owner.get("job") == job.raw and job.state not in questions.WORKING)


def _by_slurm(job: Job, state: State, *, recently: bool, alone: bool) -> Place:
    shown = f"job {job.id}"
    if job.state in questions.WAITING:
        if job.reason == "DependencyNeverSatisfied":
            return Place("blocked", f"{shown}: waits for a run that failed", state, job.id)
        return Place("queued", f"{shown}: {job.reason or job.state}", state, job.id)
    if job.state in questions.WORKING:
        return Place("queued", f"{shown} starts" if alone else f"{shown} runs; its turn comes", state, job.id)
    if job.state == "CANCELLED":
        return Place("cancelled", f"{shown} was cancelled", state)
    if job.state in GOES_ON:
        return Place("interrupted", f"{shown}: {job.state}; harness run goes on with it", state)
    if job.state == "COMPLETED":
        if state.word == "missing":
            return Place("missing", f"{shown} ended without beginning it", state)
        if recently:
            return Place("queued", f"{shown} just ended", state)  # its result may not be seen here yet
        return Place("failed", f"{shown} ended without a result", state)
    return Place("failed", f"{shown}: {job.state}; harness logs shows what it printed", state)


def _let_go(store: Store, name: str, entry: Entry, log: Submissions, array: int, element: int) -> str:
    """Reason why an unfinished run must not count as failed although its job ended; empty if it should."""
    if told := text_of(log.folder(entry.number).stopped(array, element)).strip():
        return told
    aside = store.folder(name).results_put_aside()
    return "its result was put aside" if any(_later(path, entry.time) for path in aside) else ""


def _submitting(entry: Entry, log: Submissions, now: float) -> bool:
    """True if the process that wrote an entry is alive, so that it may still be calling sbatch."""
    folder = log.folder(entry.number)
    signs = [folder.entry, *(folder.answer(array) for array in range(len(entry.arrays)))]
    return is_alive(entry.owner, lambda: now - max(map(modified, signs)))


def _recently(store: Store, name: str, state: State, entry: Entry, log: Submissions, array: int, now: float) -> bool:
    files = store.folder(name).attempt(state.attempt)
    signs = (log.folder(entry.number).answer(array), files.path, files.heartbeat, files.metrics)
    return any(_later(path, now - GRACE_SECONDS) for path in signs)


def _later(path: Path, moment: float) -> bool:
    return modified(path) > moment
