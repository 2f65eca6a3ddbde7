"""What is written to spec.json comes back as the same value with the same digest."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.spec import (
    Augment,
    Backbone,
    BinTarget,
    BlockMask,
    CheckerboardMask,
    Checkpoint,
    ClusterTarget,
    ColourMask,
    Corruption,
    Cosine,
    CustomAugment,
    CustomBackbone,
    CustomData,
    CustomEvaluation,
    CustomHead,
    CustomLoss,
    CustomMask,
    CustomOptimiser,
    CustomTarget,
    DalleTokenizer,
    DisjointMask,
    FeatureTarget,
    FineTune,
    FourierLoss,
    HogTarget,
    ImageFolder,
    Images,
    InverseSwinHead,
    Knn,
    LinearHead,
    LinearMap,
    LinearProbe,
    Loss,
    LowPassTarget,
    MlpHead,
    MomentumTarget,
    MultiStep,
    NormPixelTarget,
    PatchWords,
    PixelTarget,
    Poly,
    Pretrain,
    RandomMask,
    Recipe,
    Run,
    Scratch,
    Segment,
    Shapes,
    Slide,
    SquareMask,
    TokenMask,
    TokenTarget,
    TransformerHead,
    UPerNet,
    Whole,
    run_from_json,
)

unit = st.floats(0, 1)
positive = st.floats(1e-12, 1e12)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
nested = st.recursive(plain, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
params = st.dictionaries(st.text(max_size=5), nested, max_size=3)
source = {"function": st.just("somewhere.else:f"), "source": st.text("0123456789abcdef", min_size=1), "params": params}
limits = {"train_images": st.none() | st.integers(1, 9), "split": st.sampled_from(["test", "validation"])}
backbones = st.builds(
    Backbone,
    name=st.text(),
    args=params.filter(lambda p: "img_size" not in p),
    patch_size=st.just(4),
    stride=st.just(8),
) | st.builds(CustomBackbone, patch_size=st.just(4), stride=st.just(8), **source)
data = st.one_of(
    st.builds(Images, name=st.sampled_from(["fashion-mnist", "cifar10", "stl10"]), **limits),
    st.builds(ImageFolder, name=st.just("nowhere"), content=st.none() | st.just("0a"), **limits),
    st.builds(Shapes, seed=st.integers(), **limits),
    st.builds(CustomData, **source, **limits),
)
masks = st.one_of(
    st.builds(RandomMask, size=st.just(8), ratio=st.floats(0.01, 0.9)),
    st.builds(SquareMask, size=st.just(8), ratio=st.floats(0.05, 0.6)),
    st.builds(BlockMask, size=st.just(8), ratio=st.floats(0.2, 0.9), count=st.sampled_from(["exact", "beit"])),
    st.builds(BlockMask, size=st.just(8), ratio=st.just(0.5), max_block=st.none() | st.floats(0.1, 0.9)),
    st.builds(TokenMask, size=st.just(8), ratio=st.floats(0.3, 0.9), shared=st.booleans()),
    st.builds(CheckerboardMask, size=st.just(8), phase=st.sampled_from([0, 1, "random", "both"])),
    st.builds(ColourMask, size=st.just(8), sigma=st.floats(0.1, 0.9), wide=st.floats(1.0, 9.0)),
    st.builds(DisjointMask, size=st.just(8), ratio=st.floats(0.3, 0.9)),
    st.builds(CustomMask, size=st.just(8), **source),
)
heads = st.one_of(
    st.builds(LinearHead),
    st.builds(MlpHead, width=st.none() | st.integers(1, 9)),
    st.builds(MlpHead, depthwise=st.sampled_from([3, 5])),
    st.builds(TransformerHead, width=st.none() | st.just(64), depthwise=st.none() | st.just(3)),
    st.builds(CustomHead, **source),
    st.builds(InverseSwinHead, embed_dim=st.just(4), depths=st.just((1, 2)), num_heads=st.just((1, 2))),
)
downsample = st.sampled_from([1, 2, 4])
teachers = st.builds(Checkpoint, path=st.text(), backbone=backbones, image_size=st.just(64), sha256=st.just("0a"))
norms = st.sampled_from(["none", "layer", "instance"])
values = st.one_of(
    st.builds(PixelTarget, downsample=downsample),
    st.builds(NormPixelTarget, size=st.sampled_from([2, 4, 8])),
    st.builds(LowPassTarget, radius=st.floats(1, 99), patch=st.none() | st.just(4)),
    st.builds(HogTarget, cell=st.sampled_from([2, 4]), window=st.integers(2, 99)),
    st.builds(FeatureTarget, teacher=teachers, width=st.integers(1, 99), downsample=st.just(4), norm=norms),
    st.builds(CustomTarget, channels=st.integers(1, 9), **source),
)
classes = st.one_of(
    st.builds(BinTarget, bins=st.integers(2, 256), downsample=downsample),
    st.builds(ClusterTarget, clusters=st.integers(2, 999), seed=st.integers(0, 9), downsample=downsample),
    st.builds(TokenTarget, tokenizer=st.builds(PatchWords, vocabulary=st.integers(2, 999)), downsample=downsample),
)
scopes = st.sampled_from(["masked", "full"])
losses = st.one_of(
    st.builds(Loss, kind=st.just("smooth-l1"), beta=st.none() | positive),
    st.builds(Loss, kind=st.sampled_from(["l1", "l2", "focal-l1"]), scope=scopes),
)
own_losses = st.builds(CustomLoss, scope=scopes, **source)
fouriers = st.one_of(
    st.builds(FourierLoss, weight=positive, alpha=positive),
    st.builds(FourierLoss, variant=st.just("released"), unmask_weight=unit, group=st.none() | st.just(1)),
    st.builds(FourierLoss, variant=st.just("plain"), unmask_weight=unit),
    st.builds(FourierLoss, variant=st.just("released"), focal=st.just(False), reweight=st.booleans()),
)
objectives = st.one_of(
    st.tuples(values, losses | own_losses, st.none()),
    st.tuples(st.builds(PixelTarget, downsample=downsample), losses, fouriers),
    st.tuples(classes, st.builds(Loss, kind=st.just("cross-entropy"), scope=scopes) | own_losses, st.none()),
)
schedules = (
    st.builds(Cosine, min_lr=unit)
    | st.builds(MultiStep, milestones=st.lists(st.integers(1, 99), max_size=3).map(tuple), gamma=positive)
    | st.builds(Poly, power=positive)
)
lengths = {"epochs": st.integers(1, 999), "batch_size": st.integers(1, 999), "lr": positive}
policies = st.sampled_from(("", "rand-m9-mstd0.5-inc1", "rand-m5-n1-tweights", "augmix-m5-w4-d2", "3a"))
recipes = st.builds(
    Recipe,
    lr_batch=st.none() | st.integers(1, 4096),
    betas=st.tuples(unit, unit),
    clip=st.none() | positive,
    schedule=schedules,
    augment=st.builds(Augment, flip=unit, rand_augment=policies) | st.builds(CustomAugment, flip=unit, **source),
    **lengths,
) | st.builds(
    Recipe,
    optimizer=st.builds(CustomOptimiser, **source),
    **{**lengths, "epochs": st.just(0)},
    steps=st.integers(1, 999),
)
pretrains = st.builds(
    lambda objective, **pieces: Pretrain(target=objective[0], loss=objective[1], fourier=objective[2], **pieces),
    data=data,
    image_size=st.just(32),
    backbone=backbones,
    mask=masks,
    corruption=st.builds(Corruption, fill=st.sampled_from(["none", "mean"])),
    head=heads,
    objective=objectives,
    recipe=recipes,
    seed=st.integers(0, 99),
    assumed=st.lists(st.text(), max_size=2).map(tuple),
)
starts = st.one_of(
    pretrains,
    st.builds(Scratch, backbone=backbones, image_size=st.just(32)),
    st.builds(Checkpoint, path=st.text(), backbone=backbones, image_size=st.just(32), sha256=st.just("0a")),
)
shared: dict[str, Any] = {"start": starts, "data": data, "image_size": st.just(32), "crop": st.floats(0.1, 1.0)}
runs = st.one_of(
    pretrains,
    st.builds(FineTune, recipe=recipes, tested_epochs=st.none() | st.integers(1, 9), **shared),
    st.builds(LinearProbe, recipe=recipes, batch_norm=st.booleans(), **shared),
    st.builds(Knn, temperature=positive, **shared),
    st.builds(
        Segment,
        recipe=st.builds(Recipe, **lengths),
        head=st.builds(LinearMap, batch_norm=st.booleans()) | st.builds(UPerNet, aux=unit),
        test=st.builds(Whole, flip=st.booleans())
        | st.builds(Slide, stride=st.integers(1, 32), scales=st.sampled_from([(1.0,), (0.5, 1.25)])),
        **{**shared, "data": st.builds(Shapes, seed=st.integers(0, 9)), "crop": st.just(0.875)},
    ),
    st.builds(CustomEvaluation, metric=st.text(), **source, **shared),
)


@settings(max_examples=150, deadline=None)
@given(run=runs)
def test_json_gives_the_same_run_back(run: Run) -> None:
    text = json.dumps(run.to_plain())
    back = run_from_json(text)
    assert type(back) is type(run)
    assert back.digest == run.digest
    assert json.dumps(back.to_plain()) == text


@settings(max_examples=20, deadline=None)
@given(target=st.builds(MomentumTarget, width=st.integers(1, 99), downsample=st.just(8), norm=norms, mean_norm=norms))
def test_json_gives_a_momentum_target_back(target: MomentumTarget) -> None:
    back = MomentumTarget.model_validate_json(json.dumps(target.to_plain()))
    assert (back, back.digest) == (target, target.digest)


def test_json_gives_a_file_s_tokenizer_back() -> None:
    target = TokenTarget(tokenizer=DalleTokenizer(path="w.pt", sha256="0a"))
    back = TokenTarget.model_validate_json(json.dumps(target.to_plain()))
    assert (back, back.digest) == (target, target.digest)


@settings(max_examples=100, deadline=None)
@given(left=params, right=params)
def test_params_have_equal_digests_exactly_when_they_are_the_same(left: Any, right: Any) -> None:
    def digest(args: Any) -> str:
        return CustomMask(function="somewhere.else:f", source="0a", size=8, params=args).digest

    same = repr(sorted(left.items())) == repr(sorted(right.items()))
    assert (digest(left) == digest(right)) is same
    assert digest(dict(reversed(left.items()))) == digest(left)
