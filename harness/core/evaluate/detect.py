"""Detection and instance segmentation: trained on objects, judged by average precision."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.core.data.batches import steps_per_epoch
from harness.core.data.scenes import SceneBatch, Scenes, load_scenes, scene_batches, test_scenes
from harness.core.evaluate.average_precision import (
    Entry,
    Kind,
    average_precision,
    found_entries,
    require_coco,
    true_entries,
)
from harness.core.evaluate.start import dense_encoder
from harness.core.model.batchnorm import group_batch_norms
from harness.core.model.checkpointing import checkpoint_blocks
from harness.core.model.detector import Detector, Found, build_detector, pasted, taps_for
from harness.core.model.memory_format import to_device
from harness.core.runtime.drop_path import key_drop_paths
from harness.core.runtime.precision import autocast, require
from harness.core.runtime.session import Computation, Ready, Session
from harness.core.train.optimiser import parameter_groups, scales_with_heads
from harness.core.train.training import Part, Training, Update
from harness.core.weights.checkpoint import weights_of
from harness.spec import Detect, HarnessError

JUDGED: tuple[tuple[str, Kind], ...] = (("box", "bbox"), ("mask", "segm"))
"""What metrics are of, and how pycocotools calls it."""


def detect(run: Detect, session: Session) -> Computation:
    """Train a detector and publish its average precision. Hands over before each metrics line is read."""
    require_coco()  # now, and not after hours, when it is needed
    device, recipe = session.device, run.recipe
    require(recipe, device)
    scenes, test = load_scenes(run.data, "train"), load_scenes(run.data, "test")
    encoder = dense_encoder(run, session, channels=scenes.channels)
    place = key_drop_paths(encoder, run.seed, recipe.batch_size)
    taps = taps_for(run.pyramid, encoder)
    if not run.frozen:
        taps.train_what_is_reached(torch.zeros(1, scenes.channels, run.image_size, run.image_size, device=device))
    model = build_detector(run, taps, len(scenes.names("objects")), place)
    model = to_device(model, device).train()
    group_batch_norms(model, recipe, session, place)
    if session.recompute:
        checkpoint_blocks(model)
    replica = session.group.replicate(model)
    scales = scales_with_heads(model, encoder.model, recipe.layer_decay)
    training = Training(
        session,
        recipe,
        replica,
        seed=run.seed,
        groups=parameter_groups(model.named_parameters(), recipe, scales),
        steps_per_epoch=steps_per_epoch(scenes.images, recipe.batch_size),
        place=place,
    )

    def losses(part: Part[SceneBatch], module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        batch = part.batch
        with part.forward():
            found: tuple[dict[str, Tensor], dict[str, Tensor]]
            found = module(batch.images, batch.classes, batch.masks, batch.boxes)
        return found

    def learn(update: Update[SceneBatch]) -> None:
        # How many regions there are is known after a forward pass only. Parts that do not fit the device together get
        # one more, without gradients, so that the losses of all can be weighed before the first backward pass.
        several = len(update.parts) > 1
        if several:
            with torch.no_grad():
                update.weigh([losses(part, model)[1] for part in update.parts])
        for part in update.parts:
            found, counts = losses(part, replica)
            if not several:
                update.weigh([counts])
            part.backward(found)
        update.apply()

    for step in training.steps(partial(scene_batches, run, scenes, session, "objects")):
        step.compute(learn)
        if step.logged:
            yield session.mark()
            line = step.read()
            if step.ends_epoch(run.tested_epochs):
                found = yield from precision(run, test, model.eval(), session)
                line |= {f"test_{name}": value for name, value in found.items()}
                model.train()

    lines = session.attempt.lines()
    session.attempt.finish(summary(lines), lines[-1]["seconds"], weights_of(model))


@torch.no_grad()
def precision(run: Detect, test: Scenes, model: Detector, session: Session) -> Generator[Ready, None, dict[str, float]]:
    """Average precisions in percent over all test pictures, by name: box_ap, box_ap50, ..., mask_ap, ...

    A part of a recipe (`found = yield from precision(...)`), which hands over once the pictures are computed.

    Raises:
        HarnessError: there is no object to be found.
    """
    truth: list[Entry] = []
    detected: list[Entry] = []
    for scene in test_scenes(test, session, image_size=run.image_size, want="objects"):
        with autocast(run.recipe, session.device):
            found = model.find(scene.images, scene.size)
        known = test.objects(scene.rows)
        for number, row in enumerate(scene.rows.tolist()):
            truth += true_entries(row, *(field[number] for field in known))
            detected += _entries(row, found[number], scene.size, known.masks.shape[-2:])
    yield session.mark()
    truth, detected = ([one for part in session.group.gather(entries) for one in part] for entries in (truth, detected))
    counts = len(test), len(test.names("objects"))
    judged = {
        f"{name}_{metric}": value
        for name, of in JUDGED[: 1 + run.masks]
        for metric, value in average_precision(*counts, truth, detected, of).items()
    }
    if judged["box_ap"] is None:
        raise HarnessError(f"the test pictures of {run.data.title} show no object, of which an average can be taken")
    return {name: value for name, value in judged.items() if value is not None}


def _entries(row: int, found: Found, size: tuple[int, int], whole: torch.Size) -> list[Entry]:
    """Entries of what is found in one picture, in its own pixels, `whole`; size: of the picture as it was shown."""
    height, width = whole
    scale = torch.tensor([width / size[1], height / size[0]] * 2, device=found.boxes.device)
    boxes = found.boxes * scale
    masks = None if found.masks is None else pasted(found.masks, boxes, height, width)
    return found_entries(row, found.classes, masks, boxes, found.scores)


def summary(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Metrics of a finished run from its metrics lines: those of the last test."""
    last = [line for line in lines if "test_box_ap" in line][-1]
    return {name.removeprefix("test_"): value for name, value in last.items() if name.startswith("test_")}
