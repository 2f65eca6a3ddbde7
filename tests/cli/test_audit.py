"""`harness audit` on a small study, as it is and with a rate that slipped in one arm."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import FILE, Command

SLIPPED = FILE.replace(
    'return {"top1": FineTune(start=start, data=scale.data, recipe=scale.finetune, seed=seed)}',
    "recipe = scale.finetune.replace(lr=2e-3) if ratio == 0.75 else scale.finetune\n"
    '    return {"top1": FineTune(start=start, data=scale.data, recipe=recipe, seed=seed)}',
)


def test_a_sound_study_passes_and_leaves_its_findings(harness: Command, study: Path, project: Path) -> None:
    ended = harness("audit", str(study))
    assert ended.code == 0
    assert ended.out.splitlines()[-1] == "no check failed"
    found = json.loads((project / "results" / study.stem / "small" / "audit.json").read_text())
    assert {item["check"] for item in found} == {"factors", "masks", "masked", "clean", "live", "rates"}
    assert not any(item["verdict"] == "failed" for item in found)
    assert not (project / "runs").exists()


def test_a_slipped_rate_fails_with_its_name(harness: Command, study: Path) -> None:
    assert SLIPPED != FILE
    study.write_text(SLIPPED)
    ended = harness("audit", str(study))
    assert ended.code == 1
    (line,) = [line for line in ended.out.splitlines() if line.strip().startswith("FAILED")]
    assert "recipe.lr: 0.002 instead of 0.001" in line
    assert "random 0.75" in line
    assert ended.out.splitlines()[-1] == "1 failed"
    shown = harness("audit", str(study), "--all", "--where", "ratio=0.5")
    assert shown.code == 0
    assert "ok      masked   hidden pixels do not reach the encoder" in shown.out


def test_a_selection_without_the_reference_is_one_line(harness: Command, study: Path) -> None:
    ended = harness("audit", str(study), "--where", "ratio=0.75")
    assert ended.code == 2
    assert "is not among the cells that run" in ended.err
