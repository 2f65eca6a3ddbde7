"""Make tests/core/official/ anew: small checkpoints that the released SimMIM writes, and what it computes from them.

    git clone https://github.com/microsoft/SimMIM
    python tools/make_official_fixtures.py SimMIM tests/core/official

Needs torch, timm, scipy and yacs. The models are those of the checkout, with random weights; nothing of this package is
imported. Each case writes
    <case>.pth.xz  what its utils.save_checkpoint writes, without the optimiser's state: model, config (a CfgNode), ...
    <case>.npz     images, mask, loss, gradient norm and every fifth pixel of the reconstruction of a pre-training;
                   images and logits of a classifier; the relative position tables of a pre-training that its
                   utils.load_pretrained gave to a classifier of another window
Weights and images are rounded, to compress well.
Two of its imports are gone from newer libraries and are replaced: timm.models.layers, and scipy's interp2d.
"""

from __future__ import annotations

import io
import logging
import lzma
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import scipy.interpolate
import timm.layers
import torch
from yacs.config import CfgNode

PRETRAININGS: dict[str, dict[str, Any]] = {
    # windows that shrink to the map (96 px: maps of 24, 12, 6 and 3) and shifted ones
    "swin_window3": {"size": 96, "swin": {"EMBED_DIM": 4, "DEPTHS": [1, 2, 1, 1], "NUM_HEADS": [1, 2, 2, 4],
                                          "WINDOW_SIZE": 3}},
    "swin_window4": {"size": 64, "swin": {"EMBED_DIM": 6, "DEPTHS": [2, 2, 1, 1], "NUM_HEADS": [1, 2, 3, 6],
                                          "WINDOW_SIZE": 4}},
    "vit": {"size": 80, "vit": {"EMBED_DIM": 36, "DEPTH": 3, "NUM_HEADS": 3, "INIT_VALUES": 0.1}},
}  # fmt: skip
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "swin_classifier": {"size": 96, "classes": 7, "swin": PRETRAININGS["swin_window3"]["swin"]},
    "vit_classifier": {"size": 64, "classes": 7, "vit": PRETRAININGS["vit"]["vit"]},
}
REMAPPED: dict[str, tuple[str, dict[str, Any]]] = {  # a pre-training in a classifier of another window
    "swin_window3_to_4": ("swin_window3", {"size": 128, "classes": 7, "swin": {"EMBED_DIM": 4, "DEPTHS": [1, 2, 1, 1],
                                           "NUM_HEADS": [1, 2, 2, 4], "WINDOW_SIZE": 4}}),
    "vit_80_to_128": ("vit", {"size": 128, "classes": 7, "vit": PRETRAININGS["vit"]["vit"]}),
}  # fmt: skip


def interp2d(x: Any, y: Any, z: Any, kind: str) -> Any:
    """What scipy.interpolate.interp2d was on a grid."""
    assert kind == "cubic"
    spline = scipy.interpolate.RectBivariateSpline(x, y, z.T, kx=3, ky=3)
    return lambda dx, dy: spline(dx, dy).T


def released(checkout: Path) -> tuple[Any, Any, Any]:
    """The checkout's models and utils modules, and its default config."""
    sys.path.insert(0, str(checkout))
    old = types.ModuleType("timm.models.layers")
    vars(old).update({name: getattr(timm.layers, name) for name in ("DropPath", "to_2tuple", "trunc_normal_")})
    sys.modules["timm.models.layers"] = old
    scipy.interpolate.interp2d = interp2d
    import config  # type: ignore[import-not-found]
    import models  # type: ignore[import-not-found]
    import utils  # type: ignore[import-not-found]

    return models, utils, config._C


def config_of(defaults: CfgNode, case: dict[str, Any], *, pretraining: bool) -> CfgNode:
    """The config of a case."""
    config = defaults.clone()
    config.defrost()
    config.DATA.IMG_SIZE, config.DATA.MASK_PATCH_SIZE = case["size"], 16
    config.MODEL.DROP_PATH_RATE = 0.0
    if "swin" in case:
        config.MODEL.TYPE = "swin"
        config.MODEL.SWIN.merge_from_other_cfg(CfgNode({**case["swin"], "PATCH_SIZE": 4}))
    else:
        config.MODEL.TYPE = "vit"
        config.MODEL.VIT.merge_from_other_cfg(CfgNode({**case["vit"], "PATCH_SIZE": 16}))
        config.MODEL.VIT.USE_APE = False
        config.MODEL.VIT.USE_SHARED_RPB, config.MODEL.VIT.USE_RPB = pretraining, not pretraining
        config.MODEL.VIT.USE_MEAN_POOLING = not pretraining
    config.MODEL.NUM_CLASSES = case.get("classes", 0)
    config.freeze()
    return config


def perturbed(model: torch.nn.Module) -> torch.nn.Module:
    """The model with no weight left at 0 or 1, so that a name that goes astray shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05).mul_(64).round_().div_(64)
    return model


def pictures(size: int) -> torch.Tensor:
    """Two normalised images of noise."""
    return (torch.randn(2, 3, size, size) * 4).round() / 4


def save(model: torch.nn.Module, config: CfgNode, path: Path) -> None:
    """As the checkout's save_checkpoint, without what belongs to the optimiser."""
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "max_accuracy": 0.0, "epoch": 0, "config": config}, file)
    path.write_bytes(lzma.compress(file.getvalue(), preset=9))


def pretraining(models: Any, config: CfgNode, stem: Path) -> Any:
    """Write one pre-training."""
    model: Any = perturbed(models.build_model(config, is_pretrain=True)).eval()
    size, patch = config.DATA.IMG_SIZE, model.patch_size
    images = pictures(size)
    units = torch.rand(2, size // 16, size // 16) < 0.6
    mask = units.repeat_interleave(16 // patch, 1).repeat_interleave(16 // patch, 2).long()
    loss = model(images, mask)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    with torch.no_grad():
        made = model.decoder(model.encoder(images, mask))
    save(model, config, stem.with_suffix(".pth.xz"))
    np.savez_compressed(
        stem.with_suffix(".npz"), images=images.numpy(), mask=mask.bool().numpy(), loss=loss.item(),
        grad_norm=norm.item(), reconstruction=made[..., ::5, ::5].numpy(),
    )  # fmt: skip
    return model


def classifier(models: Any, config: CfgNode, stem: Path) -> None:
    """Write one classifier."""
    model = perturbed(models.build_model(config, is_pretrain=False)).eval()
    images = pictures(config.DATA.IMG_SIZE)
    with torch.no_grad():
        logits = model(images)
    save(model, config, stem.with_suffix(".pth.xz"))
    np.savez_compressed(stem.with_suffix(".npz"), images=images.numpy(), logits=logits.numpy())


def remapped(models: Any, utils: Any, config: CfgNode, source: Path, stem: Path) -> None:
    """Write the tables of a classifier that began with a pre-training's weights."""
    torch_load = torch.load
    torch.load = lambda *given, **named: torch_load(*given, **{**named, "weights_only": False})  # its own file
    model = models.build_model(config, is_pretrain=False)
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        file.write(lzma.decompress(source.read_bytes()))
        file.flush()
        config.defrost()
        config.PRETRAINED = file.name
        utils.load_pretrained(config, model, logging.getLogger("released"))
    torch.load = torch_load
    tables = {name: tensor.numpy() for name, tensor in model.state_dict().items() if name.endswith("bias_table")}
    np.savez_compressed(stem.with_suffix(".npz"), **tables)


def main(checkout: Path, out: Path) -> None:
    """Write all cases."""
    models, utils, defaults = released(checkout)
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for seed, (name, case) in enumerate({**PRETRAININGS, **CLASSIFIERS}.items()):
        torch.manual_seed(seed)
        config = config_of(defaults, case, pretraining=name in PRETRAININGS)
        write = pretraining if name in PRETRAININGS else classifier
        write(models, config, out / name)
    for name, (source, case) in REMAPPED.items():
        config = config_of(defaults, case, pretraining=False)
        remapped(models, utils, config, out / f"{source}.pth.xz", out / name)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
