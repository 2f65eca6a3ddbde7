"""`harness analyse`: runs of the store, computed once, and a figure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Command

from harness.launch import Resources
from harness.launch.job import work
from harness.spec import Backbone, FineTune, Pretrain, RandomMask, Recipe, Shapes, key
from harness.store import Store

VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 16, "depth": 2, "num_heads": 2}, patch_size=4)
RECIPE = Recipe(epochs=1, batch_size=16, lr=1e-3, lr_batch=None)
PRETRAIN = Pretrain(
    data=Shapes(image_size=16, train=32, test=24),
    image_size=16,
    backbone=VIT,
    mask=RandomMask(size=4, ratio=0.5),
    recipe=RECIPE,
)
TUNED = FineTune(start=PRETRAIN, recipe=RECIPE, crop=1.0)
SMALL = {
    "interactions": ["--set", "images=2", "--set", "grid=4", "--set", "pairs=3", "--set", "contexts=4",
                     "--set", "orders=[0.0, 0.5, 1.0]"],
    "occlusion": ["--set", "size=4", "--set", "ratios=[0.0, 0.5, 1.0]", "--set", "draws=2"],
    "fourier": ["--set", "images=8"],
    "rgb": ["--set", "images=8", "--set", "masks=2"],
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    found = Store(tmp_path_factory.mktemp("analyse") / "runs")
    torch.set_num_threads(1)
    for run in (PRETRAIN, TUNED):
        work(found, run, torch.device("cpu"), Resources(device="cpu"), report=lambda event: None)
    return found


@pytest.mark.parametrize("kind", SMALL)
def test_a_kind_is_computed_once_and_drawn(store: Store, tmp_path: Path, harness: Command, kind: str) -> None:
    start = PRETRAIN if kind in ("fourier", "rgb") else TUNED
    names = [key(start)[:-3]] + ([key(TUNED)] if kind == "fourier" else [])
    words = [
        "analyse",
        kind,
        *names,
        "--store",
        str(store.root),
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
        *SMALL[kind],
    ]
    done = harness(*words)
    assert done.code == 0, done.err
    assert f"wrote {kind}.png, {kind}.pdf" in done.out
    assert (tmp_path / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / f"{kind}.pdf").read_bytes().startswith(b"%PDF")
    made = [name for name in store.keys() if name.startswith(kind)]  # noqa: SIM118
    assert len(made) == len(names)
    first = {name: store.folder(name).result.stat().st_mtime_ns for name in made}
    again = harness(*words)
    assert again.code == 0
    assert again.out.splitlines()[-1 - len(names) :] == done.out.splitlines()[-1 - len(names) :]
    assert {name: store.folder(name).result.stat().st_mtime_ns for name in made} == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["occlusion", key(PRETRAIN)], "is a pretrain; occlusion takes a finetune"),
        (["rgb", key(TUNED)], "is a finetune; rgb takes a pretrain"),
        (["occlusion", "nothing"], "'nothing' names no run"),
        (["occlusion", key(TUNED), "--set", "size=5"], "size 5 does not divide the image of 16 px"),
        (["occlusion", key(TUNED), "--set", "sice=4"], "did you mean 'size'"),
        (["occlusion", key(TUNED), "--set", "size"], "should read field=value, such as --set images=20"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    store: Store, harness: Command, words: list[str], message: str
) -> None:
    done = harness("analyse", *words, "--store", str(store.root))
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_what_is_not_done_is_named(tmp_path: Path, harness: Command) -> None:
    fresh = Store(tmp_path / "runs")
    fresh.register(TUNED)
    done = harness("analyse", "occlusion", key(TUNED), "--store", str(fresh.root))
    assert (done.code, done.err.strip()) == (2, f"harness: {key(TUNED)} is not done: it is missing")
