"""Features of a frozen encoder: of a batch, and of a whole data set, kept in the store for further evaluations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Literal

import PIL
import torch
from torch import Tensor

from harness.core.data.datasets import FolderSet, ImageSet, Part
from harness.core.evaluate.labelled import test_batch_size, whole_set
from harness.core.model.encoder import Encoder
from harness.core.runtime.precision import Arithmetic
from harness.core.runtime.session import Interrupted, Session
from harness.spec import CustomBackbone, Knn, LogisticProbe
from harness.store.features import keep_features, kept_features
from harness.store.layout import FeaturesFolder

COMPUTED_BY = ("code", "versions", "device", "threads", "processor", "processes")
"""What an attempt records of its surroundings that can change the last bits of a feature."""


def pooled(encoder: Encoder, images: Tensor, block: int | None, pool: Literal["mean", "token"] = "mean") -> Tensor:
    """Mean over all positions of the feature map, or the class token: float32 [B, C], without gradient."""
    with torch.no_grad():
        if pool == "token":
            return encoder.class_token(images, block).float()
        return encoder.features(images, block).float().mean(dim=(2, 3))


def all_features(
    run: Knn | LogisticProbe, part: Part, images: ImageSet | FolderSet, encoder: Encoder, session: Session
) -> Tensor:
    """Pooled features float32 [N, C] of a whole set, without augmentation, in the order of its labels.

    The store keeps them, and gives them to the next evaluation for which everything that determines a bit of them is
    the same (`_digest`). They take 4 N C bytes: 15 MB of 60,000 images and 64 channels, 5 GB of 1.28 million images and
    the 1,024 channels of a ViT-L; the oldest go before a store keeps more than 20 GB.

    Args:
        part: of the run's data that `images` are.
    """
    group = session.group
    folder = _folder(run, part, images, encoder, session) if group.rank == 0 else None

    def check() -> None:
        if group.size == 1 and session.stopping():
            raise Interrupted("stopped while another process computed the features")

    with kept_features(folder, check) if folder else nullcontext() as kept:
        width = group.share(len(kept) // (4 * len(images)) if kept else 0)
        if not width:
            features = _computed(run, images, encoder, session)
            if folder:
                keep_features(folder, features.cpu().numpy().data.cast("B"))
            return features
    features = torch.zeros(len(images), width, device=session.device)
    if kept:
        features.copy_(torch.frombuffer(kept, dtype=torch.float32).view(len(images), width))
    session.attempt.note({f"{part}_features": "kept"})
    return group.sum(features)


@torch.no_grad()
def _computed(run: Knn | LogisticProbe, images: ImageSet | FolderSet, encoder: Encoder, session: Session) -> Tensor:
    group = session.group
    found = [pooled(encoder, batch, run.block, run.pool) for batch, _ in whole_set(run, images, session)]
    width = group.share(found[0].shape[1] if found else 0)  # rank 0 has the first batch
    features = torch.zeros(len(images), width, device=session.device)
    places = torch.split(torch.arange(len(images), device=session.device), test_batch_size(session))
    for rows, values in zip(places[group.rank :: group.size], found, strict=True):
        features[rows] = values
    # Each process has filled its own rows of zeros, so that the sum over processes gathers them.
    return group.sum(features)


def _folder(
    run: Knn | LogisticProbe, part: Part, images: ImageSet | FolderSet, encoder: Encoder, session: Session
) -> FeaturesFolder | None:
    """Where the features are kept, by the digest of everything that determines a bit of them.

    None where that is not known: for a network of the user's own, of which the digest covers one file, for a folder of
    images without a digest, and for an attempt without a record of its surroundings.
    """
    surroundings, unnamed = session.attempt.environment(), getattr(run.data, "content", "in memory") is None
    if not surroundings or unnamed or isinstance(run.encoder, CustomBackbone):
        return None
    pixels = _content({"images": images.images}) if isinstance(images, ImageSet) else [run.data.digest, part]
    facts = {
        "start": run.start.digest,
        "weights": _content(encoder.state_dict()),  # also what a seed drew, where the start leaves that open
        "images": [pixels, images.mean, images.std, run.image_size, run.crop],
        "output": [run.block, run.pool],
        "computed": {name: surroundings.get(name) for name in COMPUTED_BY},
        "pillow": PIL.__version__,
        "batch": test_batch_size(session),
        "arithmetic": [*Arithmetic.current(), torch.are_deterministic_algorithms_enabled()],
    }
    text = json.dumps(facts, sort_keys=True)
    return FeaturesFolder(session.attempt.store.root, hashlib.sha256(text.encode()).hexdigest())


def _content(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of names, types, shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
