"""Which jobs compute a set of runs: nothing twice, nothing forgotten, and everything waits for the right job."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import by_key, finetuning, pretraining

from harness.launch.slurm.arrays import arrays, within
from harness.spec import FineTune, Run, Scratch, key, upstream
from harness.store.submissions import Array

FIRST = [pretraining(seed=seed) for seed in range(7)]
FOREIGN = [pretraining(seed=100 + seed) for seed in range(3)]
ALONE = FineTune(
    start=Scratch(backbone=FIRST[0].backbone, image_size=16), data=FIRST[0].data, recipe=FIRST[0].recipe, seed=0
)
THEN = {(first, seed): finetuning(first, seed=seed) for first in (*FIRST, *FOREIGN) for seed in range(4)}
ELSEWHERE = {key(first): f"{12 + place}_{place}" for place, first in enumerate(FOREIGN)}


@st.composite
def chosen(draw: st.DrawFn) -> dict[str, Run]:
    """Pre-trainings with none to four evaluations each; evaluations of some that are done, or queued already; in any
    order.
    """
    runs: list[Run] = []
    for first in (*FIRST, *FOREIGN):
        if first in FIRST and draw(st.booleans()):
            runs.append(first)
        runs += [THEN[first, seed] for seed in range(draw(st.integers(0, 4)))]
    runs += [ALONE] * draw(st.integers(0, 1))
    return by_key(*draw(st.permutations(runs)))


PACKS = st.fixed_dictionaries({"pretrain": st.integers(1, 3), "evaluation": st.integers(1, 3)})


def start(runs: dict[str, Run], name: str) -> str | None:
    first = upstream(runs[name])
    return None if first is None else key(first)


@given(runs=chosen(), packs=PACKS, largest=st.integers(1, 6))
def test_every_run_once_and_each_waits_for_its_own_start(
    runs: dict[str, Run], packs: dict[str, int], largest: int
) -> None:
    found = arrays(runs, token="t", packs=packs, largest=largest, elsewhere=ELSEWHERE)  # type: ignore[arg-type]
    counts = Counter(name for array in found for element in array.elements for name in element)
    assert counts == Counter(list(runs))
    assert len({array.name for array in found}) == len(found)
    for number, array in enumerate(found):
        assert 1 <= len(array.elements) <= largest
        assert array.after is None or not array.dependency
        for index, element in enumerate(array.elements):
            assert 1 <= len(element) <= packs[array.stage]
            kinds = {"pretrain" if runs[name].kind == "pretrain" else "evaluation" for name in element}
            assert kinds == {array.stage}
            starts = {start(runs, name) for name in element}
            if array.stage == "pretrain":
                assert (array.after, array.dependency) == (None, "")
            elif array.after is not None:
                assert array.after < number  # submitted before, so that its id is known
                assert starts <= set(found[array.after].elements[index])
            elif array.dependency:
                assert {f"afterok:{ELSEWHERE[first or '']}" for first in starts} == {array.dependency}
            else:
                assert not starts & (set(runs) | set(ELSEWHERE))


@given(runs=chosen(), packs=PACKS, largest=st.integers(1, 6), room=st.integers(0, 25))
def test_what_fits_keeps_no_orphan(runs: dict[str, Run], packs: dict[str, int], largest: int, room: int) -> None:
    found = arrays(runs, token="t", packs=packs, largest=largest, elsewhere=ELSEWHERE)  # type: ignore[arg-type]
    kept, left = within(found, room)
    assert sum(len(array.elements) for array in kept) <= room
    whole = {array.name: array for array in found}
    for array in kept:
        before = whole[array.name]
        assert (array.stage, array.elements, array.dependency) == (before.stage, before.elements, before.dependency)
        if before.after is None:
            assert array.after is None
        else:
            assert array.after is not None
            assert kept[array.after].name == found[before.after].name
    runs_kept = sum(len(element) for array in kept for element in array.elements)
    assert runs_kept + left == len(runs)
    if room >= sum(len(array.elements) for array in found):
        assert (kept, left) == (found, 0)


@given(runs=chosen(), packs=PACKS)
def test_no_limit_keeps_all(runs: dict[str, Run], packs: dict[str, int]) -> None:
    found = arrays(runs, token="t", packs=packs, largest=1000, elsewhere={})  # type: ignore[arg-type]
    assert within(found, None) == (found, 0)


def test_two_shapes_by_hand() -> None:
    a, b, c = FIRST[:3]
    runs = by_key(a, b, THEN[b, 0], THEN[b, 1], c, THEN[c, 0])
    found = arrays(runs, token="t", packs={"pretrain": 1, "evaluation": 1}, largest=9, elsewhere={})
    assert found == [
        Array("mim-t-0", "pretrain", ((key(b),), (key(c),), (key(a),))),
        Array("mim-t-1", "evaluation", ((key(THEN[b, 0]),), (key(THEN[c, 0]),)), after=0),
        Array("mim-t-2", "evaluation", ((key(THEN[b, 1]),),), after=0),
    ]
    kept, left = within(found, 4)
    assert ([array.name for array in kept], left) == (["mim-t-0", "mim-t-2"], 2)
    assert within(found[1:2], 4) == ([], 2)  # what it waits for is not among them
