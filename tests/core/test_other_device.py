"""Runs of every kind keep their tensors on their device, from the first batch to the files that they leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from other_device import DEVICE, Distant, played
from safetensors.torch import load_file
from test_backbones import CONVNEXT, RESNET
from test_scene_files import write_coco, write_masks
from tiny import BINS, CLASSES, CLUSTERS, DATA, INVERSE, MAE, RECIPE, SWIN, SWIN_V2, VIT, WORDS, pretrain

from harness.core.runtime.session import Interrupted, Session
from harness.runs import compute
from harness.spec import (
    Augment,
    BlockMask,
    Contrastive,
    Corruption,
    DecoderHead,
    Detect,
    FineTune,
    Fourier,
    Fpn,
    FrequencyMask,
    GuidedMask,
    HogTarget,
    Interactions,
    Knn,
    LinearMap,
    LinearProbe,
    LocalMask,
    LogisticProbe,
    Loss,
    LossPredictor,
    MomentumEncoder,
    MomentumTarget,
    Occlusion,
    Pretrain,
    RgbStatistics,
    Run,
    Scratch,
    Segment,
    Shapes,
    SimplePyramid,
    Slide,
    UPerNet,
    key,
)
from harness.store import Attempt, Store

SHORT = RECIPE.replace(epochs=1)
SMALL = DATA.replace(train=16, test=8)
SCENES = Shapes(image_size=32, train=8, test=4)
FOLDERS = RECIPE.replace(epochs=1, batch_size=4, augment=Augment(crop_scale=(1.0, 1.0), flip=0.5))
UPER = UPerNet(width=8, pools=(1, 2))
STRONG = Augment(rand_augment="rand-m9-mstd0.5-inc1", erasing=0.25, mixup=0.8, cutmix=1.0)
STARTS = {name: Scratch(backbone=it, image_size=32) for name, it in
          {"vit": VIT, "swin": SWIN, "convnext": CONVNEXT, "resnet": RESNET}.items()}  # fmt: skip
TUNED = FineTune(start=STARTS["vit"], data=SMALL, recipe=SHORT, image_size=32)


def learnt(**changes: Any) -> Pretrain:
    return pretrain(**{"data": SMALL, "recipe": SHORT, **changes})


def segment(of: str = "vit", **changes: Any) -> Run:
    return Segment(**{"start": STARTS[of], "data": SCENES, "recipe": SHORT.replace(batch_size=4), **changes})


def detect(of: str = "vit", **changes: Any) -> Run:
    values: dict[str, Any] = {"start": STARTS[of], "data": SCENES, "recipe": SHORT.replace(batch_size=4), "rois": 16}
    return Detect(**{**values, "pyramid": SimplePyramid(width=16), **changes})


RUNS: dict[str, Callable[[], Run]] = {
    "vit": learnt,
    "swin": lambda: learnt(backbone=SWIN, head=INVERSE),
    "swinv2": lambda: learnt(backbone=SWIN_V2),
    "resnet": lambda: learnt(backbone=RESNET, corruption=Corruption(fill="image-mean")),
    "mae": lambda: learnt(**MAE),
    "contrastive": lambda: learnt(contrastive=Contrastive(), momentum=MomentumEncoder()),
    "guided": lambda: learnt(mask=GuidedMask(size=8, ratio=0.5), momentum=MomentumEncoder()),
    "loss predictor": lambda: learnt(loss_predictor=LossPredictor(decoder=DecoderHead(depth=1, width=16, heads=2))),
    "blocks": lambda: learnt(mask=BlockMask(size=4, ratio=0.5)),
    "local": lambda: learnt(mask=LocalMask(size=4, ratio=0.5, window=4)),
    "frequencies": lambda: learnt(mask=FrequencyMask(radius=4), loss=Loss(scope="full")),
    "hog": lambda: learnt(target=HogTarget(cell=2, window=4), loss=Loss(kind="l2")),
    "bins": lambda: learnt(target=BINS, loss=CLASSES),
    "clusters": lambda: learnt(target=CLUSTERS, loss=CLASSES),
    "momentum": lambda: learnt(
        target=MomentumTarget(width=32, downsample=4, blocks=1), momentum=MomentumEncoder(), loss=Loss(kind="l2")
    ),
    "words": lambda: learnt(target=WORDS, loss=CLASSES),
    "fine-tuning": lambda: TUNED.replace(start=STARTS["swin"], recipe=SHORT.replace(augment=STRONG)),
    "linear probe": lambda: LinearProbe(start=STARTS["vit"], data=SMALL, recipe=SHORT),
    "logistic probe": lambda: LogisticProbe(start=STARTS["vit"], data=SMALL),
    "k-NN": lambda: Knn(start=STARTS["vit"], data=SMALL),
    "segmentation, vit": lambda: segment(head=UPER),
    "segmentation, swin": lambda: segment("swin", head=UPER, test=Slide(stride=16)),
    "segmentation, convnext": lambda: segment("convnext", head=UPER),
    "segmentation, resnet": lambda: segment("resnet", head=UPER, frozen=True),
    "detection, vit": detect,
    "detection, swin": lambda: detect("swin", pyramid=Fpn(width=16)),
    "detection, convnext": lambda: detect("convnext", pyramid=Fpn(width=16)),
    "interactions": lambda: Interactions(start=TUNED, images=2, grid=4, orders=(0.0, 0.5), pairs=2, contexts=2),
    "occlusion": lambda: Occlusion(start=TUNED, size=4, ratios=(0.0, 0.5), draws=2),
    "fourier": lambda: Fourier(start=STARTS["vit"], data=SMALL, images=8),
    "colours": lambda: RgbStatistics(start=learnt(), images=8, masks=2, bins=8),
}


def compute_there(run: Run, store: Store, device: torch.device = DEVICE, **options: Any) -> None:
    attempt = store.acquire(run)
    assert isinstance(attempt, Attempt)
    try:
        with played():
            compute(run, Session(attempt, device, **options))
    finally:
        attempt.release()


def computed(run: Run, folder: Path) -> dict[str, float]:
    """Metrics of a run that is computed on the device, after what it starts from."""
    store = Store(folder)
    if isinstance(start := getattr(run, "start", None), Pretrain | FineTune):
        compute_there(start, store)
    compute_there(run, store)
    result = store.result(key(run))
    assert result is not None
    return result.metrics


@pytest.mark.parametrize("name", RUNS)
def test_a_run_ends_on_another_device(name: str, tmp_path: Path) -> None:
    assert computed(RUNS[name](), tmp_path)


@pytest.mark.parametrize(
    ("run", "micro_batch"),
    [
        (learnt(data=DATA, mask=GuidedMask(size=8, ratio=0.5), momentum=MomentumEncoder()), 4),
        (segment("swin", head=LinearMap(), data=SCENES.replace(train=16)), None),
    ],
    ids=["pre-training", "segmentation"],
)
def test_a_run_that_stops_and_goes_on_there_has_the_weights_of_the_cpu(
    run: Run, micro_batch: int | None, tmp_path: Path
) -> None:
    stop = iter([False, True])
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    compute_there(run, here, torch.device("cpu"))
    with pytest.raises(Interrupted):
        compute_there(run, there, stopping=lambda: next(stop), micro_batch=micro_batch, recompute=True)
    compute_there(run, there, micro_batch=micro_batch, recompute=True)
    ours, theirs = (load_file(store.weights(key(run)) or "") for store in (there, here))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_folders_of_scenes_are_evaluated_on_another_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA_ADE", str(tmp_path / "ade"))
    monkeypatch.setenv("HARNESS_DATA_COCO", str(tmp_path / "coco"))
    masks, objects = write_masks(tmp_path / "ade"), write_coco(tmp_path / "coco")
    start = Scratch(backbone=VIT, image_size=48)
    assert computed(segment(start=start, data=masks, head=LinearMap(), recipe=FOLDERS), tmp_path / "runs")
    assert computed(detect(start=start, data=objects, recipe=FOLDERS), tmp_path / "runs")


def test_tensors_of_the_device_do_not_mix_with_those_of_the_cpu() -> None:
    with played():
        there, here = torch.arange(6.0, device=DEVICE), torch.arange(6.0)
        assert isinstance(there * 2, Distant)
        assert (there * torch.tensor(2.0)).tolist() == [0, 2, 4, 6, 8, 10]
        assert there[torch.tensor([1, 3])].cpu().numpy().tolist() == [1, 3]
        for mixed in (torch.add, torch.dot, torch.hypot):
            with pytest.raises(RuntimeError, match="on the device and on the CPU"):
                mixed(there, here)
        with pytest.raises(TypeError, match="to numpy"):
            there.numpy()
