"""The site profile: table [slurm] of the profiles, with the resources of jobs; checked before anything is queued."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from harness.machine import check_keys, profile_files, read_profile
from harness.spec import HarnessError
from harness.spec.base import one_line

Stage = Literal["pretrain", "evaluation"]
STAGES: tuple[Stage, ...] = ("pretrain", "evaluation")
_WORD = re.compile(r"[A-Za-z0-9_.,:=+*/@%&|\[\]()!-]+")


def _word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise ValueError(f"{text!r} does not fit on an sbatch line: no spaces, quotes or control characters")
    return text


def _line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(f"{text!r} should be one line of shell")
    return text


Word = Annotated[str, AfterValidator(_word)]
ShellLine = Annotated[str, AfterValidator(_line)]


class Site(BaseModel):
    """Resources that the jobs of one stage ask Slurm for.

    partition, account, qos, constraint, reservation, gres, gpus_per_node, cpus_per_task, mem_gb: as sbatch means them.
    minutes: time limit of one run; a job that holds more runs than it has slots gets a multiple of it.
    nodes, processes_per_node: more than one process in all makes every run a distributed one.
    pack: runs a job. slots: how many of them side by side, on the same GPU if there is one.
    parallel: elements of an array at work at once; None leaves it to Slurm.
    submit_limit: largest number of the user's jobs in the queue; None where the cluster sets no limit.
    signal_seconds: how long before the time limit a job is told to save.
    attempts: how often a run is begun before it counts as failed.
    modules, setup: `module load` lines and shell lines before the job; the first one that fails ends the job.
    container: prefix of the Python command, such as "apptainer exec --nv image.sif". python: the interpreter on the
        nodes; default the one that submits.
    srun_args: further arguments for srun.
    multiply_adds_per_second: rate of the device for the estimate of remaining cost.
    shared_store: says that the store lies on a disk that the nodes share, where that cannot be seen from its type.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    reservation: Word | None = None
    gres: Word | None = None
    gpus_per_node: PositiveInt | None = None
    cpus_per_task: PositiveInt = 1
    mem_gb: PositiveInt | None = None
    minutes: PositiveInt = 240
    nodes: PositiveInt = 1
    processes_per_node: PositiveInt = 1
    pack: PositiveInt = 1
    slots: PositiveInt = 1
    parallel: PositiveInt | None = None
    submit_limit: PositiveInt | None = None
    signal_seconds: int = Field(default=180, ge=10)
    attempts: PositiveInt = 20
    modules: list[Word] = []
    setup: list[ShellLine] = []
    container: ShellLine | None = None
    python: ShellLine | None = None
    srun_args: list[ShellLine] = []
    multiply_adds_per_second: Annotated[float, Field(gt=0)] | None = None
    shared_store: bool = False

    @model_validator(mode="after")
    def _one_at_a_time(self) -> Self:
        if self.nodes * self.processes_per_node > 1 and self.slots > 1:
            raise ValueError("slots: a job of several processes computes one run at a time; valid: 1")
        return self

    @property
    def placement(self) -> list[str]:
        """Options of sbatch and srun that say where a job may run."""
        names = ("partition", "account", "qos", "constraint")
        return [f"--{name}={value}" for name in names if (value := getattr(self, name)) is not None]

    def allocation_minutes(self, runs: int) -> int:
        """Time limit of a job that holds `runs` runs."""
        return -(-runs // self.slots) * self.minutes


def read_site(root: Path) -> dict[Stage, Site]:
    """The profile of each stage: [slurm] of both files, then [slurm.pretrain] and [slurm.evaluation] over it.

    Raises:
        HarnessError: a file does not read, or a value is none that a job could be submitted with.
    """
    common: dict[str, Any] = {}
    stages: dict[Stage, dict[str, Any]] = {stage: {} for stage in STAGES}
    for path in profile_files(root):
        table = _slurm_table(path)
        for stage in STAGES:
            part = table.pop(stage, {})
            if not isinstance(part, dict):
                raise HarnessError(f"{path}: [slurm.{stage}] should be a table")
            check_keys(f"{path}, [slurm.{stage}],", part, list(Site.model_fields))
            stages[stage].update(part)
        check_keys(f"{path}, [slurm],", table, [*Site.model_fields, *STAGES])
        common.update(table)
    try:
        return {stage: Site(**{**common, **own}) for stage, own in stages.items()}
    except ValidationError as error:
        valid = ", ".join([*Site.model_fields, *STAGES])
        raise HarnessError(f"site profile, [slurm]: {one_line(error)}; valid: {valid}") from None


def _slurm_table(path: Path) -> dict[str, Any]:
    table = read_profile(path).get("slurm", {})
    if not isinstance(table, dict):
        raise HarnessError(f"{path}: [slurm] should be a table")
    return dict(table)
