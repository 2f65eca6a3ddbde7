"""The studies of occlusion and interactions: what they compare, and that each arm can learn."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from overfit import LEARNT, overfit

from harness import audit
from harness.audit.factors import check_factors
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


def pretrainings(scale: str) -> list[Pretrain]:
    """The distinct pre-trainings of the study of occlusion."""
    rows = plan("a2mim_occlusion", scale).rows
    return list({first.digest: first for row in rows if (first := pretraining(row.evaluations["top1"]))}.values())


@pytest.mark.parametrize("scale", SCALES)
def test_every_classifier_is_looked_at_in_three_ways(scale: str) -> None:
    found = plan("a2mim_occlusion", scale)
    assert len(found.rows) == 14
    for row in found.rows:
        assert not row.excluded
        tuned = row.evaluations["top1"]
        assert isinstance(tuned, FineTune)
        assert [type(run) for run in row.evaluations.values()] == [Occlusion, FineTune, Interactions, Fourier]
        assert all(run.start == tuned for name, run in row.evaluations.items() if name != "top1")
        assert isinstance(tuned.start, Scratch if row.axes["init"] == "random" else Pretrain)
    assert len(pretrainings(scale)) == 4


@pytest.mark.parametrize("scale", SCALES)
def test_arms_differ_in_what_they_say_and_in_nothing_else(scale: str) -> None:
    cells = {tuple(row.axes.values()): row.evaluations["top1"] for row in plan("a2mim_occlusion", scale).rows}
    for (backbone, init, augmentation), run in cells.items():
        plain = cells[backbone, "random", "none"]
        assert isinstance(plain, FineTune)
        assert isinstance(run, FineTune)
        changes = {"none": {}, "CutMix": {"cutmix": 1.0}, "random erasing": {"erasing": 0.25}}[str(augmentation)]
        augment = plain.recipe.augment.replace(**changes)
        start = cells[backbone, init, "none"].start
        assert run == plain.replace(start=start, recipe=plain.recipe.replace(augment=augment))


@pytest.mark.parametrize("scale", SCALES)
def test_patches_cut_the_tested_image(scale: str) -> None:
    for row in plan("a2mim_occlusion", scale).rows:
        dropped, looked = row.evaluations["occlusion"], row.evaluations["interactions"]
        assert isinstance(dropped, Occlusion)
        assert isinstance(looked, Interactions)
        assert dropped.side == looked.grid == (12 if row.axes["backbone"] == "ResNet-50" and scale != "paper" else 14)
        assert looked.reward == "log-odds"


def test_the_paper_scale_has_the_published_sizes() -> None:
    for row in (row.evaluations for row in plan("a2mim_occlusion", "paper").rows):
        looked, dropped, tuned = row["interactions"], row["occlusion"], row["top1"]
        assert isinstance(looked, Interactions)
        assert isinstance(tuned, FineTune)
        assert looked == Interactions(start=tuned, band=looked.band)
        assert dropped == Occlusion(start=tuned, assumed=dropped.assumed)
        assert dropped.image_size == 224
        assert tuned.data.name == "imagenet100"  # type: ignore[union-attr]
    assert plan("a2mim_occlusion", "paper").study.seeds == 5


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


@pytest.mark.parametrize("number", range(4))
def test_every_pretraining_learns_a_fixed_batch(number: int) -> None:
    start = pretrainings("tiny")[number]
    assert overfit(start, audit.fixed_batch(start, 2))[0] <= LEARNT


@pytest.mark.parametrize("name", ["a2mim_occlusion", "a2mim_interactions"])
@pytest.mark.parametrize("scale", SCALES)
def test_cells_differ_in_declared_factors_only(name: str, scale: str) -> None:
    assert [found.text for found in check_factors(plan(name, scale)) if found.verdict == "failed"] == []
