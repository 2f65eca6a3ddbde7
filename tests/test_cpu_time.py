"""A test that takes long has to say so."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cpu_time import spent

HERE = Path(__file__).resolve().parent
BURN = "import time\nwhile time.process_time() < 0.5: pass\n"


@pytest.mark.skipif(sys.platform != "linux", reason="children that live are counted on Linux only")
def test_time_counts_of_children_that_live_and_that_have_ended_and_not_of_waiting() -> None:
    before = spent()
    with subprocess.Popen([sys.executable, "-c", BURN + "print(flush=True)\ninput()"], stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        child.stdout.readline()
        alive = spent() - before
        child.communicate(b"\n")
    ended = spent() - before
    assert 0.4 < alive < 2
    assert alive - 0.1 < ended < alive + 0.5
    before = spent()
    time.sleep(0.3)
    assert spent() - before < 0.2


TESTS = f"""
import pytest, subprocess, sys

def burn():
    subprocess.run([sys.executable, "-c", {BURN!r}], check=True)

def test_short(): pass

def test_long(): burn()

@pytest.mark.slow
def test_marked(): burn()
"""


def test_a_test_over_the_limit_without_its_mark_fails(tmp_path: Path) -> None:
    for name in ("conftest.py", "cpu_time.py"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    for options, outcome in (([], "3 passed"), (["--cpu-limit=0.3"], "1 failed, 2 passed")):
        done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert outcome in done.stdout
    assert "CPU seconds without the mark slow" in done.stdout
    assert "FAILED test_it.py::test_long" in done.stdout
