"""`harness bench`: what it prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import Command

from harness import ComplementMask, Pretrain, RandomMask, bench, simmim
from harness.bench import Timing
from harness.papers.models import named
from studies.quickstart import MINI

RUN = simmim(MINI, mask=RandomMask(size=7, ratio=0.5))


def test_the_first_pretraining_of_a_study_is_timed(
    harness: Command, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bench.MATRIX_SIDE, "cpu", 64)
    file = tmp_path / "found.json"
    before = set(study.parent.parent.rglob("*"))
    ended = harness("bench", study, "--device", "cpu", "--batch", 4, "--steps", 51, "--json", file)
    assert ended.code == 0, ended.err
    found = json.loads(file.read_text())
    assert (found["batch"], found["steps"]) == (4, 51)
    assert found["images_per_second"] == pytest.approx(204 / found["seconds"])
    assert found["share"] == pytest.approx(found["flops"] * 51 / found["seconds"] / found["matrix_rate"])
    # A mask, a forward and a backward pass, a clipped norm and an update have operators; nothing else has many.
    assert all(found["operators"][phase] > 0 for phase in ("inputs", "masks", "forward", "backward", "optimiser"))
    assert found["operators"]["other"] < 0.2 * sum(found["operators"].values())
    for word in ("images a second", "matrix rate", "first step", "peak memory", "operators a step"):
        assert word in ended.out
    assert set(study.parent.parent.rglob("*")) == before, "a bench leaves no store behind"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("simmim/swin-x",), "there is no published model 'simmim/swin-x'; harness models lists them; did you mean"),
        (("simmim/swin-b", "--scale", "small"), "--scale and --where select from a study"),
        (("simmim/swin-b", "--json", "/no/such/folder/x.json"), "there is no folder"),
        (("simmim/swin-b", "--data", "no-such-set"), "data set no-such-set is not here"),
        (("simmim/swin-b", "--device", "cpu", "--precision", "fp16"), "precision fp16 needs a GPU"),
    ],
)
def test_mistakes_are_one_line(
    harness: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setitem(bench.MATRIX_SIDE, "cpu", 64)
    ended = harness("bench", *arguments, "--batch", 2)
    assert ended.code == 2
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_batch_of_another_size_than_published_groups_of_spectra_is_timed() -> None:
    run = named("a2mim/r50").run
    assert isinstance(run, Pretrain)
    assert run.fourier is not None
    for batch, group in ((32, None), (512, run.fourier.group)):
        timed = bench.prepared(run, batch=batch, precision="fp32", steps=1)
        assert timed.fourier is not None
        assert timed.fourier.group == group


def test_each_mask_of_an_image_is_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.MATRIX_SIDE, "cpu", 64)
    found = [
        bench.measure(
            bench.prepared(RUN.replace(mask=mask), batch=4, precision="fp32", steps=1), torch.device("cpu"), steps=1
        ).flops
        for mask in (RUN.mask, ComplementMask(size=7))
    ]
    assert found[1] == 2 * found[0]


def test_the_loader_is_timed_over_more_epochs_than_the_run_has() -> None:
    run = bench.prepared(RUN, batch=4, precision="fp32", steps=1)
    few = run.replace(data=run.data.replace(params=(("count", 4), ("side", 28), ("channels", 1))))
    few = few.replace(recipe=run.recipe.replace(epochs=1))
    assert bench.loader_rate(few, torch.device("cpu"), workers=0, steps=3) > 0


def test_shares_are_of_the_matrix_rate() -> None:
    found = Timing(
        batch=10, steps=4, seconds=2.0, first_step=1.0, warm_up=1.0, peak_bytes=1, flops=3e12, matrix_rate=12e12
    )
    assert found.images_per_second == 20.0
    assert found.share == 0.5  # 4 x 3 T operations in 2 s are 6 of 12 T a second
