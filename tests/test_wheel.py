"""The wheel holds all that the package needs, and works away from the clone."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("build", "hatchling"))), reason="needs build and hatchling"
    ),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing is written into the clone."""
    copy = tmp_path_factory.mktemp("clone") / "source"
    leave_out = shutil.ignore_patterns(".git", "runs", "results", "__pycache__", ".nox", ".venv", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=leave_out)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = out.glob("*.whl")
    return found


def test_it_holds_the_package_and_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"harness"}
    for source in (ROOT / "harness").rglob("*"):
        if source.is_file() and source.suffix != ".pyc":
            assert source.relative_to(ROOT).as_posix() in names
    for name in (
        "harness/py.typed",
        "harness/core/data/files/fashion_mnist_mini.npz",
        "harness/papers/simmim/published/simmim_table1_masking.csv",
        "harness/cli/starter/harness.toml.txt",
        "harness/cli/starter/first.py.txt",
        "harness/cli/starter/masks.py.txt",
    ):
        assert name in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith(".pyc")]


def test_it_works_away_from_the_clone(wheel: Path, tmp_path: Path) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = Path(python("-c", "import harness; print(harness.__file__)").strip())
    assert where.is_relative_to(site)
    shutil.copy(ROOT / "studies" / "quickstart.py", work / "mine.py")
    assert "mine · mini · 5 cells x 2 seeds" in python("-m", "harness.cli", "plan", "mine.py")
    assert "wrote starter" in python("-m", "harness.cli", "new", "starter")
    assert "3 cells x 2 seeds" in python("-m", "harness.cli", "plan", "starter/studies/first.py")
    images = "from harness.core.data.datasets import load; from harness.spec import Images"
    check = f"{images}; print(len(load(Images(name='fashion-mnist-mini'), 'test')))"
    assert python("-c", check).strip() == "5000"
