"""Running the command line inside the test process, and small projects to run it on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

FILE = (Path(__file__).parent / "ratios.py.txt").read_text()
"""A study of two ratios and a control, which tests change and `tools/bad_input.py` spoils."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call `harness ...` as the entry point does, in this process; what it changes is put back."""
    from harness.cli import main

    def call(*arguments: object) -> Ended:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["harness", *map(str, arguments)])
            patch.setattr(sys, "path", list(sys.path))
            patch.setenv("HARNESS_PROJECT", "")
            capsys.readouterr()
            try:
                with pytest.raises(SystemExit) as ended:
                    main()
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        out, err = capsys.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return call


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one small study, studies/ratios.py."""
    root = tmp_path / "project"
    (root / "studies").mkdir(parents=True)
    (root / "harness.toml").touch()
    (root / "studies" / "ratios.py").write_text(FILE)
    return root


@pytest.fixture
def study(project: Path) -> Path:
    """The path of that study."""
    return project / "studies" / "ratios.py"


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its content, and every empty folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path.is_file() or not os.listdir(path)
    }
