"""Running the command line inside the test process, and small projects to run it on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

FILE = '''"""Two ratios and a control."""

from harness import Augment, Backbone, FineTune, RandomMask, Recipe, Scale, Scratch, Shapes, Skip, Study, axes, simmim

RECIPE = Recipe(epochs=1, batch_size=16, lr=1e-3, lr_batch=None, augment=Augment(crop_scale=(0.67, 1.0)))
VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 16, "depth": 1, "num_heads": 2}, patch_size=4)
DATA = Shapes(image_size=16, train=32, test=16)


def sized(name, data=DATA):
    return Scale(name=name, data=data, image_size=16, backbone=VIT, pretrain=RECIPE, finetune=RECIPE)


def cell(scale, mask, ratio, seed):
    if mask == "none":
        start = Scratch(backbone=scale.backbone, image_size=scale.image_size)
    elif ratio == 0.9:
        raise Skip("0.9 is too much")
    else:
        start = simmim(scale, mask=RandomMask(size=4, ratio=ratio), seed=seed)
    return {"top1": FineTune(start=start, data=scale.data, recipe=scale.finetune, seed=seed)}


STUDY = Study(
    cell=cell,
    grid=axes(mask="random", ratio=(0.5, 0.75, 0.9)) | axes(mask="none"),
    scales=(sized("small"), sized("large", DATA.replace(train=48))),
    reference={"mask": "random", "ratio": 0.5},
    seeds=2,
)
'''


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call `harness ...` as the entry point does, in this process; what it changes is put back."""
    from harness.cli import main

    def call(*arguments: object) -> Ended:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["harness", *map(str, arguments)])
            patch.setattr(sys, "path", list(sys.path))
            patch.setenv("HARNESS_PROJECT", "")
            capsys.readouterr()
            try:
                with pytest.raises(SystemExit) as ended:
                    main()
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        out, err = capsys.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return call


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one small study, studies/ratios.py."""
    root = tmp_path / "project"
    (root / "studies").mkdir(parents=True)
    (root / "harness.toml").touch()
    (root / "studies" / "ratios.py").write_text(FILE)
    return root


@pytest.fixture
def study(project: Path) -> Path:
    """The path of that study."""
    return project / "studies" / "ratios.py"


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its content, and every empty folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path.is_file() or not os.listdir(path)
    }
