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


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("nox")
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.delitem(sys.modules, "noxfile", raising=False)
    import noxfile

    monkeypatch.setattr(noxfile, "shared", lambda session, *groups: Path("bin"))
    return noxfile


def test_a_folder_that_is_named_is_all_that_is_tested(sessions: Any, tmp_path: Path) -> None:
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
