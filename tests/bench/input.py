"""Images a second of a folder's loader, in pairs with the ordinary PIL + torchvision v2 loader on the same files.

    python tests/bench/input.py [--rounds 15] [--save]

JPEGs like photographs of 500 x 375 are made (amplitudes falling with the frequency, quality 90). In every round each
arm prepares the same images for training at 192 px, one arm after the other in one process, in batches of 64 without
loader workers, from file to normalised float32; read as CPU time of the process. A ratio is the peer's time over
the arm's in the same round. Aims: PIL 1.0, torchvision 1.3, a pack of 256 px with crops on the CPU 5, read alone 20.
`--save` writes results/bench/input.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.io import read_file
from torchvision.transforms import v2

from harness.core.data.batches import training_batches
from harness.core.data.datasets import FolderSet, load
from harness.core.data.pack import opened
from harness.core.data.packing import pack
from harness.spec import Augment, ImageFolder
from harness.spec.data.datasets import planned_manifest

SIZE, BATCH, IMAGES = 192, 64, 128
AIMS = {"PIL": 1.0, "torchvision": 1.3, "pack 256 px, torchvision": 5.0, "pack 256 px, read alone": 20.0}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROOT = Path(__file__).resolve().parents[2]


def photograph(number: int) -> Image.Image:
    """Noise with the spectrum of natural images, its colours correlated as theirs are, 500 x 375."""
    draw = np.random.default_rng(number)
    rows, columns = np.fft.fftfreq(375)[:, None], np.fft.rfftfreq(500)[None]
    falling = 1 / np.maximum(np.hypot(rows, columns), 1 / 500)
    layers = [np.fft.irfft2(np.fft.rfft2(draw.normal(size=(375, 500))) * falling, s=(375, 500)) for _ in range(3)]
    light, *colour = (layer / layer.std() for layer in layers)
    channels = [light + 0.3 * colour[0], light, light + 0.3 * colour[1]]
    return Image.fromarray(np.stack([60 * channel + 120 for channel in channels], -1).clip(0, 255).astype(np.uint8))


class Ordinary(Dataset[torch.Tensor]):
    """What a training script does: a file opened by PIL or decoded by torchvision, and transforms v2."""

    def __init__(self, paths: tuple[Path, ...], *, by_pil: bool) -> None:
        self.paths, self.by_pil = paths, by_pil
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(SIZE, scale=(0.67, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.by_pil:
            with Image.open(self.paths[index]) as file:
                tensor: torch.Tensor = self.transform(file.convert("RGB"))
        else:
            tensor = self.transform(torch.ops.image.decode_jpeg(read_file(str(self.paths[index])), 3, False))
        return tensor


def ordinary(paths: tuple[Path, ...], *, by_pil: bool) -> Callable[[int], None]:
    """An arm: a call prepares all images once."""

    def once(number: int) -> None:
        del number
        for _ in DataLoader(Ordinary(paths, by_pil=by_pil), BATCH, shuffle=True):
            pass

    return once


def ours(source: FolderSet) -> Callable[[int], None]:
    """An arm: a call prepares all images once, with the draws of another step each time."""
    steps = len(source) // BATCH

    def once(number: int) -> None:
        batches: Iterator[object] = training_batches(
            source, Augment(), image_size=SIZE, batch_size=BATCH, seed=0, first_step=number * steps,
            steps=(number + 1) * steps, device=torch.device("cpu"),
        )  # fmt: skip
        for _ in batches:
            pass

    return once


def read_alone(path: Path) -> Callable[[int], None]:
    """An arm: a call copies all squares of a pack once, in batches, in another order each time."""
    squares = opened(path).squares()

    def once(number: int) -> None:
        order = torch.randperm(len(squares), generator=torch.Generator().manual_seed(number))
        for part in order[:IMAGES].split(BATCH):
            squares[part]

    return once


def located(place: Path, **fields: Any) -> FolderSet:
    """The training images of the folder or pack at a place."""
    os.environ["HARNESS_DATA_PHOTOGRAPHS"] = str(place)
    planned_manifest.cache_clear()
    load.cache_clear()
    source = load(ImageFolder(name="photographs", **fields), "train")
    assert isinstance(source, FolderSet)
    return source


def arms(folder: Path) -> dict[str, Callable[[int], None]]:
    """All arms by name, the peer first."""
    for number in range(IMAGES):
        path = folder / "photographs" / "train" / str(number % 2) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(number).save(path, quality=90)
    files = located(folder / "photographs")
    found = {
        "peer: PIL + v2": ordinary(files.paths, by_pil=True),
        "decode_jpeg + v2": ordinary(files.paths, by_pil=False),
        "PIL": ours(files),
        "torchvision": ours(located(folder / "photographs", decoder="torchvision")),
    }
    for decoder in ("pil", "torchvision"):
        for side in (None, 256):
            title = f"pack {'whole' if side is None else f'{side} px'}, {'PIL' if decoder == 'pil' else decoder}"
            located(folder / "photographs")
            pack("photographs", folder / title, side=side, decoder=decoder, threads=1)
            found[title] = ours(located(folder / title, decoder=decoder))
    found["pack 256 px, read alone"] = read_alone(folder / "pack 256 px, PIL")
    return found


def measured(found: dict[str, Callable[[int], None]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each arm in each round; a first round warms caches and is left out."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds + 1):
        for name, once in found.items():
            begun = time.process_time()
            once(number)
            times[name].append(time.process_time() - begun)
    return {name: values[1:] for name, values in times.items()}


def figures(times: dict[str, list[float]]) -> dict[str, dict[str, float | None]]:
    """Of each arm: images a second (median), and mean, sd and median of the ratio to the peer."""
    peer = next(iter(times.values()))
    found = {}
    for name, values in times.items():
        ratios = [theirs / mine for theirs, mine in zip(peer, values, strict=True)]
        found[name] = {
            "images_per_second": round(IMAGES / statistics.median(values), 1),
            "ratio": round(statistics.mean(ratios), 3),
            "sd": round(statistics.stdev(ratios), 3),
            "median": round(statistics.median(ratios), 3),
            "aim": AIMS.get(name),
        }
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--save", action="store_true")
    given = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        found = arms(Path(folder))
        size = statistics.mean(path.stat().st_size for path in Path(folder).rglob("*.jpg"))
        result = figures(measured(found, given.rounds))
    for name, one in result.items():
        aim = f"   aim {one['aim']}" if one["aim"] else ""
        print(f"{name:<26} {one['images_per_second']:>10,.0f} img/s   {one['ratio']:.2f} (sd {one['sd']:.2f}){aim}")
    if given.save:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        record = {
            "script": "tests/bench/input.py", "commit": commit.stdout.strip(), "rounds": given.rounds,
            "images": IMAGES, "mean_kilobytes": round(size / 1000, 1), "image_size": SIZE, "threads": 1,
            "machine": f"{os.cpu_count()} shared CPU cores, {torch.backends.cpu.get_cpu_capability()}",
            "versions": {
                "python": platform.python_version(), "torch": torch.__version__,
                "torchvision": torchvision.__version__, "pillow": PIL.__version__,
            },
            "arms": result,
        }  # fmt: skip
        target = ROOT / "results" / "bench" / "input.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
