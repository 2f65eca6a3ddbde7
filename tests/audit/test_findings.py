"""An audit finds what is planted, one defect at a time, names it, and finds nothing where nothing is."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from tiny import DATA, RECIPE, VIT, pretrain

from harness import audit
from harness.audit import findings
from harness.audit.factors import check_factors
from harness.audit.rates import check_rates
from harness.audit.windows import check_windows
from harness.core.masks.masking import spread
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.train import training
from harness.core.train.optimiser import layer_scales, learning_rate
from harness.spec import (
    Augment,
    Backbone,
    Contrastive,
    Corruption,
    CustomMask,
    FineTune,
    HarnessError,
    ImageFolder,
    Knn,
    MomentumEncoder,
    RandomMask,
    Recipe,
    Scale,
    Scratch,
    TokenMask,
)
from harness.study import Plan, Study, axes, expand

FINETUNE = Recipe(epochs=4, batch_size=8, lr=2e-3, lr_batch=None, warmup_epochs=1, layer_decay=0.65)
SCALE = Scale(
    name="tiny",
    data=pretrain().data,
    image_size=32,
    backbone=VIT,
    pretrain=pretrain().recipe,
    finetune=FINETUNE,
)


@pytest.fixture(autouse=True)
def _masks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("HARNESS_PROJECT", str(Path(__file__).parent))


def plan(planted: Callable[[dict[str, Any]], dict[str, Any]] = lambda arm: arm, **settings: Any) -> Plan:
    """A study of two arms, a ratio of 0.5 and one of 0.75, and one from scratch; `planted` changes the second."""

    def cell(scale: Scale, arm: str, seed: int) -> dict[str, FineTune]:
        if arm == "scratch":
            start = Scratch(backbone=VIT, image_size=32)
            return {"top1": FineTune(start=start, data=scale.data, recipe=scale.finetune, seed=seed)}
        pieces: dict[str, Any] = {"mask": RandomMask(size=8, ratio=0.5), "finetune": scale.finetune}
        if arm == "other":
            pieces = planted({**pieces, "mask": RandomMask(size=8, ratio=0.75)})
        recipe = pieces.pop("finetune")
        return {"top1": FineTune(start=pretrain(**pieces, seed=seed), recipe=recipe, seed=seed)}

    grid = axes(arm=("reference", "other", "scratch"))
    return expand(Study(cell=cell, grid=grid, scales=(SCALE,), reference={"arm": "reference"}, **settings))


WHOLE = Augment(crop_scale=(1.0, 1.0), flip=0.0)


def resized(path: Path) -> Tensor:
    """A file as a training sees it that crops nothing: float32 [3, 32, 32], normalised as ImageNet is."""
    with Image.open(path) as file:
        pixels = np.asarray(file.resize((32, 32), Image.Resampling.BILINEAR)) / 255
    return torch.tensor((pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).permute(2, 0, 1).float()


def failures(found: list[audit.Finding]) -> dict[str, list[str]]:
    """Texts of what failed, by check."""
    named: dict[str, list[str]] = {}
    for finding in found:
        if finding.verdict == "failed":
            named.setdefault(finding.check, []).append(f"{finding.arm}: {finding.text}")
    return named


def test_nothing_is_found_where_nothing_is() -> None:
    found = audit.audit(plan())
    assert failures(found) == {}
    assert {finding.check for finding in found} == {"factors", "masks", "masked", "clean", "live", "rates"}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda arm: {**arm, "recipe": pretrain().recipe.replace(lr=5e-3)}, "start.recipe.lr: 0.005 instead of"),
        (
            lambda arm: {**arm, "recipe": pretrain().recipe.replace(augment=Augment(crop_scale=(0.2, 1.0)))},
            "start.recipe.augment.crop_scale: (0.2, 1.0) instead of",
        ),
        (lambda arm: {**arm, "finetune": FINETUNE.replace(epochs=8)}, "recipe.epochs: 8 instead of 4"),
        (lambda arm: {**arm, "finetune": FINETUNE.replace(lr=4e-3)}, "recipe.lr: 0.004 instead of 0.002"),
    ],
    ids=["lr", "crop", "epochs", "fine-tuning lr"],
)
def test_what_slipped_is_named(change: Callable[[dict[str, Any]], dict[str, Any]], path: str) -> None:
    (text,) = failures(audit.audit(plan(change)))["factors"]
    assert text.startswith("other: arm also changes ")
    assert path in text
    field = path.partition(":")[0]
    fields = '"start",' if field.startswith("start.") else f'"{field}", "start",'
    assert text.endswith(f'(in top1); if the question is about that, say so: factors={{"arm": ({fields})}}')


def test_declared_factors_are_allowed_and_others_then_are_not() -> None:
    def longer(arm: dict[str, Any]) -> dict[str, Any]:
        return {"mask": RandomMask(size=8, ratio=0.5), "finetune": FINETUNE.replace(epochs=8)}

    assert "factors" in failures(audit.audit(plan(longer)))
    declared = {"arm": ("recipe.epochs", "start")}
    assert failures(audit.audit(plan(longer, factors=declared))) == {}
    (text,) = failures(audit.audit(plan(factors={"arm": ("start.mask.size",)})))["factors"][:1]
    assert "start.mask.ratio: 0.75 instead of 0.5" in text
    beginning = {"arm": ("recipe.epoch", "start")}  # of a name, not of a path
    assert any(
        "recipe.epochs" in text for text in failures([*check_factors(plan(longer, factors=beginning))])["factors"]
    )
    with pytest.raises(HarnessError, match="factors names no axis with 'lr'; this study has arm"):
        plan(factors={"lr": ("recipe.lr",)})


@pytest.mark.parametrize(
    ("function", "params", "said"),
    [
        ("inverted", {"ratio": 0.75}, "4 of 16 units hidden (25.00%), but ratio 0.75 is stated, as if True meant"),
        ("frozen", {"ratio": 0.75}, "every batch has the same masks"),
        ("single", {"ratio": 0.75}, "every image of every batch has the same mask"),
    ],
)
def test_defective_masks_are_named(function: str, params: dict[str, Any], said: str) -> None:
    mask = CustomMask(function=f"planted_masks:{function}", size=8, params=params)
    found = failures(audit.audit(plan(lambda arm: {**arm, "mask": mask})))
    assert ("pieces" in found) is (function == "frozen")  # whose rows depend on the length of the batch besides
    assert any(text.startswith("other: custom mask") and said in text for text in found["masks"])


def test_a_defective_mask_of_the_momentum_encoder_is_named() -> None:
    mask = CustomMask(function="planted_masks:inverted", size=8, params={"ratio": 0.75})
    both = {"contrastive": Contrastive(hidden=16, out=8, mask=mask), "momentum": MomentumEncoder()}
    (text,) = failures(audit.audit(plan(lambda arm: {**arm, **both})))["masks"]
    assert "ratio 0.75 is stated, as if True meant visible" in text


def test_a_sound_mask_of_a_user_passes() -> None:
    mask = CustomMask(function="planted_masks:sound", size=8, params={"ratio": 0.75})
    assert failures(audit.audit(plan(lambda arm: {**arm, "mask": mask}))) == {}


def test_masks_that_all_images_of_a_batch_share_are_remarked() -> None:
    shared = TokenMask(size=8, ratio=0.75, shared=True)
    found = audit.audit(plan(lambda arm: {**arm, "mask": shared}))
    assert failures(found) == {}
    (text,) = [item.text for item in found if item.check == "masks" and "share one mask" in item.text]
    assert text.startswith("tokens mask: 8 distinct masks of 128")


def test_a_board_of_49_percent_is_named() -> None:
    """Blocks of 2 x 2 units on 14 x 14: 96 or 100 of 196."""
    big = SCALE.replace(image_size=56)
    params = {"ratio": 0.5, "side": 2}
    mask = CustomMask(function="planted_masks:board", size=4, params=params)

    def cell(scale: Scale, arm: str, seed: int) -> dict[str, FineTune]:
        chosen = mask if arm == "board" else RandomMask(size=4, ratio=0.5)
        backbone = VIT.replace(patch_size=4)
        start = pretrain(mask=chosen, seed=seed, image_size=56, backbone=backbone)
        return {"top1": FineTune(start=start, recipe=FINETUNE, seed=seed)}

    study = Study(cell=cell, grid=axes(arm=("random", "board")), scales=(big,), reference={"arm": "random"})
    found = failures(audit.audit(expand(study)))
    assert list(found) == ["masks"]
    assert "96 to 100, " in found["masks"][0]
    assert "of 196 units hidden" in found["masks"][0]
    assert "ratio 0.5 is stated" in found["masks"][0]


ENCODE = MaskedImageModel.encode
FORWARD = MaskedImageModel.forward


def filled_in_vain(self: MaskedImageModel, images: Tensor, units: Tensor) -> Tensor:
    """The fill does nothing."""
    return self.encoder(images)  # type: ignore[no-any-return]


def added(self: MaskedImageModel, images: Tensor, units: Tensor) -> Tensor:
    """The token is added and nothing is removed."""
    return ENCODE(self, images, torch.zeros_like(units)) + units.float().mean() * self.mask_token.sum()  # type: ignore[union-attr]


def token_left_out(self: MaskedImageModel, images: Tensor, units: Tensor) -> Tensor:
    """The mask token never enters: zeros do."""
    side = images.shape[-1] // self.run.backbone.patch_size
    found: Tensor = self.encoder(images, spread(units, side), torch.zeros_like(self.mask_token))  # type: ignore[arg-type]
    return found


def turned_round(self: MaskedImageModel, images: Tensor, units: Tensor) -> Tensor:
    """Visible tokens are replaced."""
    return ENCODE(self, images, ~units)


def of_the_corrupted(self: MaskedImageModel, images: Tensor, units: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The target is made of the filled image."""
    return FORWARD(self, images.masked_fill(spread(units, images.shape[-1])[:, None], 0.0), units)


@pytest.mark.parametrize(
    ("place", "defect", "corruption", "check", "said"),
    [
        ("encode", filled_in_vain, Corruption(fill="mean", token="none"), "masked", "hidden pixels reach the encoder"),
        ("encode", added, Corruption(), "masked", "hidden pixels reach the encoder"),
        ("encode", token_left_out, Corruption(), "live", "parameters without a gradient: mask_token"),
        ("encode", turned_round, Corruption(), "masked", "the mask is the wrong way round"),
        ("forward", of_the_corrupted, Corruption(fill="mean"), "clean", "the target does not show what is hidden"),
    ],
)
def test_defects_of_the_model_are_named(
    monkeypatch: pytest.MonkeyPatch, place: str, defect: Any, corruption: Corruption, check: str, said: str
) -> None:
    monkeypatch.setattr(MaskedImageModel, place, defect)
    found = failures(audit.audit(plan(lambda arm: {**arm, "corruption": corruption})))
    assert any(said in text for text in found[check])


def scaled(changed: Callable[[float], float]) -> Callable[..., float]:
    """A `learning_rate` with a planted defect: it takes another scale than it is given."""
    return lambda *args, scale=1.0, **sizes: learning_rate(*args, **sizes | {"scale": changed(scale)})


@pytest.mark.parametrize("twice", ["in the loop", "in the groups"])
def test_layer_decay_applied_twice_is_named(monkeypatch: pytest.MonkeyPatch, twice: str) -> None:
    if twice == "in the loop":
        monkeypatch.setattr(training, "learning_rate", scaled(lambda scale: scale**2))
    else:
        from harness.core.evaluate import finetune

        monkeypatch.setattr(
            finetune, "layer_scales", lambda *args: {name: scale**2 for name, scale in layer_scales(*args).items()}
        )
    found = failures(audit.audit(plan()))
    assert list(found) == ["rates"]
    assert any("learning rate of" in text and "patch_embed.proj.weight" in text for text in found["rates"])


def test_a_rate_that_is_too_large_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "learning_rate", scaled(lambda scale: 1.05 * scale))
    run = next(iter(findings.finetunings(plan()).values()))
    verdict, decay = check_rates(run, "other")
    assert (verdict.verdict, decay.verdict) == ("failed", "passed")
    assert re.search(r"learning rate of (\d+) of \1 parameters", verdict.text)


def test_small_rates_of_weights_near_one_are_the_recipe_s() -> None:
    """A step of 1.75e-5 from 1.0 is rounded to a multiple of 6e-8, which is more than a thousandth of it off."""
    start = Scratch(backbone=VIT.replace(args={"embed_dim": 32, "depth": 6, "num_heads": 2}), image_size=32)
    for lr, layer_decay in ((5e-4, 0.65), (1e-3, 0.5)):
        recipe = RECIPE.replace(lr=lr, lr_batch=None, layer_decay=layer_decay)
        for finding in check_rates(FineTune(start=start, data=DATA, recipe=recipe), "small"):
            assert finding.verdict == "passed", finding.text


def test_weight_decay_on_everything_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.core.train import optimiser

    monkeypatch.setattr(optimiser, "decays", lambda *_: True)
    found = failures(audit.audit(plan()))
    assert any("weight decay of" in text and "0.05 instead of 0" in text for text in found["rates"])


def test_a_dead_switch_is_named() -> None:
    """8 of 16 units at every ratio from 0.4376 to 0.5: another number, the same mask."""
    found = failures(audit.audit(plan(lambda arm: {**arm, "mask": RandomMask(size=8, ratio=0.45)})))
    assert found == {
        "live": ["other: differs from reference in mask.ratio, but not in loss or gradients: a dead switch"]
    }


def test_a_data_set_that_is_not_here_is_stood_in_for() -> None:
    def cell(scale: Scale, seed: int) -> dict[str, FineTune]:
        start = pretrain(data=ImageFolder(name="nowhere"), seed=seed)
        return {"top1": FineTune(start=start, recipe=FINETUNE, seed=seed)}

    found = audit.audit(expand(Study(cell=cell, grid=axes(), scales=(SCALE,), reference={})))
    assert failures(found) == {}
    assert any(finding.check == "data" and "generated images" in finding.text for finding in found)


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve photographs of two classes to train, two to test."""
    pixels = np.random.default_rng(0).integers(0, 256, (14, 40, 48, 3), dtype=np.uint8)
    for number, values in enumerate(pixels):
        folder = tmp_path / "pets" / ("train" if number < 12 else "val") / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / f"{number}.png")
    monkeypatch.setenv("HARNESS_DATA_PETS", str(tmp_path / "pets"))
    return tmp_path / "pets"


def test_a_folder_of_one_s_own_is_audited_on_its_own_images(own_folder: Path) -> None:
    def on_folder(arm: dict[str, Any]) -> dict[str, Any]:
        return {**arm, "data": ImageFolder(name="pets")}

    found = audit.audit(plan(on_folder))
    assert not [item for item in found if item.check == "data"]
    assert {item.check for item in found if item.arm == "other"} >= {"masks", "masked", "clean", "live"}
    run = pretrain(data=ImageFolder(name="pets"), recipe=pretrain().recipe.replace(augment=WHOLE))
    images = audit.fixed_batch(run, 16).images  # it has twelve
    assert images.shape == (12, 3, 32, 32)
    theirs = torch.stack([resized(path) for path in sorted((own_folder / "train").rglob("*.png"))])
    gap = (images[:, None] - theirs[None]).abs().amax((2, 3, 4)).amin(1)
    assert gap.max() < 1e-5


def test_a_folder_with_a_damaged_picture_is_not_stood_in_for(own_folder: Path) -> None:
    for path in (own_folder / "train").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:200])
    found = audit.audit(plan(lambda arm: {**arm, "data": ImageFolder(name="pets")}))
    (text,) = [item.text for item in found if item.arm == "other" and item.check == "masked"]
    assert text.startswith(f"not looked at: cannot read {own_folder / 'train'}")


def test_shifted_windows_that_do_not_divide_a_map_are_remarked_once_a_kind() -> None:
    """Maps of 16, 8 and 4 at 64 px; of 8, 4 and 2 at 32 px."""
    args = {"embed_dim": 8, "depths": (2, 1, 2), "num_heads": (1, 1, 1)}

    def remarks(window: int, name: str = "swin_tiny_patch4_window7_224") -> list[tuple[str, str]]:
        swin = Backbone(name=name, args={**args, "window_size": window}, patch_size=4, stride=16)

        def cell(scale: Scale, size: int, seed: int) -> dict[str, FineTune | Knn]:
            start = pretrain(backbone=swin)
            return {"top1": FineTune(start=start, image_size=size, recipe=FINETUNE), "knn": Knn(start=start)}

        made = Study(cell=cell, grid=axes(size=(32, 64)), scales=(SCALE,), reference={"size": 32})
        return [(one.verdict, one.text) for one in check_windows(expand(made))]

    # At 32 px the third stage is one window, which is not shifted; the second has one block, which is never shifted.
    tail = "timm shifts before it pads, so that shifted windows mix opposite edges"
    map8 = "windows of 3 x 3 do not divide the map of 8 x 8"
    kinds = ("pretrain", "finetune", "knn")
    assert remarks(3) == [("remark", f"{kind} at 32 px: {map8}; {tail}") for kind in kinds]
    assert remarks(3, "swinv2_tiny_window8_256") == []
    assert remarks(4) == remarks(2) == []
    # No larger than a map, a window of 10 is not shifted on those of 8.
    (only,) = remarks(10)
    assert only == ("remark", f"finetune at 64 px: windows of 10 x 10 do not divide the map of 16 x 16; {tail}")
