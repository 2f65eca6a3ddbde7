"""Questions to Slurm, one for all jobs at once, and the meaning of its job states."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from harness.launch.queue import last_line
from harness.spec import HarnessError

NAMES_A_QUESTION = 1000
WAITING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "RESV_DEL_HOLD", "REQUEUE_HOLD", "SPECIAL_EXIT"}
)
WORKING = frozenset({"RUNNING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED"})
GOES_ON = frozenset({"TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "REVOKED"})
"""Endings that say nothing against the run: the next `harness run` goes on with it."""


@dataclass(frozen=True)
class Job:
    """One array element, or a job that is no array. id: as scancel takes it; raw: as the job itself sees it."""

    id: str
    state: str
    reason: str = ""
    raw: str = ""

    @property
    def live(self) -> bool:
        """True if it is still in the queue or at work."""
        return self.state in WAITING or self.state in WORKING


Jobs = dict[str, dict[int, Job]]
"""By job name and index."""


def require_slurm() -> None:
    """Raise unless there is a cluster here that answers.

    Raises:
        HarnessError: no Slurm commands, or the controller does not answer.
    """
    for command in ("sbatch", "squeue", "scontrol"):
        if shutil.which(command) is None:
            raise HarnessError(f"there is no {command} on this machine, so no Slurm to ask")
    ask("sinfo", "--noheader", "--format=%P")


def ask(*command: str) -> str:
    """Output of a Slurm command.

    Raises:
        HarnessError: it is not there, or it fails.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=plain_environment())
    except FileNotFoundError:
        raise HarnessError(f"there is no {command[0]} on this machine") from None
    except subprocess.TimeoutExpired:
        raise HarnessError(f"{command[0]} does not answer") from None
    if done.returncode:
        said = last_line(done.stderr or done.stdout) or f"exit code {done.returncode}"
        raise HarnessError(f"{command[0]}: {said.removeprefix(f'{command[0]}: ')}")
    return done.stdout


def plain_environment() -> dict[str, str]:
    """This process's environment without what changes the form of Slurm's answers."""
    changing = ("SQUEUE_FORMAT", "SACCT_FORMAT", "SLURM_TIME_FORMAT", "SQUEUE_STATES", "SQUEUE_USERS")
    return {name: value for name, value in os.environ.items() if name not in changing}


def look(sizes: Mapping[str, int], since: float) -> Jobs:
    """States of jobs, by squeue, and by sacct where squeue has forgotten them.

    Args:
        sizes: elements of each array, by job name.
        since: seconds since 1970 before which none was submitted.

    Raises:
        HarnessError: squeue does not answer. Where sacct does not, ended jobs are missing from the result.
    """
    found: Jobs = {}
    listed = sorted(sizes)
    for first in range(0, len(listed), NAMES_A_QUESTION):
        part = listed[first : first + NAMES_A_QUESTION]
        text = ask(
            "squeue", "--noheader", "--array", "--states=all", f"--name={','.join(part)}", "--format=%i|%T|%r|%A|%j"
        )
        _note(found, (line.split("|", 4) for line in text.splitlines()))
        ended: Jobs = {}  # in order of attempts, so that the last one counts
        _note(ended, _accounted([name for name in part if len(found.get(name, {})) < sizes[name]], since))
        for name, jobs in ended.items():
            found[name] = jobs | found.get(name, {})
    return found


def _accounted(names: Sequence[str], since: float) -> list[list[str]]:
    if not names:
        return []
    start = datetime.fromtimestamp(since - 3600).strftime("%Y-%m-%dT%H:%M:%S")
    fields = "JobID,State,ExitCode,JobIDRaw,JobName"
    try:
        text = ask("sacct", "-n", "-P", "-X", "-D", "-S", start, f"--name={','.join(names)}", "-o", fields)
    except HarnessError:
        return []
    return [line.split("|", 4) for line in text.splitlines()]


def _note(found: Jobs, rows: Iterable[list[str]]) -> None:
    for row in rows:
        if len(row) == 5 and "[" not in row[0]:
            job, state, reason, raw, name = (field.strip() for field in row)
            index = job.partition("_")[2]
            found.setdefault(name, {})[int(index) if index.isdigit() else 0] = Job(job, state.split()[0], reason, raw)


def largest_array() -> int:
    """Largest number of elements in one array: MaxArraySize (indices end one below it), 1000 if it is not told."""
    for line in ask("scontrol", "show", "config").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "MaxArraySize" and value.strip().isdigit():
            return max(1, int(value))
    return 1000


def jobs_of_user() -> int:
    """Number of jobs and array elements of this user in the queue."""
    return len(ask("squeue", "--noheader", "--array", "--me", "--format=%i").splitlines())


def submit_limit() -> int | None:
    """The smallest MaxSubmitJobs of this user's associations, None if there is none or no accounting tells."""
    try:
        user = ask("id", "-un").strip()
        text = ask("sacctmgr", "-n", "-P", "show", "assoc", f"user={user}", "format=MaxSubmitJobs")
    except HarnessError:
        return None
    limits = [int(line) for line in text.split() if line.isdigit()]
    return min(limits, default=None)


def cancel(ids: Sequence[str]) -> None:
    """Cancel jobs, 200 in each call of scancel, as command lines are limited in length."""
    for first in range(0, len(ids), 200):
        ask("scancel", *ids[first : first + 200])
