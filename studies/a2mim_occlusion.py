"""A2MIM, analysis: does a masked pre-training make a classifier robust to missing patches?

Paper   A2MIM (Li et al., ICML 2023), analysis of occlusion robustness, interactions and spectra: ImageNet-100, ViT-S at
        224 px, fine-tuned from random weights and from a masked pre-training, with and without CutMix and random
        erasing; patches of 16 px are dropped.
Claim   A masked pre-training keeps more accuracy as patches are dropped, and raises the strength of interactions of
        middle order. Both are from memory of the paper and unverified; its curves are not published as numbers.
Here    The pre-training is SimMIM's. The area under the curve of accuracy over drop ratio is judged; J(m), spectra and
        curves stand beside it. Reduced scales look at fewer images, pairs and contexts.
Run     harness run studies/a2mim_occlusion.py --scale tiny
"""

from harness import Fourier, ImageFolder, Interactions, Occlusion, Scratch, Study, axes, claims, simmim
from studies.scales import SMALL_VIT, TINY_VIT, finetune, published

PAPER = published("vit-s", 800, 224).replace(data=ImageFolder(name="imagenet-100"))
TINY = TINY_VIT.replace(finetune=TINY_VIT.finetune.replace(batch_size=50))  # CutMix takes pairs

AUGMENTATIONS = ("none", "CutMix", "random erasing")

# What the analyses take at each scale: None and the fields' own defaults are the published sizes.
OCCLUSION = {
    "paper": {},
    "small": {"images": 2_000},
    "tiny": {"images": 200, "draws": 3, "ratios": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)},
}
INTERACTIONS = {
    "paper": {},
    "small": {"images": 40, "pairs": 20, "contexts": 20},
    "tiny": {"images": 6, "pairs": 8, "contexts": 8, "orders": (0.0, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)},
}
FOURIER = {"paper": {}, "small": {}, "tiny": {"images": 100}}

ASSUMED = (
    "the recipe of ViT-S on ImageNet-100: SimMIM's of ViT-B, with its mixing, smoothing and erasing left out but for "
    "the arm's own",
    "saliency of a patch: the classifier's own gradient",
)


def tuned(scale, init, augmentation, seed):
    """The classifier of a cell."""
    if init == "random":
        start = Scratch(backbone=scale.backbone, image_size=scale.image_size)
    else:
        start = simmim(scale, seed=seed)
    augment = scale.finetune.augment.replace(
        mixup=0.0,
        cutmix=1.0 if augmentation == "CutMix" else 0.0,
        smoothing=0.0,
        erasing=0.25 if augmentation == "random erasing" else 0.0,
    )
    recipe = scale.finetune.replace(augment=augment)
    labelled = scale.labelled or scale.data
    return finetune(scale.replace(finetune=recipe, labelled=labelled), start, seed).replace(assumed=ASSUMED[:1])


def cell(scale, init, augmentation, seed):
    classifier = tuned(scale, init, augmentation, seed)
    name, size = scale.name, scale.pixels(16)
    return {
        "occlusion": Occlusion(start=classifier, size=size, seed=seed, assumed=ASSUMED[1:], **OCCLUSION[name]),
        "top1": classifier,
        "interactions": Interactions(start=classifier, seed=seed, **INTERACTIONS[name]),
        "spectra": Fourier(start=classifier, seed=seed, **FOURIER[name]),
    }


STUDY = Study(
    cell=cell,
    grid=axes(init=("random", "SimMIM"), augmentation=AUGMENTATIONS),
    scales=(SMALL_VIT, TINY, PAPER),
    seeds=5,
    reference={"init": "random", "augmentation": "none"},
    claims=tuple(
        claims.better(
            f"a masked pre-training is more robust to dropped patches, augmentation {name} (from memory, unverified)",
            {"init": "SimMIM"},
            {"init": "random"},
            at={"augmentation": name},
        )
        for name in AUGMENTATIONS
    ),
)
