"""The commands on stores made by hand. Nothing is trained."""

from __future__ import annotations

import csv
import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FILE, Command, tree

from harness.spec import Run, key, upstream
from harness.store import Attempt, Store
from harness.store.features import keep_features, kept_features
from harness.store.layout import FeaturesFolder
from harness.store.submissions import Array, Submissions
from harness.study import Plan, expand, load

COMMANDS = (
    "new", "plan", "audit", "run", "search", "analyse", "status", "logs", "retry", "cancel", "report", "clean",
    "doctor", "models", "predict", "reconstruct", "export", "avgdist", "compare", "metrics", "bench",
)  # fmt: skip


@pytest.fixture
def plan(study: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The study's plan at its first scale."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HARNESS_PROJECT", "")
    return expand(load(study))


@pytest.fixture
def store(project: Path) -> Store:
    return Store(project / "runs")


def evaluation(plan: Plan, mask: str, ratio: float | None, seed: int) -> Run:
    wanted = {"mask": mask, "ratio": ratio}
    return next(row.evaluations["top1"] for row in plan.rows if row.axes == wanted and row.seed == seed)


def first(run: Run) -> Run:
    found = upstream(run)
    assert found is not None
    return found


def begin(store: Store, run: Run, *, retry: bool = False) -> Attempt:
    attempt = store.acquire(run, retry=retry)
    assert isinstance(attempt, Attempt)
    return attempt


def finish(store: Store, run: Run, top1: float = 50.0) -> None:
    attempt = begin(store, run)
    attempt.finish({"top1": top1, "loss": 1.0}, seconds=1.0, weights=b"weights")
    attempt.release()


def fail(store: Store, run: Run, text: str = "Traceback:\n  ...\nRuntimeError: out of memory\n") -> None:
    attempt = begin(store, run)
    attempt.fail(text)
    attempt.release()


# help and new


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(harness: Command, command: str) -> None:
    ended = harness(command, "--help")
    assert ended.code == 0
    assert f"Example: harness {command} " in " ".join(ended.out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_breaks_lines_only_where_the_terminal_ends(
    harness: Command, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = [line.strip() for line in harness(command, "--help").out.partition("Example:")[0].splitlines()]
    for line, after in itertools.pairwise(lines):
        if line and after:  # the next word would not have fitted
            assert len(line) + 1 + len(after.split()[0]) > 78, (line, after)


def test_help_breaks_no_list_of_values(harness: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in COMMANDS:
        for line in harness(command, "--help").out.splitlines():
            assert not re.search(r"<[a-z][^>]*$", line), (command, line)


def test_help_names_tables_and_defaults(harness: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert "default: [weights] of harness.toml or site.toml, or weights/ in the" in harness("predict", "--help").out
    assert "default: each that has runs" in harness("status", "--help").out


def test_an_interrupt_before_anything_runs_is_told(harness: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.cli.plan.planned", interrupted)
    ended = harness("plan", "studies/quickstart.py")
    assert (ended.code, ended.out, ended.err) == (130, "", "harness: interrupted\n")


def test_help_lists_every_command(harness: Command) -> None:
    text = harness("--help").out
    assert all(f" {command} " in text for command in COMMANDS)


def test_new_writes_a_study_that_plans(harness: Command, tmp_path: Path) -> None:
    assert harness("new", tmp_path / "mine").code == 0
    ended = harness("plan", tmp_path / "mine/studies/first.py")
    assert ended.code == 0
    assert "first · mini · 3 cells x 2 seeds" in ended.out
    assert "4 pretrain, 6 finetune" in ended.out  # two masks, and a control that has none


def test_new_leaves_what_is_there_alone(harness: Command, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    before = tree(tmp_path)
    for place in ("mine", "mine/thesis.txt"):
        ended = harness("new", tmp_path / place)
        assert (ended.code, len(ended.err.splitlines())) == (2, 1)
        assert "is there already and is not empty" in ended.err
    assert tree(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert harness("new", tmp_path / "empty").code == 0


# plan


def test_plan_counts_and_writes_nothing(harness: Command, study: Path, project: Path) -> None:
    before = tree(project)
    ended = harness("plan", study)
    assert ended.code == 0
    assert ended.out.splitlines()[0] == "ratios · small · 3 of 4 cells x 2 seeds"
    one = harness("plan", study, "--seeds", "1", "--where", "ratio=0.5").out
    assert one.splitlines()[0] == "ratios · small · 1 cell x 1 seed"
    text = " ".join(ended.out.split())
    assert "runs 4 pretrain, 6 finetune" in text
    assert "excluded 1 cell random 0.9: 0.9 is too much" in text
    assert "done 0 of 10 to do 10" in text
    assert tree(project) == before


def test_plan_sees_what_is_done(harness: Command, study: Path, plan: Plan, store: Store) -> None:
    finish(store, evaluation(plan, "none", None, 0))
    fail(store, evaluation(plan, "none", None, 1))
    text = " ".join(harness("plan", study).out.split())
    assert "done 1 of 10 to do 9 (1 failed)" in text
    assert "done 1 of 1 to do 0" in " ".join(harness("plan", study, "-w", "mask=none", "--seeds", "1").out.split())
    assert "done 0 of 10" in " ".join(harness("plan", study, "--scale", "large").out.split())


LIGHT = """
import sys
from harness.cli import main
sys.argv = ["harness", *{arguments!r}]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
heavy = {{"torch", "timm", "torchvision", "pandas", "matplotlib", "scipy", "numpy"}} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize("arguments", [("--help",), ("plan", "STUDY"), ("status", "STUDY"), ("run", "--help")])
def test_looking_loads_nothing_heavy(study: Path, arguments: tuple[str, ...]) -> None:
    given = [str(study) if argument == "STUDY" else argument for argument in arguments]
    program = LIGHT.format(arguments=given)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# status and logs


def counts(text: str) -> dict[str, int]:
    """The line `done 3   running 1 ...` of a status."""
    words = text.splitlines()[1].split()
    return {word: int(number) for word, number in zip(words[::2], words[1::2], strict=True)}


def test_status_before_anything(harness: Command, study: Path, project: Path) -> None:
    before = tree(project)
    ended = harness("status", study)
    assert (ended.code, ended.out) == (0, "no run of ratios has begun; harness run starts it\n")
    assert counts(harness("status", study, "--scale", "small").out)["missing"] == 10
    assert tree(project) == before


def test_status_tells_all_states_apart(harness: Command, study: Path, plan: Plan, store: Store) -> None:
    """Seed 0: 0.5 done, 0.75 pre-training failed. Seed 1: 0.5 running, 0.75 interrupted. Control: failed, missing."""
    done, stopped = evaluation(plan, "random", 0.5, 0), evaluation(plan, "random", 0.75, 1)
    finish(store, first(done))
    finish(store, done)
    fail(store, first(evaluation(plan, "random", 0.75, 0)), "Traceback:\nValueError: loss is nan\n")
    running = begin(store, first(evaluation(plan, "random", 0.5, 1)))
    running.log({"step": 10, "steps": 40, "seconds": 5.0, "loss": 0.5, "images_per_second": 1234.0})
    finish(store, first(stopped))
    attempt = begin(store, stopped)
    for step in (10, 20):
        attempt.log({"step": step, "steps": 40, "seconds": 5.0, "loss": 0.5, "images_per_second": 1234.0})
    attempt.write_checkpoint(16, lambda file: file.write(b"state"))
    attempt.release()
    fail(store, evaluation(plan, "none", None, 0))
    try:
        ended = harness("status", study)
    finally:
        running.release()
    assert ended.code == 0
    expected = {"done": 3, "running": 1, "blocked": 1, "failed": 2, "interrupted": 1, "missing": 2}
    assert counts(ended.out) == expected
    text = [" ".join(line.split()) for line in ended.out.splitlines()]
    about_running = next(line for line in text if line.startswith("running random"))
    assert about_running.startswith("running random 0.5 seed 1 pretrain step 10/40 1,234 img/s 15 s left")
    assert "interrupted random 0.75 seed 1 finetune step 16/40 harness run goes on from its last checkpoint" in text
    assert "failed random 0.75 seed 0 pretrain ValueError: loss is nan" in text
    assert "failed none seed 0 finetune RuntimeError: out of memory" in text
    assert text.count("harness logs says more, harness retry tries again") == 1
    name = key(first(evaluation(plan, "random", 0.75, 0)))
    assert f"blocked random 0.75 seed 0 finetune waits for {name}, which failed" in text


def test_status_says_how_failed_runs_of_a_cluster_are_tried_again(
    harness: Command, study: Path, plan: Plan, store: Store
) -> None:
    run = evaluation(plan, "none", None, 0)
    store.register(run)
    array = Array("mim-x-0", "evaluation", ((key(run),),))
    assert Submissions(store.root).publish(1, "submission", "ratios", [key(run)], [array])
    fail(store, run)
    text = " ".join(harness("status", study).out.split())
    assert "harness logs says more, harness retry --on slurm tries again" in text


def test_status_shows_every_scale_that_has_runs(harness: Command, study: Path, plan: Plan, store: Store) -> None:
    finish(store, evaluation(plan, "none", None, 0))
    assert "ratios · small" in harness("status", study).out
    assert "ratios · large" not in harness("status", study).out
    finish(store, evaluation(expand(plan.study, scale="large"), "none", None, 0))
    text = harness("status", study).out
    assert text.index("ratios · small") < text.index("ratios · large")


def test_logs_show_metrics_and_tracebacks(harness: Command, study: Path, plan: Plan, store: Store) -> None:
    assert harness("logs", study).out == "no run at scale small has begun; --scale names another\n"
    finish(store, evaluation(plan, "none", None, 0))
    assert harness("logs", study, "--failed").out == "no run at scale small has failed; --scale names another\n"
    attempt = begin(store, evaluation(plan, "none", None, 1))
    attempt.log({"step": 10, "loss": 0.25})
    attempt.files.log.write_text("it said [bold]this\n\x1b[2Jand that\n")
    attempt.fail("Traceback:\nRuntimeError: \x1b[31mout of memory\n")
    attempt.release()
    ended = harness("logs", study, "--failed")
    for part in ("none seed 1", "it said [bold]this", "step 10  loss 0.2500", "out of memory"):
        assert part in ended.out
    assert "none seed 0" not in ended.out
    assert "\x1b" not in ended.out


# report


def test_report_of_an_empty_store_shows_every_cell_as_missing(harness: Command, study: Path, project: Path) -> None:
    ended = harness("report", study)
    assert ended.code == 0
    folder = project / "results" / "ratios" / "small"
    assert {"runs.csv", "table.csv", "table.md", "table.tex"} <= {file.name for file in folder.iterdir()}
    for ratio in ("0.5", "0.75", "0.9"):
        assert ratio in ended.out
    assert len((folder / "runs.csv").read_text().splitlines()) == 1 + 4 * 2
    assert not (project / "runs").exists()


def test_report_goes_where_it_is_told(harness: Command, study: Path, project: Path, tmp_path: Path) -> None:
    assert harness("report", study, "--out", tmp_path / "paper").code == 0
    assert (tmp_path / "paper" / "table.tex").is_file()
    assert not (project / "results").exists()


def test_a_folder_that_two_studies_were_given_is_refused_with_a_way_out(
    harness: Command, study: Path, project: Path, tmp_path: Path
) -> None:
    other = project / "studies" / "others.py"
    other.write_text(FILE)
    assert harness("report", study, "--out", tmp_path / "paper").code == 0
    ended = harness("report", other, "--out", tmp_path / "paper")
    assert ended.code == 2
    assert ended.err.endswith("paper holds the results of studies/ratios.py; name another folder with --out\n")


def test_report_and_status_call_a_run_by_the_same_word(
    harness: Command, study: Path, plan: Plan, store: Store, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of six fine-tunings one is done, two were taken out of the queue, one waits; Slurm does not answer."""
    monkeypatch.setenv("PATH", str(project))
    log, runs = Submissions(store.root), [row.evaluations["top1"] for row in plan.rows if row.evaluations]
    finish(store, runs[-1])
    for run in runs:
        store.register(run)
    array = Array("mim-x-0", "evaluation", ((key(runs[2]),),))
    assert log.publish(1, "submission", "ratios", [key(runs[2])], [array])
    assert log.publish(2, "cancel", "ratios", [key(run) for run in runs[:2]])
    said = [line.split() for line in harness("status", study, "--scale", "small").out.splitlines()]
    words = {tuple(line[1:4]): line[0] for line in said if "finetune" in line}
    assert harness("report", study).code == 0
    with next((project / "results").glob("*/*/runs.csv")).open() as file:
        states = [line["state"] for line in csv.DictReader(file) if line["state"] != "excluded"]
    assert states == ["cancelled", "cancelled", "queued", "missing", "missing", "done"]
    assert words == {
        ("random", "0.5", "seed"): "cancelled",
        ("random", "0.75", "seed"): "queued",
    }
    table = next((project / "results").glob("*/*/table.md")).read_text()
    assert "cancelled" in table
    assert "1 queued" in table


def test_two_study_files_of_one_name_do_not_overwrite_each_other(
    harness: Command, study: Path, project: Path, store: Store
) -> None:
    assert harness("report", study).code == 0
    copy = project / "studies" / "later" / "ratios.py"
    copy.parent.mkdir()
    copy.write_text(FILE.replace("seeds=2", "seeds=1"))
    before = tree(project)
    for command in (("run", copy, "--where", "mask=none"), ("report", copy), ("audit", copy)):
        ended = harness(*command)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "small holds the results of studies/ratios.py" in ended.err
    assert tree(project) == before
    assert harness("report", study).code == 0
    study.rename(study.with_name("other.py"))  # a file that has moved keeps its results
    assert harness("report", copy).code == 0


def test_report_of_a_selection_needs_a_folder_of_its_own(
    harness: Command, study: Path, project: Path, tmp_path: Path
) -> None:
    refused = harness("report", study, "--where", "ratio=0.5")
    assert refused.code == 2
    assert "--out" in refused.err
    assert not (project / "results").exists()
    assert harness("report", study, "--where", "ratio=0.5", "--out", tmp_path / "part").code == 0
    assert len((tmp_path / "part" / "runs.csv").read_text().splitlines()) == 1 + 2


# retry and clean


def test_retry_with_nothing_failed(harness: Command, study: Path, project: Path) -> None:
    before = tree(project)
    ended = harness("retry", study)
    assert (ended.code, ended.out) == (0, "nothing has failed\n")
    assert tree(project) == before


def test_run_leaves_failed_runs_to_retry(harness: Command, study: Path, plan: Plan, store: Store) -> None:
    for seed in (0, 1):
        fail(store, evaluation(plan, "none", None, seed))
    ended = harness("run", study, "-w", "mask=none", "--on", "inline")
    assert ended.code == 1
    assert "2 failed" in ended.out
    assert "harness retry" in ended.out


def everything_done(plan: Plan, store: Store) -> None:
    for run in plan.runs().values():
        finish(store, run)


def test_run_of_what_is_done_computes_nothing(harness: Command, study: Path, plan: Plan, store: Store) -> None:
    everything_done(plan, store)
    before = tree(store.root)
    ended = harness("run", study)
    assert ended.code == 0
    assert "nothing to compute: 10 done" in ended.out
    assert "wrote " in ended.out
    assert tree(store.root) == before
    again = harness("run", study)
    assert (again.code, "unchanged " in again.out) == (0, True)


def test_run_of_a_selection_reports_the_whole_study(
    harness: Command, study: Path, plan: Plan, store: Store, project: Path
) -> None:
    everything_done(plan, store)
    ended = harness("run", study, "--where", "mask=none")
    assert ended.code == 0
    assert "The table is the whole study's: --where chose what to compute." in ended.out
    assert "The table is the whole study's" not in harness("run", study).out
    rows = (project / "results" / "ratios" / "small" / "runs.csv").read_text().splitlines()
    assert len(rows) == 1 + 4 * 2
    assert harness("run", study, "--where", "mask=none", "--seeds", "1").code == 0
    results = project / "results" / "ratios"
    counts = [len((results / name / "runs.csv").read_text().splitlines()) for name in ("small", "small-1-seeds")]
    assert counts == [1 + 4 * 2, 1 + 4]  # the fuller report stays


def superseded(plan: Plan, store: Store) -> Run:
    """A run whose first attempt failed and whose second is done."""
    run = evaluation(plan, "none", None, 0)
    fail(store, run)
    again = begin(store, run, retry=True)
    again.finish({"top1": 60.0, "loss": 1.0}, seconds=1.0, weights=b"weights" * 100)
    again.release()
    return run


def test_clean_asks_first(
    harness: Command, study: Path, plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from io import StringIO

    superseded(plan, store)
    before = tree(store.root)
    for answer in ("n\n", ""):
        monkeypatch.setattr(sys, "stdin", StringIO(answer))
        ended = harness("clean", study, "--weights")
        assert ended.code == 1
        assert "superseded attempts" in ended.out
        assert tree(store.root) == before


def test_clean_keeps_results(harness: Command, study: Path, plan: Plan, store: Store) -> None:
    name = key(superseded(plan, store))
    fail(store, evaluation(plan, "none", None, 1))
    assert harness("clean", study, "--yes").code == 0
    assert [attempt.number for attempt in store.folder(name).attempts()] == [2]
    assert store.weights(name) is not None
    assert harness("clean", study, "--weights", "--yes").code == 0
    assert store.weights(name) is None
    assert counts(harness("status", study, "--scale", "small").out)["failed"] == 1
    assert harness("clean", study, "--unfinished", "--yes").code == 0
    assert counts(harness("status", study, "--scale", "small").out)["failed"] == 0
    result = store.result(name)
    assert result is not None
    assert result.metrics["top1"] == 60.0
    assert harness("clean", study, "--weights", "--unfinished", "--yes").out == "nothing to clean\n"


def test_clean_counts_and_deletes_kept_features(harness: Command, study: Path, store: Store) -> None:
    folder = FeaturesFolder(store.root, "0" * 64)
    with kept_features(folder):
        keep_features(folder, memoryview(bytes(2_000_000)))
        assert harness("clean", study, "--yes").out == "nothing to clean\n"
    listed = counts(harness("status", study, "--scale", "small").out)
    ended = harness("clean", study, "--yes")
    assert ended.out.split() == ["kept", "features", "1", "2.0", "MB"]
    assert not folder.path.exists()
    assert counts(harness("status", study, "--scale", "small").out) == listed


def test_clean_seals_an_old_store_on_request(harness: Command, study: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(Path(__file__).parent.parent / "store" / "files" / "schema1", old)
    before = tree(old)
    assert harness("clean", study, "--store", old).out == "nothing to clean\n"
    assert harness("status", study, "--store", old).code == 0
    assert tree(old) == before
    assert harness("clean", study, "--store", old, "--seal", "--yes").out == f"16 records of {old} have no digest yet\n"
    assert harness("clean", study, "--store", old, "--seal").out == f"0 records of {old} have no digest yet\n"
    assert set(tree(old)) == set(before)


# Names that would steer a terminal or climb out of a folder


def test_strange_axis_values_do_no_harm(harness: Command, study: Path, project: Path) -> None:
    values = ("[red]", "[/]", "\x1b[31mred", "../../up", "a\nb", "[link=x]y")
    text = FILE.replace('ratio=(0.5, 0.75, 0.9)) | axes(mask="none")', f"ratio=0.5) | axes(mask={values!r}, ratio=0.5)")
    study.write_text(text.replace("seeds=2,", "seeds=1,"))
    (study.parent / "[bold]odd.py").write_text(study.read_text())
    outside = tree(project.parent)
    for path in (study, study.parent / "[bold]odd.py"):
        for command in ("plan", "report", "status"):
            ended = harness(command, path)
            assert (ended.code, ended.err) == (0, "")
            assert "\x1b" not in ended.out
        shown = harness("report", path).out
        assert "[red]" in shown
        assert "[/]" in shown
    assert "[bold]odd · small" in harness("plan", study.parent / "[bold]odd.py").out
    new = set(tree(project.parent)) - set(outside)
    assert all(name.startswith(("project/results/ratios/small", "project/results/[bold]odd/small")) for name in new)


# Whole processes


def test_python_m_and_the_command_are_the_same(study: Path) -> None:
    command = Path(sys.executable).with_name("harness")
    if not command.exists():
        pytest.skip("the command is not installed beside this Python")
    ends = [
        subprocess.run([*start, "plan", str(study)], capture_output=True, text=True, check=True).stdout
        for start in ([str(command)], [sys.executable, "-m", "harness.cli"])
    ]
    assert ends[0] == ends[1]


def test_a_reader_that_stops_listening_is_no_error(study: Path) -> None:
    script = f"set -o pipefail; {sys.executable} -m harness.cli plan {study} | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1, 141)  # rich ends with 1
    assert done.stderr == ""


OWN_MASK = '''"""A mask of my own."""


def corner(random, grid, step, steps, *, side):
    hidden = random(*grid) < -1
    hidden[:, :side, :side] = True
    return hidden
'''


@pytest.mark.slow
def test_my_own_mask_from_plan_to_report(study: Path, project: Path) -> None:
    """As a user has it: own project, own mask, own study; and a second run that has nothing to do."""
    (project / "masks.py").write_text(OWN_MASK)
    text = FILE.replace("Skip, Study", "Skip, CustomMask, Study").replace(
        'elif ratio == 0.9:\n        raise Skip("0.9 is too much")',
        'elif mask == "corner":\n        own = CustomMask(function="masks:corner", size=4, params={"side": 2})\n'
        "        start = simmim(scale, mask=own, seed=seed)",
    )
    text = text.replace('(0.5, 0.75, 0.9)) | axes(mask="none")', '0.5) | axes(mask=("corner", "none"))')
    study.write_text(text.replace("seeds=2,", "seeds=1,"))

    def harness(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli", *arguments, str(study)],
            cwd=project.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        return done.stdout

    assert "2 pretrain, 3 finetune" in harness("plan")
    assert not (project / "runs").exists()
    harness("run", "--on", "inline", "--device", "cpu")
    folder = project / "results" / "ratios" / "small"
    rows = (folder / "runs.csv").read_text().splitlines()
    assert len(rows) == 4
    assert sum("corner" in row for row in rows) == 1
    before = tree(project / "runs")
    assert "nothing to compute: 5 done" in harness("run")
    assert tree(project / "runs") == before
    assert "corner" in harness("report")
    assert sorted(path.name for path in project.parent.iterdir()) == ["project"]


@pytest.mark.slow
def test_a_run_that_fails_says_why(study: Path) -> None:
    study.write_text(FILE.replace("batch_size=16", "batch_size=64").replace("seeds=2,", "seeds=1,"))
    command = [sys.executable, "-m", "harness.cli"]
    options = ["--on", "inline", "--device", "cpu"]
    done = subprocess.run([*command, "run", str(study), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "3 failed, 2 blocked" in done.stdout
    logs = subprocess.run([*command, "logs", str(study), "--failed"], capture_output=True, text=True, check=True)
    reasons = [line for line in logs.stdout.splitlines() if "more than the 32 training images" in line]
    assert len(reasons) == 3, logs.stdout  # two pre-trainings and the control; the fine-tunings are blocked
    assert "Traceback" not in logs.stdout
    assert "failed 3" in subprocess.run([*command, "status", str(study)], capture_output=True, text=True).stdout


def test_progress_counts_what_ended_and_not_what_was_given_up(tmp_path: Path) -> None:
    """After an interruption the study's bar shows the runs that are done, not those that were dropped."""
    from harness.cli.launch.live import Display
    from harness.launch.queue import Event, Queue
    from harness.spec import Backbone, Knn, Scratch, Shapes, key
    from harness.store import Store

    start = Scratch(backbone=Backbone(name="vit_tiny_patch16_224", patch_size=4), image_size=16)
    runs = {key(run): run for run in (Knn(start=start, data=Shapes(), k=k) for k in (1, 2, 3))}
    queue = Queue(runs, Store(tmp_path))
    display = Display("a study", runs, {}, queue)
    first = queue.take()
    assert first is not None
    queue.end(Event("done", first))
    queue.interrupt(queue.open())
    assert display._ended() == 1
