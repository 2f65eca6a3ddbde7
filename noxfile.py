"""How the project is checked: the same sessions here and in CI. `nox -s tests` is the one to begin with."""

from __future__ import annotations

import nox

nox.options.sessions = ["tests", "lint", "types"]
PROJECT = nox.project.load_toml("pyproject.toml")


def install(session: nox.Session, *groups: str) -> None:
    """Install the package with its dependencies, and the development groups of pyproject.toml."""
    session.install(".", *nox.project.dependency_groups(PROJECT, *groups))


# One environment serves every session that needs torch: it takes gigabytes and minutes to install.
@nox.session(venv_params=["--system-site-packages"] if False else [])
def tests(session: nox.Session) -> None:
    """Run all tests, with coverage; arguments go to pytest."""
    install(session, "test")
    session.run("pytest", "--cov", "--cov-report=term:skip-covered", *session.posargs)
