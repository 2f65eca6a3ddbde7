"""The ordinary research loop, to measure against: masked-image-modelling as it is usually written, and nothing better.

Run  python tests/bench/research_loop.py swin-b [--batch 128] [--steps 50]     # images a second
     python tests/bench/research_loop.py small --table [--ratio 0.6]                        # one cell of a table

Each sample is cropped by torchvision's transforms of PIL images and masked by NumPy in a DataLoader worker; masks are
int64; AdamW is not fused, nothing is compiled; convolutions have torch's usual layout; the loss is read by `.item()`
and the device is waited for in every step, as loops do that print it. Models are timm's, in autocast to bf16 on a GPU.

With synthetic input (the default) images and masks are made once and stay on the device, so that only the step itself
is timed. `--table` trains a cell of a table from pictures: pre-training, then fine-tuning, in this one process; a table
is one such process a cell, one after the other.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != HERE]  # torch imports another queue.py

import numpy as np  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from PIL import Image  # noqa: E402
from timm.layers.config import set_fused_attn  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from torchvision import transforms  # noqa: E402

WARM_STEPS = 6
MODELS = ("swin-b", "vit-b", "r50", "small")
SIDE = {"swin-b": 192, "vit-b": 224, "r50": 224, "small": 96}
UNIT = {"swin-b": 32, "vit-b": 32, "r50": 32, "small": 16}
STRIDE = {"swin-b": 32, "vit-b": 16, "r50": 32, "small": 16}
CHANNELS = {"small": 1}
SMALL_SWIN: dict[str, Any] = {
    "embed_dim": 32,
    "depths": (1, 1, 2, 1),
    "num_heads": (1, 2, 4, 8),
    "window_size": 6,
    "patch_size": 2,
}
TINY: dict[str, dict[str, Any]] = {  # for trying this script out
    "swin-b": {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
    "vit-b": {"embed_dim": 32, "depth": 2, "num_heads": 2},
    "r50": {"layers": (1, 1, 1, 1)},
    "small": {"embed_dim": 8},
}


def encoder(model: str, classes: int, *, tiny: bool) -> Any:
    """A timm model as the papers configure it."""
    small, channels = TINY[model] if tiny else {}, CHANNELS.get(model, 3)
    match model:
        case "swin-b":
            args = {"img_size": 192, "window_size": 6} | small
            return timm.create_model("swin_base_patch4_window7_224", num_classes=classes, in_chans=channels, **args)
        case "small":
            args = {"img_size": 96} | SMALL_SWIN | small
            return timm.create_model("swin_tiny_patch4_window7_224", num_classes=classes, in_chans=channels, **args)
        case "vit-b":
            shared = {"use_shared_rel_pos_bias": True, "use_rel_pos_bias": False, "drop_path_rate": 0.1} | small
            return timm.create_model("beit_base_patch16_224", num_classes=classes, **shared)
        case "r50":
            name = "resnet50"
            if tiny:
                block: Any = timm.models.resnet.Bottleneck  # declared as an instance
                return timm.models.resnet.ResNet(block=block, num_classes=classes, **small)
            return timm.create_model(name, num_classes=classes)
        case _:
            raise ValueError(model)


class SimMIM(nn.Module):
    """Mask token in place of hidden tokens, encoder, one convolution that predicts pixels, l1 over hidden ones."""

    def __init__(self, model: str, *, tiny: bool = False) -> None:
        super().__init__()
        self.kind, self.side, self.stride = model, SIDE[model], STRIDE[model]
        self.net = encoder(model, 0, tiny=tiny)
        self.channels = CHANNELS.get(model, 3)
        width = self.net.num_features
        token = {"r50": 64}.get(model) or (width if model == "vit-b" else width // 8)
        self.mask_token = nn.Parameter(torch.zeros(token))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.decoder = nn.Sequential(nn.Conv2d(width, self.stride**2 * self.channels, 1), nn.PixelShuffle(self.stride))

    def _hide(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: [B, h, w, C]; mask: int64 [B, units, units], 1 = hidden."""
        times = x.shape[1] // mask.shape[1]
        shown = mask.repeat_interleave(times, 1).repeat_interleave(times, 2).unsqueeze(-1).type_as(x)
        return x * (1.0 - shown) + self.mask_token.type_as(x) * shown

    def features(self, images: Tensor, mask: Tensor) -> Any:
        """The encoder's last maps, [B, C, h, w]."""
        net = self.net
        if self.kind in ("swin-b", "small"):
            x = self._hide(net.patch_embed(images), mask)
            return net.norm(net.layers(x)).permute(0, 3, 1, 2)
        if self.kind == "vit-b":
            x = net.patch_embed(images)
            side = int(x.shape[1] ** 0.5)
            x = self._hide(x.view(len(x), side, side, -1), mask).flatten(1, 2)
            x = torch.cat((net.cls_token.expand(len(x), -1, -1), x), dim=1)
            bias = net.rel_pos_bias() if net.rel_pos_bias is not None else None
            for block in net.blocks:
                x = block(x, shared_rel_pos_bias=bias)
            return net.norm(x)[:, 1:].transpose(1, 2).reshape(len(x), -1, side, side)
        x = net.maxpool(net.act1(net.bn1(net.conv1(images))))
        x = self._hide(x.permute(0, 2, 3, 1), mask).permute(0, 3, 1, 2)
        return net.layer4(net.layer3(net.layer2(net.layer1(x))))

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        predicted = self.decoder(self.features(images, mask))
        unit = self.side // mask.shape[1]
        hidden = mask.repeat_interleave(unit, 1).repeat_interleave(unit, 2).unsqueeze(1).contiguous()
        error = F.l1_loss(images, predicted, reduction="none")
        return (error * hidden).sum() / (hidden.sum() + 1e-5) / self.channels


def random_mask(units: int, ratio: float) -> np.ndarray:
    """Mask of one image, int64 [units, units], 1 = hidden."""
    mask = np.zeros(units**2, dtype=int)
    mask[np.random.permutation(units**2)[: int(np.ceil(units**2 * ratio))]] = 1  # noqa: NPY002
    return mask.reshape(units, units)


def optimiser(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """AdamW with decay of matrices only, as torch makes it unless told otherwise."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999))


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


class Loop:
    """Model, optimiser, loss scaler and the step that every loop of this kind has."""

    def __init__(self, model: nn.Module, device: torch.device, lr: float, *, low: bool) -> None:
        self.model, self.device, self.low = model.to(device).train(), device, low
        self.optimiser = optimiser(self.model, lr)
        self.scaler = torch.amp.GradScaler(device.type, enabled=False)  # bf16 needs none

    def step(self, loss_of: Any) -> float:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.low):
            loss = loss_of(self.model)
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        wait(self.device)
        return float(loss.item())


def timed(model: str, device: torch.device, *, batch: int, steps: int, tiny: bool = False) -> dict[str, Any]:
    """Images a second with input tensors that are made once."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    loop = Loop(SimMIM(model, tiny=tiny), device, 1e-4, low=device.type == "cuda")
    side, units = SIDE[model], SIDE[model] // UNIT[model]
    images = torch.randn(batch, CHANNELS.get(model, 3), side, side, device=device)
    masks = torch.from_numpy(np.stack([random_mask(units, 0.6) for _ in range(batch)])).to(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begun, loss = time.perf_counter(), 0.0
    for number in range(WARM_STEPS + steps):
        loss = loop.step(partial(reconstruction, images, masks))
        if number == WARM_STEPS - 1:
            begun = time.perf_counter()
    seconds = time.perf_counter() - begun
    return {
        "batch": batch,
        "steps": steps,
        "seconds": seconds,
        "images_per_second": batch * steps / seconds,
        "peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else 0,
        "loss": loss,
    }


class Pictures(Dataset[tuple[Tensor, np.ndarray, int]]):
    """Pictures of the packaged subset of Fashion-MNIST, each transformed and masked by itself."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, side: int, ratio: float, units: int) -> None:
        self.images, self.labels, self.ratio, self.units = images, labels, ratio, units
        self.transform = transforms.Compose([
            transforms.RandomResizedCrop(side, scale=(0.67, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.286,), (0.353,)),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, np.ndarray, int]:
        picture = self.transform(Image.fromarray(self.images[index]))
        return picture, random_mask(self.units, self.ratio), int(self.labels[index])


def batches(data: Pictures, size: int, epochs: int, workers: int) -> Iterator[Any]:
    loader = DataLoader(
        data, batch_size=size, shuffle=True, num_workers=workers, pin_memory=torch.cuda.is_available(), drop_last=True
    )
    for _ in range(epochs):
        yield from loader


def reconstruction(images: Tensor, masks: Tensor, net: nn.Module) -> Tensor:
    """Loss of a pre-training."""
    return net(images, masks)  # type: ignore[no-any-return]


def classification(images: Tensor, labels: Tensor, net: nn.Module) -> Tensor:
    """Loss of a fine-tuning."""
    return F.cross_entropy(net(images).float(), labels)


def cell(
    device: torch.device, *, count: int, ratio: float, workers: int, epochs: int, tuned: int, tiny: bool
) -> dict[str, Any]:
    """One cell of a table at scale `small`: pre-trained on pictures of 96 px, fine-tuned on 1,000 labels."""
    from importlib.resources import files

    begun = time.perf_counter()
    with (files("harness.core.data") / "files" / "fashion_mnist_mini.npz").open("rb") as file:
        held = dict(np.load(file))
    images = next(array for array in held.values() if array.ndim >= 3 and len(array) >= 10_000)
    labels = next(array for array in held.values() if array.ndim == 1 and len(array) == len(images))
    images, labels = images.reshape(len(images), 28, 28)[:count], labels[:count]
    low, side, units = device.type == "cuda", SIDE["small"], SIDE["small"] // UNIT["small"]
    pretraining = Loop(SimMIM("small", tiny=tiny), device, 2e-3, low=low)
    for pictures, masks, _ in batches(Pictures(images, labels, side, ratio, units), 128, epochs, workers):
        loss = pretraining.step(partial(reconstruction, pictures.to(device), masks.to(device)))
    classifier = encoder("small", 10, tiny=tiny)
    classifier.load_state_dict(pretraining.model.get_submodule("net").state_dict(), strict=False)
    tuning = Loop(classifier, device, 2e-3, low=low)
    for pictures, _, names in batches(Pictures(images[:1000], labels[:1000], side, ratio, units), 100, tuned, workers):
        loss = tuning.step(partial(classification, pictures.to(device), names.to(device)))
    return {"seconds": time.perf_counter() - begun, "loss": loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--attention", choices=("fused", "written-out"), default="fused", help="timm's, or as released")
    parser.add_argument("--tiny", action="store_true", help="models of toy size")
    parser.add_argument("--table", action="store_true", help="a cell of a table, from pictures")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--ratio", type=float, default=0.6)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--tuned", type=int, default=30)
    given = parser.parse_args()
    device = torch.device(given.device)
    set_fused_attn(given.attention == "fused")
    if given.table:
        found = cell(
            device,
            count=given.images,
            ratio=given.ratio,
            workers=given.workers,
            epochs=given.epochs,
            tuned=given.tuned,
            tiny=given.tiny,
        )
    else:
        found = timed(given.model, device, batch=given.batch, steps=given.steps, tiny=given.tiny)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
