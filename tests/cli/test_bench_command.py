"""`harness bench`: what it prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Command

from harness import bench
from harness.bench import Timing


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


def test_shares_are_of_the_matrix_rate() -> None:
    found = Timing(
        batch=10, steps=4, seconds=2.0, first_step=1.0, warm_up=1.0, peak_bytes=1, flops=3e12, matrix_rate=12e12
    )
    assert found.images_per_second == 20.0
    assert found.share == 0.5  # 4 x 3 T operations in 2 s are 6 of 12 T a second
