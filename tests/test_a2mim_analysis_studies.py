"""The studies of occlusion and interactions: what they compare, and that each arm can learn."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from overfit import LEARNT, overfit

from harness import audit
from harness.spec import FineTune, Fourier, Interactions, Occlusion, Pretrain, Scratch, key, pretraining, upstreams
from harness.study import Plan, expand, load

STUDIES = Path(__file__).resolve().parent.parent / "studies"
SCALES = ("tiny", "small", "paper")


@functools.cache
def plan(name: str, scale: str, seeds: int = 1) -> Plan:
    with pytest.MonkeyPatch.context() as patch:  # loading a study changes both
        patch.syspath_prepend(str(STUDIES.parent))
        patch.delenv("HARNESS_PROJECT", raising=False)
        found = expand(load(STUDIES / f"{name}.py"), scale=scale, seeds=seeds)
        patch.setenv("HARNESS_PROJECT", "")
    return found


@pytest.mark.parametrize("scale", SCALES)
def test_every_classifier_is_looked_at_in_three_ways(scale: str) -> None:
    found = plan("a2mim_occlusion", scale)
    assert len(found.rows) == 6
    for row in found.rows:
        assert not row.excluded
        tuned = row.evaluations["top1"]
        assert isinstance(tuned, FineTune)
        assert [type(run) for run in row.evaluations.values()] == [Occlusion, FineTune, Interactions, Fourier]
        assert all(run.start == tuned for name, run in row.evaluations.items() if name != "top1")
        assert isinstance(tuned.start, Scratch if row.axes["init"] == "random" else Pretrain)
    assert len({key(first) for row in found.rows if (first := pretraining(row.evaluations["top1"]))}) == 1


@pytest.mark.parametrize("scale", SCALES)
def test_arms_differ_in_what_they_say_and_in_nothing_else(scale: str) -> None:
    cells = {tuple(row.axes.values()): row.evaluations["top1"] for row in plan("a2mim_occlusion", scale).rows}
    plain = cells["random", "none"]
    assert isinstance(plain, FineTune)
    for (init, augmentation), run in cells.items():
        assert isinstance(run, FineTune)
        changes = {"none": {}, "CutMix": {"cutmix": 1.0}, "random erasing": {"erasing": 0.25}}[str(augmentation)]
        augment = plain.recipe.augment.replace(**changes)
        start = cells[init, "none"].start
        assert run == plain.replace(start=start, recipe=plain.recipe.replace(augment=augment))


@pytest.mark.parametrize("scale", SCALES)
def test_patches_are_those_of_the_paper(scale: str) -> None:
    run = plan("a2mim_occlusion", scale).rows[0].evaluations["occlusion"]
    assert isinstance(run, Occlusion)
    assert run.side**2 == 196
    interactions = plan("a2mim_occlusion", scale).rows[0].evaluations["interactions"]
    assert isinstance(interactions, Interactions)
    assert interactions.grid**2 == 196
    assert interactions.reward == "log-odds"


def test_the_paper_scale_has_the_published_sizes() -> None:
    row = plan("a2mim_occlusion", "paper").rows[0].evaluations
    assert row["interactions"] == Interactions(start=row["top1"])
    assert row["occlusion"] == Occlusion(start=row["top1"], assumed=row["occlusion"].assumed)
    assert plan("a2mim_occlusion", "paper").study.seeds == 5
    assert row["top1"].data.name == "imagenet-100"  # type: ignore[union-attr]


@pytest.mark.parametrize("scale", SCALES)
def test_the_study_of_interactions_shares_its_runs(scale: str) -> None:
    whole = plan("a2mim_occlusion", scale).runs()
    part = plan("a2mim_interactions", scale)
    assert set(part.runs()) < set(whole)
    assert next(iter(part.rows[0].evaluations)) == "interactions"  # which is what its claim is about


@pytest.mark.parametrize("name", ["a2mim_occlusion", "a2mim_interactions"])
def test_claims_say_that_they_are_unverified(name: str) -> None:
    claims = plan(name, "tiny").study.claims
    assert claims
    assert all("unverified" in claim.sentence for claim in claims)


def test_every_run_comes_after_what_it_starts_from() -> None:
    order = list(plan("a2mim_occlusion", "tiny", 2).runs())
    for name, run in plan("a2mim_occlusion", "tiny", 2).runs().items():
        assert all(order.index(key(first)) < order.index(name) for first in upstreams(run))


def test_the_pretraining_learns_a_fixed_batch() -> None:
    (start,) = {one.digest: one for row in plan("a2mim_occlusion", "tiny").rows
                if (one := pretraining(row.evaluations["top1"]))}.values()  # fmt: skip
    batch = audit.fixed_batch(start, 2)
    assert overfit(start, batch)[0] <= LEARNT
