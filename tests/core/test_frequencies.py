"""Masks of frequencies: which, how many, what is left of an image, and what the encoder and the loss see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from overfit import LEARNT, overfit
from pydantic import ValidationError

from harness import audit
from harness.core.data.datasets import facts_of
from harness.core.masks.frequencies import without_frequencies
from harness.core.masks.masking import make_mask
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.pretrain.reconstruct import reconstructed
from harness.spec import Backbone, Corruption, FrequencyMask, Loss, PixelTarget, Pretrain, RandomMask, Recipe, Shapes

VIT = Backbone(name="beit_base_patch16_224", args={"embed_dim": 32, "depth": 2, "num_heads": 2}, patch_size=8)
MASK = FrequencyMask(radius=6.0)


def run(**changes: Any) -> Pretrain:
    values: dict[str, Any] = {"mask": MASK, "loss": Loss(kind="frequency"), **changes}
    recipe = Recipe(epochs=1, batch_size=8, lr=1e-3)
    return Pretrain(data=Shapes(train=64, test=16), image_size=32, backbone=VIT, recipe=recipe, **values)


def drawn(mask: FrequencyMask, n: int = 400, size: int = 32, **changes: Any) -> torch.Tensor:
    values: dict[str, Any] = {"seed": 0, "step": 0, "steps": 1, "positions": torch.arange(n), **changes}
    return make_mask(mask, image_size=size, **values)


def test_low_and_high_pass_are_complements_of_one_disc() -> None:
    """At 224 px and radius 16, as the released generator's loops count: 793 low frequencies."""
    wanted = np.array([[(y - 112) ** 2 + (x - 112) ** 2 < 256 for x in range(224)] for y in range(224)])
    mask = FrequencyMask()
    assert mask.low_frequencies(224) == wanted.sum() == 793
    low, high = (drawn(mask.replace(low_pass=share), 2, 224)[0].numpy() for share in (1.0, 0.0))
    assert (low == ~wanted).all()
    assert (high == wanted).all()
    counts = {share: mask.replace(low_pass=share).hidden_units(224) for share in (0.0, 0.5, 1.0)}
    assert counts == {0.0: 793, 0.5: 224**2 - 793, 1.0: 224**2 - 793}


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_each_image_draws_its_filter(share: float) -> None:
    low = ~drawn(FrequencyMask(radius=6.0, low_pass=share), 4000)[:, 16, 16]  # the zero frequency is kept
    assert float(low.double().mean()) == pytest.approx(share, abs=0.03)
    whole = drawn(MASK, 60, step=3)
    assert torch.equal(drawn(MASK, step=3, positions=torch.arange(1, 60, 2)), whole[1::2])


def test_filtered_images_against_numpy() -> None:
    raw = np.random.default_rng(0).random((3, 2, 32, 32))
    mean, std = np.array([0.4, 0.5]), np.array([0.2, 0.3])
    normalised = torch.from_numpy((raw - mean[:, None, None]) / std[:, None, None]).float()
    removed = drawn(MASK, 3)
    spectrum = np.fft.fftshift(np.fft.fft2(raw), axes=(-2, -1)) * ~removed.numpy()[:, None]
    left = np.clip(np.fft.ifft2(np.fft.ifftshift(spectrum, axes=(-2, -1))).real, 0, 1)
    wanted = (left - mean[:, None, None]) / std[:, None, None]
    colours = (torch.tensor(values, dtype=torch.float32) for values in (mean, std))
    found = without_frequencies(normalised, removed, *colours)
    assert np.abs(found.numpy() - wanted).max() < 1e-4


def test_hidden_frequencies_do_not_reach_the_encoder_and_are_what_is_predicted() -> None:
    batch = audit.fixed_batch(run())
    assert batch.units.shape == (8, 32, 32)
    assert audit.is_masked(run(), batch)
    assert audit.reach_of_visible(run(), batch) > 1e-3
    assert audit.is_clean(run(), batch)

    class Leaking(MaskedImageModel):
        def encode(self, images: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
            return super().encode(images, torch.zeros_like(units))

    assert not audit.is_masked(run(), batch, Leaking(run(), 3))


def test_the_model_has_no_mask_token_and_learns() -> None:
    model = MaskedImageModel(run(), 3)
    assert model.mask_token is None
    assert not any(name.startswith("colours") for name in model.state_dict())
    batch = audit.fixed_batch(run())
    assert not audit.dead_parameters(run(), batch)
    assert overfit(run(), batch)[0] <= LEARNT
    assert overfit(run(loss=Loss(scope="full")), batch)[0] <= LEARNT


def test_pictures_show_what_is_left_of_the_image() -> None:
    spec = run()
    batch, facts = audit.fixed_batch(spec), facts_of(spec.data)
    found = reconstructed(MaskedImageModel(spec, 3).eval(), batch.images, batch.units, facts.mean, facts.std)
    assert found is not None
    assert found.hidden.all()
    colours = torch.tensor([facts.mean, facts.std])
    left = without_frequencies(batch.images, batch.units, *colours) * colours[1].view(3, 1, 1)
    wanted = ((left + colours[0].view(3, 1, 1)) * 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(found.masked - wanted).max() <= 0.51


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": Loss()}, "hides no pixels: valid with loss.kind 'l1': scope='full'"),
        ({"corruption": Corruption(fill="mean")}, "leave corruption out"),
        ({"mask": FrequencyMask(radius=16.0)}, "radius 16 leaves no corner of 32 px; below 16"),
        ({"target": PixelTarget(downsample=2)}, "does not divide the mask unit of 1 px"),
        ({"mask": RandomMask(size=8, ratio=0.5)}, "a random mask removes no frequencies"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        run(**changes)
