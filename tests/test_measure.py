"""tools/measure.py counts what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parent.parent / "tools" / "measure.py"
spec = importlib.util.spec_from_file_location("measure", FILE)
assert spec is not None
assert spec.loader is not None
measure = importlib.util.module_from_spec(spec)
spec.loader.exec_module(measure)

ENCODER = '''"""A docstring
over two lines."""

from harness.spec import Run  # a comment

SIZE = 4
"""A docstring of a constant."""


def encoded(run: Run) -> str:
    """A docstring."""
    # a comment
    text = """a value
    over two lines"""

    def inner() -> str:
        return text

    return inner()
'''


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package of three rooms; core has two rooms on two floors, and one imports upwards."""
    for name, text in {
        "__init__.py": "from harness.core import pretrain\n",
        "spec.py": "class Run:\n    pass\n",
        "cli.py": "import harness.core.pretrain.mim\n",
        "core/model/encoder.py": ENCODER,
        "core/masks/units.py": "def f() -> None:\n    from harness.core.pretrain import mim\n",
        "core/pretrain/mim.py": "from harness.core.model.encoder import encoded\n",
    }.items():
        path = tmp_path / "harness" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "tests/golden").mkdir(parents=True)
    (tmp_path / "tests/golden/a.txt").write_text("1\n2\n3\n")
    return tmp_path


def test_lines_of_code_are_neither_blank_nor_comment_nor_docstring(checkout: Path) -> None:
    module = measure.Module(checkout / "harness", checkout / "harness/core/model/encoder.py")
    assert (module.room, module.code, module.comments) == ("core", 8, 2)
    assert sorted(size for size, _ in module.functions()) == [2, 10]


def test_arrows_and_the_rest_of_the_report(checkout: Path) -> None:
    lines = [" ".join(line.split()) for line in measure.measures(checkout)]
    for line in (
        "total 15 6",
        "core 11 3",
        "arrows between rooms 1 (with api, cli, use: 2)",
        "core -> spec",
        "arrows between rooms of core 2",
        "of these not down masks -> pretrain",
        "golden lines 3",
        "comments a hundred lines 7.7",
        "longest function 10 (core/model/encoder.py:10 encoded)",
        "functions over 20 lines 0 of 3",
    ):
        assert line in lines
