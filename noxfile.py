"""How the project is checked: the same sessions here and in CI. `nox -s tests` is the one to begin with."""

from __future__ import annotations

import os
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint", "types"]
nox.needs_version = ">=2024.4.15"

PROJECT = nox.project.load_toml("pyproject.toml")
SHARED = Path(".nox") / "shared"
"""torch takes gigabytes and minutes to install: the sessions that need it share one environment. It lies over the one
that nox runs in where that has torch."""
LONG = 13
"""A test that takes more CPU seconds must be marked slow: ten, and a third more for coverage."""


def shared(session: nox.Session, *groups: str) -> Path:
    """Bring the shared environment up to date; returns the folder of its commands."""
    commands = SHARED.resolve() / ("Scripts" if os.name == "nt" else "bin")
    if not (commands / "python").exists():
        session.run(sys.executable, "-m", "venv", str(SHARED), external=True)
        if find_spec("torch"):  # over the environment that nox runs in, which pip then sees and leaves as it is
            packages = next(SHARED.glob("**/site-packages"))
            (packages / "calling.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    install = (str(commands / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    session.run(*install, "--editable", ".", *nox.project.dependency_groups(PROJECT, *groups), external=True)
    return commands


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run all tests with coverage; arguments go to pytest (nox -s tests -- -m "not slow")."""
    commands = shared(session, "test")
    pytest = (str(commands / "python"), "-m", "pytest", "--cov=harness", f"--cpu-limit={LONG}")
    session.run(*pytest, *session.posargs, external=True)


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    commands = shared(session, "test", "types")
    session.run(str(commands / "python"), "-m", "mypy", *session.posargs, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(venv_backend="none", default=False)
def cluster(session: nox.Session) -> None:
    """Run the tests that need Slurm on a cluster of their own, without and with accounting; arguments go to pytest.

    As root on Debian, missing packages are installed first. Skipped where no cluster can be had.
    """
    script = (sys.executable, "tests/cluster/slurm.py")
    if session.run(*script, "missing", external=True, silent=True, success_codes=[0, 1]):
        session.run(*script, "install", external=True, success_codes=[0, 1])
    if reason := session.run(*script, "missing", external=True, silent=True, success_codes=[0, 1]):
        session.skip(f"no Slurm cluster here: {reason}")
    commands = shared(session, "test")
    pytest = (str(commands / "python"), "-m", "pytest", "tests/cluster", *session.posargs)
    session.run(*pytest, external=True, env={"HARNESS_TEST_ACCOUNTING": "0"})
    # What these compute does not depend on what Slurm is asked, and they take minutes.
    once = (
        "test_distributed.py",
        "test_until_decided.py",
        "test_training.py::test_frozen_code_a_preempted_job_and_the_same_table",
    )
    left_out = [option for name in once for option in ("--deselect", f"tests/cluster/{name}")]
    session.run(*pytest, *left_out, external=True, env={"HARNESS_TEST_ACCOUNTING": "1"})


@nox.session(venv_backend="none", default=False)
def quickstart(session: nox.Session) -> None:
    """Run README's first command in a store of its own, then again: the second time must compute nothing."""
    commands = shared(session)
    store = session.create_tmp()
    command = (str(commands / "harness"), "run", "studies/quickstart.py", "--store", f"{store}/runs")
    session.run(*command, external=True)
    said = session.run(*command, external=True, silent=True) or ""
    if "nothing to compute" not in said:
        session.error(f"the second run computed something:\n{said}")
