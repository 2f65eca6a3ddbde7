"""What happens to hidden pixels and features, by hand; and the contract of every arm: what leaks, and what learns."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from test_backbones import CONVNEXT, RESNET
from tiny import BEIT, SWIN, VIT, pretrain

from harness import audit
from harness.core.data.datasets import load
from harness.core.masks.masking import spread
from harness.core.model.backbones import Piece
from harness.core.model.corruption import combined, declared_leaks, filled, noise_stream
from harness.core.objective.contrastive import Pairs
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.runtime.drop_path import Place
from harness.spec import (
    AfterStage,
    AtInput,
    Backbone,
    BeforeBlock,
    Corruption,
    LinearHead,
    Pretrain,
    RandomMask,
)
from harness.spec.model.corruption import Fill

Token = Literal["replace", "add", "gated-add"]
FILLS: tuple[Fill, ...] = ("none", "zero", "mean", "image-mean", "visible-mean", "noise")
BLACK = torch.tensor([-2.0, -3.0])


def some_images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(3, 2, 4, 4, generator=generator)
    hidden = torch.rand(3, 4, 4, generator=generator) < 0.4
    return images, hidden


@pytest.mark.parametrize("fill", FILLS)
def test_fills_by_an_independent_computation(fill: Fill) -> None:
    images, hidden = some_images()
    found = filled(images, hidden, fill, BLACK).numpy()
    x, m = images.numpy(), hidden.numpy()
    for image, channel in itertools.product(range(3), range(2)):
        plane, where = x[image, channel], m[image]
        assert np.array_equal(found[image, channel][~where], plane[~where])
        inside = found[image, channel][where]
        if fill == "none":
            assert np.array_equal(inside, plane[where])
        elif fill == "noise":
            assert len(set(inside.tolist())) == where.sum()
        else:
            colour = {
                "zero": BLACK[channel].item(),
                "mean": 0.0,
                "image-mean": plane.mean(),
                "visible-mean": plane[~where].mean(),
            }[fill]
            assert inside == pytest.approx(np.full(where.sum(), colour), abs=1e-6)


def test_black_is_the_pixel_value_0_after_normalisation() -> None:
    run = pretrain(corruption=Corruption(fill="zero"))
    model = MaskedImageModel(run, 3)
    source = load(run.data, "pretrain")
    wanted = [(0 - mean) / std for mean, std in zip(source.mean, source.std, strict=True)]
    assert model.black.tolist() == pytest.approx(wanted)
    assert "black" not in model.state_dict()


def test_a_mean_over_nothing_visible_is_no_division_by_zero() -> None:
    images = torch.ones(1, 2, 2, 2)
    assert filled(images, torch.ones(1, 2, 2, dtype=torch.bool), "visible-mean", BLACK).abs().max() == 0


def noise(step: int, positions: list[int], seed: int = 0) -> torch.Tensor:
    images = torch.zeros(len(positions), 3, 16, 16)
    place = Place().move(step, torch.tensor(positions))
    return filled(
        images,
        torch.ones(len(positions), 16, 16, dtype=torch.bool),
        "noise",
        BLACK,
        stream=noise_stream(seed),
        place=place,
    )


def test_noise_is_a_function_of_seed_step_and_position() -> None:
    whole = noise(3, [0, 1, 2, 3])
    assert torch.equal(torch.cat((noise(3, [0, 1]), noise(3, [2, 3]))), whole)
    assert torch.equal(noise(3, [3, 0])[1], whole[0])
    for other in (noise(4, [0, 1, 2, 3]), noise(3, [0, 1, 2, 3], seed=1), noise(3, [1, 2, 3, 4])):
        assert not (other == whole).any()
    assert torch.equal(
        filled(torch.zeros(4, 3, 16, 16), torch.ones(4, 16, 16).bool(), "noise", BLACK, stream=noise_stream(0)),
        noise(0, [0, 1, 2, 3]),
    )


def test_images_that_do_not_fit_the_place_have_no_noise() -> None:
    """They would have had that of step 0 in every step."""
    place = Place().move(3, torch.arange(4))
    for count in (1, 2, 3, 6):
        images, hidden = torch.zeros(count, 3, 16, 16), torch.ones(count, 16, 16, dtype=torch.bool)
        with pytest.raises(ValueError, match=f"{count} images at a place of 4"):
            filled(images, hidden, "noise", BLACK, place=place)
        assert torch.equal(filled(images, hidden, "noise", BLACK, place=Place()), noise(0, [0, 1, 2, 3, 4, 5][:count]))
    views = filled(torch.zeros(8, 3, 16, 16), torch.ones(8, 16, 16, dtype=torch.bool), "noise", BLACK, place=place)
    assert torch.equal(views[::2], noise(3, [0, 1, 2, 3]))


def test_noise_is_standard_normal() -> None:
    found = noise(0, list(range(64))).flatten()
    assert found.isfinite().all()
    assert found.mean().item() == pytest.approx(0, abs=4 / len(found) ** 0.5)
    assert found.std().item() == pytest.approx(1, abs=0.02)
    assert (found.abs() < 1).float().mean().item() == pytest.approx(0.6827, abs=0.01)


LAYOUTS: dict[str, Literal["tokens", "last", "first"]] = {
    "tokens": "tokens",
    "tokens with a class token": "tokens",
    "last": "last",
    "first": "first",
}


def unchanged(model: object, x: torch.Tensor, shared: torch.Tensor | None) -> torch.Tensor:
    return x


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """[B, h, w, C] in another layout; a class token is all 7."""
    match layout:
        case "tokens":
            return x.flatten(1, 2)
        case "tokens with a class token":
            return torch.cat((torch.full_like(x[:, :1, 0], 7.0), x.flatten(1, 2)), dim=1)
        case "last":
            return x
        case _:
            return x.permute(0, 3, 1, 2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("corruption", "formula"),
    [
        (Corruption(token="replace"), lambda x, m, t, g: x * (1 - m) + t * m),
        (Corruption(token="add", fill="mean"), lambda x, m, t, g: x + t * m),
        (Corruption(token="gated-add"), lambda x, m, t, g: x * (1 - m) + g * x * m + t * m),
        (Corruption(token="gated-add", detach=True), lambda x, m, t, g: x * (1 - m) + g * x * m + t * m),
        (Corruption(token="none", fill="mean"), lambda x, m, t, g: x),
    ],
    ids=["replace", "add", "gated", "gated, detached", "none"],
)
def test_operations_in_every_layout(layout: str, corruption: Corruption, formula: Callable[..., torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(2)
    x, token, gate = (torch.randn(*shape, generator=generator) for shape in ((2, 3, 3, 4), (4,), (4,)))
    hidden = torch.rand(2, 3, 3, generator=generator) < 0.5
    piece = Piece(unchanged, LAYOUTS[layout], 4, 16, prefix=int("class" in layout))
    given = gate if corruption.token == "gated-add" else None
    found = combined(laid_out(x, layout), hidden, token, given, corruption, piece)
    wanted = formula(x, hidden[..., None].float(), token, gate)
    assert torch.allclose(found, laid_out(wanted, layout), atol=1e-7)


@pytest.mark.parametrize("detach", [False, True])
def test_detaching_stops_the_gradients_of_hidden_features_only(detach: bool) -> None:
    x = torch.ones(1, 4, 2, requires_grad=True)
    hidden = torch.tensor([[[True, False], [False, True]]])
    corruption = Corruption(fill="mean", token="add", detach=detach)
    piece = Piece(unchanged, "tokens", 2, 16)
    combined(x, hidden, torch.zeros(2), None, corruption, piece).sum().backward()
    assert x.grad is not None
    assert x.grad[0, :, 0].tolist() == ([0, 1, 1, 0] if detach else [1, 1, 1, 1])


DEEP: dict[str, tuple[Backbone, AfterStage | BeforeBlock]] = {
    "vit": (VIT, BeforeBlock(block=2, stride=4)),
    "beit": (BEIT, BeforeBlock(block=2, stride=4)),
    "swin": (SWIN, AfterStage(stage=2, stride=8)),
    "resnet": (RESNET, AfterStage(stage=3, stride=16)),
    "convnext": (CONVNEXT, BeforeBlock(block=5, stride=32)),
}


def arm(backbone: Backbone, corruption: Corruption) -> Pretrain:
    """A pre-training whose mask units fit the site of the token."""
    side = max(8, corruption.stride(backbone.patch_size))
    size = max(4 * side, 64) if backbone.stride == 32 else 32
    return pretrain(
        backbone=backbone,
        corruption=corruption,
        image_size=size,
        mask=RandomMask(size=side, ratio=0.5),
        head=LinearHead(),
    )


def arms() -> dict[str, Pretrain]:
    """Every combination of fill, token and site: with every backbone where nothing is filled, else with one in turn."""
    found, names = dict[str, Pretrain](), list(DEEP)
    tokens: tuple[Token, ...] = ("replace", "add", "gated-add")
    for (f, fill), (t, token), deep in itertools.product(enumerate(FILLS), enumerate(tokens), (False, True)):
        if (fill, token) != ("none", "add"):
            # by these numbers each fill, each token and each site comes to each of the five
            for name in names if fill == "none" else [names[(f + t + 3 * deep) % 5]]:
                backbone, site = DEEP[name]
                # a gate of 0.5, so that what it lets through is no rounding
                gate = 0.5 if token == "gated-add" else None
                corruption = Corruption(fill=fill, token=token, site=site if deep else AtInput(), gate=gate)
                found[f"{name}, {fill}, {token}, {'deep' if deep else 'input'}"] = arm(backbone, corruption)
    for name, fill in zip(names, FILLS[1:], strict=True):
        found[f"{name}, {fill}"] = arm(DEEP[name][0], Corruption(fill=fill, token="none"))
    return found


ARMS = arms()


def test_every_combination_of_a_corruption_is_an_arm_and_every_backbone_meets_every_piece() -> None:
    words = [name.split(", ") for name in ARMS]
    assert len({tuple(rest) for _, *rest in words}) == 2 * (3 * len(FILLS) - 1) + len(FILLS) - 1
    pairs = {(backbone, other) for backbone, *others in words for other in others}
    wanted = itertools.product(DEEP, (*FILLS, "replace", "add", "gated-add", "input", "deep"))
    assert set(wanted) <= pairs


@pytest.mark.parametrize("run", ARMS.values(), ids=ARMS)
def test_hidden_pixels_reach_the_encoder_by_declared_leaks_only(run: Pretrain) -> None:
    batch = audit.fixed_batch(run, 2)
    model = MaskedImageModel(run, 3)
    warm(model, batch)
    assert audit.is_masked(run, batch, model)
    assert audit.is_clean(run, batch, model)
    if run.corruption.fill not in ("none", "image-mean"):
        assert declared_leaks(run) == ()
    if run.corruption.fill == "image-mean" and run.corruption.token != "replace":
        assert declared_leaks(run) == ("image mean",)


def warm(model: MaskedImageModel, batch: audit.Batch) -> None:
    """Give the last scales of residual branches, which begin at zero or nearly so, a value that shows a leak."""
    with torch.no_grad():
        for name, parameter in model.encoder.model.named_parameters():
            if name.endswith(("bn3.weight", "bn2.weight", "gamma")):
                parameter.fill_(1.0)


@pytest.mark.parametrize(
    ("backbone", "corruption", "leaks"),
    [
        (VIT, Corruption(), ()),
        (VIT, Corruption(fill="image-mean"), ()),
        (RESNET, Corruption(fill="image-mean"), ("image mean",)),
        (VIT, Corruption(site=BeforeBlock(block=1, stride=4)), ()),
        (VIT, Corruption(site=BeforeBlock(block=2, stride=4)), ("layers before the site",)),
        (VIT, Corruption(token="gated-add"), ("gate",)),
        (VIT, Corruption(token="gated-add", fill="mean"), ()),
        (SWIN, Corruption(), ()),
        (SWIN, Corruption(site=AfterStage(stage=1, stride=4)), ("layers before the site",)),
        (CONVNEXT, Corruption(), ()),
        (
            CONVNEXT.replace(args={**dict(CONVNEXT.args), "stem_type": "overlap"}),
            Corruption(),
            ("stem receptive field",),
        ),
        (RESNET, Corruption(), ("stem receptive field",)),
        (RESNET, Corruption(token="gated-add"), ("gate", "stem receptive field")),
        (RESNET, Corruption(fill="mean"), ()),
        (RESNET, Corruption(fill="image-mean", token="add", site=AfterStage(stage=3, stride=16)), ("image mean",)),
        (CONVNEXT, Corruption(token="add", hides_nothing=True), ("nothing hidden",)),
    ],
)
def test_declared_leaks(backbone: Backbone, corruption: Corruption, leaks: tuple[str, ...]) -> None:
    run = arm(backbone, corruption)
    assert declared_leaks(run) == leaks
    batch, model = audit.fixed_batch(run, 2), MaskedImageModel(run, 3)
    warm(model, batch)
    assert audit.is_masked(run, batch, model)
    assert (audit.leak(run, batch, model) > 0) is bool(leaks)


class NoFill(MaskedImageModel):
    """A planted defect: hidden pixels stay, as in OpenMixup's mask_color='zero'."""

    def encode(self, images: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
        hidden = spread(units, images.shape[-1] // self.encoder.token_stride)
        found: torch.Tensor = self.encoder(images, hidden, self.mask_token, self.mask_gate)
        return found


class FilledTarget(MaskedImageModel):
    """A planted defect: the target is made of filled images, as in OpenMixup's SimMIM with RGB mean."""

    def forward(
        self, images: torch.Tensor, units: torch.Tensor, pairs: Pairs | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        mean = filled(images, spread(units, images.shape[-1]), self.run.corruption.fill, self.black)
        return super().forward(mean, units, pairs)


@pytest.mark.parametrize("fill", ["mean", "image-mean", "visible-mean"])
def test_planted_defects_are_found(fill: Fill) -> None:
    run = arm(RESNET, Corruption(fill=fill, token="gated-add", site=AfterStage(stage=3, stride=16)))
    batch = audit.fixed_batch(run, 2)
    for defect, check in ((NoFill, audit.is_masked), (FilledTarget, audit.is_clean)):
        assert check(run, batch, MaskedImageModel(run, 3))
        model = defect(run, 3)
        warm(model, batch)
        assert not check(run, batch, model)


def test_a_declared_leak_that_is_not_there_is_no_mask() -> None:
    declared = arm(VIT, Corruption(fill="image-mean", token="add"))
    batch = audit.fixed_batch(declared, 2)
    assert audit.is_masked(declared, batch)
    other = declared.replace(corruption=Corruption(fill="mean", token="add"))
    assert not audit.is_masked(declared, batch, MaskedImageModel(other, 3))


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("token", ["replace", "add", "gated-add"])
def test_token_and_gate_are_learnt(name: str, token: Token) -> None:
    backbone, site = DEEP[name]
    run = arm(backbone, Corruption(fill="image-mean", token=token, site=site))
    assert audit.dead_parameters(run, audit.fixed_batch(run, 4)) == []
    names = dict(MaskedImageModel(run, 3).named_parameters())
    assert ("mask_gate" in names) is (token == "gated-add")
    assert names["mask_token"].shape == (MaskedImageModel(run, 3).encoder.token_width,)


def test_arms_differ_in_loss_or_gradients() -> None:
    backbone, site = DEEP["resnet"]
    tokens: tuple[Token, ...] = ("replace", "add", "gated-add")
    steps = [
        audit.first_step(arm(backbone, Corruption(fill=fill, token=token, site=site)))
        for fill, token in itertools.product(FILLS, tokens)
        if (fill, token) != ("none", "add")
    ]
    for left, right in itertools.combinations(steps, 2):
        assert not left.same_as(right)
