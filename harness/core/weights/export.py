"""Export of weights for other programs: safetensors that timm loads, or a file as the released SimMIM saves it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, assert_never

import torch
from safetensors.torch import save
from timm.models.beit import Beit
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from harness.core.model.encoder import Family, build, timm_arguments
from harness.core.weights.finished_run import Trained, notes_of
from harness.core.weights.formats import BUFFERS, Weights, to_official
from harness.spec import CustomBackbone, FineTune, HarnessError, LinearHead, PixelTarget, Pretrain
from harness.store.files import write_atomically

ExportFormat = Literal["timm", "official"]
NO_HEAD = "the prediction head is left out: the released code has a linear one at full resolution only"
SUFFIXES: dict[ExportFormat, str] = {"timm": ".safetensors", "official": ".pth"}


@dataclass(frozen=True)
class Exported:
    """An exported file.

    model, arguments: name and keyword arguments of `timm.create_model` for the model in the file, which is then
        configured for images as the run's test images are: `timm.data.resolve_model_data_config` gives their size,
        crop, mean and deviation.
    notes: sentences on parts that were left out.
    """

    path: Path
    format: ExportFormat
    model: str
    arguments: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def call(self) -> str:
        """Python expression that builds the model; in format timm it loads the file's weights."""
        given = {"pretrained": False, "checkpoint_path": str(self.path), **self.arguments}
        # timm reads its own names only.
        if self.format != "timm":
            del given["checkpoint_path"]
        return f"timm.create_model({', '.join([repr(self.model), *(f'{k}={v!r}' for k, v in given.items())])})"


def export(trained: Trained, path: Path, form: ExportFormat) -> Exported:
    """Export a trained encoder or classifier to a file.

    timm: a pre-training's encoder, or a classifier. official: names of microsoft/SimMIM, for a pre-training with mask
    token and prediction head, in the entry `model` of a torch file; it includes the buffers of its modules, as its
    loading is strict.

    Raises:
        HarnessError: wrong file suffix, no such model in the released code, or the file cannot be written.
    """
    if path.suffix != SUFFIXES[form]:
        raise HarnessError(f"a file of format {form} ends in {SUFFIXES[form]}, not as {path.name} does")
    run = trained.run
    backbone, pool = run.built, run.pool if isinstance(run, FineTune) else ""
    if isinstance(backbone, CustomBackbone):
        raise HarnessError(
            f"{trained.name} is a network of your own, which no other program builds; its weights are in the run's "
            "folder, named `encoder.model.body.` or `body.` and as in your module"
        )
    sizes: dict[str, Any] = {
        "image_size": run.image_size,
        "channels": trained.facts.channels,
        "num_classes": trained.num_classes,
        "pool": pool,
    }
    # With a drop path of 0 stated: timm's own default for a Swin is 0.1.
    arguments = {**timm_arguments(backbone, **sizes), "pretrained_cfg_overlay": _data_config(trained)}
    match form:
        case "timm":
            data = save(_own(trained.weights.encoder), {"format": "pt", **notes_of(trained)})
        case "official":
            data = _official(trained, build(backbone, **sizes))
        case _:
            assert_never(form)
    write_atomically(path, data)
    left_out = form == "official" and not _has_official_head(run)
    return Exported(path, form, backbone.name, arguments, (NO_HEAD,) if left_out else ())


def _data_config(trained: Trained) -> dict[str, Any]:
    """Entries of timm's `pretrained_cfg` by which test images are prepared: those of the run, not the model's own."""
    run, facts = trained.run, trained.facts
    size = run.tested_size if isinstance(run, FineTune) else run.image_size
    return {
        "input_size": (facts.channels, size, size),
        "mean": facts.mean,
        "std": facts.std,
        # A pre-training is not tested; its evaluations crop by default as a fine-tuning does.
        "crop_pct": run.crop if isinstance(run, FineTune) else FineTune.model_fields["crop"].default,
        "crop_mode": "center",
        "interpolation": "bicubic",
    }


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors laid out contiguously, since safetensors stores no strides."""
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _has_official_head(run: Pretrain | FineTune) -> bool:
    return isinstance(run, FineTune) or (
        isinstance(run.head, LinearHead) and isinstance(run.target, PixelTarget) and run.target.downsample == 1
    )


def _official(trained: Trained, model: Family) -> bytes:
    """A torch file with the released SimMIM's names. model: built from the run's spec, for its buffers."""
    if not isinstance(model, Beit | SwinTransformer):
        raise HarnessError(
            f"the released SimMIM has a Swin and a BEiT-like ViT, no {type(model).__name__}; valid format: timm"
        )
    weights, pretraining = trained.weights, isinstance(trained.run, Pretrain)
    buffers = {name: buffer for name, buffer in model.named_buffers() if name.rpartition(".")[2] in BUFFERS}
    head = weights.head if _has_official_head(trained.run) else {}
    named = to_official(Weights({**weights.encoder, **buffers}, weights.mask_token, head), pretraining=pretraining)
    file = io.BytesIO()
    torch.save({"model": _own(named), "harness": notes_of(trained)}, file)
    return file.getvalue()
