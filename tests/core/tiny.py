"""Small specs that core tests share."""

from __future__ import annotations

from typing import Any

from harness.spec import (
    Augment,
    Backbone,
    BinTarget,
    ClusterTarget,
    Corruption,
    DecoderHead,
    InverseSwinHead,
    Loss,
    NormPixelTarget,
    PatchWords,
    Pretrain,
    RandomMask,
    Recipe,
    Shapes,
    TokenMask,
    TokenTarget,
)

DATA = Shapes(image_size=32, train=64, test=32)
VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 32, "depth": 2, "num_heads": 2}, patch_size=4)
BEIT = Backbone(
    name="beit_base_patch16_224", args={"embed_dim": 32, "depth": 2, "num_heads": 2}, patch_size=4, variant="simmim"
)
SWIN = Backbone(
    name="swin_tiny_patch4_window7_224",
    args={"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "window_size": 4},
    patch_size=4,
    stride=32,
)
SWIN_V2 = SWIN.replace(name="swinv2_tiny_window8_256")
RECIPE = Recipe(epochs=2, batch_size=16, lr=1e-3, lr_batch=None, augment=Augment(crop_scale=(0.5, 1.0)))

MAE: dict[str, Any] = {
    "mask": TokenMask(size=4, ratio=0.75),
    "corruption": Corruption(token="drop"),
    "head": DecoderHead(depth=1, width=32, heads=2),
    "target": NormPixelTarget(size=4),
    "loss": Loss(kind="l2"),
    "backbone": VIT.replace(variant="mae"),
}
"""Pieces of MAE: hidden tokens are dropped."""
INVERSE = InverseSwinHead(embed_dim=32, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 4), window=4)
CLASSES = Loss(kind="cross-entropy")
BINS = BinTarget(bins=8)
CLUSTERS = ClusterTarget(clusters=16, images=64, per_image=16, iterations=5, downsample=2)
WORDS = TokenTarget(tokenizer=PatchWords(vocabulary=16, images=64, per_image=16, iterations=5), downsample=4)


def pretrain(**changes: Any) -> Pretrain:
    """A pre-training of a few steps."""
    values = {
        "data": DATA,
        "image_size": 32,
        "backbone": VIT,
        "mask": RandomMask(size=8, ratio=0.5),
        "recipe": RECIPE,
    }
    return Pretrain(**{**values, **changes})
