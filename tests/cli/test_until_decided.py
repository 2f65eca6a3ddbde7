"""`harness run --until-decided`, inline and against a cluster that answers at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from conftest import FILE, Command, tree

from harness.api import Results, results
from harness.cli.launch import run as command
from harness.launch.executor import Submitted
from harness.launch.slurm.submit import Slurm
from harness.spec import Run, key
from harness.store import Attempt, Store
from harness.study import Plan, expand, load

CLAIM = 'claims.better("0.5 beats 0.75", {"ratio": 0.5}, {"ratio": 0.75})'
CLAIMED = (
    FILE.replace("    seeds=2,\n", f"    seeds=2,\n    looks=(2, 3),\n    claims=({CLAIM},),\n")
    .replace("import Augment", "import claims, Augment")
    .replace('ratio=(0.5, 0.75, 0.9)) | axes(mask="none")', "ratio=(0.5, 0.75))")
)


@pytest.fixture
def claimed(project: Path) -> Path:
    path = project / "studies" / "claimed.py"
    path.write_text(CLAIMED)
    return path


def _finish(store: Store, plan: Plan) -> None:
    for run in plan.runs().values():
        if store.result(key(run)) is None:
            attempt = store.acquire(run)
            assert isinstance(attempt, Attempt)
            attempt.finish({"loss": 1.0, "top1": 50.0 + len(key(run)) + run.seed * 1.0}, 1.0, b"weights")
            attempt.release()


def test_it_runs_to_the_last_look(harness: Command, claimed: Path, project: Path) -> None:
    ended = harness("run", claimed, "--until-decided", "--on", "inline")
    assert ended.code == 0, ended.err
    runs = load(claimed)
    done = sum(Store(project / "runs").result(name) is not None for name in expand(runs, seeds=3).runs())
    assert done in (8, 12)  # two more pre-trainings and fine-tunings, unless two seeds decided
    assert "Claims: 1" in ended.out
    assert (project / "results" / "claimed" / "small" / "claims.md").is_file()
    again = harness("run", claimed, "--until-decided", "--on", "inline")
    assert again.code == 0
    assert "runs for" not in again.out  # nothing is left to compute


def test_refusals(harness: Command, claimed: Path, study: Path) -> None:
    ended = harness("run", study, "--until-decided")
    assert (ended.code, "makes no claims" in ended.err) == (2, True)
    claimed.write_text(CLAIMED.replace("    looks=(2, 3),\n", ""))
    ended = harness("run", claimed, "--until-decided")
    assert (ended.code, "has no looks" in ended.err) == (2, True)
    claimed.write_text(CLAIMED)
    for chosen in (("--seeds", "2"), ("--where", "ratio=0.5")):
        ended = harness("run", claimed, "--until-decided", *chosen)
        assert (ended.code, "takes the whole study" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("old", "new", "options", "told"),
    [
        ("", "", ("--slots", "2"), "--slots belongs to --on local"),
        (
            "DATA = Shapes(image_size=16, train=32, test=16)",
            'DATA = ImageFolder(name="my-net")',
            (),
            "my-net is not here",
        ),
        ('"num_heads": 2', '"num_heads": 3', (), "timm refuses vit_tiny_patch16_224"),
    ],
    ids=["option", "data", "model"],
)
def test_a_look_on_slurm_is_checked_before_it_is_queued(
    harness: Command,
    claimed: Path,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    old: str,
    new: str,
    options: tuple[str, ...],
    told: str,
) -> None:
    text = CLAIMED.replace(old, new, 1).replace('sized("large", DATA.replace(train=48))', 'sized("large")')
    claimed.write_text(text.replace("Augment,", "Augment, ImageFolder,", 1))
    monkeypatch.setattr(Slurm, "ready", lambda store, *_, **__: Slurm(store))
    monkeypatch.setattr(Slurm, "submit", lambda *_, **__: pytest.fail("queued"))
    before = tree(project)
    ended = harness("run", claimed, "--until-decided", "--on", "slurm", *options)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert told in ended.err
    assert tree(project) == before


def test_results_of_another_file_are_refused_before_the_first_look(
    harness: Command, claimed: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert harness("report", claimed).code == 0
    copy = project / "studies" / "later" / "claimed.py"
    copy.parent.mkdir()
    copy.write_text(CLAIMED)
    monkeypatch.setattr(command, "follow", lambda *_: pytest.fail("a look was begun"))
    ended = harness("run", copy, "--until-decided")
    assert (ended.code, "holds the results of studies/claimed.py" in ended.err) == (2, True)


def test_failures_on_a_cluster_are_tried_again_there(
    harness: Command, claimed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Slurm, "ready", lambda store, *_, **__: Slurm(store))
    monkeypatch.setattr(command, "follow", lambda *_: 1)
    ended = harness("run", claimed, "--until-decided", "--on", "slurm")
    assert ended.code == 1
    assert "harness logs shows why, harness retry --on slurm runs them again." in ended.out


def test_a_coordinator_that_was_stopped_goes_on(claimed: Path, tmp_path: Path) -> None:
    found = results(claimed, store=tmp_path / "runs")
    asked: list[int] = []

    def stopped(wanted: Results) -> None:
        asked.append(len(wanted.plan.rows))
        if len(asked) == 2:
            raise KeyboardInterrupt
        _finish(wanted.store, wanted.plan)

    with pytest.raises(KeyboardInterrupt):
        command.follow(found, stopped)
    command.follow(found, stopped)
    assert asked == [4, 6, 6]


def test_it_stops_where_nothing_moves(claimed: Path, tmp_path: Path) -> None:
    asked: list[Results] = []
    assert command.follow(results(claimed, store=tmp_path / "runs"), asked.append) == 0
    assert len(asked) == 1


def test_failures_are_counted_and_end_what_waits_for_them(claimed: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")

    def compute(found: Results) -> None:
        wanted = found.plan
        first = next(iter(wanted.runs().values()))
        attempt = store.acquire(first)
        assert isinstance(attempt, Attempt)
        attempt.fail("Traceback\nValueError: no")
        attempt.release()
        others = tuple(row for row in wanted.rows if row != wanted.rows[0])
        _finish(store, Plan(wanted.study, wanted.scale, others))

    assert command.follow(results(claimed, store=store), compute) == 2  # the pre-training and its fine-tuning


def test_on_slurm_each_look_is_queued_and_awaited(
    claimed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, queued = Store(tmp_path / "runs"), list[int]()

    def submit(executor: Slurm, runs: dict[str, Run], **_: Any) -> Submitted:
        queued.append(len(runs))
        for run in runs.values():  # at work, as overview sees it, until the coordinator has slept
            if store.result(key(run)) is None:
                attempt = store.acquire(run)
                assert isinstance(attempt, Attempt)
                held.append(attempt)
        return Submitted(runs=len(runs))

    def sleep(seconds: float) -> None:
        assert seconds == command.POLL_SECONDS
        for attempt in held:
            attempt.finish({"loss": 1.0, "top1": 50.0 + len(attempt.key)}, 1.0, b"weights")
            attempt.release()
        held.clear()

    held: list[Attempt] = []
    monkeypatch.setattr(Slurm, "submit", submit)
    monkeypatch.setattr(time, "sleep", sleep)
    command.follow(results(claimed, store=store), command.on_cluster(Slurm(store)))
    assert queued in ([8, 12], [8])
    assert not held
