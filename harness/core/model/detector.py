"""Mask R-CNN on an encoder's maps: torchvision's parts, with draws and counts that do not depend on how a batch is cut.

torchvision's whole detector is not used: it normalises and resizes pictures once more, and pastes masks at their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from harness.core.model.encoder import Encoder, depth
from harness.core.model.pyramid import Pyramid, build_pyramid
from harness.core.model.taps import Taps
from harness.core.runtime.drop_path import Place
from harness.core.runtime.randomness import initialised, ranks, uniform
from harness.spec import Detect, Fpn, SimplePyramid, seed_stream
from harness.spec.dense.detect import BoxHead

RATIOS = (0.5, 1.0, 2.0)
"""Height over width of the anchors at each position."""
ANCHORS = 256
"""Most anchors of an image that losses are taken of."""
CANONICAL = 14
"""Side in positions of a map of the regions that are pooled from it and no finer one: 56 pixels at stride 4."""
BOX_SIDE, MASK_SIDE = 7, 14
"""Side in cells of a region for the box head and for the mask head."""
MASK = 0.5
"""Least probability of a pixel of a mask."""


class Found(NamedTuple):
    """The objects that a detector finds in one image, the best first.

    boxes: float32 [n, 4], x0, y0, x1, y1 in pixels. scores: float32 [n]. classes: int64 [n], counted from 0.
    masks: float32 [n, 28, 28], probabilities over each box; None of a detector without masks.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    masks: Tensor | None


class Anchors(nn.Module):
    """Anchors of all positions of a pyramid's maps, centred at multiples of the stride, as torchvision calls for them.

    strides: of the maps. side: of an anchor in strides.
    """

    def __init__(self, strides: Sequence[int], side: float) -> None:
        super().__init__()
        self.strides, self.side = strides, side

    def forward(self, images: ImageList, maps: list[Tensor]) -> list[Tensor]:
        """For each image the same float32 [A, 4]: maps one after another, rows, columns, ratios."""
        found = [self._of(stride, made) for stride, made in zip(self.strides, maps, strict=True)]
        return [torch.cat(found)] * len(images.image_sizes)

    def _of(self, stride: int, made: Tensor) -> Tensor:
        tall = self.side * stride * torch.tensor(RATIOS, device=made.device).sqrt()
        wide = (self.side * stride) ** 2 / tall
        cell = torch.stack([-wide, -tall, wide, tall], dim=1) / 2
        y, x = (torch.arange(side, device=made.device) * stride for side in made.shape[-2:])
        y, x = torch.meshgrid(y, x, indexing="ij")
        return (torch.stack([x, y, x, y], dim=2).view(-1, 1, 4) + cell).view(-1, 4)


class KeyedSampler:
    """Choice of the anchors or regions whose losses are taken, by draws of seed, step, image and place in the list.

    Attributes:
        positives, total: chosen in the last call, over all images: int64 scalars.

    Args:
        size: most for each image. share: most of them that are positive. place: step and positions of the images.
        evenly: as `Detect.drawn_evenly` says.
    """

    def __init__(self, size: int, share: float, stream: int, place: Place, *, evenly: bool) -> None:
        self.size, self.most, self.stream, self.place, self.evenly = size, int(size * share), stream, place, evenly
        self.positives, self.total = torch.zeros(0), torch.zeros(0)

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Masks uint8 [A] of the positive and of the negative ones that are chosen, for each image.

        Args:
            labels: [A] of each image: 1 or more for positive, 0 for negative, -1 for neither.
        """
        positives, negatives = [], []
        for drawn, label in zip(self._drawn([len(label) for label in labels]), labels, strict=True):
            positives.append(_lowest(label >= 1, drawn, self.most))
            negatives.append(_lowest(label == 0, drawn, self.size - positives[-1].sum()))
        self.positives = torch.cat(positives).sum()
        self.total = self.positives + torch.cat(negatives).sum()
        return positives, negatives

    def _drawn(self, counts: list[int]) -> list[Tensor]:
        """Numbers [A] whose order is a random one, for each image. counts: A of each."""
        step, images = self.place.step, self.place.positions
        if not self.evenly:
            rows = uniform(self.stream, step, images, max(counts))
            return [row[:count] for row, count in zip(rows, counts, strict=True)]
        # The image goes where the upper half of a step is mixed in: a step is less than 2**32.
        return [
            ranks(self.stream, step + (image << 32), torch.arange(count, device=images.device))
            for image, count in zip(images, counts, strict=True)
        ]


def _lowest(among: Tensor, drawn: Tensor, count: int | Tensor) -> Tensor:
    """uint8 [A], 1 at those `count` of `among` with the lowest numbers drawn."""
    highest = math.inf if drawn.is_floating_point() else torch.iinfo(drawn.dtype).max
    order = torch.where(among, drawn, highest).argsort(stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return (among & (place < count)).to(torch.uint8)


def _as_float(module: nn.Module, inputs: object, found: Any) -> Any:
    """Hook of a head: what it gives, in float32."""
    if isinstance(found, Tensor):
        return found.float()
    return type(found)(_as_float(module, inputs, one) for one in found)


class Detector(nn.Module):
    """Boxes, classes and masks of the objects of images.

    Convolutions and linear layers have the precision of the recipe; anchors, boxes, pooling, suppression of
    overlapping boxes and losses are in float32.

    Args:
        maps: module from images [B, C, H, W] to the encoder's maps. pyramid: over them.
        num_classes: without the background, which is torchvision's class 0.
        place: step and positions of the images of a batch in training.
    """

    def __init__(self, run: Detect, maps: nn.Module, pyramid: Pyramid, num_classes: int, place: Place) -> None:
        super().__init__()
        self.maps, self.pyramid = maps, pyramid
        self.rpn, self.roi_heads = initialised(run.seed, "head", lambda: build_heads(run, pyramid, num_classes))
        self.rpn.fg_bg_sampler = KeyedSampler(
            ANCHORS, 0.5, seed_stream(run.seed, "anchors"), place, evenly=run.drawn_evenly
        )
        self.roi_heads.fg_bg_sampler = KeyedSampler(
            run.rois, 0.25, seed_stream(run.seed, "rois"), place, evenly=run.drawn_evenly
        )

    def forward(
        self, images: Tensor, classes: Tensor, masks: Tensor, boxes: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of a batch in training by name, and the number of terms that each is a mean over, both scalars.

        Args:
            images: [B, C, H, W], normalised. classes: int64 [B, M], -1 = no object. masks: bool [B, M, H, W].
            boxes: [B, M, 4], x0, y0, x1, y1 in pixels, the last two exclusive.
        """
        maps, shown = self._maps(images)
        targets = [_target(*one) for one in zip(classes, masks, boxes, strict=True)]
        regions, proposed = self.rpn(shown, maps, targets)
        _, found = self.roi_heads(maps, regions, shown.image_sizes, targets)
        anchors, rois = self.rpn.fg_bg_sampler, self.roi_heads.fg_bg_sampler
        terms = {
            "objectness": (proposed["loss_objectness"], anchors.total),
            "proposals": (proposed["loss_rpn_box_reg"], anchors.total),
            "classes": (found["loss_classifier"], rois.total),
            "boxes": (found["loss_box_reg"], rois.total),
        }
        if "loss_mask" in found:
            terms["masks"] = (found["loss_mask"], rois.positives)
        return {name: loss for name, (loss, _) in terms.items()}, {name: count for name, (_, count) in terms.items()}

    def find(self, images: Tensor, size: tuple[int, int]) -> list[Found]:
        """Objects of images [B, C, H, W], of which `size`, height and width from the top left corner, are the picture.

        In evaluation mode and without gradients.
        """
        maps, shown = self._maps(images)
        sizes = [size] * len(images)
        regions, _ = self.rpn(ImageList(shown.tensors, sizes), maps)
        found, _ = self.roi_heads(maps, regions, sizes)
        return [
            Found(one["boxes"], one["scores"], one["labels"] - 1, one["masks"][:, 0] if "masks" in one else None)
            for one in found
        ]

    def _maps(self, images: Tensor) -> tuple[dict[str, Tensor], ImageList]:
        """Maps of the pyramid by name, float32, and the images as torchvision calls for them."""
        maps = {str(number): made.float() for number, made in enumerate(self.pyramid(self.maps(images)))}
        height, width = images.shape[-2:]
        return maps, ImageList(images, [(height, width)] * len(images))


def _target(classes: Tensor, masks: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    """Objects of one image as torchvision calls for them, whose background is class 0."""
    there = classes >= 0
    return {"boxes": boxes[there].float(), "labels": classes[there] + 1, "masks": masks[there]}


class Parts(Protocol):
    """What determines the heads of a detector."""

    @property
    def anchor(self) -> float: ...
    @property
    def rois(self) -> int: ...
    @property
    def masks(self) -> bool: ...
    @property
    def box_head(self) -> BoxHead: ...


def build_heads(run: Parts, pyramid: Pyramid, num_classes: int) -> tuple[RegionProposalNetwork, RoIHeads]:
    """Proposals of regions, and heads for the regions; thresholds and numbers are torchvision's and detectron2's."""
    deep, width = run.box_head == "4conv1fc", pyramid.width
    propose = RPNHead(width, len(RATIOS), conv_depth=2 if deep else 1)
    rpn = RegionProposalNetwork(
        Anchors(pyramid.strides, run.anchor), propose, 0.7, 0.3, ANCHORS, 0.5,
        {"training": 2000, "testing": 1000}, {"training": 2000, "testing": 1000}, 0.7,
    )  # fmt: skip
    norm = LayerNorm2d if deep else None
    box_head = (
        FastRCNNConvFCHead((width, BOX_SIDE, BOX_SIDE), [width] * 4, [4 * width], norm_layer=norm)
        if deep
        else TwoMLPHead(width * BOX_SIDE**2, 4 * width)
    )
    predict_box = FastRCNNPredictor(4 * width, num_classes + 1)
    mask_parts: tuple[nn.Module | None, ...] = (None, None, None)
    if run.masks:
        predict_mask = MaskRCNNPredictor(width, width, num_classes + 1)
        mask_parts = _pool(pyramid, MASK_SIDE), MaskRCNNHeads(width, [width] * 4, 1, norm_layer=norm), predict_mask
    roi_heads = RoIHeads(
        _pool(pyramid, BOX_SIDE), box_head, predict_box, 0.5, 0.5, run.rois, 0.25, None, 0.05, 0.5, 100, *mask_parts
    )
    for head in (propose, predict_box, mask_parts[2]):
        if head is not None:
            head.register_forward_hook(_as_float)
    return rpn, roi_heads


def _pool(pyramid: Pyramid, side: int) -> MultiScaleRoIAlign:
    """Pooling of regions to `side` cells, small ones from fine maps, from all maps but the last."""
    levels = len(pyramid.strides) - 1
    pool = MultiScaleRoIAlign([str(level) for level in range(levels)], side, sampling_ratio=2)
    # torchvision would guess both from the first batch, and takes every stride for a power of 2.
    pool.scales = [1 / stride for stride in pyramid.strides[:levels]]
    pool.map_levels = LevelMapper(0, levels - 1, CANONICAL * pyramid.strides[0], 0)
    return pool


def pasted(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Masks of whole images, bool [n, height, width], from those of boxes.

    Args:
        masks: probabilities [n, h, w] over each box. boxes: [n, 4], in pixels of the image.
    """
    if not len(masks):
        return torch.zeros(0, height, width, dtype=torch.bool)
    x0, y0, x1, y1 = (side[:, None] for side in boxes.float().unbind(1))
    # From pixels to [-1, 1] over the box, half a pixel to the right and down: where torchvision's targets in training
    # read a mask, the whole numbers are the centres of its pixels.
    x = torch.arange(width, device=boxes.device).sub(x0) / (x1 - x0) * 2 - 1
    y = torch.arange(height, device=boxes.device).sub(y0) / (y1 - y0) * 2 - 1
    whole = (-1, height, width)
    grid = torch.stack([x[:, None, :].expand(whole), y[:, :, None].expand(whole)], dim=3)
    return F.grid_sample(masks[:, None].float(), grid, align_corners=False)[:, 0] >= MASK


def taps_for(pyramid: Fpn | SimplePyramid, encoder: Encoder) -> Taps:
    """The maps of an encoder that a pyramid is made of: the last of each stride, or the last alone."""
    return Taps(encoder, (depth(encoder.model),) if isinstance(pyramid, SimplePyramid) else None)


def build_detector(run: Detect, taps: Taps, num_classes: int, place: Place) -> Detector:
    """Detector with new pyramid and heads on an encoder's maps."""
    pyramid = initialised(run.seed, "pyramid", lambda: build_pyramid(run.pyramid, taps.widths, taps.strides))
    return Detector(run, taps, pyramid, num_classes, place)
