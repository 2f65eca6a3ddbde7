"""What using a trained model needs to know of the data set that it was trained on, without its images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, assert_never

from harness.core.data.datasets import IMAGENET_COLOURS, facts
from harness.core.data.shapes import CLASSES
from harness.machine import data_location
from harness.spec import CustomData, Data, ImageFolder, Images, Shapes

FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
NAMES: dict[str, tuple[str, ...]] = {
    "fashion-mnist-mini": FASHION,
    "fashion-mnist": FASHION,
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "stl10": ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
}
"""Names of the classes, in the order of their labels, as the sets' authors give them."""


@dataclass(frozen=True)
class Facts:
    """mean, std: per channel, of values in [0, 1]. classes: their names, empty where they are not known."""

    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """As what JSON can hold."""
        return asdict(self)

    @staticmethod
    def from_plain(values: dict[str, Any]) -> Facts:
        """From what `to_plain` gave."""
        return Facts(
            int(values["channels"]), tuple(values["mean"]), tuple(values["std"]), tuple(map(str, values["classes"]))
        )


def facts_of(data: Data) -> Facts:
    """The facts of a data set. The names of a folder's classes are those of its subfolders, where it is found here."""
    match data:
        case ImageFolder():
            return Facts(data.channels, *IMAGENET_COLOURS, data.classes or _subfolders(data.name))
        case Images():
            return Facts(data.channels, *facts(data)[1:], NAMES.get(data.name, ()))
        case Shapes():
            return Facts(data.channels, *facts(data)[1:], CLASSES)
        case CustomData():
            return Facts(data.channels, *facts(data)[1:])
        case _:
            assert_never(data)


def _subfolders(name: str) -> tuple[str, ...]:
    root = data_location(name)
    if root is None or not (root / "train").is_dir():
        return ()
    return tuple(sorted(entry.name for entry in (root / "train").iterdir() if entry.is_dir()))
