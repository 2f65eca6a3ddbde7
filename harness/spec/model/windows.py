"""Windows of a Swin V2, and those on whose scale it reads positions.

A Swin V2 has no table of position biases: in each block a small network gives the bias of an offset, which it reads
divided by the window of the training (`pretrained_window_sizes` of timm, 0 for the block's own window;
MODEL.SWINV2.PRETRAINED_WINDOW_SIZES of microsoft/Swin-Transformer). With another divisor the same weights give other
biases.
"""

from __future__ import annotations

import re

from harness.spec.model.backbone import AnyBackbone, Backbone

SCALES = "pretrained_window_sizes"
"""timm's argument that says on which windows' scale positions are read, a window a stage."""

WINDOW = re.compile(r"_window(\d+to)?(\d+)_")
"""Default window in timm's names, such as swinv2_tiny_window8_256, or 16 of swinv2_base_window12to16_192to256."""

FROM_12_AT_192 = (12, 12, 12, 6)
"""Default scales of timm's models that were fine-tuned with larger windows, all from windows of 12 at 192 px."""

Window = tuple[int, int]
"""Rows and columns."""


def is_swin_v2(backbone: AnyBackbone) -> bool:
    """True for timm's SwinTransformerV2."""
    return isinstance(backbone, Backbone) and backbone.name.startswith("swinv2_")


def with_scales_of(backbone: AnyBackbone, image_size: int, start: AnyBackbone, start_size: int) -> AnyBackbone:
    """The backbone as it is to be built for the weights of a start: offsets have the biases that they had there.

    That is the backbone itself, but for a Swin V2 whose blocks would read positions on another scale than the start's:
    it has the start's scales in `args`. Scales that its `args` state already are kept.

    Args:
        image_size: side of its images in pixels. start, start_size: the backbone that was trained, as it was built, and
            the side of its images.
    """
    if not is_swin_v2(backbone) or SCALES in dict(backbone.args):
        return backbone
    theirs, ours = scales(start, start_size), scales(backbone, image_size)
    if not theirs or len(theirs) != len(ours) or theirs == ours:
        return backbone
    stated = tuple(rows if rows == columns else (rows, columns) for rows, columns in theirs)
    return backbone.replace(args={**dict(backbone.args), SCALES: stated})


def scales(backbone: AnyBackbone, image_size: int) -> tuple[Window, ...]:
    """Windows on whose scale a Swin V2 reads positions, one a stage: those stated, or the stage's own.

    Empty for other backbones, and for arguments that timm refuses.
    """
    own = windows(backbone, image_size)
    found = WINDOW.search(backbone.name)
    default = FROM_12_AT_192 if found and found[1] else (0,) * len(own)
    stated = _pairs(dict(backbone.args).get(SCALES, default))[: len(own)]
    read = [given if given[0] > 0 else window for given, window in zip(stated, own, strict=False)]
    # The divisor is the largest offset, of a window of 1 that of 2: it has the offset 0 alone.
    return tuple((max(rows, 2), max(columns, 2)) for rows, columns in read)


def windows(backbone: AnyBackbone, image_size: int) -> tuple[Window, ...]:
    """Windows of each stage of a Swin V2, as timm builds it: no larger than the stage's map, unless `args` say so.

    Empty for other backbones, and for arguments that timm refuses.
    """
    found = WINDOW.search(backbone.name) if is_swin_v2(backbone) else None
    if found is None:
        return ()
    args = dict(backbone.args)
    depths, stated = args.get("depths", (2, 2, 6, 2)), args.get("window_size", int(found[2]))
    stages = len(depths) if isinstance(depths, tuple) else 0
    # timm: of a sequence, two whole numbers are rows and columns of all stages, anything else is a window a stage.
    if isinstance(stated, int) or _is_pair(stated):
        stated = (stated,) * stages
    wanted = _pairs(stated)
    if len(wanted) != stages:
        return ()
    if args.get("always_partition"):
        return wanted
    grid = image_size // backbone.patch_size
    sides = [-(-grid // 2**stage) for stage in range(stages)]
    return tuple((min(rows, side), min(columns, side)) for side, (rows, columns) in zip(sides, wanted, strict=True))


def _pairs(stated: object) -> tuple[Window, ...]:
    """Windows that are stated by their side or as rows and columns; empty if any is neither."""
    given = stated if isinstance(stated, tuple) else ()
    if not all(isinstance(window, int) or _is_pair(window) for window in given):
        return ()
    return tuple((window, window) if isinstance(window, int) else window for window in given)


def _is_pair(window: object) -> bool:
    return isinstance(window, tuple) and len(window) == 2 and all(isinstance(side, int) for side in window)
