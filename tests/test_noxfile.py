"""The sessions of nox hand on what they are given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


class Session:
    """Notes the commands of a session in place of running them."""

    def __init__(self, *posargs: str) -> None:
        self.posargs = posargs
        self.commands: list[tuple[str, ...]] = []

    def run(self, *command: str, **_: Any) -> str:
        self.commands.append(command)
        return ""


@pytest.fixture(scope="module")
def sessions() -> Any:
    """The module noxfile: nox lets it be loaded once."""
    pytest.importorskip("nox")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.syspath_prepend(str(ROOT))
        import noxfile
    return noxfile


def test_what_the_project_needs_is_installed_again_where_it_has_changed_alone(
    sessions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sessions, "layered", lambda *args: sessions.SHARED / "bin")
    sessions.SHARED.mkdir(parents=True)
    asked = []
    for text in ("a", "a", "b", "b"):
        (tmp_path / "pyproject.toml").write_text(text)
        session = Session()
        sessions.shared(session)
        asked.append(session.commands)
    assert [len(commands) for commands in asked] == [1, 0, 1, 0]
    assert {"--editable", "pytest>=8", "mypy>=1.17", "sphinx>=8.2"} <= set(asked[0][0])


def test_a_folder_that_is_named_is_all_that_is_tested(
    sessions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "shared", lambda session: Path("bin"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"test_{name}.py").write_text("def test():\n    pass\n")
    session = Session("one")
    sessions.tests.func(session)
    own = ("--cpu-limit", "--numprocesses", "--dist")  # of this project, and of a plugin
    given = [word for word in session.commands[-1][1:] if not word.startswith(own)]
    command = [sys.executable, *given, "--collect-only", "-q", "-p", "no:cacheprovider"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False).stdout
    assert "one/test_one.py" in said
    assert "two/test_two.py" not in said
