"""The coordinator as a small Slurm job: it asks to be queued again when its time is over, and goes on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.launch.site import read_site
from harness.launch.slurm import questions
from harness.spec import HarnessError
from harness.store.files import disk_errors
from harness.store.layout import SearchFolder


def coordinator_command(arguments: Sequence[str]) -> str:
    """The command line that the job runs: this one's, without --detach."""
    kept = [argument for argument in arguments if argument != "--detach"]
    return shlex.join([sys.executable, "-m", "harness.cli", *kept])


def submit_coordinator(root: Path, folder: SearchFolder, arguments: Sequence[str] | None = None) -> str:
    """Queue the present command as a job of one CPU; returns its id.

    Args:
        root: the project, in which the job runs.
        arguments: of the command line; default: this process's.

    Raises:
        HarnessError: there is no cluster, or sbatch refuses.
    """
    questions.require_slurm()
    site = read_site(root)["evaluation"]
    with disk_errors(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    given = {
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
    }
    said = questions.ask(
        "sbatch",
        "--parsable",
        "--requeue",
        "--open-mode=append",
        f"--job-name={folder.path.name}",
        f"--output={folder.coordinator_log}",
        f"--chdir={Path.cwd()}",
        f"--time={site.minutes}",
        f"--signal=B:USR2@{site.signal_seconds}",
        "--ntasks=1",
        "--cpus-per-task=1",
        *(f"--{name}={value}" for name, value in given.items() if value is not None),
        # exec: the signal has to reach Python, not the shell
        f"--wrap=exec {coordinator_command(sys.argv[1:] if arguments is None else arguments)}",
    )
    job = said.strip().partition(";")[0]
    if not job.isdigit():
        raise HarnessError(f"sbatch said {said.strip()!r}, which is no job")
    return job
