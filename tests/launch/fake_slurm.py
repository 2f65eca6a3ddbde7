"""Commands named as Slurm's, first on PATH, that print what a file says and write down how they were called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "sinfo", "scancel", "sacctmgr", "srun")
SCRIPT = """#!/bin/sh
echo "{name} $*" >> {folder}/calls
if [ -e {folder}/{name}.fails ]; then cat {folder}/{name}.fails >&2; exit 1; fi
{more}
if [ -e {folder}/{name}.says ]; then cat {folder}/{name}.says; fi
"""
SBATCH = """
echo x >> {folder}/submitted
echo "Submitted batch job $(wc -l < {folder}/submitted)"
"""


class FakeSlurm:
    """says: what a command prints from now on. fails: what it prints before it ends with 1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        for name in COMMANDS:
            self.does(name, SBATCH.format(folder=folder) if name == "sbatch" else "")

    def does(self, name: str, more: str) -> None:
        """Have a command run these shell lines too."""
        script = self.folder / "bin" / name
        script.write_text(SCRIPT.format(name=name, folder=self.folder, more=more))
        script.chmod(0o755)

    def says(self, name: str, *lines: str) -> None:
        (self.folder / f"{name}.fails").unlink(missing_ok=True)
        (self.folder / f"{name}.says").write_text("".join(f"{line}\n" for line in lines))

    def fails(self, name: str, text: str) -> None:
        (self.folder / f"{name}.fails").write_text(text + "\n")

    def calls(self, name: str) -> list[str]:
        """The arguments of each call of a command so far."""
        try:
            lines = (self.folder / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line.partition(" ")[2] for line in lines if line.split()[0] == name]

    def path(self) -> str:
        return f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A cluster that is idle."""
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", fake.path())
    return fake
