"""MAE: how much to mask, and how deep a decoder?

Paper   MAE (He et al., CVPR 2022), Figure 5 and Table 1 (a, d): ViT-L, 224 px, 800 epochs of pre-training, 50 of
        fine-tuning, ImageNet-1K top-1, and a linear probe. Only the default of its ablations and the row of normalised
        pixels could be read; the other cells have no printed value here.
Claim   A high ratio is best; a deep decoder matters for the linear probe, not for fine-tuning.
Here    At reduced scales a decoder is half as wide as the encoder, as it is beside ViT-L.
Run     harness run studies/mae_ratio.py --scale small
"""

from harness import DecoderHead, NormPixelTarget, PixelTarget, Study, TokenMask, axes, claims, mae, paper_table
from studies.mae_scales import CPU_MAE, PAPER_MAE, SMALL_MAE, TINY_MAE, beside, finetune
from studies.scales import MARGINS, stated

RATIOS = (0.25, 0.4, 0.5, 0.6, 0.75, 0.85, 0.9)
DEPTHS = (1, 2, 4, 8, 12)


def decoder(scale, depth):
    """The decoder of a scale's encoder."""
    if scale.name == "paper":
        return DecoderHead(depth=depth, width=512, heads=16)
    return DecoderHead(depth=depth, width=stated(scale.backbone, "embed_dim") // 2, heads=4)


def cell(scale, target, mask_ratio, decoder_depth, seed):
    patch = scale.backbone.patch_size
    start = mae(
        scale,
        mask=TokenMask(size=patch, ratio=mask_ratio),
        head=decoder(scale, decoder_depth),
        target=PixelTarget() if target == "pixels" else NormPixelTarget(size=patch),
        seed=seed,
    )
    return {"finetune_top1": finetune(scale, start, seed), **beside(scale, start, seed)}


STUDY = Study(
    cell=cell,
    grid=axes(target="pixels", mask_ratio=RATIOS, decoder_depth=8)
    | axes(target="pixels", mask_ratio=0.75, decoder_depth=DEPTHS)
    | axes(target="normalised pixels", mask_ratio=0.75, decoder_depth=8),
    scales=(SMALL_MAE, CPU_MAE, TINY_MAE, PAPER_MAE),
    seeds=5,
    looks=(5, 10),
    reference={"target": "pixels", "mask_ratio": 0.75, "decoder_depth": 8},
    paper=paper_table("mae_table1", metric="finetune_top1"),
    claims=(
        claims.inner_maximum(
            "accuracy over the ratio has an inner maximum",
            axis="mask_ratio",
            at={"target": "pixels", "decoder_depth": 8},
            margin=MARGINS,
        ),
        claims.better(
            "masking 75 % beats masking 25 %",
            {"mask_ratio": 0.75},
            {"mask_ratio": 0.25},
            at={"target": "pixels", "decoder_depth": 8},
            margin=MARGINS,
        ),
        claims.no_worse(
            "a decoder of one block fine-tunes as well as one of eight (from memory, unverified)",
            {"decoder_depth": 1},
            {"decoder_depth": 8},
            at={"target": "pixels", "mask_ratio": 0.75},
            margin=MARGINS,
        ),
        claims.better(
            "normalised pixels beat pixels",
            {"target": "normalised pixels"},
            {"target": "pixels"},
            at={"mask_ratio": 0.75, "decoder_depth": 8},
            margin=MARGINS,
        ),
    ),
)
