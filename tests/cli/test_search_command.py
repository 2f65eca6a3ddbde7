"""`harness search` from the command line, on a search of two cells that takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Command, tree
from PIL import Image

FILE = '''"""Two ratios."""

from harness import Backbone, Knn, RandomMask, Recipe, Scale, Search, Shapes, simmim

RECIPE = Recipe(epochs=1, batch_size=16, lr=1e-3, lr_batch=None)
VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 16, "depth": 1, "num_heads": 2}, patch_size=4)
DATA = Shapes(image_size=16, train=120, test=16)
SMALL = Scale(name="small", data=DATA, image_size=16, backbone=VIT, pretrain=RECIPE, finetune=RECIPE)


def space(trial):
    return {"ratio": trial.suggest_categorical("ratio", (0.25, 0.5))}


def cell(scale, ratio, seed):
    start = simmim(scale, mask=RandomMask(size=4, ratio=ratio), seed=seed)
    return {
        "validation": Knn(start=start, data=DATA.replace(split="validation"), k=5, seed=seed),
        "top1": Knn(start=start, k=5, seed=seed),
    }


SEARCH = Search(
    space=space, cell=cell, metric="validation", test="top1", scales=(SMALL,), trials={"small": 5},
    reference={"ratio": 0.5}, sampler="random", confirmed=1, fresh_seeds=2,
)
'''


@pytest.fixture
def file(project: Path) -> Path:
    path = project / "studies" / "ratio_search.py"
    path.write_text(FILE)
    return path


@pytest.mark.slow
def test_a_search_from_beginning_to_end(harness: Command, file: Path, project: Path) -> None:
    before = harness("search", file, "--status")
    assert before.code == 2
    assert "there is no search" in before.err
    ended = harness("search", file, "--on", "inline", "--device", "cpu")
    assert ended.code == 0, ended.err
    assert "ratio_search-small: 5 cells, 1 at a time, sampler random" in ended.out
    assert "search ended: every cell of the space is known" in ended.out
    assert "2 cells computed" in ended.out
    status = harness("search", file, "--status")
    assert "computed  2 cells of 5; in the store before: 0" in status.out
    assert "run by    nobody" in status.out
    folder = project / "results" / "ratio_search" / "small"
    table = (folder / "search.md").read_text()
    assert "| default |" in table
    again = harness("search", file, "--on", "inline", "--device", "cpu")
    assert " asked" not in again.out
    report = harness("search", file, "--report")
    assert report.code == 0
    assert "(test)" in report.out
    assert "top-1 accuracy (test)" in table


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--sampler", "bayes"), "no sampler 'bayes'; valid: tpe, gp, cmaes, random, nsga2"),
        (("--scale", "paper"), "no scale 'paper'; this search has small"),
        (("--on", "inline", "--parallel", "3"), "--parallel: runs in this process have 1"),
        (("--detach",), "--detach belongs to --on slurm"),
    ],
)
def test_options_that_are_refused(harness: Command, file: Path, arguments: tuple[str, ...], says: str) -> None:
    ended = harness("search", file, *arguments)
    assert ended.code == 2
    assert says in ended.err


def test_data_that_is_not_here_is_refused_before_the_search_begins(
    harness: Command, file: Path, project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = FILE.replace("Shapes, ", "ImageFolder, ").replace("Shapes(image_size=16, train=120, test=16)", "{}")
    file.write_text(text.replace("{}", 'ImageFolder(name="my-net")'))
    before = tree(project)
    assert "data set my-net is not here" in harness("search", file).err
    (tmp_path / "nets" / "train" / "cat").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(tmp_path / "nets" / "train" / "cat" / "a.png")
    monkeypatch.setenv("HARNESS_DATA_MY_NET", str(tmp_path / "nets"))
    assert "has no images in val/<class>/" in harness("search", file).err
    assert tree(project) == before


@pytest.mark.parametrize("options", [(), ("--on", "inline"), ("--on", "slurm"), ("--on", "slurm", "--detach")])
def test_a_model_that_timm_refuses_is_refused_before_the_search_begins(
    harness: Command, file: Path, project: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr("harness.cli.launch.search.require_slurm", lambda: None)
    monkeypatch.setattr("harness.search.detached.submit_coordinator", lambda *_: pytest.fail("submitted"))
    monkeypatch.setattr("harness.launch.cost._records", lambda models: [{"refused": "no such width"} for _ in models])
    before = tree(project)
    ended = harness("search", file, *options)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "vit_tiny_patch16_224 at 16 px, pretrain, linear head: no such width" in ended.err
    assert tree(project) == before


def test_detaching_begins_the_search_before_its_job(
    harness: Command, file: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job, which may be queued again, is told to go on and never to begin another."""
    monkeypatch.setattr("harness.cli.launch.search.require_slurm", lambda: None)
    monkeypatch.setattr("harness.search.detached.submit_coordinator", lambda *_: "7")
    for _ in range(2):
        ended = harness("search", file, "--on", "slurm", "--detach", "--new")
        assert (ended.code, "queued the search as job 7" in ended.out) == (0, True)
    assert "0 trials" in harness("search", file, "--status").out
    journal = next(project.rglob("journal.log")).read_text()
    assert (journal.count('"ratio_search-small"'), journal.count('"ratio_search-small.2"')) == (1, 1)


def test_a_model_that_timm_lacks_is_no_trial(harness: Command, file: Path) -> None:
    file.write_text(FILE.replace("vit_tiny_patch16_224", "vit_tinny_patch16_224"))
    assert "timm has no model 'vit_tinny_patch16_224'; close names: vit_tiny" in harness("search", file).err


def test_a_study_is_no_search(harness: Command, study: Path) -> None:
    ended = harness("search", study)
    assert ended.code == 2
    assert f"ratios.py has no SEARCH = Search(...); it has a STUDY: harness run {study}" in ended.err


def test_a_search_is_no_study(harness: Command, file: Path) -> None:
    ended = harness("plan", file)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"{file.name} has no STUDY = Study(...); it has a SEARCH: harness search {file}" in ended.err
