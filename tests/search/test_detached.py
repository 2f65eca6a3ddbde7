"""The coordinator as a job: what sbatch is told."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "launch"))

from fake_slurm import FakeSlurm, slurm

from harness.search.detached import coordinator_command, submit_coordinator
from harness.spec import HarnessError
from harness.store.layout import SearchFolder

__all__ = ["slurm"]  # a fixture


def test_the_job_runs_the_same_command_without_detach() -> None:
    given = [
        "search",
        "a b.py",
        "--on",
        "slurm",
        "--detach",
        "--new",
        "--trials",
        "9",
    ]  # queued again, it begins no other
    words = shlex.split(coordinator_command(given))
    assert words == [sys.executable, "-m", "harness.cli", "search", "a b.py", "--on", "slurm", "--trials", "9"]


def test_sbatch_is_told_to_queue_it_again_and_to_signal_python(slurm: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "harness.toml").write_text('[slurm]\npartition = "cpu"\nminutes = 90\nsignal_seconds = 40\n')
    slurm.does("sbatch", "echo 17")
    folder = SearchFolder(tmp_path / "runs" / ".searches" / "masks-tiny")
    assert submit_coordinator(tmp_path, folder, ["search", "x.py", "--on", "slurm", "--detach"]) == "17"
    [call] = slurm.calls("sbatch")
    for part in (
        "--requeue",
        "--job-name=masks-tiny",
        f"--output={folder.coordinator_log}",
        "--time=90",
        "--signal=B:USR2@40",
        "--partition=cpu",
        "--cpus-per-task=1",
        f"--wrap=exec {sys.executable} -m harness.cli search x.py --on slurm",
    ):
        assert part in call
    assert "--detach" not in call
    assert folder.path.is_dir()


def test_what_sbatch_refuses(slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.fails("sbatch", "sbatch: error: invalid partition")
    with pytest.raises(HarnessError, match="invalid partition"):
        submit_coordinator(tmp_path, SearchFolder(tmp_path / "s"), ["search", "x.py"])
