"""`harness pack`, as a user calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Command
from PIL import Image

from harness.spec.data.packs import read_header


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HARNESS_DATA_PETS", str(tmp_path / "pets"))
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            Image.new("RGB", (60, 40)).save(tmp_path / "pets" / part / name / "0.jpg")
    return tmp_path / "pets"


def test_a_folder_is_packed_and_what_comes_next_is_said(harness: Command, pets: Path) -> None:
    file = pets.parent / "fast.pack"
    ended = harness("pack", "pets", file)
    assert ended.code == 0, ended.err
    assert f"wrote {file}: 4 pictures" in ended.out
    assert f'Next: pets = "{file}" under [data] in harness.toml' in ended.out.replace("\n", " ")
    assert (read_header(file).side, read_header(file).decoder) == (None, "pil")
    small = harness("pack", "pets", pets.parent / "small.pack", "--image-size", 16, "--decoder", "torchvision")
    assert "keys of their own" in small.out
    assert read_header(pets.parent / "small.pack").side == 16


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["cats", "a.pack"], "data set cats is not here"),
        (["pets", "pets"], "is there already"),
        (["pets", "none/a.pack"], "there is no folder"),
        (["pets", "a.pack", "--image-size", "0"], "--image-size"),
        (["pets", "a.pack", "--decoder", "magick"], "--decoder"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], told: str, harness: Command, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pets.parent)
    ended = harness("pack", *arguments)
    assert ended.code == 2
    (line,) = ended.err.strip().splitlines()
    assert line.startswith("harness: ")
    assert told in line
    assert not (pets.parent / "a.pack").exists()
