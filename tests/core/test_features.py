"""Features of frozen and of moving encoders as targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gang import compute
from safetensors.torch import save_file
from tiny import DATA, RECIPE, SWIN, VIT, pretrain
from torch import Tensor

from harness.core.data.datasets import load
from harness.core.model.encoder import Encoder, build, depth
from harness.core.objective.features import mean_of_blocks, normalised
from harness.core.objective.targets import Targets
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.runtime.distributed import Group
from harness.launch import Resources
from harness.spec import Backbone, Checkpoint, FeatureTarget, HarnessError, Loss, MomentumTarget, key
from harness.store import Store


def images(count: int = 2, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def encoder(backbone: Backbone, size: int = 32, seed: int = 7) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(build(backbone, image_size=size, channels=3)).eval()


def teacher(path: Path, backbone: Backbone, size: int = 32) -> tuple[Checkpoint, Encoder]:
    """A file of weights under timm's names, and the encoder that it is of."""
    made = encoder(backbone, size)
    save_file({name: tensor.contiguous() for name, tensor in made.model.state_dict().items()}, path)
    return Checkpoint(path=str(path), backbone=backbone, image_size=size), made


@torch.no_grad()
@pytest.mark.parametrize(("backbone", "width"), [(VIT, 32), (SWIN, 128)], ids=["vit", "swin"])
def test_a_teacher_s_features_are_its_own(backbone: Backbone, width: int, tmp_path: Path) -> None:
    spec, made = teacher(tmp_path / "a.safetensors", backbone)
    target = FeatureTarget(teacher=spec, width=width)
    assert target.downsample == backbone.stride
    found = Targets(target, DATA, 32)(images())
    assert torch.allclose(found, made(images()), atol=1e-6)
    assert found.shape == (2, width, 32 // backbone.stride, 32 // backbone.stride)


@torch.no_grad()
def test_an_inner_block_and_its_norms(tmp_path: Path) -> None:
    spec, made = teacher(tmp_path / "a.safetensors", VIT)
    inner = made.features(images(), 1)
    for norm, dims in (("none", None), ("layer", (1,)), ("instance", (2, 3))):
        target = FeatureTarget(teacher=spec, width=32, block=1, norm=norm)  # type: ignore[arg-type]
        wanted = inner
        if dims is not None:
            variance = inner.var(dims, correction=0, keepdim=True)
            wanted = (inner - inner.mean(dims, keepdim=True)) / (variance + 1e-5).sqrt()
        assert torch.allclose(Targets(target, DATA, 32)(images()), wanted, atol=1e-5)


@torch.no_grad()
def test_a_teacher_may_see_the_image_enlarged_and_in_its_own_colours(tmp_path: Path) -> None:
    spec, made = teacher(tmp_path / "a.safetensors", VIT.replace(patch_size=8), size=64)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    target = FeatureTarget(teacher=spec, width=32, downsample=4, mean=mean, std=std)
    source = load(DATA, "pretrain")
    own, theirs = ([torch.tensor(n)[:, None, None] for n in pair] for pair in ((source.mean, source.std), (mean, std)))
    seen = (images() * own[1] + own[0] - theirs[0]) / theirs[1]
    large = torch.nn.functional.interpolate(seen, size=64, mode="bicubic", antialias=True)
    assert torch.allclose(Targets(target, DATA, 32)(images()), made(large), atol=1e-5)


def test_a_teacher_is_neither_trained_nor_saved(tmp_path: Path) -> None:
    spec, _ = teacher(tmp_path / "a.safetensors", VIT)
    run = pretrain(target=FeatureTarget(teacher=spec, width=32), loss=Loss(kind="l2"))
    model = MaskedImageModel(run, 3).train()
    plain = MaskedImageModel(pretrain(), 3)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert len(list(model.parameters())) == len(list(plain.parameters()))
    held = model.targets._teachers[0]
    assert not held.training
    assert not any(parameter.requires_grad for parameter in held.parameters())


@torch.no_grad()
def test_a_teacher_computes_in_its_own_precision(tmp_path: Path) -> None:
    """Whatever the precision of training: fp32, or bf16 if the target says so."""
    spec, made = teacher(tmp_path / "a.safetensors", VIT)
    exact = Targets(FeatureTarget(teacher=spec, width=32), DATA, 32)
    coarse = Targets(FeatureTarget(teacher=spec, width=32, precision="bf16"), DATA, 32)
    seen: list[str] = []
    first: Any = exact._teachers[0].model.patch_embed
    first.register_forward_pre_hook(lambda *_: seen.append(torch.get_float32_matmul_precision()))
    torch.set_float32_matmul_precision("high")  # as a run in tf32 does
    wanted = made(images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = made(images()).float()
        assert torch.equal(exact(images()), wanted)
        assert torch.equal(coarse(images()), rough)
    assert torch.equal(coarse(images()), rough)
    assert not torch.equal(rough, wanted)
    assert (seen, torch.get_float32_matmul_precision()) == (["highest"], "high")
    torch.set_float32_matmul_precision("highest")


def test_only_runs_of_another_precision_have_another_key(tmp_path: Path) -> None:
    spec, _ = teacher(tmp_path / "a.safetensors", VIT)
    taught = pretrain(target=FeatureTarget(teacher=spec, width=32), loss=Loss(kind="l2"))
    low = RECIPE.replace(precision="bf16")
    changed = [run.current_revision() for run in (taught.replace(recipe=low), taught, pretrain(recipe=low))]
    assert changed == [2, 1, 1]


def test_building_a_teacher_draws_nothing(tmp_path: Path) -> None:
    spec, _ = teacher(tmp_path / "a.safetensors", VIT)
    torch.manual_seed(0)
    Targets(FeatureTarget(teacher=spec, width=32), DATA, 32)
    drawn = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    spec, _ = teacher(path, VIT)
    with pytest.raises(HarnessError, match="32 channels, not the stated 48; set width=32"):
        Targets(FeatureTarget(teacher=spec, width=48), DATA, 32)
    with pytest.raises(HarnessError, match="block 3 of a model that has 2"):
        Targets(FeatureTarget(teacher=spec, width=32, block=3), DATA, 32)
    deeper = spec.replace(backbone=VIT.replace(args={"embed_dim": 32, "depth": 3, "num_heads": 2}))
    with pytest.raises(HarnessError, match=r"do not fit the backbone: it lacks blocks\.2"):
        Targets(FeatureTarget(teacher=deeper, width=32), DATA, 32)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(HarnessError, match="has changed since this run was planned"):
        Targets(FeatureTarget(teacher=spec, width=32), DATA, 32)


@torch.no_grad()
def test_a_finished_pretraining_teaches(tmp_path: Path) -> None:
    """From the store: its folder holds the weights, and the features are those of its encoder."""
    first = pretrain(recipe=RECIPE.replace(epochs=1))
    resources = Resources(checkpoint_seconds=1e6)
    with torch.enable_grad():
        assert compute(Group(), tmp_path, [first], resources, {})[0].kind == "done"
    path = Store(tmp_path).weights(key(first))
    assert path is not None
    target = FeatureTarget(teacher=Checkpoint(path=str(path), backbone=VIT, image_size=32), width=32, norm="layer")
    second = pretrain(target=target, loss=Loss(kind="cosine"), recipe=RECIPE.replace(epochs=1))
    with torch.enable_grad():
        assert compute(Group(), tmp_path, [second], resources, {})[0].kind == "done"
    assert Store(tmp_path).weights(key(second)) is not None


# The momentum encoder's


@torch.no_grad()
@pytest.mark.parametrize(
    "backbone",
    [
        VIT,
        SWIN.replace(args={**dict(SWIN.args), "depths": (1, 1, 1, 2)}),
        Backbone(name="convnext_atto", args={"depths": (1, 1, 1, 2), "dims": (8, 16, 24, 32)}, patch_size=4, stride=32),
        Backbone(name="resnet18", patch_size=4, stride=32),
    ],
    ids=["vit", "swin", "convnext", "resnet"],
)
def test_the_last_blocks_against_one_by_one(backbone: Backbone) -> None:
    made = encoder(backbone)
    blocks = depth(made.model)
    for count in (1, 2):
        found = made.last_blocks(images(), count)
        wanted = [made.features(images(), blocks - count + 1 + number) for number in range(count)]
        assert len(found) == count
        for one, other in zip(found, wanted, strict=True):
            assert torch.allclose(one, other, atol=1e-6)
    with pytest.raises(HarnessError, match="the last stage has 2 blocks, not 3"):
        made.last_blocks(images(), 3)


def test_the_mean_of_blocks_by_hand() -> None:
    """Two blocks of two channels at two places."""
    first = torch.tensor([[1.0, 3.0], [3.0, 7.0]]).view(1, 2, 1, 2)  # places (1, 3) and (3, 7)
    second = torch.tensor([[5.0, 1.0], [5.0, 1.0]]).view(1, 2, 1, 2)
    assert mean_of_blocks([first, second], "none", "none").flatten().tolist() == [3.0, 2.0, 4.0, 4.0]
    per_block = mean_of_blocks([first, second], "layer", "none").flatten()
    assert torch.allclose(per_block, torch.tensor([-0.5, -0.5, 0.5, 0.5]), atol=1e-4)  # (-1, 1) and (0, 0) at both
    of_mean = mean_of_blocks([first, second], "none", "layer").flatten()
    assert torch.allclose(of_mean, torch.tensor([-1.0, -1.0, 1.0, 1.0]), atol=1e-4)  # of (3, 4) and (2, 4)
    along = mean_of_blocks([first, second], "none", "instance").flatten()
    assert torch.allclose(along, torch.tensor([1.0, -1.0, 0.0, 0.0]), atol=1e-4)  # of (3, 2) and (4, 4)
    assert normalised(first, "none") is first


@torch.no_grad()
def test_the_momentum_encoder_sees_the_whole_image() -> None:
    made = encoder(VIT)
    target = MomentumTarget(width=32, downsample=4, blocks=2, norm="layer")
    found = Targets(target, DATA, 32)(images(), made)
    wanted = mean_of_blocks([made.features(images(), block) for block in (1, 2)], "layer", "none")
    assert torch.allclose(found, wanted, atol=1e-6)
    assert found.shape == (2, 32, 8, 8)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"width": 48}, "32 channels, not the stated 48"),
        ({"downsample": 8}, "8 x 8, where the target has 4 x 4"),
        ({"blocks": 3}, "the last stage has 2 blocks"),
    ],
)
def test_a_momentum_target_that_does_not_fit_is_refused(changes: dict[str, Any], text: str) -> None:
    target = MomentumTarget(**{"width": 32, "downsample": 4, "blocks": 2, **changes})
    with pytest.raises(HarnessError, match=text):
        Targets(target, DATA, 32)(images(), encoder(VIT))


def test_without_a_momentum_encoder_there_is_no_such_target() -> None:
    with pytest.raises(HarnessError, match="needs a momentum encoder"):
        Targets(MomentumTarget(width=32, downsample=4), DATA, 32)(images())
