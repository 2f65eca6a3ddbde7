"""A whole study in a script of sixteen lines; `nox -s docs` runs the same as a notebook."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

import harness

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "examples" / "two_backbones.py"


@pytest.mark.slow
def test_the_script_plans_runs_shows_and_uses_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "harness.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_PROJECT", "")
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.startswith("two_backbones/tiny: 4 cells x 2 seeds; 4 pretrain, 8 finetune, 8 linear-probe, 8 knn")
    for words in ("top-1 (%)", "linear probe (%)", "5-NN (%)", "ResNet  scratch"):
        assert words in printed
    assert printed.rstrip().endswith("[(1, 32, 6, 6), (1, 32, 6, 6), (1, 32, 6, 6), (1, 32, 6, 6)]")
    assert (tmp_path / "top1.png").stat().st_size > 10_000


def test_a_command_that_loads_the_script_computes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the script was run")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_PROJECT", "")
    monkeypatch.setattr(harness, "run", refuse, raising=False)
    assert len(harness.plan(SCRIPT).rows) == 8
    assert (capsys.readouterr().out, list(tmp_path.iterdir())) == ("", [])


def test_the_script_has_sixteen_lines() -> None:
    assert sum(bool(line.strip()) for line in SCRIPT.read_text().splitlines()) == 16


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
