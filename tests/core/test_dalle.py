"""DALL-E's encoder: names and shapes of the public file, and the function against modules put together otherwise."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import DATA, pretrain
from torch import Tensor, nn

from harness.core.objective import dalle
from harness.core.objective.targets import Targets
from harness.core.pretrain.mim import MaskedImageModel
from harness.spec import DalleTokenizer, HarnessError, Loss, TokenTarget


class Conv(nn.Module):
    """A convolution whose weights are called w and b, as in the public file."""

    def __init__(self, into: int, out: int, kernel: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(out, into, kernel, kernel) / (into * kernel**2) ** 0.5)
        self.b = nn.Parameter(0.1 * torch.randn(out))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.w, self.b, padding="same")


class Residual(nn.Module):
    def __init__(self, into: int, out: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.id_path = nn.Identity() if into == out else Conv(into, out, 1)
        kernels = [(into, out // 4, 3), (out // 4, out // 4, 3), (out // 4, out // 4, 3), (out // 4, out, 1)]
        parts = OrderedDict[str, nn.Module]()
        for number, sizes in enumerate(kernels, start=1):
            parts[f"relu_{number}"], parts[f"conv_{number}"] = nn.ReLU(), Conv(*sizes)
        self.res_path = nn.Sequential(parts)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.id_path(x) + self.res_path(x) / self.layers**2
        return found


class Reference(nn.Module):
    """The same encoder as a tree of modules: 4 groups of `blocks` blocks."""

    def __init__(self, width: int, blocks: int, vocabulary: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential()
        self.blocks.add_module("input", Conv(3, width, 7))
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        for group in range(1, 5):
            parts = nn.Sequential()
            for block in range(1, blocks + 1):
                into = sizes[group - 1] if block == 1 else sizes[group]
                parts.add_module(f"block_{block}", Residual(into, sizes[group], 4 * blocks))
            if group < 4:
                parts.add_module("pool", nn.MaxPool2d(2))
            self.blocks.add_module(f"group_{group}", parts)
        output = OrderedDict([("relu", nn.ReLU()), ("conv", Conv(8 * width, vocabulary, 1))])
        self.blocks.add_module("output", nn.Sequential(output))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.blocks(x)
        return found


@pytest.fixture
def reference() -> Reference:
    torch.manual_seed(0)
    return Reference(8, 2, 16)


def save(model: nn.Module, path: Path) -> DalleTokenizer:
    save_file(model.state_dict(), path)
    return DalleTokenizer(path=str(path), vocabulary=16)


def test_names_and_shapes_of_the_public_encoder() -> None:
    """Width 256, two blocks a group, 8192 codes: dall_e/encoder.py's defaults."""
    found = dalle.shapes(256, 2, 8192)
    assert found["blocks.input.w"] == (256, 3, 7, 7)
    assert found["blocks.group_1.block_1.res_path.conv_1.w"] == (64, 256, 3, 3)
    assert found["blocks.group_2.block_1.id_path.w"] == (512, 256, 1, 1)
    assert found["blocks.group_2.block_1.res_path.conv_1.w"] == (128, 256, 3, 3)
    assert found["blocks.group_4.block_2.res_path.conv_4.b"] == (2048,)
    assert found["blocks.output.conv.w"] == (8192, 2048, 1, 1)
    assert not [name for name in found if "id_path" in name and "block_1.id" not in name]
    assert "blocks.group_1.block_1.id_path.w" not in found  # as many channels in as out
    assert len(found) == 2 * (1 + 8 * 4 + 3 + 1)


def test_names_and_shapes_agree_with_the_modules(reference: Reference) -> None:
    held = {name: tuple(tensor.shape) for name, tensor in reference.state_dict().items()}
    assert dalle.shapes(8, 2, 16) == held


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_the_function_agrees_with_the_modules(blocks: int) -> None:
    torch.manual_seed(1)
    model = Reference(8, blocks, 16).eval()
    images = torch.rand(2, 3, 32, 24)
    found = dalle.logits(dict(model.state_dict()), images)
    assert found.shape == (2, 16, 4, 3)
    assert torch.allclose(found, model(images), atol=1e-5)


def test_a_code_covers_the_pixels_asked_for() -> None:
    """BEiT: 112 pixels for 224, so that a code covers 16; at 8 nothing is scaled."""
    values = torch.rand(1, 3, 224, 224)
    assert dalle.fed(values, 16).shape == (1, 3, 112, 112)
    assert torch.equal(dalle.fed(values, 8), 0.8 * values + 0.1)
    assert dalle.fed(values, 32).shape == (1, 3, 56, 56)
    small = dalle.fed(torch.ones(1, 3, 32, 32), 4)
    assert small.shape == (1, 3, 64, 64)
    assert torch.allclose(small, torch.tensor(0.9), atol=1e-6)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_tokens_of_a_file(reference: Reference, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"encoder.{suffix}"
    if suffix == "pt":
        torch.save(reference.state_dict(), path)
    else:
        save_file(reference.state_dict(), path)
    made = Targets(TokenTarget(tokenizer=DalleTokenizer(path=str(path), vocabulary=16), downsample=8), DATA, 32)
    images = torch.randn(2, 3, 32, 32)
    assert made.colours is not None
    mean, std = made.colours[..., None, None].unbind(0)
    by_modules = reference((images * std + mean).clamp(0, 1) * 0.8 + 0.1).argmax(1)
    found = made(images)
    assert torch.equal(found[:, 0], by_modules)
    assert len(found.unique()) > 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made(images), found)
    assert made.picture(torch.zeros(2, 16, 4, 4), torch.zeros(2, 3, 32, 32)) is None
    assert not made.state_dict()
    assert not list(made.parameters())


def test_files_that_do_not_fit_are_refused_by_name(reference: Reference, tmp_path: Path) -> None:
    tokenizer = save(reference, tmp_path / "a.safetensors")
    with pytest.raises(HarnessError, match=r"blocks\.output\.conv\.b should be \[32\], not \[16\]"):
        dalle.read(tokenizer.replace(vocabulary=32))
    del reference.blocks.group_3.block_2  # type: ignore[union-attr]
    with pytest.raises(HarnessError, match=r"blocks\.group_3\.block_2.* not nothing"):
        dalle.read(save(reference, tmp_path / "b.safetensors"))
    with pytest.raises(HarnessError, match="does not fit DALL-E's encoder"):
        dalle.read(save(nn.Linear(2, 2), tmp_path / "c.safetensors"))


def test_a_file_that_changed_is_refused(reference: Reference, tmp_path: Path) -> None:
    tokenizer = save(reference, tmp_path / "a.safetensors")
    save(Reference(8, 2, 16), tmp_path / "a.safetensors")
    with pytest.raises(HarnessError, match="has changed since this run was planned"):
        dalle.read(tokenizer)


class Trap:
    """What a pickle may do when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("trapped"),))  # type: ignore[return-value]


def test_pickled_modules_are_refused_and_nothing_in_them_runs(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The public encoder.pkl is a whole module."""
    monkeypatch.chdir(tmp_path)
    torch.save(reference, tmp_path / "encoder.pkl")
    (tmp_path / "trap.pkl").write_bytes(pickle.dumps({"w": Trap()}, protocol=2))
    for name in ("encoder.pkl", "trap.pkl"):
        with pytest.raises(HarnessError, match="would execute code"):
            dalle.read(DalleTokenizer(path=str(tmp_path / name), vocabulary=16))
    assert not (tmp_path / "trapped").exists()


def test_a_run_of_tokens_of_a_file_has_no_further_weights(reference: Reference, tmp_path: Path) -> None:
    target = TokenTarget(tokenizer=save(reference, tmp_path / "a.safetensors"), downsample=4)
    run = pretrain(target=target, loss=Loss(kind="cross-entropy"))
    names = set(MaskedImageModel(pretrain(), 3).state_dict())
    assert set(MaskedImageModel(run, 3).state_dict()) == names
