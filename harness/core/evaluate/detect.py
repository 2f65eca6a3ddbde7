"""Detection and instance segmentation: trained on objects, judged by average precision."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

import torch
from torch import Tensor, nn

from harness.core.data.batches import steps_per_epoch
from harness.core.data.datasets import Facts, facts_of
from harness.core.data.scene_files import ObjectFiles
from harness.core.data.scenes import SceneBatch, Scenes, load_scenes, scene_batches, shown_whole, test_scenes
from harness.core.evaluate.average_precision import (
    Entry,
    Kind,
    average_precision,
    found_entries,
    true_entries,
)
from harness.core.evaluate.examples import EXAMPLES, save_examples
from harness.core.evaluate.start import dense_encoder, encoder_below
from harness.core.evaluate.tested_training import last_test, train_and_test
from harness.core.model.batchnorm import group_batch_norms
from harness.core.model.checkpointing import checkpoint_blocks
from harness.core.model.detector import Detector, Found, build_detector, pasted, taps_for
from harness.core.model.memory_format import to_device
from harness.core.runtime.drop_path import Place, key_drop_paths
from harness.core.runtime.precision import autocast, require
from harness.core.runtime.session import Computation, Ready, Session
from harness.core.train.optimiser import parameter_groups, scales_with_heads
from harness.core.train.training import Part, Training, Update
from harness.core.weights.checkpoint import load_own, weights_of
from harness.core.weights.finished_run import TrainedDense
from harness.machine import require_coco
from harness.spec import Detect, HarnessError
from harness.spec.dense.detect import SHOWN_SCORE

JUDGED: tuple[tuple[str, Kind], ...] = (("box", "bbox"), ("mask", "segm"))
"""What metrics are of, and how pycocotools calls it."""


def detect(run: Detect, session: Session) -> Computation:
    """Train a detector and publish its average precision. Hands over before each metrics line is read."""
    require_coco()  # now, and not after hours, when it is needed
    device, recipe = session.device, run.recipe
    require(recipe, device)
    scenes, test = load_scenes(run.data, "train"), load_scenes(run.data, "test")
    _check_parts(run, scenes, test)
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

    yield from train_and_test(
        training,
        partial(scene_batches, run, scenes, session, "objects"),
        learn,
        model=model,
        test=partial(precision, run, test, model, session),
        tested_epochs=run.tested_epochs,
    )
    # Before the weights are published: a run is done once `finish` has written its result.
    write_examples(run, model.eval(), test, session)
    lines = session.attempt.lines()
    session.attempt.finish(last_test(lines), lines[-1]["seconds"], weights_of(model))


def _check_parts(run: Detect, scenes: Scenes, test: Scenes) -> None:
    """Refuse objects without outlines where masks are learnt, and parts that number their classes differently.

    A found class would be compared with another one.

    Raises:
        HarnessError: names an object without an outline, or the classes that one part lacks.
    """
    for part in (scenes, test):
        if run.masks and isinstance(part, ObjectFiles):
            part.require_outlines()
    trained, tested = scenes.names("objects"), test.names("objects")
    if trained == tested:
        return
    lacking = [name for name in (*trained, *tested) if (name in trained) != (name in tested)]
    said = f"{', '.join(lacking)} in one alone" if lacking else "in another order"
    raise HarnessError(
        f"training and test pictures of {run.data.title} have different categories: {said}; list the same in both files"
    )


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


def detector_of(trained: TrainedDense, device: torch.device) -> Detector:
    """Model of a finished detection, in evaluation mode.

    Raises:
        HarnessError: its weights, or of a frozen encoder those of its start, are missing or do not fit.
    """
    run = trained.run
    assert isinstance(run, Detect)
    taps = taps_for(run.pyramid, encoder_below(trained, device))
    model = build_detector(run, taps, objects_told_apart(trained), Place())
    load_own(model, trained.weights, trained.name)
    return to_device(model, device).eval().requires_grad_(False)


def objects_told_apart(trained: TrainedDense) -> int:
    """Number of classes that a finished detection tells apart."""
    # Read from the weights, so that the data set need not be on this machine; torchvision's first class is none.
    return len(trained.weights["roi_heads.box_predictor.cls_score.bias"]) - 1


@torch.no_grad()
def objects_in(run: Detect, model: Detector, pixels: Tensor, facts: Facts, *, least: float) -> Found:
    """Objects of a score of `least` or more in any picture, uint8 [C, H, W], which is shown as test pictures are.

    Returns:
        On the CPU, boxes in pixels of the picture, masks bool [n, H, W].
    """
    view = shown_whole(pixels, run.data, facts, image_size=run.image_size, want="objects")
    images = view.images.to(next(model.parameters()).device)
    with autocast(run.recipe, images.device):
        (found,) = model.find(images, view.size)
    kept = found.scores >= least
    boxes, scores, classes = (field[kept].cpu() for field in found[:3])
    height, width = pixels.shape[1:]
    boxes = _in_own_pixels(boxes, view.size, (height, width))
    if found.masks is None:
        return Found(boxes, scores, classes, None)
    # One by one: those of a large picture take much memory before they are True and False.
    masks = [pasted(*one, height, width) for one in zip(found.masks[kept].cpu().split(1), boxes.split(1), strict=True)]
    return Found(boxes, scores, classes, torch.cat([torch.zeros(0, height, width, dtype=torch.bool), *masks]))


def write_examples(run: Detect, model: Detector, test: Scenes, session: Session) -> None:
    """Write examples of the first test pictures, with true and predicted objects."""
    facts, shown = facts_of(run.data), []
    for index in range(min(EXAMPLES, len(test))):
        pixels = test.picture(index).cpu()
        found = objects_in(run, model, pixels, facts, least=SHOWN_SCORE)
        truth = test.objects(torch.tensor([index]))
        there = (truth.classes[0] >= 0) & ~truth.crowd[0]
        known = {name: getattr(truth, name)[0][there] for name in ("classes", "boxes", "masks")}
        told = {name: field for name, field in found._asdict().items() if field is not None}
        shown.append(
            {"picture": pixels.permute(1, 2, 0)}
            | {f"truth_{name}": field for name, field in known.items()}
            | {f"predicted_{name}": field for name, field in told.items()}
        )
    save_examples(session, test.names("objects"), shown)


def _in_own_pixels(boxes: Tensor, size: tuple[int, int], whole: tuple[int, ...]) -> Tensor:
    """Boxes of a picture in its own pixels, `whole`; size: of the picture as it was shown."""
    height, width = whole
    return boxes * torch.tensor([width / size[1], height / size[0]] * 2, device=boxes.device)


def _entries(row: int, found: Found, size: tuple[int, int], whole: torch.Size) -> list[Entry]:
    """Entries of what is found in one picture, in its own pixels, `whole`; size: of the picture as it was shown."""
    height, width = whole
    boxes = _in_own_pixels(found.boxes, size, whole)
    masks = None if found.masks is None else pasted(found.masks, boxes, height, width)
    return found_entries(row, found.classes, masks, boxes, found.scores)
