"""Ctrl-C while runs are computed, and a status that goes on until Ctrl-C, in processes of their own. No torch."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Command

from harness.spec import key, upstreams
from harness.store import Store
from harness.study import expand, load

PROGRAM = """
    import time
    from harness.launch.queue import Event
    from harness.spec import key

    def prepare(resources):
        return "cpu"

    def room(device, most):
        return True

    def work_in_turns(store, run, device, resources, *, report, stopping, begin, **rest):
        attempt = store.acquire(run)
        begin(attempt)
        report(Event("started", key(run)))
        while not (stopping() and run.seed == 0):  # the others never listen
            time.sleep(0.01)
            if run.seed == 0:
                yield lambda: True
        attempt.write_checkpoint(7, lambda file: file.write(b"state"))
        attempt.release()
        return Event("interrupted", key(run), "saved at step 7")
"""
"""What workers run in place of harness.launch.job: seed 0 saves when it is asked to, other seeds never end."""

HARNESS = """
    import functools, sys
    from harness import api
    from harness.cli import main
    api.open_executor = functools.partial(api.open_executor, program="endless")
    api.check_runs = lambda runs, store: None
    sys.argv = ["harness", *sys.argv[1:]]
    main()
"""


@pytest.fixture
def at_work(study: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`harness run` on two slots, with both seeds of the control at work."""
    (tmp_path / "endless.py").write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "-c", textwrap.dedent(HARNESS), "run", str(study), "--slots", "2", "--device", "cpu"]
    with subprocess.Popen(
        [*command, "--where", "mask=none"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *map(os.path.abspath, sys.path)])},
    ) as process:
        assert process.stdout is not None
        started = 0
        while started < 2:
            line = process.stdout.readline()
            assert line, process.communicate()
            started += line.rstrip().endswith("started")
        yield process
        process.kill()


def attempts(study: Path, project: Path) -> dict[int, int]:
    """Checkpoints of the control by seed; no run is at work any more."""
    store, found = Store(project / "runs"), {}
    for row in expand(load(study), where={"mask": ["none"]}).rows:
        (run,) = row.evaluations.values()
        assert not upstreams(run)
        assert store.state(key(run)).word == "interrupted"
        found[row.seed] = len(store.folder(key(run)).attempt(1).checkpoints())
    return found


def test_ctrl_c_says_at_once_what_it_waits_for_and_does_not_wait_for_long(
    harness: Command, study: Path, project: Path, at_work: subprocess.Popen[str]
) -> None:
    asked = time.monotonic()
    os.killpg(at_work.pid, signal.SIGINT)  # as a terminal does, to all processes
    assert at_work.stdout is not None
    first = at_work.stdout.readline()
    assert time.monotonic() - asked < 2
    assert first.startswith("stopping: 2 runs to save: finetune none seed ")
    assert all(f"finetune none seed {seed}" in first for seed in (0, 1))
    assert at_work.wait(timeout=30) == 130
    assert time.monotonic() - asked < 10
    out, errors = at_work.communicate()
    assert errors == ""
    assert "none seed 0: interrupted: saved at step 7" in out
    assert "none seed 1: interrupted: had not saved within 7 s: its last checkpoint stays" in out
    assert out.splitlines()[-1].startswith("2 interrupted. The same command goes on from here")
    assert attempts(study, project) == {0: 1, 1: 0}
    assert not (project / "results").exists()
    assert harness("report", study).code == 0
    assert (project / "results/ratios/small/report.html").exists()


def test_ctrl_c_twice_ends_at_once(study: Path, project: Path, at_work: subprocess.Popen[str]) -> None:
    os.killpg(at_work.pid, signal.SIGINT)
    time.sleep(1.0)
    asked = time.monotonic()
    os.killpg(at_work.pid, signal.SIGINT)
    assert at_work.wait(timeout=30) == 130
    assert time.monotonic() - asked < 4  # and not the seconds that runs have to save
    assert at_work.communicate()[1] == "harness: interrupted\n"
    assert attempts(study, project) == {0: 1, 1: 0}


def test_a_status_that_is_watched_ends_with_ctrl_c(study: Path) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "harness.cli", "status", str(study), "--watch"]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, stdout=follower, stderr=subprocess.PIPE, env=environment) as process:
        os.close(follower)
        text = b""
        while b"no run of ratios has begun" not in text:
            text += os.read(leader, 4096)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1] == b""
        assert process.returncode == 0
    os.close(leader)


def test_without_a_terminal_a_status_is_printed_once(harness: Command, study: Path) -> None:
    assert harness("status", study, "--watch") == harness("status", study)
