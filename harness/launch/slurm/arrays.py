"""Division of runs into Slurm jobs: packs, arrays, and dependencies between them. Pure functions, which ask nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

from harness.launch.queue import upstream_key
from harness.spec import Run, upstreams
from harness.store.submissions import Array

Elements = list[tuple[str, ...]]
T = TypeVar("T")


def arrays(
    runs: Mapping[str, Run],
    *,
    token: str,
    packs: Mapping[Literal["pretrain", "evaluation"], int],
    largest: int,
    elsewhere: Mapping[str, str],
) -> list[Array]:
    """Arrays that compute `runs`.

    A pre-training and what starts from it have different resources, so different arrays. Evaluations are aligned index
    by index with the pre-trainings they start from, so that each waits for its own alone: pre-trainings with the most
    evaluations come first, and the j-th pack of each makes the j-th array beside theirs, a prefix of it. What starts
    from an evaluation follows it in the same job.

    Args:
        packs: runs a job, by stage; an evaluation and what starts from it stay together, however many they are.
        largest: elements an array may have.
        elsewhere: for runs that are queued already, the job to wait for, such as `12_3`.
    """
    found: list[Array] = []

    def add(stage: Literal["pretrain", "evaluation"], part: Elements, after: int | None = None, wait: str = "") -> int:
        found.append(Array(f"mim-{token}-{len(found)}", stage, tuple(part), after, wait))
        return len(found) - 1

    starts = {name: upstream_key(run) for name, run in runs.items()}
    first = [name for name, run in runs.items() if run.kind == "pretrain"]
    waiting: dict[str, Elements] = {name: [] for name in first}
    foreign: dict[str, Elements] = {}
    free: Elements = []
    for together in _families(runs, starts):
        start = starts[together[0]]
        if start in waiting:
            waiting[start].append(together)
        elif start is not None and start in elsewhere:
            foreign.setdefault(elsewhere[start], []).append(together)
        else:
            free.append(together)
    first.sort(key=lambda name: -len(waiting[name]))  # equal ones share a pack
    jobs = [(pack, _packs([e for name in pack for e in waiting[name]], packs["evaluation"]))
            for pack in _packs([(name,) for name in first], packs["pretrain"])]  # fmt: skip
    jobs.sort(key=lambda job: -len(job[1]))
    for chunk in _chunks(jobs, largest):
        upper = add("pretrain", [pack for pack, _ in chunk])
        depth = max(len(then) for _, then in chunk)
        for j in range(depth):
            add("evaluation", [then[j] for _, then in chunk if len(then) > j], after=upper)
    for part in _chunks(_packs(free, packs["evaluation"]), largest):
        add("evaluation", part)
    for job, names in foreign.items():
        for part in _chunks(_packs(names, packs["evaluation"]), largest):
            add("evaluation", part, wait=f"afterok:{job}")
    return found


def within(found: Sequence[Array], room: int | None) -> tuple[list[Array], int]:
    """The arrays that fit into `room` elements, whole ones in order, and how many runs are left out.

    An array is left out with the one it waits for.
    """
    if room is None:
        return list(found), 0
    kept: list[Array] = []
    place: dict[int, int] = {}
    left = 0
    for number, array in enumerate(found):
        fits = len(array.elements) <= room and (array.after is None or array.after in place)
        if not fits:
            left += sum(map(len, array.elements))
            continue
        room -= len(array.elements)
        place[number] = len(kept)
        after = None if array.after is None else place[array.after]
        kept.append(Array(array.name, array.stage, array.elements, after, array.dependency))
    return kept, left


def _families(runs: Mapping[str, Run], starts: Mapping[str, str | None]) -> Elements:
    """Every evaluation that starts from no other of these, followed by those that do start from it."""
    found: dict[str, list[str]] = {}
    for name in sorted(runs, key=lambda name: len(upstreams(runs[name]))):
        if runs[name].kind != "pretrain":
            found.setdefault(starts[name] if starts[name] in found else name, []).append(name)  # type: ignore[arg-type]
    return [tuple(found[name]) for name in runs if name in found]


def _packs(families: Elements, size: int) -> Elements:
    """Families one after the other, into jobs of `size` runs; what is larger has a job of its own."""
    found: Elements = []
    for family in families:
        if found and len(found[-1]) + len(family) <= size:
            found[-1] += family
        else:
            found.append(family)
    return found


def _chunks(items: Sequence[T], size: int) -> list[list[T]]:
    return [list(items[first : first + size]) for first in range(0, len(items), size)]
