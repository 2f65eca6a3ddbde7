"""Bad input gives one line on stderr, a non-zero exit, and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from conftest import FILE, Command, Ended, tree
from PIL import Image


def check(ended: Ended, *parts: str) -> None:
    assert ended.code != 0
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("harness: ")
    for part in parts:
        assert part in lines[0]
    assert ended.out == ""


COMMANDS = ("plan", "run", "status", "logs", "retry", "report", "clean")
BAD_FILES = {
    "does not parse": ("def f(:\n", "bad.py, line 1: invalid syntax"),
    "raises": ("raise RuntimeError('no such luck')", "bad.py, line 1: RuntimeError: no such luck"),
    "exits": ("import sys\nsys.exit()", "SystemExit"),
    "has no study": ("", "bad.py has no STUDY = Study(...)"),
    "repeats a value": (FILE.replace("(0.5, 0.75, 0.9)", "(0.5, 0.5)"), "axis ratio repeats the value 0.5"),
    "has a bad mask": (FILE.replace("size=4, ratio=ratio", "size=5, ratio=ratio"), "valid: 4, 8, 16"),
    "misspells a field": (FILE.replace("size=4, ratio=ratio", "size=4, raito=ratio"), "did you mean 'ratio'"),
    "has a bad claim": (
        FILE.replace(
            "    seeds=2,", "    seeds=2,\n    claims=(harness.claims.inner_maximum('x', axis='rtaio'),),"
        ).replace("from harness", "import harness\nfrom harness", 1),
        "claim 'x' names no axis with 'rtaio'",
    ),
    "has no reference": (FILE.replace('"ratio": 0.5}', '"ratio": 0.1}'), "is no cell of the grid"),
    "starts at paper": (FILE.replace('sized("small")', 'sized("paper")'), "the first scale is the default"),
    "climbs out": (FILE.replace("    seeds=2,", "    seeds=2,\n    name='../../up',"), "no name for a study"),
    "breaks in a cell": (
        FILE.replace('raise Skip("0.9 is too much")', "return 1 / 0"),
        "bad.py, line 18: cell (mask=random, ratio=0.9): ZeroDivisionError: division by zero",
    ),
    "leaves by an error of its own kind": ("class Left(BaseException): ...\nraise Left('now')", "line 2: Left: now"),
    "leaves in a cell": (FILE.replace('raise Skip("0.9 is too much")', "raise SystemExit(3)"), "line 18: cell"),
    "names an evaluation by a number": (FILE.replace('{"top1": FineTune', "{1: FineTune"), "by a text, not 1"),
    "names an evaluation None": (FILE.replace('{"top1": FineTune', "{None: FineTune"), "by a text, not None"),
    "names an evaluation by a pair": (FILE.replace('{"top1": FineTune', "{(1, 2): FineTune"), "by a text, not (1, 2)"),
    "skips without a reason": (
        FILE.replace('Skip("0.9 is too much")', "Skip(None)"),
        "Skip takes its reason as a text",
    ),
    "has a huge value": (FILE.replace("(0.5, 0.75, 0.9)", "(0.5, 10**400)"), "does not fit into 64 bits"),
    "has values without end": (
        FILE.replace("(0.5, 0.75, 0.9)", "__import__('itertools').count()"),
        "more than 100,000 cells is not planned",
    ),
    "has a value that is no number": (FILE.replace("(0.5, 0.75, 0.9)", "(0.5, float('nan'))"), "finite numbers"),
    "has a huge learning rate": (
        FILE.replace("lr=1e-3", "lr=10**5000"),
        "line 5: Recipe: holds a whole number of more",
    ),
    "has a paper that is no table": (
        FILE.replace("    seeds=2,", "    seeds=2, paper='x',"),
        "paper should be a",
    ),
    "has claims that are none": (FILE.replace("    seeds=2,", "    seeds=2, claims=('x',),"), "tuple of claims"),
    "has a factor that is no tuple": (
        FILE.replace("    seeds=2,", "    seeds=2, factors={'ratio': 'start'},"),
        "factors of ratio should be a tuple of fields, such as ('start',)",
    ),
    **{
        f"has {seeds} seeds": (FILE.replace("seeds=2", f"seeds={seeds}"), "seeds should be 1 or more, not")
        for seeds in ("1.5", "float('nan')", "True", "0", "'2'", "None")
    },
    "has 1e20 seeds": (FILE.replace("seeds=2", "seeds=10**20"), "seeds should be 100,000 at most"),
    "has a long name": (FILE.replace("seeds=2", "seeds=2, name='x' * 201"), "201 bytes of 200 that are allowed"),
    "has 180,000 cells": (
        FILE.replace("(0.5, 0.75, 0.9)", "tuple(i / 200_000 for i in range(180_000))"),
        "more than 100,000 cells is not planned",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_study_file(harness: Command, project: Path, name: str) -> None:
    text, message = BAD_FILES[name]
    path = project / "studies" / "bad.py"
    path.write_text(text)
    before = tree(project.parent)
    for command in ("plan", "run", "status"):
        check(harness(command, path), message)
    assert tree(project.parent) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_what_is_not_there(harness: Command, study: Path, command: str) -> None:
    before = tree(study.parent.parent)
    check(harness(command, study.with_name("nowhere.py")), "there is no study file", "nowhere.py")
    check(harness(command, study, "--scale", "huge"), "no scale 'huge'; this study has small, large")
    check(harness(command, study, "--where", "raito=0.5"), "no axis 'raito'; this study has mask, ratio")
    check(harness(command, study, "-w", "ratio=0.3"), "axis ratio has no value '0.3'; it has 0.5, 0.75, 0.9")
    for malformed in ("ratio", "=0.5"):
        check(harness(command, study, "--where", malformed), "should read axis=value")
    check(harness(command, study, "--seeds", "0"), "--seeds", "1")
    check(harness(command, study, "--nope"), "--nope")
    check(harness(command, study, "--sclae", "small"), "No such option: --sclae; did you mean --scale?")
    check(harness(command, study.with_name("ratio.py")), "there is no study file", "did you mean ratios.py?")
    assert tree(study.parent.parent) == before


@pytest.mark.slow
def test_a_sample_of_many_mistakes_ends_in_no_traceback_and_ends() -> None:
    found = importlib.util.spec_from_file_location("bad_input", Path(__file__).parents[2] / "tools" / "bad_input.py")
    assert found is not None
    assert found.loader is not None
    bad_input = importlib.util.module_from_spec(found)
    sys.modules["bad_input"] = bad_input  # dataclasses look their module up
    found.loader.exec_module(bad_input)
    tally = bad_input.tried(bad_input.cases(40, 5))
    assert (tally.tracebacks, tally.endless) == ([], [])
    assert tally.refused >= 30


def test_debug_shows_where_a_mistake_was_met(harness: Command, project: Path) -> None:
    path = project / "studies" / "bad.py"
    path.write_text("def f():\n    return 1 / 0\nf()\n")
    check(harness("plan", path), "bad.py, line 2: ZeroDivisionError: division by zero")
    for words in (("--debug", "plan", path), ("plan", path, "--debug")):
        lines = harness(*words).err.splitlines()
        assert any("bad.py" in line and "line 2, in f" in line for line in lines)
        assert lines[-1] == "harness: bad.py, line 2: ZeroDivisionError: division by zero"


def test_models_that_timm_lacks_or_refuses(harness: Command, study: Path) -> None:
    """Names and families without torch, by plan too; arguments before the first job."""
    before = tree(study.parent.parent)
    for name, said in (
        ("vit_tinny_patch16_224", "timm has no model 'vit_tinny_patch16_224'; close names: vit_tiny_patch16_224"),
        ("xcit_nano_12_p16_224", "xcit_nano_12_p16_224 is of timm's xcit; valid families: vision_transformer, deit"),
    ):
        study.write_text(FILE.replace("vit_tiny_patch16_224", name))
        for command in ("plan", "run"):
            check(harness(command, study), said)
    for arguments, said in (
        ('"num_heads": 0', "bad.py, line 6: Backbone: args: num_heads should be from 1 to 100,000, not 0"),
        ('"embed_dim": -16, "num_heads": 2', "embed_dim should be from 1 to 100,000, not -16"),
        ('"depth": 10**9, "num_heads": 2', "depth should be from 1 to 1,000, not 1000000000"),
    ):
        path = study.with_name("bad.py")
        path.write_text(FILE.replace('"embed_dim": 16, "depth": 1, "num_heads": 2', arguments))
        check(harness("plan", path), said)
        path.unlink()
    for arguments, said in (
        ('"num_heads": 3', "timm refuses vit_tiny_patch16_224: dim should be divisible by num_heads"),
        ('"num_heads": 2, "heads": 2', "unexpected keyword argument 'heads'"),
    ):
        study.write_text(FILE.replace('"num_heads": 2', arguments))
        assert harness("plan", study).code == 0
        for words in (("run", study), ("run", study, "--on", "inline"), ("plan", study, "--describe")):
            check(harness(*words), "vit_tiny_patch16_224 at 16 px, pretrain", said)
    study.write_text(FILE)
    assert tree(study.parent.parent) == before


def test_wrong_commands_and_arguments(harness: Command, study: Path) -> None:
    check(harness("plam", study), "plam")
    check(harness("plan"), "STUDY")
    check(harness("run", study, "--on", "moon"), "inline", "local", "moon")
    check(harness("run", study, "--device", "tpu"), "cuda", "tpu")
    check(harness("run", study, "--threads", "none"), "--threads", "valid int")


def test_nothing_can_run(harness: Command, study: Path) -> None:
    before = tree(study.parent.parent)
    check(harness("run", study, "-w", "ratio=0.9"), "no cell of ratios can run at scale small: 0.9 is too much")
    assert tree(study.parent.parent) == before


ON_FOLDER = FILE.replace("Skip, Study", "Skip, ImageFolder, Study").replace(
    'sized("small")', 'sized("small", ImageFolder(name="my-net"))'
)


def test_a_missing_data_set(harness: Command, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study.write_text(ON_FOLDER)
    (study.parent.parent / "harness.toml").write_text('[data]\nmy-nets = "nets"\n')
    before = tree(study.parent.parent)
    told = "data set my-net is not here: set HARNESS_DATA_MY_NET, or my-net under [data] in harness.toml; did you mean"
    known = "known folders: my-nets; sets that are read as Images: fashion-mnist-mini, "
    check(harness("run", study), told, "ImageFolder(name='my-nets')?", known)
    planned = harness("plan", study)
    assert planned.code == 0
    assert told in planned.out
    assert known in planned.out
    monkeypatch.setenv("HARNESS_DATA_MY_NET", str(study.parent / "nothing"))
    check(harness("run", study), f"data set my-net should lie in {study.parent / 'nothing'}, which is no folder")
    assert tree(study.parent.parent) == before
    study.write_text(ON_FOLDER.replace("my-net", "cifar10"))
    check(harness("run", study), "did you mean Images(name='cifar10')?")


def paint(root: Path, *folders: str) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (16, 16), (number, 0, 0)).save(root / folder / f"{number}.png")


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        (("cat", "dog"), "has no images in train/<class>/"),
        (("train/cat", "train/dog"), "has no images in val/<class>/ to measure accuracies on"),
        (("train/cat", "train/dog", "val/cat"), "val lacks dog, which train/ has"),
        (("train/cat", "val/cat", "val/dog"), "train lacks dog, which val/ has"),
    ],
)
def test_a_folder_that_a_run_would_refuse_is_refused_before_anything_is_computed(
    harness: Command,
    study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    folders: tuple[str, ...],
    told: str,
) -> None:
    study.write_text(ON_FOLDER)
    paint(tmp_path / "nets", *folders)
    monkeypatch.setenv("HARNESS_DATA_MY_NET", str(tmp_path / "nets"))
    before = tree(study.parent.parent)
    for command in ("plan", "run"):
        check(harness(command, study), str(tmp_path / "nets"), told)
    assert tree(study.parent.parent) == before


def test_a_class_that_is_named_and_is_not_there_is_refused_by_plan(
    harness: Command, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "nets", "train/cat", "train/dog", "val/cat", "val/dog")
    monkeypatch.setenv("HARNESS_DATA_MY_NET", str(tmp_path / "nets"))
    for named in ('name="my-net", classes=("cat", "dgo"))', 'name="my-net").replace(classes=("cat", "dgo"))'):
        study.write_text(ON_FOLDER.replace('name="my-net")', named))
        check(harness("plan", study), "train lacks dgo of classes; it has cat, dog")


def test_classes_too_small_for_the_validation_split_are_said_by_plan(
    harness: Command, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.write_text(ON_FOLDER.replace('name="my-net"', 'name="my-net", split="validation"'))
    paint(tmp_path / "nets", "train/cat", "train/dog")
    monkeypatch.setenv("HARNESS_DATA_MY_NET", str(tmp_path / "nets"))
    assert "may lack" not in harness("plan", study).out
    for number in range(15):
        (tmp_path / "nets" / "train" / "dog" / f"{number}.png").unlink()
    told = "my-net: the validation split may lack 1 of 2 classes, a tenth of which is no image: dog (5)"
    assert told in harness("plan", study).out


def test_a_harness_toml_that_does_not_parse(harness: Command, study: Path) -> None:
    study.write_text(ON_FOLDER)
    (study.parent.parent / "harness.toml").write_text("[data\n")
    check(harness("plan", study), "harness.toml")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "[dta]\nx = '/y'\n",
            ("harness.toml has a key 'dta'", "valid: store, data, weights, slurm; did you mean 'data'?"),
        ),
        ("[slurm]\npartion = 'x'\n", ("harness.toml, [slurm], has a key 'partion'", "did you mean 'partition'?")),
        ("[slurm.pretrain]\nminuts = 5\n", ("[slurm.pretrain], has a key 'minuts'", "did you mean 'minutes'?")),
    ],
)
def test_a_harness_toml_with_an_unknown_key(harness: Command, study: Path, text: str, parts: tuple[str, ...]) -> None:
    (study.parent.parent / "harness.toml").write_text(text)
    check(harness("plan", study), *parts)


@pytest.mark.parametrize("store", ["/proc/no-such-store", "/dev/null", "/dev/null/store"])
def test_a_store_that_cannot_be_written(harness: Command, study: Path, store: str) -> None:
    before = tree(study.parent.parent)
    check(harness("run", study, "--store", store), store.removesuffix("/store"))
    assert tree(study.parent.parent) == before


def test_results_that_cannot_be_written(harness: Command, study: Path) -> None:
    (study.parent.parent / "results").write_text("in the way")
    before = tree(study.parent.parent)
    check(harness("report", study), "results")
    assert tree(study.parent.parent) == before


def test_a_message_cannot_steer_the_terminal(harness: Command, study: Path) -> None:
    check(harness("plan", study, "--where", "ratio=\x1b[31m"), "no value")
    check(harness("plan", study.with_name("a\nb\x1b[2J.py")), "no study file")
