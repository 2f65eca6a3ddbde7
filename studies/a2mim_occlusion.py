"""A2MIM, analysis: does a masked pre-training make a classifier robust to missing patches?

Paper   A2MIM (Li et al., ICML 2023), analysis of occlusion robustness, interactions and spectra: ImageNet-100, ViT-S
        and ResNet-50 at 224 px, fine-tuned from random weights and from a masked pre-training, with and without CutMix
        and random erasing; patches of 16 px are dropped.
Claim   A masked pre-training keeps more accuracy as patches are dropped, and raises the strength of interactions of
        middle order. Both are from memory of the paper and unverified; its curves are not published as numbers.
Here    The area under the curve of accuracy over drop ratio is judged; J(m), spectra and curves stand beside it.
        Reduced scales look at fewer images, pairs and contexts, and their ResNets at 12 x 12 patches of 96 px.
Run     harness run studies/a2mim_occlusion.py --scale tiny
"""

from harness import (
    Fourier,
    ImageFolder,
    Interactions,
    Occlusion,
    Scratch,
    Study,
    a2mim,
    axes,
    claims,
    simmim,
    simmim_cnn,
)
from studies import a2mim_scales as cnn
from studies import scales as vit

DATA = ImageFolder(name="imagenet100")
PAPER = vit.published("vit-s", 800, 224).replace(data=DATA)
SMALL, TINY = vit.SMALL_VIT, vit.TINY_VIT.replace(finetune=vit.TINY_VIT.finetune.replace(batch_size=50))
RESNETS = {
    "paper": cnn.PAPER.replace(data=DATA),
    "small": cnn.SMALL,
    "tiny": cnn.TINY.replace(finetune=cnn.TINY.finetune.replace(batch_size=50)),  # CutMix takes pairs
}

AUGMENTATIONS = ("none", "CutMix", "random erasing")
GRID = (
    axes(backbone=("ViT-S", "ResNet-50"), init=("random", "SimMIM", "A2MIM"), augmentation="none")
    | axes(backbone=("ViT-S", "ResNet-50"), init=("random", "A2MIM"), augmentation=AUGMENTATIONS[1:])
)  # fmt: skip

# What the analyses take at each scale: where nothing is said, the fields' own defaults are the published sizes.
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
BANDS = {"ViT-S": (0.05, 0.5), "ResNet-50": (0.1, 0.55)}

FACTORS = {
    "backbone": (
        "start", "backbone", "recipe", "image_size", "test_size", "loss", "label_threshold", "crop",
        "size", "grid", "band",
    ),
    "init": ("start",),
    "augmentation": ("recipe.augment", "start.recipe.augment"),
}  # fmt: skip

RECIPE = "fine-tuning on ImageNet-100: {}, with its mixing, smoothing and erasing left out but for the arm's own"
RECIPES = {"ViT-S": "SimMIM's recipe of ViT-B", "ResNet-50": "RSB A3"}
SALIENCY = "saliency of a patch: the classifier's own gradient"


def tuned(scale, backbone, init, augmentation, seed):
    """The classifier of a cell."""
    note = RECIPE.format(RECIPES[backbone]) if scale.name == "paper" else ""
    resnet = backbone == "ResNet-50"
    scale = (RESNETS.get(scale.name) or vit.lent(scale, cnn.SMALL)) if resnet else scale
    if init == "random":
        start = Scratch(backbone=scale.backbone, image_size=scale.image_size)
    elif init == "A2MIM":
        start = a2mim(scale, seed=seed)
    else:
        start = (simmim_cnn if resnet else simmim)(scale, seed=seed)
    scale = scale.replace(labelled=scale.labelled or scale.data)
    found = (cnn if resnet else vit).finetune(scale, start, seed)
    augment = found.recipe.augment.replace(
        mixup=0.0,
        cutmix=1.0 if augmentation == "CutMix" else 0.0,
        smoothing=0.0,
        erasing=0.25 if augmentation == "random erasing" else 0.0,
    )
    recipe = found.recipe.replace(augment=augment)
    return found.replace(recipe=recipe, assumed=(*found.assumed, note) if note else found.assumed)


def patches(classifier):
    """Patches on each side of what a classifier is tested on: 14 where they fit, else 12, else fewer."""
    size = classifier.test_size or classifier.image_size
    return next(count for count in (14, *range(12, 0, -1)) if size % count == 0)


def interactions(scale, backbone, classifier, seed):
    """J(m) of a classifier at a scale, judged where the paper says that a masked pre-training raises it."""
    fields = INTERACTIONS.get(scale.name, INTERACTIONS["small"])
    return Interactions(start=classifier, grid=patches(classifier), band=BANDS[backbone], seed=seed, **fields)


def cell(scale, backbone, init, augmentation, seed):
    classifier = tuned(scale, backbone, init, augmentation, seed)
    size = (classifier.test_size or classifier.image_size) // patches(classifier)
    occluded = OCCLUSION.get(scale.name, OCCLUSION["small"])
    return {
        "occlusion": Occlusion(start=classifier, size=size, seed=seed, assumed=(SALIENCY,), **occluded),
        "top1": classifier,
        "interactions": interactions(scale, backbone, classifier, seed),
        "spectra": Fourier(start=classifier, seed=seed, **FOURIER.get(scale.name, {})),
    }


STUDY = Study(
    cell=cell,
    grid=GRID,
    scales=(SMALL, TINY, PAPER),
    seeds=5,
    reference={"backbone": "ViT-S", "init": "random", "augmentation": "none"},
    claims=tuple(
        claims.better(
            f"{backbone}, augmentation {name}: a masked pre-training is more robust to dropped patches "
            "(from memory, unverified)",
            {"init": "A2MIM"},
            {"init": "random"},
            at={"backbone": backbone, "augmentation": name},
        )
        for backbone in BANDS
        for name in AUGMENTATIONS
    ),
    factors=FACTORS,
)
