"""A2MIM's components: what fills hidden pixels, where and how the token comes in, which frequency loss?

Paper   A2MIM (Li et al., ICML 2023), component ablation: ResNet-50, 224 px, 100 epochs of pre-training, RSB A3,
        ImageNet-1K top-1. Its values are from memory: reports mark them as unverified.
Claim   Each component helps: the image's mean colour as fill, a token added at stage 3, the Fourier loss, its weights.
Here    SimMIM hides what it says it hides (the data set's mean colour, then a token in place of the stem's output);
        released SimMIM fills nothing. All arms share one recipe and the l1, which the released code's do not.
Run     harness run studies/a2mim_components.py --scale small
"""

from harness import (
    AfterStage,
    AtInput,
    Corruption,
    FourierLoss,
    Skip,
    Study,
    a2mim,
    claims,
    paper_table,
    zipped,
)
from studies.a2mim_scales import CPU, PAPER, SMALL, TINY, finetune
from studies.scales import MARGINS, beside

FILLS = {
    "none": "none",
    "zero": "zero",
    "data-set mean": "mean",
    "image mean": "image-mean",
    "visible mean": "visible-mean",
    "noise": "noise",
}
SITES = {"stem": AtInput(), "stage 3": AfterStage(stage=3, stride=16)}
OPERATIONS = {"replace": "replace", "add": "add", "gated add": "gated-add"}

# arm, fill, site, operation, Fourier loss, its weights; the first four are the published rows
ARMS = (
    ("SimMIM", "data-set mean", "stem", "replace", "none", "none"),
    ("without L_freq (mean fill + token moved)", "image mean", "stage 3", "add", "none", "none"),
    ("without omega (L_freq unweighted)", "image mean", "stage 3", "add", "paper", "none"),
    ("A2MIM", "image mean", "stage 3", "add", "paper", "error"),
    ("released SimMIM", "none", "stem", "replace", "none", "none"),
    ("SimMIM with RGB mean fill", "image mean", "stem", "replace", "none", "none"),
    ("A2MIM filling nothing", "none", "stage 3", "add", "paper", "error"),
    ("A2MIM filling nothing, gated", "none", "stage 3", "gated add", "paper", "error"),
    ("A2MIM filling zeros", "zero", "stage 3", "add", "paper", "error"),
    ("A2MIM filling the data-set mean", "data-set mean", "stage 3", "add", "paper", "error"),
    ("A2MIM filling the visible mean", "visible mean", "stage 3", "add", "paper", "error"),
    ("A2MIM filling noise", "noise", "stage 3", "add", "paper", "error"),
    ("A2MIM at the stem", "image mean", "stem", "add", "paper", "error"),
    ("A2MIM replacing", "image mean", "stage 3", "replace", "paper", "error"),
    ("A2MIM with a gate", "image mean", "stage 3", "gated add", "paper", "error"),
    ("A2MIM with the released L_freq", "image mean", "stage 3", "add", "released", "error"),
    ("A2MIM with the released L_freq, unweighted", "image mean", "stage 3", "add", "released", "none"),
)
GRID = zipped(
    **dict(zip(("arm", "fill", "site", "operation", "frequency", "weighting"), zip(*ARMS, strict=True), strict=True))
)


def fourier(frequency, weighting):
    """The Fourier loss of an arm, or None; the released one averages over the whole batch here."""
    if frequency == "none":
        return None
    return FourierLoss(variant=frequency, weight=0.5, focal=weighting == "error")


def cell(scale, arm, fill, site, operation, frequency, weighting, seed):
    if fill == "none" and operation == "add":
        raise Skip("a token that is added to what nothing fills hides nothing")
    corruption = Corruption(fill=FILLS[fill], token=OPERATIONS[operation], site=SITES[site])
    start = a2mim(scale, corruption=corruption, fourier=fourier(frequency, weighting), seed=seed)
    return {"top1": finetune(scale, start, seed), **beside(scale, start, seed)}


def arm(name):
    """The one cell of that name: arms differ in several axes at once."""
    return claims.best(arm=name)


STUDY = Study(
    cell=cell,
    grid=GRID,
    scales=(SMALL, CPU, TINY, PAPER),
    seeds=5,
    looks=(5, 10),
    reference=dict(zip(("arm", "fill", "site", "operation", "frequency", "weighting"), ARMS[3], strict=True)),
    paper=paper_table(
        "a2mim_ablation_memory", where={"table": "component", "backbone": "ResNet-50", "dataset": "ImageNet-1K"}
    ),
    claims=tuple(
        claims.better(sentence, arm(left), arm(right), margin=MARGINS)
        for sentence, left, right in (
            ("A2MIM beats SimMIM", "A2MIM", "SimMIM"),
            ("the mean colour of the image and a token at stage 3 help", ARMS[1][0], "SimMIM"),
            ("the Fourier loss helps", ARMS[2][0], ARMS[1][0]),
            ("weighting frequencies by their error helps", "A2MIM", ARMS[2][0]),
            ("filling in the image's own mean colour, not the data set's, helps SimMIM", ARMS[5][0], "SimMIM"),
        )
    ),
)
