"""Every file name in the store.

<root>/<key>/spec.json                           the resolved spec, written once
            /result.json                         present and valid = done; created exclusively
            /result-put-aside-<random>.json      a result that no longer counts
            /snapshots-asked-for/0004            empty: the weights after epoch 4 are wanted
            /attempts/0001/owner.json            who works on it; the highest number owns the run
                          /heartbeat             touched while that process lives
                          /env.json, dirty.patch commit, versions, device; uncommitted changes
                          /metrics.jsonl         one line a logging interval
                          /checkpoint-<step>-<digest>.pt
                          /snapshot-<epoch>-<digest>.safetensors  weights after an epoch, where they were asked for
                          /weights.safetensors   what stays after the end
                          /artefacts/            what a report shows
                          /error.txt             the traceback of a failure
                          /error-<rank>.txt      what failed in another process of the run than the first
                          /log.txt               what the process printed
                          /interrupted.txt       why a Slurm job was told to save
      /.submissions/000001/entry.json            what was handed to Slurm, or taken back; published in one step
                          /answer-<array>.json   what sbatch said
                          /stopped-<array>-<element>.txt  why a job ended before its runs did
                          /closed                nothing in it waits any more
                          /array-<array>/        pickles and logs of the jobs
      /.snapshots/<digest>/                      the code that jobs run
      /.searches/<search>-<scale>/journal.log    the trials of a search, as Optuna keeps them
                                 /coordinators/0001/owner.json, heartbeat  who runs it; the highest number does
                                 /coordinator.log        what it printed, as a job
      /.descriptions/<digest>.json               parameters and multiply-adds of a model; can be deleted
      /.features/<digest>/features-<digest>.f32  what a frozen encoder makes of a set of images; can be deleted
                         /owners/0001/owner.json, heartbeat  who computes it; the highest number does
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness.store.files import entries

NUMBER = re.compile(r"[0-9]{1,18}")
CHECKPOINT = re.compile(r"checkpoint-[0-9]{9,}-[0-9a-f]{16}\.pt")


def numbers(folder: Path, digits: int) -> list[int]:
    """The numbers that name the entries of a folder, ascending; names of another form are none of the store's."""
    names = entries(folder)
    return sorted(int(name) for name in names if NUMBER.fullmatch(name) and f"{int(name):0{digits}d}" == name)


class _Inside:
    """An attribute of a folder: the path of this name inside it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: AttemptFolder | RunFolder | SubmissionFolder | SearchFolder, kind: object) -> Path:
        return folder.path / self._name


@dataclass(frozen=True)
class AttemptFolder:
    """The paths of one attempt."""

    path: Path
    owner = _Inside("owner.json")
    heartbeat = _Inside("heartbeat")
    environment = _Inside("env.json")
    patch = _Inside("dirty.patch")
    metrics = _Inside("metrics.jsonl")
    weights = _Inside("weights.safetensors")
    artefacts = _Inside("artefacts")
    error = _Inside("error.txt")
    log = _Inside("log.txt")
    interruption = _Inside("interrupted.txt")

    @property
    def number(self) -> int:
        return int(self.path.name)

    def kept(self) -> list[Path]:
        """Existing files that a finished attempt keeps, except weights and log."""
        below = self.artefacts.rglob("*")
        return sorted(path for path in (self.environment, self.patch, self.metrics, *below) if path.is_file())

    def rank_error(self, rank: int) -> Path:
        return self.path / f"error-{rank}.txt"

    def rank_errors(self) -> list[Path]:
        """Error files of the ranks above 0, the lowest first."""
        return sorted(self.path.glob("error-*.txt"), key=lambda path: (len(path.name), path.name))

    @staticmethod
    def snapshot_name(epoch: int, digest: str) -> str:
        """Name of the weights after an epoch by the SHA-256 (hex) of their file."""
        return f"snapshot-{epoch:04d}-{digest[:16]}.safetensors"

    def snapshots(self, epoch: int) -> list[Path]:
        """The weights after an epoch, if they were written."""
        return list(self.path.glob(self.snapshot_name(epoch, "*")))

    def checkpoints(self) -> list[CheckpointFile]:
        """All files with a checkpoint's name, whole or not."""
        return [CheckpointFile(path) for path in self.path.glob("checkpoint-*.pt") if CHECKPOINT.fullmatch(path.name)]


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint: its step and the digest it should have are in its name."""

    path: Path

    @staticmethod
    def name(step: int, digest: str) -> str:
        return f"checkpoint-{step:09d}-{digest[:16]}.pt"

    @property
    def step(self) -> int:
        return int(self.path.stem.split("-")[1])

    @property
    def digest(self) -> str:
        return self.path.stem.split("-")[2]


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    path: Path
    spec = _Inside("spec.json")
    result = _Inside("result.json")
    snapshots_asked_for = _Inside("snapshots-asked-for")

    def result_put_aside(self, mark: str) -> Path:
        """Place of a result that no longer counts; `mark` tells it from others."""
        return self.path / f"result-put-aside-{mark}.json"

    def results_put_aside(self) -> list[Path]:
        """Results that no longer count: damaged ones, and those of runs that are computed again for their weights."""
        return list(self.path.glob(self.result_put_aside("*").name))

    def all_snapshots(self) -> list[Path]:
        """The snapshots of all attempts."""
        return sorted(self.path.glob("attempts/*/snapshot-*.safetensors"))

    def attempt(self, number: int) -> AttemptFolder:
        return AttemptFolder(self.path / "attempts" / f"{number:04d}")

    def attempts(self) -> list[AttemptFolder]:
        """All attempts, oldest first."""
        return [self.attempt(number) for number in numbers(self.path / "attempts", 4)]


@dataclass(frozen=True)
class SubmissionFolder:
    """The paths of one entry in the store's log of submissions."""

    path: Path
    entry = _Inside("entry.json")
    closed = _Inside("closed")

    @property
    def number(self) -> int:
        return int(self.path.name)

    def answer(self, array: int) -> Path:
        """Answer of sbatch for an array: its job id, or why it was refused."""
        return self.path / f"answer-{array}.json"

    def answers(self) -> list[Path]:
        """The answers for all arrays."""
        return sorted(self.path.glob("answer-*.json"))

    def stopped(self, array: int, element: int) -> Path:
        """Reason why the job of an element ended before its runs did, although none of them failed."""
        return self.path / f"stopped-{array}-{element}.txt"

    def jobs(self, array: int) -> Path:
        """The folder of an array's pickles and logs."""
        return self.path / f"array-{array}"


def submission_folders(root: Path) -> list[SubmissionFolder]:
    """All entries of a store's log of submissions, oldest first."""
    return [submission_folder(root, number) for number in numbers(root / ".submissions", 6)]


def submission_folder(root: Path, number: int) -> SubmissionFolder:
    """One entry of a store's log of submissions."""
    return SubmissionFolder(root / ".submissions" / f"{number:06d}")


def snapshot_folder(root: Path, digest: str) -> Path:
    """Folder of a copy of the code, which jobs run in place of the working tree."""
    return root / ".snapshots" / digest


def description_file(root: Path, digest: str) -> Path:
    """File of a model's number of parameters and multiply-adds, written once they have been counted."""
    return root / ".descriptions" / f"{digest}.json"


def description_files(root: Path) -> list[Path]:
    """The files of all models that have been counted."""
    return sorted((root / ".descriptions").glob("*.json"))


@dataclass(frozen=True)
class FeaturesFolder:
    """The paths of the features that one encoder makes of one set of images."""

    root: Path
    digest: str

    @property
    def path(self) -> Path:
        return self.root / ".features" / self.digest

    @staticmethod
    def name(digest: str) -> str:
        """Name of a file by the SHA-256 (hex) of its bytes."""
        return f"features-{digest[:16]}.f32"

    def files(self) -> list[Path]:
        """All files of features, whole or not."""
        return sorted(self.path.glob("features-*.f32"))

    def owner(self, number: int) -> AttemptFolder:
        return AttemptFolder(self.path / "owners" / f"{number:04d}")

    def owners(self) -> list[AttemptFolder]:
        """Folders of all who set out to compute them, oldest first."""
        return [self.owner(number) for number in numbers(self.path / "owners", 4)]


def features_folders(root: Path) -> list[FeaturesFolder]:
    """All folders of features in a store."""
    return [FeaturesFolder(root, path.name) for path in (root / ".features").glob("[0-9a-f]*") if path.is_dir()]


@dataclass(frozen=True)
class SearchFolder:
    """The paths of one search at one scale."""

    path: Path
    journal = _Inside("journal.log")
    coordinator_log = _Inside("coordinator.log")
    """Output of a coordinator that ran as a job."""

    def coordinator(self, number: int) -> AttemptFolder:
        return AttemptFolder(self.path / "coordinators" / f"{number:04d}")

    def coordinators(self) -> list[AttemptFolder]:
        """Folders of all coordinators so far, oldest first."""
        return [self.coordinator(number) for number in numbers(self.path / "coordinators", 4)]


def coordinator_owners(root: Path) -> list[Path]:
    """The owner records of all who ever ran a search of a store."""
    return sorted((root / ".searches").glob("*/coordinators/*/owner.json"))


def search_folder(root: Path, name: str) -> SearchFolder:
    """Folder of a search at one scale: its journal and its coordinators. Its runs lie in the store as all runs do."""
    return SearchFolder(root / ".searches" / name)
