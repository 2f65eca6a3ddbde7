"""The coordinator as a small Slurm job, which requeues itself when its time is over and then continues."""

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
    """Command line of the job: the given one without --detach, and without --new, which is done before it."""
    kept = [argument for argument in arguments if argument not in ("--detach", "--new")]
    return shlex.join([sys.executable, "-m", "harness.cli", *kept])


def submit_coordinator(root: Path, folder: SearchFolder, arguments: Sequence[str] | None = None) -> str:
    """Submit the present command as a job of one CPU; returns the job's id.

    Args:
        root: root of the project, whose profile gives partition and time limit.
        arguments: arguments of the command line; by default those of this process.

    Raises:
        HarnessError: there is no cluster, or sbatch refuses.
    """
    questions.require_slurm()
    site = read_site(root)["evaluation"]
    with disk_errors(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)  # sbatch does not create the folder of its log
    said = questions.ask(
        "sbatch",
        "--parsable",
        "--requeue",  # the job asks to be queued again before its time is over
        "--open-mode=append",  # a requeued job continues the same log
        f"--job-name={folder.path.name}",
        f"--output={folder.coordinator_log}",
        f"--chdir={Path.cwd()}",
        f"--time={site.minutes}",
        f"--signal=B:USR2@{site.signal_seconds}",
        "--ntasks=1",
        "--cpus-per-task=1",
        *site.placement,
        # exec: the signal must reach Python, not the shell
        f"--wrap=exec {coordinator_command(sys.argv[1:] if arguments is None else arguments)}",
    )
    # sbatch --parsable adds the name of the cluster behind a semicolon where there are several.
    job = said.strip().partition(";")[0]
    if not job.isdigit():
        raise HarnessError(f"sbatch said {said.strip()!r}, which is no job")
    return job
