"""What every test starts from: no settings or caches of the person who runs them; and how long one may take."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator

import pytest
from cpu_time import spent

# A shell lets what it starts in the background ignore Ctrl-C, and so the commands too that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch is loaded: the tensors of tests are small, and threads that wait for each other take time.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option --cpu-limit."""
    explained = "fail a test that takes more than so many CPU seconds, its processes included, without the mark slow"
    parser.addoption("--cpu-limit", type=float, metavar="SECONDS", help=explained)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Fail a test that passes, but takes longer than it may."""
    limit: float | None = item.config.getoption("--cpu-limit")
    if limit is None or item.get_closest_marker("slow"):
        return (yield)
    before = spent()
    yield
    if (seconds := spent() - before) > limit:
        pytest.fail(f"took {seconds:.1f} CPU seconds without the mark slow; {limit:.0f} are allowed", pytrace=False)


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


def _project_as_it_was() -> Iterator[None]:
    """Loading a study file says in the environment which project is the current one; no other test may see it."""
    before = os.environ.get("HARNESS_PROJECT")
    yield
    os.environ.pop("HARNESS_PROJECT", None)
    if before is not None:
        os.environ["HARNESS_PROJECT"] = before


# One for what the fixtures of a module load, one for what each test does.
_project_of_a_module = pytest.fixture(scope="module", autouse=True)(_project_as_it_was)
_project_of_a_test = pytest.fixture(autouse=True)(_project_as_it_was)
