"""Plant small mistakes in the package, one at a time, and say which of them the tests notice.

    python tools/mutations.py                # every mistake
    python tools/mutations.py core report    # those whose file's path holds one of these words
    python tools/mutations.py --check        # only whether each still fits the code

Every mistake is made in a copy of the tree and tried against the tests that mirror its file; one that survives shows
what no test holds. This takes about half an hour, so it is run by hand, and after changes of the tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 400
COPIED = (
    "harness",
    "tests",
    "studies",
    "tools",
    "results",
    "pyproject.toml",
    "noxfile.py",
    "README.md",
    "CHANGELOG.md",
    "ARCHITECTURE.md",
)


class Mutation(NamedTuple):
    """A mistake: in `file`, below harness/, `old` (which stands there once) becomes `new`.

    tests: files, folders or single tests below tests/ that should notice, separated by blanks.
    """

    file: str
    old: str
    new: str
    tests: str


MUTATIONS = (
    Mutation(
        "spec/recipe.py",
        "(1 - step / warmup) * (1 - self.warmup_ratio)",
        "(1 - step / warmup) * self.warmup_ratio",
        "core/test_recipe_pieces.py",
    ),
    Mutation("spec/keys.py", r'f"{seed}\0{purpose}"', r'f"{seed}{purpose}"', "spec core/test_randomness.py"),
    Mutation("spec/geometry.py", "if inside and unit % downsample:", "if unit % downsample:", "spec"),
    Mutation(
        "spec/model/windows.py",
        "scales(start, start_size), scales(",
        "scales(start, image_size), scales(",
        "core/test_swin_windows.py",
    ),
    Mutation("spec/base.py", "if text != implicit:", "if held[name] != kind.implicit.get(name, self):", "spec"),
    Mutation("store/attempt.py", "and step <= file.step]", "and step < file.step]", "store"),
    Mutation(
        "store/cleaning.py",
        "in runs.items() if store.result(name) is None]",
        'in runs.items() if store.state(name).word == "failed"]',
        "store",
    ),
    Mutation("store/cleaning.py", "not in runs and store.result(name) is None]", "not in runs and False]", "store"),
    Mutation(
        "store/lease.py",
        "return silent_seconds() < heartbeat_limit()",
        "return silent_seconds() < 2 * heartbeat_limit()",
        "store",
    ),
    Mutation("store/submissions.py", "mine -= set(entry.wants)", "mine.clear()", "store"),
    Mutation(
        "core/train/optimiser.py",
        "(peak - start) * step / warmup",
        "(peak - start) * (step + 1) / warmup",
        "core/test_schedule.py",
    ),
    Mutation(
        "core/train/training.py",
        "self.stream ^ step",
        "self.stream",
        "core/test_recipe_pieces.py",
    ),
    Mutation(
        "core/train/training.py",
        "batch = _made_of(held, self.place.move(step, held.positions).step, held[1:])",
        "self.place.move(step, held.positions)",
        "core/test_recorded.py",
    ),
    Mutation(
        "core/train/recorded.py",
        "if tensor is not before or tensor._version != version:",
        "if tensor is not before:",
        "core/test_recorded.py",
    ),
    Mutation(
        "runs.py",
        "        mine.use()\n",
        "",
        "core/test_in_turns.py",
    ),
    Mutation(
        "core/objective/losses.py",
        "(loss.alpha or 0.2) / 2).tanh()",
        "(loss.alpha or 0.2)).tanh()",
        "core/test_losses.py core/test_objectives.py",
    ),
    Mutation(
        "core/objective/fourier.py",
        "(error.detach() * error).mean()",
        "(error * error).mean()",
        "core/test_fourier.py core/test_objectives.py",
    ),
    Mutation(
        "core/masks/blocks.py",
        "new[:, TRIES] = left\n",
        "new[:, TRIES] = 0\n",
        "core/test_blocks.py core/test_masks.py",
    ),
    Mutation(
        "core/evaluate/probe.py",
        "trunc_normal_(linear.weight, std=0.01)",
        "trunc_normal_(linear.weight, std=0.02)",
        "core/test_features.py core/test_mae.py core/test_simmim_vit.py",
    ),
    Mutation(
        "core/objective/pixels.py",
        "dim=(1, 3, 5), correction=1)",
        "dim=(1, 3, 5), correction=0)",
        "core/test_pixels.py",
    ),
    Mutation(
        "core/runtime/average.py",
        "            buffer.copy_(current)",
        "            pass",
        "core/test_recipe_pieces.py core/test_batchnorm.py",
    ),
    Mutation(
        "spec/run.py",
        "        return 1  # the encoder is frozen",
        "        return TRAINED_PASSES  # the encoder is frozen",
        "launch/test_cost.py",
    ),
    Mutation(
        "launch/queue.py",
        "(-waits.depth, waits.number, name)",
        "(waits.depth, waits.number, name)",
        "launch/test_queue.py",
    ),
    Mutation(
        "launch/slurm/arrays.py",
        "left += sum(map(len, array.elements))",
        "left += len(array.elements)",
        "launch/test_arrays.py",
    ),
    Mutation(
        "launch/snapshot.py",
        r'f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n"',
        r'f"{hashlib.sha256(path.read_bytes()).hexdigest()}\n"',
        "launch/test_snapshot.py",
    ),
    Mutation(
        "stats/intervals.py",
        "np.sqrt(squares / np.maximum(n - 1, 1) / n)",
        "np.sqrt(squares / n / n)",
        "stats",
    ),
    Mutation(
        "stats/comparisons.py",
        "1 - (1 - CONFIDENCE) / (present.sum() - 1)",
        "1 - (1 - CONFIDENCE)",
        "stats",
    ),
    Mutation(
        "stats/sequential.py",
        "rank = error * len(smallest) - 2 * np.sqrt",
        "rank = error * len(smallest) + 2 * np.sqrt",
        "report/test_sequential.py",
    ),
    Mutation(
        "report/collect.py",
        '(word := states[key(first)].word) not in ("done", "missing")',
        '(word := states[key(first)].word) != "done"',
        "report/test_collect.py",
    ),
    Mutation(
        "search/trials.py",
        "sign = -1 if study.directions[0] is StudyDirection.MAXIMIZE else 1",
        "sign = 1 if study.directions[0] is StudyDirection.MAXIMIZE else -1",
        "search/test_search_report.py",
    ),
    Mutation(
        "search/confirmation.py",
        "all(a >= b for a, b in",
        "any(a >= b for a, b in",
        "search/test_coordinator.py search/test_search_report.py",
    ),
    Mutation(
        "search/coordinator.py",
        "better = sum(sign * other > sign * value for other in told)",
        "better = sum(sign * other < sign * value for other in told)",
        "search/test_coordinator.py",
    ),
    Mutation(
        "search/sampling.py",
        'seed_stream(seed, f"sampler of trial {number}")',
        'seed_stream(seed, "sampler of trial")',
        "search/test_coordinator.py search/test_space.py",
    ),
    Mutation(
        "audit/rates.py",
        "most = wanted[name] * (1 + 1e-3) + spacing",
        "most = wanted[name] * (1 + 1.0) + spacing",
        "audit/test_findings.py::test_a_rate_that_is_too_large_is_named",
    ),
    Mutation(
        "audit/masks.py",
        "if bool((units == units[:1]).all()):",
        "if bool((units == units[:, :1]).all()):",
        "audit/test_findings.py::test_defective_masks_are_named",
    ),
    Mutation(
        "audit/factors.py",
        'item.path.startswith(f"{path}.")',
        "item.path.startswith(path)",
        "audit/test_findings.py::test_declared_factors_are_allowed_and_others_then_are_not",
    ),
    Mutation(
        "cli/common.py",
        "chosen.setdefault(axis.strip(), []).append(text)",
        "chosen[axis.strip()] = [text]",
        "test_study.py",
    ),
    Mutation(
        "cli/launch/run.py",
        'sum(ending in ("failed", "blocked")',
        'sum(ending in ("failed",)',
        "cli/test_until_decided.py",
    ),
    Mutation(
        "cli/finished/compare.py", "if change.p < 0.001 else", "if change.p < 0.01 else", "cli/test_compare_command.py"
    ),
    Mutation(
        "papers/tables.py",
        'return record.get(f"{metric.removesuffix(\'_top1\')}_trust") or record["trust"]',
        'return record["trust"]',
        "papers report/test_paper_values.py",
    ),
    Mutation(
        "papers/tables.py",
        "return found[0] if len({value.value for value in found}) == 1 else None",
        "return found[0] if found else None",
        "papers/test_papers.py",
    ),
    Mutation(
        "analysis/fourier.py",
        "0) / (count - 1 if count > 1 else math.nan))",
        "0) / (count if count > 1 else math.nan))",
        "analysis/test_fourier_analysis.py analysis/test_runs.py",
    ),
    Mutation(
        "analysis/interactions.py",
        "(math.copysign(1, a) * b + math.copysign(1, b) * a) / 2",
        "abs(a + b) / 2",
        "analysis/test_interactions.py",
    ),
    Mutation(
        "analysis/occlusion.py",
        "((curve[1:] + curve[:-1]) / 2 * widths",
        "(curve[1:] * widths",
        "analysis/test_occlusion.py analysis/test_runs.py",
    ),
    Mutation("analysis/rgb.py", ".floor().clamp(0, bins - 1)", ".floor().remainder(bins)", "analysis/test_rgb.py"),
    Mutation("stats/simultaneous.py", "np.arange(len(order), 0, -1)", "len(order)", "stats report/test_compare.py"),
    Mutation(
        "core/pretrain/recipe.py",
        "            model.momentum.restart(model)",
        "            pass",
        "core/test_momentum.py",
    ),
    Mutation(
        "search/measure.py",
        'result.seconds * int(store.environment(name).get("processes", 1))',
        "result.seconds",
        "search/test_coordinator.py",
    ),
    Mutation(
        "core/train/training.py",
        'line["seconds"] = progress.seconds',
        'line["seconds"] = time.monotonic() - self.begun',
        "core/test_training_loop.py",
    ),
    Mutation(
        "core/train/training.py",
        "progress.since * self.recipe.batch_size /",
        "self.recipe.batch_size /",
        "core/test_training_loop.py",
    ),
    Mutation(
        "core/objective/losses.py",
        "torch.full_like(hidden, True).sum(dtype=torch.float64)",
        "hidden.sum(dtype=torch.float64)  # too",
        "core/test_losses.py",
    ),
    Mutation(
        "core/weights/checkpoint.py",
        'scaler.load_state_dict(state["scaler"])',
        "pass",
        "core/test_training_loop.py",
    ),
    Mutation(
        "search/coordinator.py",
        "for name, run in runs.items() if name not in others}",
        "for name, run in runs.items()}",
        "search/test_coordinator.py",
    ),
    Mutation(
        "search/measure.py", "epoch <= first.recipe.epochs", "epoch < first.recipe.epochs", "search/test_rungs.py"
    ),
    Mutation(
        "search/coordinator.py",
        "in twin.intermediate_values.items():",
        "in ():",
        "search/test_coordinator.py search/test_rungs.py",
    ),
    Mutation(
        "launch/slurm/run_states.py",
        "job.state not in questions.WORKING)",
        "job.state in questions.WORKING)",
        "launch/test_standing.py",
    ),
    Mutation(
        "launch/slurm/task.py",
        "        note.unlink(missing_ok=True)",
        "        pass",
        "launch/test_task.py",
    ),
    Mutation(
        "store/attempt.py",
        "            lambda file: file.write(weights),\n            self.check,",
        "            lambda file: file.write(weights),",
        "store/test_owning.py",
    ),
    Mutation(
        "stats/intervals.py",
        "np.full(known.shape, np.inf), where=known & (found.error > 0)",
        "np.zeros(known.shape), where=known & (found.error > 0)",
        "stats report/test_compare.py",
    ),
    Mutation("report/claims/verdicts.py", " or reference in excluded:", ":", "report/test_verdicts.py"),
    Mutation(
        "stats/planning.py",
        "return float(enough[0]) if len(enough)",
        "return float(enough[0]) + 1 if len(enough)",
        "report/test_verdicts.py",
    ),
    Mutation(
        "core/evaluate/probe.py",
        "topk(min(k, len(labels)), dim=1)",
        "topk(k, dim=1)",
        "core/test_training.py::test_vote_by_hand",
    ),
    Mutation(
        "core/train/training.py",
        "learning_rate(self.recipe, progress.step - 1, self.steps_per_epoch)",
        "learning_rate(self.recipe, progress.step, self.steps_per_epoch)",
        "core/test_training_loop.py",
    ),
    Mutation(
        "core/pretrain/recipe.py",
        ' and line["step"] * 2 > line["steps"]',
        "",
        "core/test_training.py::test_predictions_of_one_colour_fail_with_the_reason",
    ),
)


def main(words: list[str]) -> int:
    """Try the chosen mistakes; returns how many survived."""
    chosen = [found for found in MUTATIONS if not words or any(word in found.file for word in words)]
    if (unfit := misfits(chosen)) or not chosen:
        print("\n".join(unfit) or "no mistake has such a file")
        return 1
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = copied(Path(folder))
        for found in chosen:
            begun, noticed = time.monotonic(), tried(tree, found)
            survived += not noticed
            word = "killed  " if noticed else "SURVIVED"
            print(f"{word} {time.monotonic() - begun:4.0f} s  {found.file}: {found.new.strip()}")
            print(f"         by {noticed}" if noticed else f"         {found.tests}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} killed")
    return survived


def misfits(chosen: Iterable[Mutation] = MUTATIONS) -> list[str]:
    """The mistakes that cannot be made, because the code that they change does not stand there just once."""
    return [
        f"does not fit: {found.file}: {found.old}"
        for found in chosen
        if (ROOT / "harness" / found.file).read_text().count(found.old) != 1
    ]


def copied(folder: Path) -> Path:
    """A copy of the tree in a folder."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / name)
    return folder


def tried(tree: Path, mutation: Mutation) -> str:
    """The test that fails with a mistake in the tree, and passes without; empty if none does."""
    path = tree / "harness" / mutation.file
    sound = path.read_text()
    path.write_text(sound.replace(mutation.old, mutation.new))
    try:
        noticed = first_failure(tree, [f"tests/{name}" for name in mutation.tests.split()])
    finally:
        path.write_text(sound)
    if noticed.startswith("tests/") and first_failure(tree, [noticed]):
        raise SystemExit(f"{noticed} fails without any mistake, too")
    return noticed


def first_failure(tree: Path, tests: list[str]) -> str:
    """The first of some tests that fails; empty if none does within SECONDS."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--no-header"]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, *tests], cwd=tree, env=environment, timeout=SECONDS,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return ""
    if done.returncode == 0:
        return ""
    failures = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, flags=re.MULTILINE)
    return failures[0] if failures else f"pytest's status {done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}"


if __name__ == "__main__":
    given = sys.argv[1:]
    if given == ["--check"]:
        print("\n".join(unfit := misfits()) or "all fit")
        sys.exit(bool(unfit))
    sys.exit(bool(main(given)))
