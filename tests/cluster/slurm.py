"""A real Slurm cluster on this machine, for tests: four nodes of one CPU, private to one folder.

    python tests/cluster/slurm.py start FOLDER [--accounting]      prints the line that selects the cluster in a shell
    python tests/cluster/slurm.py stop FOLDER
    python tests/cluster/slurm.py missing                          what is lacking here, and exit code 1; or nothing
    python tests/cluster/slurm.py install                          the Debian packages it needs

or `with start(folder, accounting=True) as cluster: ...`. Needs root. Ports, the munge socket and the database are the
folder's own, so that nothing of the machine's own Slurm, munge or MariaDB is touched and several clusters may run at a
time. Settings are those of Slurm 22.05 (slurm.conf(5)); the times are short so that tests see requeues, dead nodes and
jobs that the controller has forgotten within seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

PACKAGES = ("slurm-wlm", "slurmdbd", "munge", "mariadb-server")
NODES = ("n1", "n2", "n3", "n4")
CLIENTS = ("srun", "salloc", "sbatch")
START_SECONDS = 60.0
LONGEST_FOLDER = 60
"""Characters of the folder's path: below it lie Unix sockets, whose paths may have 107."""

SLURM_CONF = """\
ClusterName=harness
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# without cred_expire a requeued job is held for 121 s
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=1
SlurmdParameters=config_overrides
SlurmctldPort={controller_port}
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool/%n
SlurmdLogFile={folder}/log/slurmd-%n.log
{accounting}
ReturnToService=2
# a dead node is noticed after about 30 s
SlurmdTimeout=10
KillWait=5
JobRequeue=1
MaxArraySize={max_array_size}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=n[1-4] Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes=n[1-4] MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes=n[1-4] MaxTime=5 PriorityTier=1 PreemptMode=REQUEUE
"""

NO_ACCOUNTING = """\
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=30"""

ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={daemon_port}
AccountingStoragePass={folder}/run/munge.socket
JobAcctGatherType=jobacct_gather/linux
MinJobAge=300"""

SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
DbdHost=localhost
DbdPort={daemon_port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
"""

DATABASE_SQL = """\
CREATE DATABASE slurm_acct_db;
CREATE USER 'slurm'@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';
"""


class ClusterError(RuntimeError):
    """The cluster, or one of its commands, did not do what was asked of it."""


class Cluster:
    """The cluster in a folder, running or not. As a context manager it stops at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make Slurm's commands speak to this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    @property
    def accounting(self) -> bool:
        """Whether this cluster has an accounting database, so that sacct answers."""
        return (self.folder / "slurmdbd.conf").exists()

    def ask(self, *command: str, timeout: float = 60) -> str:
        """What a command prints in this cluster, stripped. Raises ClusterError, with its stderr, where it fails."""
        done = subprocess.run(command, env=self._surroundings(), capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.strip()

    def node_states(self) -> dict[str, str]:
        """Node name -> state as sinfo writes it ("idle", "alloc", "down*", ...); empty if the controller is silent."""
        try:
            lines = self.ask("sinfo", "-h", "-N", "-p", "main", "-o", "%N %t", timeout=15).splitlines()
        except (ClusterError, subprocess.TimeoutExpired):
            return {}
        return dict(line.split() for line in lines)

    def clear(self) -> None:
        """Cancel every job and start every node that is not there; returns when all nodes are idle."""
        self.ask("scancel", "--user=root")
        self._wait(lambda: not self.ask("squeue", "-h"), "an empty queue")
        for node in NODES:
            if not _processes(self.folder, node):
                self.start_node(node)
        self._wait(self._all_idle, "four idle nodes")

    def kill_node(self, node: str) -> None:
        """What a crash of the node does: its slurmd, its job steps and their processes are gone at once (SIGKILL)."""
        _kill(lambda: _processes(self.folder, _known(node)))

    def start_node(self, node: str) -> None:
        """Start the node's slurmd; returns when the controller knows the new one."""
        begun = int(time.time())
        self._daemon(f"slurmd-{_known(node)}", "slurmd", "-D", "-N", node)
        self._wait(lambda: self._slurmd_begun(node) >= begun and self._there([node]), f"node {node}")

    def restart_controller(self) -> None:
        """Stop slurmctld, which saves its state, and start it again; returns when it knows the living nodes."""
        pid = int((self.folder / "run" / "slurmctld.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        self._wait(lambda: not _alive(pid), "the end of slurmctld")
        self._start_controller()
        living = [node for node in NODES if _processes(self.folder, node)]
        self._wait(lambda: self._there(living), f"nodes {', '.join(living)}")

    def stop(self) -> None:
        """Kill all daemons and every process of a job. The folder stays, with its logs; a second stop does nothing."""
        _kill(lambda: _processes(self.folder))

    def tail(self, lines: int = 15) -> str:
        """The last lines of every log."""
        logs = [path for path in sorted((self.folder / "log").glob("*")) if path.stat().st_size]
        return "\n".join("\n".join([f"--- {log.name}", *_text(log).splitlines()[-lines:]]) for log in logs)

    def _there(self, nodes: Sequence[str]) -> bool:
        """Whether the controller hears from all of `nodes`: "*" marks a silent one, "unk" one it has not met yet."""
        states = self.node_states()
        return all(states.get(node, "unk") not in ("unk", "down") and "*" not in states[node] for node in nodes)

    def _slurmd_begun(self, node: str) -> float:
        """When the slurmd that the controller knows was started: whole seconds since the epoch, -1 if it knows none."""
        known = re.search(r"SlurmdStartTime=(\S+)", self.ask("scontrol", "show", "node", node))
        try:
            return time.mktime(time.strptime(known[1], "%Y-%m-%dT%H:%M:%S")) if known else -1
        except ValueError:  # "None"
            return -1

    def _all_idle(self) -> bool:
        return list(self.node_states().values()) == ["idle"] * len(NODES)

    def _surroundings(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        return kept | self.environment

    def _daemon(self, name: str, *command: str) -> None:
        """Start a daemon, in its foreground mode and in a session of its own; it outlives this process."""
        with (self.folder / "log" / f"{name}.out").open("ab") as out:
            subprocess.run(
                ("setsid", "--fork", *command),
                env=self._surroundings(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                check=True,
            )

    def _wait(self, ready: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                raise ClusterError(f"{what}: not there after {seconds:.0f} s\n{self.tail()}")
            time.sleep(0.05)

    def _start_munge(self) -> None:
        run = self.folder / "run"
        _private(run / "munge.key", os.urandom(1024))
        paths = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid", "seed-file": "munge.seed"}
        options = [f"--{option}={run / name}" for option, name in paths.items()]
        # force: the folder may be closed to others, which a machine's own munge must not be
        self._daemon("munged", "munged", "--foreground", "--force", *options)
        self._wait((run / "munge.socket").exists, "munged")

    def _start_accounting(self, daemon_port: int, database_port: int) -> None:
        data = self.folder / "database"
        own = ("--no-defaults", f"--datadir={data}", "--user=root")
        self.ask("mariadb-install-db", *own, "--skip-test-db", "--auth-root-authentication-method=normal")
        self._daemon(
            "mariadbd",
            "mariadbd",
            *own,
            f"--socket={self.folder}/run/mariadb.socket",
            f"--pid-file={self.folder}/run/mariadb.pid",
            f"--port={database_port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
            f"--init-file={self.folder}/database.sql",
        )
        self._wait(lambda: _listens(database_port), "mariadbd")
        self._daemon("slurmdbd", "slurmdbd", "-D")
        self._wait(lambda: _listens(daemon_port), "slurmdbd")
        self.ask("sacctmgr", "-i", "add", "cluster", "harness")
        self.ask("sacctmgr", "-i", "add", "account", "tests", "Cluster=harness")
        self.ask("sacctmgr", "-i", "add", "user", "root", "Account=tests")

    def _start_controller(self) -> None:
        """Start slurmctld and wait for its port: whoever speaks to it earlier tries again only after a second."""
        settings = dict(line.split("=", 1) for line in _text(self.folder / "slurm.conf").splitlines() if "=" in line)
        self._daemon("slurmctld", "slurmctld", "-D")
        self._wait(lambda: _listens(int(settings["SlurmctldPort"])), "slurmctld")


def start(folder: Path | str, *, accounting: bool = False, max_array_size: int = 20) -> Cluster:
    """Start a cluster whose four nodes are idle, in `folder`.

    The folder is made; it may hold a former cluster, which is stopped and removed. Raises ClusterError if the folder
    holds something else, if the cluster cannot be had here (`missing`) or is not there after 60 s.
    """
    if reason := missing(accounting=accounting):
        raise ClusterError(f"no Slurm cluster here: {reason}")
    cluster = Cluster(Path(folder))
    _empty(cluster)
    controller_port, daemon_port, database_port, *node_ports = _free_ports(3 + len(NODES))
    _configure(cluster.folder, accounting, max_array_size, controller_port, daemon_port, database_port, node_ports)
    try:
        cluster._start_munge()
        if accounting:
            cluster._start_accounting(daemon_port, database_port)
        cluster._start_controller()
        for node in NODES:
            cluster._daemon(f"slurmd-{node}", "slurmd", "-D", "-N", node)
        cluster._wait(cluster._all_idle, "four idle nodes")
    except BaseException:
        cluster.stop()
        raise
    return cluster


def missing(*, accounting: bool = False) -> str:
    """Why a cluster cannot be started here, in one line; empty if it can."""
    if not sys.platform.startswith("linux") or not Path("/proc/self/fd").is_dir():
        return "not Linux with /proc"
    if os.geteuid() != 0:
        return "not root"
    commands = ["munged", "slurmctld", "slurmd", "srun", "sbatch", "sinfo"]
    if accounting:
        commands += ["slurmdbd", "sacctmgr", "mariadbd", "mariadb-install-db"]
    absent = [command for command in commands if shutil.which(command) is None]
    return f"not installed: {', '.join(absent)} (Debian: apt-get install {' '.join(PACKAGES)})" if absent else ""


def install() -> None:
    """Install the Debian packages; raises ClusterError where that is impossible."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterError("installing the packages needs root and apt-get")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(("apt-get", "update", "-qq"), check=True)
    subprocess.run(("apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES), check=True, env=quiet)


def _empty(cluster: Cluster) -> None:
    folder = cluster.folder
    if len(str(folder)) > LONGEST_FOLDER:
        raise ClusterError(f"{folder}: sockets below it need a path of at most {LONGEST_FOLDER} characters")
    if (folder / "slurm.conf").exists():
        cluster.stop()
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ClusterError(f"{folder} is neither empty nor a former cluster")


def _configure(
    folder: Path,
    accounting: bool,
    max_array_size: int,
    controller_port: int,
    daemon_port: int,
    database_port: int,
    node_ports: list[int],
) -> None:
    """Write the configuration files and make the folders they name."""
    for name in ("state", "run", "log", *(f"spool/{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    host = socket.gethostname().split(".")[0]
    nodes = (
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=4000 State=UNKNOWN"
        for node, port in zip(NODES, node_ports, strict=True)
    )
    conf = SLURM_CONF.format(
        host=host,
        folder=folder,
        controller_port=controller_port,
        accounting=ACCOUNTING.format(folder=folder, daemon_port=daemon_port) if accounting else NO_ACCOUNTING,
        max_array_size=max_array_size,
        nodes="\n".join(nodes),
    )
    (folder / "slurm.conf").write_text(conf)
    if accounting:
        password = os.urandom(12).hex()
        values = {"folder": folder, "daemon_port": daemon_port, "database_port": database_port, "password": password}
        _private(folder / "slurmdbd.conf", SLURMDBD_CONF.format(**values).encode())
        _private(folder / "database.sql", DATABASE_SQL.format(password=password).encode())


def _private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, as munge and slurmdbd demand."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below the range from which the kernel takes those of connections."""
    ports: list[int] = []
    for port in random.sample(range(20_000, 32_000), 12_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise ClusterError("no free ports between 20000 and 32000")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _known(node: str) -> str:
    if node not in NODES:
        raise ValueError(f"no node {node!r}: one of {', '.join(NODES)}")
    return node


def _text(path: Path) -> str:
    return path.read_text(errors="replace")


def _alive(pid: int) -> bool:
    """Whether the process still runs; one that has ended and whose parent has not asked for it does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _processes(folder: Path, node: str | None = None) -> set[int]:
    """The processes of the cluster in `folder`, or of one of its nodes: daemons, job steps and all below them.

    Daemons and job steps are told by the log they hold open (a step is no child of its slurmd), what jobs started by
    its environment or its parents. The whole cluster includes the commands that wait for jobs.
    """
    log = f"{folder}/log/" + (f"slurmd-{node}." if node else "")
    marks = {f"SLURM_CONF={folder}/slurm.conf".encode()} | ({f"SLURMD_NODENAME={node}".encode()} if node else set())
    found: set[int] = set()
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or not _alive(pid := int(entry.name)):
            continue
        try:
            parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (entry / "environ").read_bytes().split(b"\0")
            in_job = marks <= set(variables) and any(v.startswith(b"SLURMD_NODENAME=") for v in variables)
            waits = node is None and marks <= set(variables) and (entry / "comm").read_text().strip() in CLIENTS
            if in_job or waits or any(os.readlink(fd).startswith(log) for fd in (entry / "fd").iterdir()):
                found.add(pid)
        except OSError:
            continue  # it ended meanwhile
    while below := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= below
    return found - {os.getpid()}


def _kill(processes: Callable[[], set[int]], seconds: float = 10) -> None:
    """Kill (SIGKILL) what `processes` names until it names nothing: a fork may be missed the first time."""
    end = time.monotonic() + seconds
    while pids := processes():
        if time.monotonic() > end:
            raise ClusterError(f"processes {sorted(pids)} survive SIGKILL")
        # All stand still first: a job step that sees its job killed reports it as ended, and Slurm requeues nothing.
        for number, pid in itertools.product((signal.SIGSTOP, signal.SIGKILL), pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(0.02)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("start", help="start a cluster in FOLDER")
    starting.add_argument("folder", type=Path)
    starting.add_argument("--accounting", action="store_true", help="with slurmdbd and MariaDB, so that sacct answers")
    starting.add_argument("--max-array-size", type=int, default=20)
    stopping = commands.add_parser("stop", help="stop the cluster in FOLDER")
    stopping.add_argument("folder", type=Path)
    commands.add_parser("missing", help="say what a cluster lacks here")
    commands.add_parser("install", help="install the Debian packages, as root")
    given = parser.parse_args()
    try:
        match given.command:
            case "start":
                cluster = start(given.folder, accounting=given.accounting, max_array_size=given.max_array_size)
                print(f"export SLURM_CONF={cluster.environment['SLURM_CONF']}")
            case "stop":
                Cluster(given.folder).stop()
            case "missing":
                if reason := missing(accounting=True):
                    print(reason)
                    sys.exit(1)
            case _:
                install()
    except ClusterError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
