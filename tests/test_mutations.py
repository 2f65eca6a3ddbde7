"""tools/mutations.py keeps up with the code whose mistakes it plants."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("mutations", ROOT / "tools" / "mutations.py")
assert spec is not None
assert spec.loader is not None
mutations = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutations)


def test_each_mistake_fits_the_code_and_names_tests_that_exist() -> None:
    assert mutations.misfits() == []
    named = {test.partition("::")[0] for mutation in mutations.MUTATIONS for test in mutation.tests.split()}
    assert not [name for name in named if not (ROOT / "tests" / name).exists()]


def test_a_mistake_that_no_longer_fits_is_named() -> None:
    gone = mutations.Mutation("spec/base.py", "no such line", "x", "spec")
    assert mutations.misfits([gone]) == ["does not fit: spec/base.py: no such line"]
