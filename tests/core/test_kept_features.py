"""Features that evaluations share: every bit as without, no pass through the encoder, and no wrong ones met."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import DATA, VIT, pretrain
from torch import Tensor

from harness.core.data.augment import test_batch as prepared
from harness.core.data.datasets import ImageSet, load
from harness.core.evaluate import features as frozen
from harness.core.model.encoder import Encoder, build
from harness.launch import Resources, drive, job, provenance
from harness.launch.job import work
from harness.launch.local.pool import Local
from harness.spec import (
    Checkpoint,
    CustomBackbone,
    ImageFolder,
    Knn,
    LogisticProbe,
    RandomMask,
    Run,
    Scratch,
    Snapshot,
    key,
)
from harness.spec.data.datasets import planned_manifest
from harness.store import Store
from harness.store.cleaning import kept_features, remove
from harness.store.snapshots import ask_for_snapshot

START = pretrain()
KNN = Knn(start=START, k=(5, 1), crop=1.0)
PROBE = LogisticProbe(start=START, crop=1.0, c=0.01)
SCRATCH = Scratch(backbone=VIT, image_size=32)


class Computer:
    """Computes runs in a store, and counts the batches that go through an encoder."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.batches = Store(root), 0
        pooled = frozen.pooled

        def counting(*args: Any) -> Tensor:
            self.batches += 1
            return pooled(*args)

        monkeypatch.setattr(frozen, "pooled", counting)
        torch.set_num_threads(1)

    def __call__(self, *runs: Run, **resources: Any) -> int:
        """Number of batches that these runs computed features of."""
        before = self.batches
        for run in runs:
            event = work(self.store, run, torch.device("cpu"), Resources(**resources), report=lambda event: None)
            assert event.kind == "done", event.text
        return self.batches - before

    def metrics(self, run: Run) -> dict[str, float]:
        result = self.store.result(key(run))
        assert result is not None
        return result.metrics

    def files(self) -> dict[str, bytes]:
        """All features that are kept, by folder."""
        return {path.parent.name: path.read_bytes() for path in self.store.root.glob(".features/*/*.f32")}

    def forget(self) -> None:
        """Delete what is kept, as `clean` does."""
        remove(kept_features(self.store))
        assert self.files() == {}


@pytest.fixture
def compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Computer]:
    before = torch.get_num_threads()
    yield Computer(tmp_path / "runs", monkeypatch)
    torch.set_num_threads(before)


def test_a_second_evaluation_makes_no_forward_pass_and_every_bit_is_as_without(
    compute: Computer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Computer(tmp_path / "without", monkeypatch)
    for run in (START, KNN, PROBE):
        whole(run)
        whole.forget()
    assert compute(START, KNN) == 2  # a batch of training images and one of test images
    kept = compute.files()
    assert sorted(map(len, kept.values())) == [4 * 32 * 32, 4 * 64 * 32]
    assert compute(PROBE) == 0
    assert compute(KNN.replace(k=3), KNN.replace(temperature=1.0), PROBE.replace(c=0.03)) == 0
    assert compute.files() == kept
    for run in (KNN, PROBE):
        assert compute.metrics(run) == whole.metrics(run)
        assert 0 < compute.metrics(run)["top1"] < 100, "else equality says nothing"
    assert compute.store.environment(key(PROBE))["train_features"] == "kept"
    assert "train_features" not in compute.store.environment(key(KNN))
    compute.forget()
    assert compute(PROBE.replace(c=0.02)) == 2
    assert compute.files() == kept


def test_what_is_kept_is_what_the_encoder_gives(compute: Computer) -> None:
    """Against the model of the weights file, applied here."""
    compute(START, KNN)
    weights = compute.store.weights(key(START))
    assert weights is not None
    model = build(VIT, image_size=32, channels=3)
    found = {name.removeprefix("encoder.model."): value for name, value in load_file(weights).items()}
    model.load_state_dict({name: found[name] for name in model.state_dict()})
    test = load(DATA, "test")
    assert isinstance(test, ImageSet)
    images = prepared(test.images, test.mean, test.std, image_size=32, crop=1.0)
    with torch.no_grad():
        wanted = Encoder(model).eval().features(images).mean(dim=(2, 3))
    (kept,) = [data for data in compute.files().values() if len(data) == 4 * 32 * 32]
    got = torch.frombuffer(bytearray(kept), dtype=torch.float32).view(32, 32)
    assert torch.allclose(got, wanted, atol=1e-5)


def test_a_damaged_file_is_computed_anew(compute: Computer) -> None:
    compute(START, KNN)
    kept, wanted = compute.files(), compute.metrics(KNN)
    for path in compute.store.root.glob(".features/*/*.f32"):
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
    again = KNN.replace(seed=1)
    assert compute(again) == 2
    assert compute.metrics(again) == wanted
    assert compute.files() == kept


@pytest.mark.parametrize(
    ("change", "batches"),
    [
        (lambda run: run.replace(crop=0.875), 2),
        (lambda run: run.replace(image_size=28), 2),
        (lambda run: run.replace(block=1), 2),
        (lambda run: run.replace(pool="token"), 2),
        (lambda run: run.replace(data=DATA.replace(train_images=48)), 1),  # the test images are the same
        (lambda run: run.replace(data=DATA.replace(seed=1)), 2),
        (lambda run: run.replace(data=DATA.replace(test=24)), 1),
        (lambda run: run.replace(start=SCRATCH, data=DATA, image_size=32), 2),
        (lambda run: run.replace(start=SCRATCH, data=DATA, image_size=32, seed=1), 2),
        (lambda run: run.replace(start=Snapshot(pretrain=START, epoch=1)), 2),
    ],
)
def test_a_changed_factor_never_meets_what_is_kept(
    compute: Computer, change: Callable[[LogisticProbe], LogisticProbe], batches: int
) -> None:
    ask_for_snapshot(compute.store, compute.store.register(START), 1)
    changed = change(PROBE)
    compute(START, PROBE, PROBE.replace(start=SCRATCH, data=DATA, seed=7))
    kept = compute.files()
    assert compute(changed) == batches
    assert len(compute.files()) == len(kept) + batches
    again = changed.replace(c=0.02)
    assert compute(again) == 0
    alone = compute.metrics(again)
    compute.forget()
    other = changed.replace(c=0.02, assumed=("the same run, computed anew",))
    assert key(other) == key(again)
    compute.store.put_result_aside(key(again))
    assert compute(other) > 0
    assert compute.metrics(other) == alone


def test_other_weights_are_other_features(compute: Computer, tmp_path: Path) -> None:
    compute(START, KNN)
    weights = compute.store.weights(key(START))
    assert weights is not None
    for number, name in enumerate(("norm.weight", "pos_embed")):
        tensors = load_file(weights)
        tensors[f"encoder.model.{name}"].flatten()[0] += 1e-3
        file = tmp_path / f"{number}.safetensors"
        save_file(tensors, file)
        assert compute(Knn(start=Checkpoint(path=str(file), backbone=VIT, image_size=32), data=DATA, crop=1.0)) == 2
    for start in (pretrain(seed=1), pretrain(mask=RandomMask(size=8, ratio=0.75))):
        assert compute(start, KNN.replace(start=start)) == 2


def test_what_a_start_leaves_to_the_seed_is_told_by_the_seed(compute: Computer, tmp_path: Path) -> None:
    """Of a file without the final norm each seed draws the same one, of a file without a matrix another one."""
    run = Knn(start=SCRATCH, data=DATA, crop=1.0)
    assert [compute(run.replace(seed=seed, k=k)) for seed, k in ((0, 1), (1, 1), (0, 2), (1, 2))] == [2, 2, 0, 0]


def test_another_size_of_batch_or_surrounding_is_computed(compute: Computer, monkeypatch: pytest.MonkeyPatch) -> None:
    compute(START, KNN)
    assert compute(KNN.replace(seed=1), micro_batch=16) == 4 + 2
    assert compute(KNN.replace(seed=2), threads=2) == 2
    assert compute(KNN.replace(seed=3)) == 0
    whole, kept = provenance.environment, compute.files()
    found = {"code": "0" * 16, "processor": "another", "versions": {"torch": "9"}, "device": "H200"}
    for seed, (name, value) in enumerate(found.items(), start=4):
        with monkeypatch.context() as patch:
            patch.setattr(provenance, "environment", lambda *args, c={name: value}: whole(*args) | c)
            assert compute(KNN.replace(seed=seed)) == 2
    kept = compute.files()
    monkeypatch.setattr(job, "_environment", lambda *args: {})
    assert compute(KNN.replace(seed=99)) == 2
    assert compute.files() == kept, "kept without a record of what computed them"


def test_pictures_of_a_folder_are_told_by_the_digest_of_the_folder(
    compute: Computer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, draw = tmp_path / "pictures", np.random.default_rng(0)

    def write(name: str) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)

    for part, count in (("train", 6), ("val", 3)):
        for index in range(2 * count):
            write(f"{part}/{'ab'[index % 2]}/{index}.png")
    monkeypatch.setenv("HARNESS_DATA_PICTURES", str(root))
    run = Knn(start=SCRATCH, data=ImageFolder(name="pictures"), image_size=32, k=1)
    assert compute(run) == 2
    assert compute(run.replace(k=2)) == 0
    write("train/a/0.png")
    planned_manifest.cache_clear()  # as each loading of a study file does
    changed = run.replace(data=ImageFolder(name="pictures"), k=3)
    assert changed.data.digest != run.data.digest
    assert compute(changed) == 2


NETWORK = """
from torch import nn

def plain(channels, image_size):
    return nn.Sequential(nn.Conv2d(channels, 8, 4, 4), nn.ReLU())
"""


def test_features_of_a_network_of_the_user_are_not_kept(
    compute: Computer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A digest covers the file of its function alone, and not what that imports."""
    (tmp_path / "own_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    own = CustomBackbone(function="own_network:plain", patch_size=4, stride=4)
    run = Knn(start=Scratch(backbone=own, image_size=32), data=DATA)
    assert compute(run, run.replace(k=1)) == 4
    assert compute.files() == {}


@pytest.mark.slow
def test_evaluations_that_a_pool_starts_at_once_compute_them_once(compute: Computer) -> None:
    compute(START)
    runs = {key(run): run for run in (KNN, PROBE)}
    local = Local(compute.store, Resources(device="cpu"), 2)
    local.submit(runs)
    drive(local)
    assert local.queue.endings.items() >= dict.fromkeys(runs, "done").items()
    notes = [compute.store.environment(name) for name in runs]
    # One of the two computed each part. Its folder may have had a second owner, who found it written once he had it.
    for part in ("train", "test"):
        assert [note.get(f"{part}_features") for note in notes].count("kept") == 1
    assert len(compute.files()) == 2
