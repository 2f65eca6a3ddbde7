"""Semantic segmentation: trained on maps of classes, judged by mean intersection over union."""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.core.data.batches import steps_per_epoch
from harness.core.data.datasets import Facts, facts_of
from harness.core.data.scene_crops import IGNORED
from harness.core.data.scene_files import MaskFiles
from harness.core.data.scenes import (
    SceneBatch,
    Scenes,
    TestScenes,
    load_scenes,
    scene_batches,
    shown_whole,
    test_scenes,
)
from harness.core.evaluate.confusion import Confusion
from harness.core.evaluate.examples import EXAMPLES, save_examples
from harness.core.evaluate.start import dense_encoder, encoder_below
from harness.core.evaluate.tested_training import last_test, train_and_test
from harness.core.model.batchnorm import group_batch_norms
from harness.core.model.checkpointing import checkpoint_blocks
from harness.core.model.memory_format import to_device
from harness.core.model.segmenter import Segmenter, build_segment_head, slide
from harness.core.model.taps import Taps
from harness.core.model.upernet import resized
from harness.core.runtime.drop_path import Place, key_drop_paths
from harness.core.runtime.precision import autocast, require
from harness.core.runtime.randomness import initialised
from harness.core.runtime.session import Computation, Ready, Session
from harness.core.train.optimiser import parameter_groups, scales_with_heads
from harness.core.train.training import Training, Update
from harness.core.weights.checkpoint import load_own, weights_of
from harness.core.weights.finished_run import TrainedDense
from harness.spec import HarnessError, Segment, Slide, UPerNet, Whole

LAST = re.compile(r"head\.classify\.(\d+\.)?bias")
"""Name of the bias of a head's last layer, of one value for each class."""
LOGITS = 2**28
"""Most logits of one picture, 1 GiB; the map of a larger one is computed smaller, and enlarged."""


def segment(run: Segment, session: Session) -> Computation:
    """Train a segmentation and publish its scores. Hands over before each metrics line is read."""
    device, recipe = session.device, run.recipe
    require(recipe, device)
    scenes, test = load_scenes(run.data, "train").to(device), load_scenes(run.data, "test").to(device)
    encoder = dense_encoder(run, session, channels=scenes.channels)
    place = key_drop_paths(encoder, run.seed, recipe.batch_size)
    taps = Taps(encoder, run.taps)
    if not run.frozen:
        taps.train_what_is_reached(torch.zeros(1, scenes.channels, run.image_size, run.image_size, device=device))
    classes = len(scenes.names("segments"))
    head = initialised(run.seed, "head", lambda: build_segment_head(run.head, taps, classes, run.seed, place))
    model = to_device(Segmenter(taps, head), device).train()
    _check_tested(run, test, model, session)
    group_batch_norms(model, recipe, session, place)
    if session.recompute:
        checkpoint_blocks(model)
    replica = session.group.replicate(model)
    training = Training(
        session,
        recipe,
        replica,
        seed=run.seed,
        groups=parameter_groups(
            model.named_parameters(), recipe, scales_with_heads(model, encoder.model, recipe.layer_decay)
        ),
        steps_per_epoch=steps_per_epoch(scenes.images, recipe.batch_size),
        place=place,
    )

    def learn(update: Update[SceneBatch]) -> None:
        update.weigh(_denominators(run, part.batch.segments) for part in update.parts)
        for part in update.parts:
            with part.forward():
                logits, extra = replica(part.batch.images)
            part.backward(losses(run, logits, extra, part.batch.segments))
        update.apply()

    yield from train_and_test(
        training,
        partial(scene_batches, run, scenes, session, "segments"),
        learn,
        model=model,
        test=partial(scores, run, test, model, session),
        tested_epochs=run.tested_epochs,
    )
    # Before the weights are published: a run is done once `finish` has written its result.
    write_examples(run, model.eval(), test, session)
    lines = session.attempt.lines()
    session.attempt.finish(last_test(lines), lines[-1]["seconds"], weights_of(model))


def losses(run: Segment, logits: Tensor, extra: Tensor | None, segments: Tensor) -> dict[str, Tensor]:
    """Losses by name, scalars, of logits float32 [B, K, H, W], those of an auxiliary head, and the truth [B, H, W]."""
    found = {"classes": _mean_loss(logits, segments)}
    if extra is not None and isinstance(run.head, UPerNet):
        found["auxiliary"] = run.head.aux * _mean_loss(extra, segments)
    return found


def _mean_loss(logits: Tensor, segments: Tensor) -> Tensor:
    """Mean cross-entropy of the pixels of a known class; 0 where there is none."""
    # Not F.cross_entropy, which for maps has no deterministic form on GPUs and is not a number where all are ignored.
    known = segments != IGNORED
    chosen = torch.where(known, segments, 0)[:, None]
    each = F.log_softmax(logits, dim=1).gather(1, chosen)[:, 0]
    return -torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)


def _denominators(run: Segment, segments: Tensor) -> dict[str, Tensor]:
    known = (segments != IGNORED).sum().double()
    auxiliary = isinstance(run.head, UPerNet) and run.head.aux > 0
    return {"classes": known} | ({"auxiliary": known} if auxiliary else {})


@torch.no_grad()
def scores(run: Segment, test: Scenes, model: Segmenter, session: Session) -> Generator[Ready, None, dict[str, float]]:
    """Scores in percent and mean cross-entropy over the pixels of all test pictures, by name.

    A part of a recipe (`found = yield from scores(...)`), which hands over before the counts are read.
    """
    confusion = Confusion(len(test.names("segments")), session.device)
    sums = torch.zeros(2, dtype=torch.float64, device=session.device)  # losses, and pixels
    for views in tested_views(run, test, session):
        truth = test.segments(views[0].rows).to(session.device)  # of files it is on the CPU
        logits = predicted(run, model, views, truth)
        confusion.add(truth, logits.argmax(1))
        known = (truth != IGNORED).sum()
        sums += torch.stack([_mean_loss(logits, truth) * known, known])
    session.group.sum(confusion.counts)
    session.group.sum(sums)
    yield session.mark()
    found = confusion.scores()
    return found | {"loss": (sums[0] / sums[1]).item()}


def tested_views(run: Segment, test: Scenes, session: Session) -> Iterator[tuple[TestScenes, ...]]:
    """All test pictures in order, each prepared at all scales that it is tested at."""
    sides = [round(scale * run.image_size) for scale in run.test.scales]
    return zip(*(test_scenes(test, session, image_size=side, want="segments") for side in sides), strict=True)


def predicted(run: Segment, model: Segmenter, views: Sequence[TestScenes], like: Tensor) -> Tensor:
    """Logits float32 [b, K, H, W] of pictures, at the size of their truth `like` [b, H, W].

    Args:
        views: the pictures, prepared at each of the scales that they are tested at. Of several views, or where they are
            shown mirrored too, the result is the logarithm of the mean probabilities.
    """
    shown = [(view, mirrored) for view in views for mirrored in (False, True)[: 1 + run.test.flip]]
    total: Tensor | None = None
    for view, mirrored in shown:
        logits = _logits(run, model, view, like, mirrored=mirrored)
        if len(shown) == 1:
            return logits
        found = F.log_softmax(logits, dim=1)
        total = found if total is None else torch.logaddexp(total, found)
    assert total is not None
    return total - math.log(len(shown))


def _logits(run: Segment, model: Segmenter, view: TestScenes, like: Tensor, *, mirrored: bool) -> Tensor:
    images = view.images.flip(3) if mirrored else view.images
    with autocast(run.recipe, images.device):
        if isinstance(run.test, Slide):
            logits = slide(model, images, run.image_size, run.test.stride)
        else:
            logits, _ = model(images)
    logits = logits.flip(3) if mirrored else logits
    # Logits are resized, not classes: a mean of two classes would be a third.
    return resized(logits[..., : view.size[0], : view.size[1]].float(), like[:, None])


@torch.no_grad()
def _check_tested(run: Segment, test: Scenes, model: Segmenter, session: Session) -> None:
    """Refuse test pictures of a size at which the model does not compute, before training.

    Raises:
        HarnessError: it fails on the first ones, or takes squares alone and others are no squares.
    """
    if isinstance(run.test, Whole) and isinstance(test, MaskFiles) and _of_one_size(model):
        others = [(height, width) for height, width in test.sizes if height != width]
        if others:
            height, width = others[0]
            raise HarnessError(
                _untested(run, f"of {len(test)} pictures {len(others)} are no squares: {width} x {height}")
            )
    try:
        for views in islice(tested_views(run, test, session), 1):
            predicted(run, model.eval(), views, test.segments(views[0].rows))
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, RuntimeError) as error:
        raise HarnessError(_untested(run, str(error).splitlines()[0] if str(error) else type(error).__name__)) from None
    finally:
        model.train()


def _untested(run: Segment, reason: str) -> str:
    if isinstance(run.test, Slide):
        return f"{run.built.name} cannot be tested in windows of {run.image_size} px ({reason})"
    return f"{run.built.name} cannot be tested on whole pictures ({reason}); test=Slide(stride=...) shows it windows"


def segmenter_of(trained: TrainedDense, device: torch.device) -> Segmenter:
    """Model of a finished segmentation, in evaluation mode.

    Raises:
        HarnessError: its weights, or of a frozen encoder those of its start, are missing or do not fit.
    """
    run = trained.run
    assert isinstance(run, Segment)
    taps = Taps(encoder_below(trained, device), run.taps)
    model = Segmenter(taps, build_segment_head(run.head, taps, classes_of(trained), run.seed, Place()))
    load_own(model, trained.weights, trained.name)
    return to_device(model, device).eval().requires_grad_(False)


def classes_of(trained: TrainedDense) -> int:
    """Number of classes that a finished segmentation tells apart."""
    # Read from the weights, so that the data set need not be on this machine.
    return next(len(tensor) for name, tensor in trained.weights.items() if LAST.fullmatch(name))


@torch.no_grad()
def classes_in(run: Segment, model: Segmenter, pixels: Tensor, facts: Facts, *, classes: int) -> Tensor:
    """Class of each pixel of any picture, uint8 [C, H, W], which is shown as test pictures are: uint8 [H, W].

    A model that takes squares of one size alone sees another picture in windows, though it was tested on whole squares.

    Args:
        classes: how many the model tells apart.
    """
    height, width = pixels.shape[1:]
    if isinstance(run.test, Whole) and height != width and _of_one_size(model):
        run = run.replace(test=Slide(stride=-(-2 * run.image_size // 3), scales=run.test.scales, flip=run.test.flip))
    device = next(model.parameters()).device
    sides = [round(scale * run.image_size) for scale in run.test.scales]
    views = [shown_whole(pixels, run.data, facts, image_size=side, want="segments") for side in sides]
    views = [view._replace(images=view.images.to(device)) for view in views]
    share = min(1.0, math.sqrt(LOGITS / (classes * height * width)))
    like = torch.zeros(1, max(1, int(height * share)), max(1, int(width * share)), device=device)
    found = predicted(run, model, views, like).argmax(1, keepdim=True).float()
    return F.interpolate(found, (height, width), mode="nearest-exact")[0, 0].to(torch.uint8).cpu()


def _of_one_size(model: Segmenter) -> bool:
    """True of timm's ViT, BEiT and Swin."""
    embedding = getattr(model.taps.encoder.model, "patch_embed", None)
    return bool(getattr(embedding, "strict_img_size", False))


def write_examples(run: Segment, model: Segmenter, test: Scenes, session: Session) -> None:
    """Write examples of the first test pictures, with the class of each pixel, true and predicted."""
    names, facts, shown = test.names("segments"), facts_of(run.data), []
    for index in range(min(EXAMPLES, len(test))):
        pixels = test.picture(index).cpu()
        found = classes_in(run, model, pixels, facts, classes=len(names))
        truth = test.segments(torch.tensor([index]))[0].to(torch.uint8)
        shown.append({"picture": pixels.permute(1, 2, 0), "truth": truth, "predicted": found})
    save_examples(session, names, shown)
