"""The commands of the cluster where there is none."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from conftest import Command, tree


@pytest.fixture(autouse=True)
def _no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("git", "id"):
        if found := shutil.which(name):
            (tmp_path / "bin" / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.mark.parametrize("command", [("run", "--on", "slurm"), ("plan", "--on", "slurm"), ("cancel",)])
def test_commands_without_slurm(harness: Command, study: Path, project: Path, command: tuple[str, ...]) -> None:
    before = tree(project)
    ended = harness(command[0], study, *command[1:])
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert "there is no sbatch on this machine" in ended.err
    assert tree(project) == before


def test_doctor_without_slurm(harness: Command, project: Path) -> None:
    before = tree(project)
    ended = harness("doctor", project)
    assert (ended.code, ended.err) == (2, "")
    assert [" ".join(line.split()) for line in ended.out.splitlines()] == [
        "problem there is no sbatch on this machine, so no Slurm to ask"
    ]
    assert tree(project) == before


def test_doctor_finds_a_store_without_hard_links(
    harness: Command, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    said = " ".join(harness("doctor", project).out.split())
    assert "note the store" in said
    assert "lies on a disk without hard links: results are created by their names instead" in said


def test_slots_belong_to_the_profile(harness: Command, study: Path) -> None:
    ended = harness("run", study, "--on", "slurm", "--slots", "2")
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert "site profile" in ended.err


def test_processes_belong_to_the_profile(harness: Command, study: Path, project: Path) -> None:
    ended = harness("run", study, "--on", "slurm", "--processes", "4")
    told = "--processes belongs to --on local; on Slurm the site profile says nodes and processes_per_node"
    assert (ended.code, ended.err) == (2, f"harness: {told}\n")
    assert not (project / "runs").exists()


def test_a_refusal_of_slurm_names_its_command_once(
    harness: Command, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sbatch", "squeue", "scontrol", "sinfo"):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text("#!/bin/sh\necho 'sinfo: fatal: no configuration' >&2\nexit 1\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert "problem  sinfo: fatal: no configuration" in harness("doctor", project).out


def test_a_bad_profile_is_one_line(harness: Command, study: Path, project: Path) -> None:
    (project / "harness.toml").write_text('[slurm]\nminutes = "30"\n')
    for arguments in (("run", study, "--on", "slurm"), ("doctor", project)):
        ended = harness(*arguments)
        assert (ended.code, len(ended.err.splitlines())) == (2, 1)
        assert "minutes" in ended.err
    assert not (project / "runs").exists()


def test_runs_in_flight_have_one_process_each(harness: Command, study: Path, project: Path) -> None:
    ended = harness("run", study, "--in-flight", "8", "--processes", "2")
    assert (ended.code, ended.err) == (2, "harness: --in-flight 8: a run of 2 processes is computed alone\n")
    assert not (project / "runs").exists()
