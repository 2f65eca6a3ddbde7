"""What every test starts from: no settings or caches of the person who runs them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Point caches and settings to temporary folders, in os.environ so that subprocesses see it too."""
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("HARNESS_")]:
        patch.delenv(name)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
    patch.setenv("COLUMNS", "200")
    yield
    patch.undo()
