"""Coordinators and workers that are killed, a cell that fails: nothing is computed twice, every trial ends rightly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from toy import BROKEN_K, lines, toy

from harness.launch import Local, Resources
from harness.machine import heartbeat_limit
from harness.search.session import history, open_search, run_search
from harness.search.storage import holder, leased, require_held
from harness.spec import HarnessError
from harness.store import Store
from harness.store.lease import this_process
from harness.store.records import sealed

HERE = Path(__file__).parent
BUDGET = 20


def space_with_a_broken_cell(trial: Any) -> dict[str, Any]:
    found = {
        "k": trial.suggest_int("k", 1, 8),
        "temperature": trial.suggest_categorical("temperature", (0.1, 0.2, 0.3)),
    }
    return {**found, "k": BROKEN_K} if found == {"k": 3, "temperature": 0.2} else found


def searched() -> Any:
    return toy(space=space_with_a_broken_cell, sampler="random", confirmed=0, begins=10, trials={"toy": BUDGET})


def main(root: str) -> None:
    """What a coordinator that is killed runs."""
    opened = open_search(searched(), Store(Path(root)))
    local = Local(opened.store, Resources(device="cpu"), 2, program="toy")
    run_search(opened, local, budget=BUDGET, parallel=2, confirm=False)


def workers_of(pid: int) -> list[int]:
    """The worker processes of a coordinator: forks of its server."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=False)
    found = [line.split(None, 2) for line in listed.stdout.splitlines()]
    servers = [own for own, parent, command in found if int(parent) == pid and "forkserver" in command]
    return [int(own) for own, parent, _ in found if parent in servers]


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_five_kills_of_the_coordinator_and_three_of_jobs(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    store.root.mkdir()
    (store.root / ".seconds").write_text("0.3")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent.parent), str(HERE)])}
    command = [sys.executable, "-c", f"import test_search_kills; test_search_kills.main({str(store.root)!r})"]
    jobs_killed = 0
    for kill in range(6):
        before = len(lines(store, "begin"))
        process = subprocess.Popen(command, env=environment, cwd=HERE)
        if kill < 5:
            wait_for(lambda before=before: len(lines(store, "begin")) >= before + 3)
            if jobs_killed < 3 and (workers := workers_of(process.pid)):
                os.kill(workers[0], signal.SIGKILL)
                jobs_killed += 1
                wait_for(lambda before=before: len(lines(store, "begin")) >= before + 4)
            process.kill()
            process.wait()
        else:
            assert process.wait(timeout=120) == 0
    assert jobs_killed == 3

    trials, _ = history(open_search(searched(), store))
    assert sum(trial.computed for trial in trials) == BUDGET
    own = [trial for trial in trials if trial.twin is None]
    assert len(own) == BUDGET
    states = Counter(trial.state for trial in own)
    failed = [trial for trial in own if trial.cell["k"] == BROKEN_K]
    assert states == {"complete": BUDGET - 1, "failed": 1}
    assert [trial.error.endswith("thirteen neighbours") for trial in failed] == [True]
    assert all(trial.state != "running" for trial in trials)
    ended = Counter(lines(store, "end"))
    assert set(ended.values()) == {1}
    assert len(ended) == states["complete"]


def test_a_second_coordinator_is_refused_and_a_dead_one_is_not_waited_for(tmp_path: Path) -> None:

    store = Store(tmp_path / "runs")
    opened = open_search(searched(), store)
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom harness.search.storage import leased\n"
        "from harness.store import Store\nfrom harness.store.layout import SearchFolder\n"
        "with leased(Store(Path(sys.argv[1])), SearchFolder(Path(sys.argv[2]))):\n"
        "    print('mine', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(store.root), str(opened.folder.path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(HERE.parent.parent)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        with pytest.raises(HarnessError, match=f"locked: pid {process.pid} on"), leased(opened.store, opened.folder):
            pass
        process.kill()
    with leased(opened.store, opened.folder) as lease:
        require_held(lease)


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_whether_a_search_is_run_is_told_by_the_clock_of_its_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """A node whose own clock is an hour off neither takes a search from a living one nor leaves it to a dead one."""
    opened = open_search(searched(), Store(tmp_path / "runs"))
    own = opened.folder.coordinator(1)
    own.path.mkdir(parents=True)
    own.owner.write_bytes(sealed(this_process() | {"machine": "another"}))
    own.heartbeat.touch()
    monkeypatch.setattr(time, "time", lambda: own.heartbeat.stat().st_mtime + ahead)
    assert holder(opened.store, opened.folder) is not None
    old = own.heartbeat.stat().st_mtime - heartbeat_limit() - 1
    os.utime(own.heartbeat, (old, old))
    monkeypatch.setattr(time, "time", lambda: old - 3600)
    assert holder(opened.store, opened.folder) is None
