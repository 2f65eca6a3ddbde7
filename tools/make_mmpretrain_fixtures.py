"""Make tests/core/mmpretrain/ anew: small checkpoints of mmpretrain's own modules, and what they compute.

    git clone https://github.com/open-mmlab/mmpretrain
    python tools/make_mmpretrain_fixtures.py mmpretrain tests/core/mmpretrain

Needs torch, mmengine and mmcv-lite. Nothing of this package is imported. Each case writes
    <case>.pth.xz  as mmengine saves it: state_dict and meta
    <case>.npz     images, mask, loss and every fifth pixel of the reconstruction of a pre-training;
                   images and logits of a classifier
Weights and images are rounded, to compress well. What only serves mmpretrain's model zoo need not be installed.
"""

from __future__ import annotations

import io
import lzma
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

ARCH: dict[str, Any] = {"embed_dims": 4, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 4]}
# 96 px gives maps of 24, 12, 6 and 3: windows of 5 are padded everywhere, the smallest map to a whole window. No window
# is shifted: timm shifts before it pads, mmpretrain pads before it shifts.
PADDED = {
    "arch": {**ARCH, "depths": [1, 1, 1, 1]},
    "img_size": 96,
    "pad_small_map": True,
    "stage_cfgs": {"block_cfgs": {"window_size": 5}},
}
# windows of 3 divide every map, and are shifted
SHIFTED = {"arch": ARCH, "img_size": 96, "stage_cfgs": {"block_cfgs": {"window_size": 3}}}


def perturbed(model: torch.nn.Module) -> torch.nn.Module:
    """The model with no weight left at 0 or 1, so that a name that goes astray shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(((parameter + torch.randn_like(parameter) * 0.05) * 64).round() / 64)
    return model.eval()


def save(model: torch.nn.Module, stem: Path, **arrays: Any) -> None:
    """Write a checkpoint and its arrays."""
    file = io.BytesIO()
    torch.save({"meta": {"epoch": 1, "iter": 2}, "state_dict": model.state_dict()}, file)
    stem.with_suffix(".pth.xz").write_bytes(lzma.compress(file.getvalue(), preset=9))
    np.savez_compressed(stem.with_suffix(".npz"), **arrays)


@torch.no_grad()
def pretraining(models: Any, backbone: dict[str, Any], stem: Path) -> None:
    """Write one pre-training."""
    model = models.SimMIM(
        backbone={"type": "SimMIMSwinTransformer", "drop_path_rate": 0.0, **backbone},
        neck={"type": "SimMIMLinearDecoder", "in_channels": 8 * ARCH["embed_dims"], "encoder_stride": 32},
        head={"type": "SimMIMHead", "patch_size": 4, "loss": {"type": "PixelReconstructionLoss", "criterion": "L1",
                                                              "channel": 3}},
    )  # fmt: skip
    perturbed(model)
    images = (torch.randn(1, 3, 96, 96) * 4).round() / 4
    mask = (torch.rand(1, 6, 6) < 0.6).repeat_interleave(4, 1).repeat_interleave(4, 2)
    made = model.neck(model.backbone(images, mask)[0])
    loss = model.head.loss(made, images, mask)
    save(model, stem, images=images, mask=mask, loss=loss, reconstruction=made[..., ::5, ::5])


@torch.no_grad()
def classifier(models: Any, backbone: dict[str, Any], stem: Path) -> None:
    """Write one classifier."""
    model = models.ImageClassifier(
        backbone={"type": "SwinTransformer", "drop_path_rate": 0.0, **backbone},
        neck={"type": "GlobalAveragePooling"},
        head={"type": "LinearClsHead", "num_classes": 7, "in_channels": 8 * ARCH["embed_dims"]},
    )
    perturbed(model)
    images = (torch.randn(1, 3, 96, 96) * 4).round() / 4
    save(model, stem, images=images, logits=model(images, mode="tensor"))


def main(checkout: Path, out: Path) -> None:
    """Write all cases."""
    for name in ("modelindex", "modelindex.load_model_index", "modelindex.models", "modelindex.models.Model", "mat4py"):
        sys.modules[name] = MagicMock()
    sys.path.insert(0, str(checkout))
    import mmpretrain.models as models

    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pretraining(models, SHIFTED, out / "swin_window3")
    pretraining(models, PADDED, out / "swin_window5_padded")
    classifier(models, SHIFTED, out / "swin_classifier")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
