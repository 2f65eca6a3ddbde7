"""The cluster does what the tests on it rely on."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import slurm
from cluster.slurm import Cluster, ClusterError
from cluster.waiting import wait

pytestmark = pytest.mark.cluster

ATTEMPT = 'echo "${SLURM_RESTART_COUNT:-0} $SLURMD_NODENAME $$" >> attempts; sleep 300'
"""A job that says which attempt it is, where it runs and as which process, and then stays."""


def submit(cluster: Cluster, folder: Path, script: str, *options: str) -> str:
    """The id of a batch job that runs `script` in `folder`."""
    return cluster.ask("sbatch", "--parsable", "-D", str(folder), *options, f"--wrap={script}").partition(";")[0]


def attempts(folder: Path) -> list[list[str]]:
    """[restart count, node, pid] of every attempt that ran `ATTEMPT` in `folder`."""
    path = folder / "attempts"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def state(cluster: Cluster, job: str) -> str:
    return cluster.ask("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")


def states(cluster: Cluster, job: str) -> list[str]:
    """The state of every element of an array."""
    return cluster.ask("squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%T").splitlines()


def eventually(holds: Callable[[], object], seconds: float = 15) -> None:
    wait(holds, seconds, every=0.1)


def test_four_nodes_are_idle(empty_cluster: Cluster) -> None:
    assert empty_cluster.node_states() == dict.fromkeys(("n1", "n2", "n3", "n4"), "idle")


def test_every_command_started_from_here_speaks_to_it(empty_cluster: Cluster) -> None:
    assert os.environ["SLURM_CONF"] == empty_cluster.environment["SLURM_CONF"]


def test_srun_reaches_all_nodes(empty_cluster: Cluster) -> None:
    said = empty_cluster.ask("srun", "-N4", "bash", "-c", "echo $SLURMD_NODENAME")
    assert sorted(said.split()) == ["n1", "n2", "n3", "n4"]


def test_an_array_of_twenty_runs_and_one_more_is_refused(empty_cluster: Cluster, tmp_path: Path) -> None:
    job = submit(empty_cluster, tmp_path, "touch $SLURM_ARRAY_TASK_ID.ran", "--array=0-19")
    with pytest.raises(ClusterError, match="Invalid job array specification"):
        submit(empty_cluster, tmp_path, "true", "--array=0-20")
    eventually(lambda: states(empty_cluster, job) == ["COMPLETED"] * 20, seconds=30)
    assert {path.stem for path in tmp_path.glob("*.ran")} == {str(index) for index in range(20)}


def test_a_requeued_job_is_back_within_fifteen_seconds(empty_cluster: Cluster, tmp_path: Path) -> None:
    job = submit(empty_cluster, tmp_path, ATTEMPT)
    eventually(lambda: attempts(tmp_path))
    empty_cluster.ask("scontrol", "requeue", job)
    eventually(lambda: len(attempts(tmp_path)) == 2, seconds=15)
    assert [attempt[0] for attempt in attempts(tmp_path)] == ["0", "1"]


def test_an_urgent_job_preempts_one_of_main(empty_cluster: Cluster, tmp_path: Path) -> None:
    job = submit(empty_cluster, tmp_path, ATTEMPT, "--array=0-3")
    eventually(lambda: len(attempts(tmp_path)) == 4)
    urgent = submit(empty_cluster, tmp_path, "sleep 2", "--partition=urgent")
    eventually(lambda: state(empty_cluster, urgent) == "RUNNING")
    assert sorted(states(empty_cluster, job)) == ["PENDING", "RUNNING", "RUNNING", "RUNNING"]
    eventually(lambda: len(attempts(tmp_path)) == 5)
    assert attempts(tmp_path)[-1][0] == "1"


@pytest.mark.slow
def test_a_killed_node_takes_its_job_with_it_and_the_job_runs_elsewhere(empty_cluster: Cluster, tmp_path: Path) -> None:
    submit(empty_cluster, tmp_path, ATTEMPT)
    eventually(lambda: attempts(tmp_path))
    _, node, pid = attempts(tmp_path)[0]
    empty_cluster.kill_node(node)
    assert not slurm._alive(int(pid))
    eventually(lambda: len(attempts(tmp_path)) == 2, seconds=60)
    count, other, _ = attempts(tmp_path)[1]
    assert count == "1"
    assert other != node
    assert empty_cluster.node_states()[node] == "down*"
    empty_cluster.start_node(node)
    assert empty_cluster.node_states()[node] == "idle"


def test_jobs_outlive_a_restart_of_the_controller(empty_cluster: Cluster, tmp_path: Path) -> None:
    running = submit(empty_cluster, tmp_path, "touch begun; while [ ! -e end ]; do sleep 0.1; done")
    waiting = submit(empty_cluster, tmp_path, "true", f"--dependency=afterok:{running}")
    eventually((tmp_path / "begun").exists)
    empty_cluster.restart_controller()
    assert [state(empty_cluster, job) for job in (running, waiting)] == ["RUNNING", "PENDING"]
    (tmp_path / "end").touch()
    eventually(lambda: state(empty_cluster, waiting) == "COMPLETED")
    assert state(empty_cluster, running) == "COMPLETED"


def test_sacct_answers_with_accounting_and_fails_without(empty_cluster: Cluster, tmp_path: Path) -> None:
    job = submit(empty_cluster, tmp_path, "exit 3")
    question = ("sacct", "-n", "-P", "-X", "-j", job, "-o", "State,ExitCode")
    if empty_cluster.accounting:
        eventually(lambda: empty_cluster.ask(*question) == "FAILED|3:0")
        said = empty_cluster.ask("sacctmgr", "-n", "-P", "show", "assoc", "format=Cluster,Account,User")
        assert "harness|tests|root" in said.splitlines()
    else:
        with pytest.raises(ClusterError, match="accounting storage is disabled"):
            empty_cluster.ask(*question)


def test_a_cancelled_job_is_cancelled(empty_cluster: Cluster, tmp_path: Path) -> None:
    job = submit(empty_cluster, tmp_path, ATTEMPT)
    eventually(lambda: attempts(tmp_path))
    empty_cluster.ask("scancel", job)
    eventually(lambda: state(empty_cluster, job) == "CANCELLED")
    assert not slurm._alive(int(attempts(tmp_path)[0][2]))


def test_a_job_longer_than_its_partition_allows_waits_for_ever(empty_cluster: Cluster, tmp_path: Path) -> None:
    job = submit(empty_cluster, tmp_path, "true", "--partition=short", "--time=6")
    eventually(lambda: "PartitionTimeLimit" in empty_cluster.ask("squeue", "-h", "-j", job, "-o", "%r"))


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A new folder whose path is short enough for a cluster."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    yield folder
    shutil.rmtree(folder)


def test_a_second_cluster_runs_beside_and_leaves_no_process(cluster: Cluster, short_folder: Path) -> None:
    with slurm.start(short_folder, max_array_size=5) as second:
        with pytest.raises(ClusterError, match="Invalid job array specification"):
            submit(second, short_folder, "true", "--array=0-5")
        job = submit(second, short_folder, "touch begun; env -i sleep 300", "--job-name=beside")
        eventually((short_folder / "begun").exists)
        assert state(second, job) == "RUNNING"
        assert not cluster.ask("squeue", "-h", "--name=beside")
        pids = slurm._processes(short_folder)
    assert len(pids) >= 8
    assert not any(map(slurm._alive, pids))
    second.stop()
    assert list(cluster.node_states()) == list(slurm.NODES)


def test_a_folder_with_other_files_is_refused(cluster: Cluster, short_folder: Path) -> None:
    (short_folder / "notes.txt").write_text("mine")
    with pytest.raises(ClusterError, match="neither empty nor a former cluster"):
        slurm.start(short_folder)
    assert (short_folder / "notes.txt").read_text() == "mine"
