"""`harness audit`: check that the cells of a study differ only as declared, before anything is computed."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated

import typer

from harness.cli.common import ScaleName, StudyFile, Where, console, planned, printable, results_folder, say
from harness.launch.cost import check_names
from harness.spec.model.described import costed_models
from harness.store.files import disk_errors, write_atomically

MARKS = {"passed": "ok", "failed": "FAILED", "remark": "note"}


SHOWN = 3
"""Most cells that are named beside a finding."""


def audit(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    every: Annotated[bool, typer.Option("--all", help="every finding, also those that passed")] = False,
) -> None:
    """Check that cells differ only as declared, that masks hide, targets are clean, pieces act and rates are right.

    Computes on the CPU, on a few images; starts no run. Exits with 1 if a check failed. The findings are written into
    the study's results folder (audit.json), where its report shows them.

    Example: harness audit studies/simmim_masking.py --scale paper
    """
    from harness.audit import Finding
    from harness.audit import audit as findings_of

    # One seed: cells differ in the same fields at each.
    found = planned(study, scale, where, 1, None)
    plan = found.plan
    check_names(costed_models(found.runs()))
    folder = results_folder(plan)
    with console.status("") as status:
        findings = findings_of(plan, lambda text: status.update(printable(text)))
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps([vars(finding) for finding in findings], indent=1)
        write_atomically(folder / "audit.json", text.encode())
    say(f"{plan.study.name} · {plan.scale.name}")
    lines = {(finding.check, finding.verdict, finding.text) for finding in findings}  # each with all its cells
    counts: Counter[tuple[str, str]] = Counter((check, verdict) for check, verdict, _ in lines)
    for check in dict.fromkeys(finding.check for finding in findings):
        said = ", ".join(f"{number} {word}" for word in MARKS if (number := counts[check, word]))
        say(f"  {check:<8} {said}")
    for word in ("failed", "remark", "passed"):
        chosen: dict[tuple[str, str], list[Finding]] = {}
        for finding in findings:
            if finding.verdict == word and (word != "passed" or every):
                chosen.setdefault((finding.check, finding.text), []).append(finding)
        for (check, text), same in chosen.items():
            say(f"  {MARKS[word]:<7} {check:<8} {text}{_arms([finding.arm for finding in same])}")
    failed = sum(verdict == "failed" for _, verdict, _ in lines)
    say(f"{failed} failed" if failed else "no check failed")
    raise typer.Exit(1 if failed else 0)


def _arms(names: list[str]) -> str:
    named = [name for name in names if name]
    if not named:
        return ""
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return f"   ({'; '.join(named[:SHOWN])}{more})"
