"""SimMIM Table 6: how does it compare on a plain ViT?

Paper   SimMIM (Xie et al., CVPR 2022), Table 6: ViT-B, 224 px, 800 epochs of pre-training, 100 of fine-tuning,
        ImageNet-1K top-1; the linear probe reads block 8. Most of the table's rows are quoted from memory: reports mark
        them as unverified.
Claim   Fine-tuned, SimMIM beats supervised training and BEiT.
Here    Reduced scales have SimMIM's ViT with 0.7M (small) and 0.04M (tiny) parameters. There the supervised rows are
        that ViT from scratch on the labels of fine-tuning, and BEiT is SimMIM's recipe with block-wise masks and words
        of a k-means over raw patches.
Run     harness run studies/simmim_vit.py --scale small
"""

from harness import BlockMask, PatchWords, Scratch, Skip, Study, TokenTarget, claims, paper_table, simmim, zipped
from studies.scales import PAPER_VIT, SMALL_VIT, TINY_VIT, finetune, probe

METHODS = ("supervised baseline", "DINO", "MoCo v3", "ViT", "BEiT", "SimMIM")


def cell(scale, method, input_size, seed):
    if method in ("DINO", "MoCo v3"):
        raise Skip(f"{method} is no masked image modelling")
    if method != "SimMIM" and scale.name == "paper":
        raise Skip(f"the published recipe of {method} is another, which is not expressed here")
    if method in ("supervised baseline", "ViT"):
        side = scale.image_size * input_size // scale.paper_image_size
        start = Scratch(backbone=scale.backbone, image_size=side)
        return {"finetune_top1": finetune(scale, start, seed)}
    if method == "BEiT":
        patch = scale.pixels(16)
        words = TokenTarget(tokenizer=PatchWords(vocabulary=64), downsample=patch)
        start = simmim(scale, mask=BlockMask(size=patch, ratio=0.4), target=words, seed=seed)
    else:
        start = simmim(scale, seed=seed)
    return {"finetune_top1": finetune(scale, start, seed), "linear_top1": probe(scale, start, seed)}


STUDY = Study(
    cell=cell,
    grid=zipped(method=METHODS, input_size=(224, 224, 224, 384, 224, 224)),
    scales=(SMALL_VIT, TINY_VIT, PAPER_VIT),
    seeds=5,
    reference={"method": "SimMIM", "input_size": 224},
    factors={"method": ("start",), "input_size": ("start", "image_size")},
    paper=paper_table("simmim_table6_vit_b", metric="finetune_top1"),
    claims=tuple(
        claims.better(f"SimMIM beats {name}", {"method": "SimMIM"}, {"method": method})
        for name, method in (("supervised training", "supervised baseline"), ("BEiT", "BEiT"))
    ),
)
