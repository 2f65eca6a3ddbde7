"""The studies of MAE and SymMIM: what arms differ in, that they hide, learn and differ, and the printed values."""

from __future__ import annotations

from pathlib import Path

import pytest
from overfit import LEARNT, overfit

from harness import audit
from harness.core.pretrain.mim import MaskedImageModel
from harness.papers import PaperTable, mae_finetune, mae_probe
from harness.spec import CheckerboardMask, Contrastive, FineTune, LinearProbe, Pretrain, upstream
from harness.study import Plan, Study, expand, load

STUDIES = Path(__file__).resolve().parent.parent / "studies"
ABOUT = {
    "mae_ratio": ("start.mask.ratio", "start.head.depth", "start.target"),
    "symmim_masks": ("start.mask",),
    "symmim_losses": ("start.contrastive", "start.momentum"),
}


def study(name: str) -> Study:
    with pytest.MonkeyPatch.context() as patch:  # loading a study changes both
        patch.syspath_prepend(str(STUDIES.parent))
        patch.setenv("HARNESS_PROJECT", "")
        return load(STUDIES / f"{name}.py")


def plan(name: str, scale: str) -> Plan:
    return expand(study(name), scale=scale, seeds=1)


def pretrainings(found: Plan) -> list[Pretrain]:
    starts = (upstream(run) for row in found.rows for run in row.evaluations.values())
    return list({start.digest: start for start in starts if isinstance(start, Pretrain)}.values())


@pytest.mark.parametrize("name", ABOUT)
@pytest.mark.parametrize("scale", ["small", "tiny", "paper"])
def test_arms_differ_in_what_they_are_about(name: str, scale: str) -> None:
    for arm in audit.arms(plan(name, scale)):
        for found in arm.differences.values():
            paths = [item.path for item in found if not item.path.endswith("assumed")]
            assert all(path.startswith(ABOUT[name]) for path in paths)


@pytest.mark.parametrize("scale", ["small", "tiny", "paper"])
def test_printed_values_stand_beside_their_cells(scale: str) -> None:
    for name, expected in (
        ("mae_ratio", {("pixels", 0.75, 8): 84.9, ("normalised pixels", 0.75, 8): 85.4}),
        ("symmim_losses", {(1.0, "board of 2", "same"): 85.9}),
    ):
        found = plan(name, scale)
        assert isinstance(found.study.paper, PaperTable)
        shown = {tuple(row.axes.values()): found.study.paper.lookup(row.axes) for row in found.rows}
        assert {axes: value.value for axes, value in shown.items() if value is not None} == expected


def test_the_reference_of_mae_is_the_published_run_but_for_its_target() -> None:
    found = plan("mae_ratio", "paper")
    wanted = found.study.complete({"target": "normalised pixels", "mask_ratio": 0.75, "decoder_depth": 8})
    (row,) = (row for row in found.rows if row.axes == wanted)
    tuned, probed = row.evaluations["finetune_top1"], row.evaluations["linear_top1"]
    assert isinstance(tuned, FineTune)
    assert isinstance(probed, LinearProbe)
    assert tuned == mae_finetune("vit-l", epochs=800)
    assert probed == mae_probe("vit-l", epochs=800)


def test_every_filled_in_value_of_symmim_is_labelled() -> None:
    for start in pretrainings(plan("symmim_losses", "paper")):
        said = " ".join(start.assumed)
        assert "hidden patches:" in said
        assert "prediction:" in said
        assert "the phase is open" in said
        assert ("projector" in said) == ("momentum from" in said) == (start.contrastive is not None)
        if isinstance(start.contrastive, Contrastive) and isinstance(start.contrastive.mask, CheckerboardMask):
            assert "hides 96 of 196 (48.98%), not half" in said
            assert "0% of the hidden units reflect a visible one" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ABOUT)
def test_every_cell_at_scale_tiny_hides_learns_and_differs(name: str) -> None:
    steps: list[audit.Step] = []
    for run in pretrainings(plan(name, "tiny")):
        batch = audit.fixed_batch(run, 4)
        assert audit.is_masked(run, batch, MaskedImageModel(run, batch.images.shape[1]))
        share, first = overfit(run, batch)
        assert share <= LEARNT, f"{share:.2f} {run.mask} {run.head} {run.target} {run.contrastive}"
        assert not any(first.same_as(other) for other in steps), f"{run.mask} {run.head} {run.target} {run.contrastive}"
        steps.append(first)
    assert len(steps) >= 12
