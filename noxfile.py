"""How the project is checked: the same sessions here and in CI. `nox -s tests` is the one to begin with."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint", "types"]
nox.needs_version = ">=2024.4.15"

PROJECT = nox.project.load_toml("pyproject.toml")
SHARED = Path(".nox") / "shared"
"""torch takes gigabytes and minutes to install: the sessions that need it share one environment. It lies over the one
that nox runs in where that has torch."""
GROUPS = ("test", "types", "lowest", "docs")
"""What the shared environment has besides the project."""
LOWEST = Path(".nox") / "lowest"
DEPEND = [
    *("tests/report", "tests/spec", "tests/test_study.py", "tests/test_claims.py", "tests/test_results.py"),
]
"""Tests of what depends on versions most: pandas, Matplotlib, scipy, pydantic. The real run adds timm and Typer."""
BY_FILE = ("--numprocesses=2", "--dist=loadfile")
"""Two processes share the files of tests, so that what a file makes once is made once."""
BY_TEST = ("--numprocesses=2", "--dist=worksteal")
"""Two processes share the tests: for few and long ones, which make little once."""
LONG = 45
"""A test that takes more CPU seconds must be marked slow: those that take ten in quiet have taken thirty where
cores and caches are shared with others, and half as much again is for what has not been seen yet."""
MINUTES = {
    "lint": 1,
    "types": 2,
    "tests": 6,
    "coverage": 9,
    "slow": 9,
    "cluster": 13,
    "lowest": 3,
    "quickstart": 3,
    "docs": 2,
}
"""What a session may take on two quiet cores. Those of .ci/run, all but coverage, may take forty together. On a clean
machine the first one that needs torch installs it."""
taken: dict[str, float] = {}
"""Minutes that the sessions of this call took."""


def timed(session_function: Callable[[nox.Session], None]) -> Callable[[nox.Session], None]:
    """Note how long a session takes."""

    @functools.wraps(session_function)
    def noting(session: nox.Session) -> None:
        begun = time.monotonic()
        try:
            session_function(session)
        finally:
            taken[session_function.__name__] = (time.monotonic() - begun) / 60

    return noting


def layered(session: nox.Session, folder: Path, seen: str) -> Path:
    """Make an environment that sees the packages of others, which pip then leaves as they are.

    Args:
        seen: a line of a .pth file, such as the folder of the others' packages, which come after its own; or nothing.

    Returns:
        The folder of its commands.
    """
    commands = folder.resolve() / ("Scripts" if os.name == "nt" else "bin")
    if not (commands / "python").exists():
        session.run(sys.executable, "-m", "venv", str(folder), external=True)
        (_packages(folder) / "seen.pth").write_text(f"{seen}\n")
    return commands


def _packages(environment: Path) -> Path:
    return next(environment.resolve().glob("**/site-packages"))


def pip_install(session: nox.Session, commands: Path, *what: str) -> None:
    """Install into an environment."""
    pip = (str(commands / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    session.run(*pip, *what, external=True)


def shared(session: nox.Session) -> Path:
    """Install into the shared environment unless pyproject.toml is as it was; returns the folder of its commands."""
    commands = layered(session, SHARED, sysconfig.get_path("purelib") if find_spec("torch") else "")
    installed, wanted = SHARED / "installed.toml", Path("pyproject.toml").read_text()
    if not installed.exists() or installed.read_text() != wanted:
        pip_install(session, commands, "--editable", ".", *nox.project.dependency_groups(PROJECT, *GROUPS))
        installed.write_text(wanted)
    return commands


def run_tests(session: nox.Session, *options: str) -> None:
    """Two processes share the tests; what the session was given comes last, so that it prevails."""
    pytest = (str(shared(session) / "python"), "-m", "pytest")
    session.run(*pytest, *options, *session.posargs, external=True)


@nox.session(venv_backend="none")
@timed
def tests(session: nox.Session) -> None:
    """Run the fast tests, and fail those that are not; arguments go to pytest (nox -s tests -- tests/launch)."""
    run_tests(session, *BY_FILE, f"--cpu-limit={LONG}", "-m", "not slow")


@nox.session(venv_backend="none", default=False)
@timed
def slow(session: nox.Session) -> None:
    """Run the slow tests; arguments go to pytest."""
    run_tests(session, *BY_TEST, "-m", "slow")


@nox.session(venv_backend="none", default=False)
@timed
def coverage(session: nox.Session) -> None:
    """Run the fast tests and measure what they cover, in subprocesses too, a third slower; arguments go to pytest."""
    run_tests(session, *BY_FILE, "--cov=harness", f"--cpu-limit={LONG * 4 / 3:.0f}", "-m", "not slow")


@nox.session(venv_backend="none")
@timed
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    commands = shared(session)
    session.run(str(commands / "python"), "-m", "mypy", *session.posargs, external=True)


@nox.session
@timed
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(venv_backend="none", default=False)
@timed
def cluster(session: nox.Session) -> None:
    """Run the tests that need Slurm on a cluster of their own, without and with accounting; arguments go to pytest.

    As root on Debian, missing packages are installed first. Skipped where no cluster can be had.
    """
    script = (sys.executable, "tests/cluster/slurm.py")
    if session.run(*script, "missing", external=True, silent=True, success_codes=[0, 1]):
        session.run(*script, "install", external=True, success_codes=[0, 1])
    if reason := session.run(*script, "missing", external=True, silent=True, success_codes=[0, 1]):
        session.skip(f"no Slurm cluster here: {reason}")
    commands = shared(session)
    pytest = (str(commands / "python"), "-m", "pytest", "tests/cluster", *session.posargs)
    session.run(*pytest, external=True, env={"HARNESS_TEST_ACCOUNTING": "0"})
    # Trainings, decisions, searches and many jobs take minutes, whatever Slurm is asked: once is enough.
    minutes = (
        "test_until_decided.py",
        "test_search.py",
        "test_submission.py::test_sixty_runs_in_two_arrays_each_computed_once",
        "test_submission.py::test_a_queue_with_little_room_takes_what_fits",
    )
    once = [f"--deselect=tests/cluster/{name}" for name in minutes]
    session.run(*pytest, "-m", "not slow", *once, external=True, env={"HARNESS_TEST_ACCOUNTING": "1"})


@nox.session(venv_backend="none", default=False)
@timed
def lowest(session: nox.Session) -> None:
    """Run the quickstart, and the fast tests of what depends on versions, with the lowest that pyproject.toml allows.

    These are the lowest of its dependencies that this Python has wheels for, and the newest of theirs; torch and
    torchvision stay as they are. Old packages warn of new ones, so here a warning is no error. Arguments go to pytest.
    """
    below = shared(session)
    python = str(layered(session, LOWEST, f"import site; site.addsitedir({str(_packages(SHARED))!r})") / "python")
    folder = Path(session.create_tmp()).resolve()
    kept, pins = folder / "kept.txt", folder / "pins.txt"
    kept.write_text("torch; sys_platform == 'none'\ntorchvision; sys_platform == 'none'\n")
    compiled = ("-m", "uv", "pip", "compile", "--quiet", "--resolution=lowest-direct", "--only-binary=:all:")
    session.run(str(below / "python"), *compiled, f"--override={kept}", f"-o={pins}", "pyproject.toml", external=True)
    pip_install(session, Path(python).parent, "--no-deps", f"--requirement={pins}")
    chosen = session.posargs or DEPEND
    session.run(python, "-m", "pytest", *BY_FILE, "-m", "not slow", "-W", "ignore", *chosen, external=True)
    shutil.rmtree(folder / "project", ignore_errors=True)
    (folder / "project").mkdir()
    (folder / "project" / "harness.toml").touch()
    shutil.copy("studies/quickstart.py", folder / "project")
    session.run(python, "-m", "harness.cli", "run", f"{folder}/project/quickstart.py", "--seeds", "1", external=True)
    if not list(folder.glob("project/results/**/report.html")):
        session.error("the run wrote no report")


@nox.session(venv_backend="none", default=False)
@timed
def quickstart(session: nox.Session) -> None:
    """Run README's first command in a store of its own, then again: the second time must compute nothing."""
    commands = shared(session)
    store = session.create_tmp()
    command = (str(commands / "harness"), "run", "studies/quickstart.py", "--store", f"{store}/runs")
    session.run(*command, external=True)
    said = session.run(*command, external=True, silent=True) or ""
    if "nothing to compute" not in said:
        session.error(f"the second run computed something:\n{said}")


@nox.session(venv_backend="none", default=False)
@timed
def docs(session: nox.Session) -> None:
    """Build the documentation site in docs/_build, running its notebook: a warning fails, and a dead link within it."""
    python = str(shared(session) / "python")
    sphinx = ("-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going")
    session.run(python, *sphinx, "docs", "docs/_build", *session.posargs, external=True)
    session.run(python, "docs/links.py", "docs/_build", external=True)


@nox.session(venv_backend="none", default=False)
def budget(session: nox.Session) -> None:
    """Say how long the sessions of this call took, beside what they may take: name it last."""
    for name, minutes in taken.items():
        allowed = MINUTES.get(name)
        over = " over" if allowed and minutes > allowed else ""
        session.log(f"{name:<10} {minutes:5.1f} of {allowed or '-'} minutes{over}")
    session.log(f"{'together':<10} {sum(taken.values()):5.1f} of 40 minutes")
