"""Who may import whom, and who may print."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "harness"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Part of the package -> the parts and the third-party packages it may import. "job" is the part of launch that runs
# inside a worker; cli may import everything.
INSIDE = {
    "machine": set(),
    "spec": {"machine"},
    "papers": {"spec"},
    "study": {"machine", "spec", "papers"},
    "store": {"machine", "spec"},
    "core": {"machine", "spec", "store"},
    "analysis": {"spec", "core"},
    "audit": {"spec", "study", "papers", "core", "store"},
    "launch": {"machine", "spec", "store"},
    "job": {"machine", "spec", "store", "launch", "core", "runs"},
    "search": {"machine", "study", "spec", "store", "launch"},
    "stats": set(),
    "overlay": set(),
    "report": {"study", "spec", "store", "papers", "search", "stats", "overlay"},
    "api": {"papers", "study", "spec", "store", "launch", "report"},
    "runs": {"spec", "core", "analysis"},
    "testing": {"audit"},
    "use": {"machine", "spec", "papers", "store", "core", "overlay"},
    "bench": {"spec", "store", "core", "runs"},
}
TORCH = {"torch", "torchvision", "timm", "numpy", "PIL", "safetensors"}
OUTSIDE = {
    "machine": set(),
    "spec": {"pydantic", "PIL"},  # PIL for the modes of a folder's pictures, inside one function
    "papers": set(),
    "study": {"pydantic"},
    "store": set(),
    "core": TORCH | {"scipy", "pycocotools"},
    "analysis": TORCH | {"scipy"},
    "audit": TORCH | {"pydantic"},
    "launch": {"submitit", "pydantic"},
    "job": TORCH,
    "search": {"optuna"},
    "stats": {"numpy", "scipy"},
    "overlay": {"numpy", "PIL"},
    "report": {"pandas", "matplotlib", "scipy", "numpy", "PIL", "jinja2", "tabulate", "tensorboard", "wandb"},
    "api": {"pandas", "matplotlib", "rich", "IPython"},
    "runs": TORCH,
    "testing": set(),
    "use": TORCH | {"pydantic"},
    "bench": TORCH,
    "cli": {"typer", "rich"},
}
# Floor of each room of core: a room imports only from rooms on lower floors.
FLOORS = {
    "runtime": 1,
    "data": 2,
    "masks": 2,
    "model": 2,
    "weights": 3,
    "objective": 4,
    "train": 4,
    "evaluate": 5,
    "pretrain": 6,
}
PRINTS = {"cli", "task"}  # what a job prints is its log
FIRST_USE = {  # inside functions that become a worker
    "launch/inline.py": {"job"},
    "launch/local/worker.py": {"job", "core"},
    "launch/slurm/task.py": {"job", "core"},
    "launch/cost.py": {"runs"},
}


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module imported anywhere in a module, with its line; `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((name.name, node.lineno) for name in node.names)
            case ast.ImportFrom():
                assert node.level == 0, f"line {node.lineno}: a relative import"
                yield from ((f"{node.module}.{name.name}", node.lineno) for name in node.names)


def part(path: Path) -> str:
    """The part of the package that a file belongs to."""
    inner = path.relative_to(PACKAGE)
    if inner.as_posix() == "launch/job.py":
        return "job"
    return inner.parts[0].removesuffix(".py")


def imported_part(name: str) -> str:
    """The part that `harness.x.y` belongs to; none for the package itself, which loads nothing."""
    if name.startswith("harness.launch.job"):
        return "job"
    return name.partition(".")[2].partition(".")[0]


def violations(path: Path, text: str) -> list[str]:
    """What a module imports though it may not."""
    here = part(path)
    if here == "__init__":
        return []
    inside = (
        INSIDE.get(here, set(INSIDE) | {"cli"})
        | {here, ""}
        | FIRST_USE.get(path.relative_to(PACKAGE).as_posix(), set())
    )
    outside = OUTSIDE[here] | set(sys.stdlib_module_names)
    found = []
    for name, line in imports(ast.parse(text)):
        top = name.split(".")[0]
        wrong = imported_part(name) not in inside if top == "harness" else top not in outside
        if wrong:
            found.append(f"{path.relative_to(PACKAGE.parent)}:{line}: {here} may not import {name}")
    return found


def test_every_module_imports_what_its_part_may() -> None:
    found = [line for path in MODULES for line in violations(path, path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def test_architecture_shows_this_table() -> None:
    text = (PACKAGE.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| ([^|]+) \| ([^|]+) \|$", text, flags=re.MULTILINE)
    shown = {room: tuple(set(cell.split(", ")) - {"-"} for cell in cells) for room, *cells in rows if room in INSIDE}
    assert shown == {room: (INSIDE[room], OUTSIDE[room]) for room in INSIDE}


def upward_imports(room: str, text: str) -> list[str]:
    """Imports of a module in a room of core from other rooms that are not on a lower floor."""
    names = [name.split(".")[2:3] for name, _ in imports(ast.parse(text)) if name.startswith("harness.core.")]
    return [other for name in names for other in name if other != room and FLOORS[other] >= FLOORS[room]]


def test_rooms_of_core_import_only_from_lower_floors() -> None:
    modules = [path for path in MODULES if path.relative_to(PACKAGE).parts[0] == "core"]
    rooms = {path: path.relative_to(PACKAGE).parts[1] for path in modules if path.parent != PACKAGE / "core"}
    found = {path: upward_imports(room, path.read_text(encoding="utf-8")) for path, room in rooms.items()}
    assert set(rooms.values()) == set(FLOORS)
    assert not {path: others for path, others in found.items() if others}


def test_the_check_of_floors_sees_imports_from_the_same_or_a_higher_floor() -> None:
    assert upward_imports("weights", "from harness.core.evaluate.start import classifier") == ["evaluate"]
    assert upward_imports("train", "def f():\n    from harness.core.objective import losses") == ["objective"]
    assert upward_imports("train", "from harness.core.weights import checkpoint") == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("spec/base.py", "import torch"),
        ("spec/base.py", "def f():\n    from harness.store import Store"),
        ("spec/base.py", "import studies.quickstart"),
        ("study/claims.py", "from harness.store import Store"),
        ("report/tables/table.py", "from harness import core"),
        ("launch/queue.py", "from harness.launch.job import work"),
        ("cli/launch/run.py", "import torch"),
    ],
)
def test_the_check_sees_what_is_not_allowed(path: str, text: str) -> None:
    assert len(violations(PACKAGE / path, text)) == 1


def test_importing_the_worker_is_left_to_the_functions_that_need_it() -> None:
    for name in FIRST_USE:
        tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
        assert not any(found.startswith("harness.launch.job") for node in tree.body for found, _ in top_level(node))


def top_level(node: ast.stmt) -> Iterator[tuple[str, int]]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from imports(node)


def test_only_the_command_line_and_jobs_print() -> None:
    calls = [
        f"{path.relative_to(PACKAGE.parent)}:{node.lineno}: prints"
        for path in MODULES
        if not {part(path), path.stem} & PRINTS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not calls, "\n".join(calls)


BLOCKED = """
import sys

class Without:  # as where these packages are not installed
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {blocked!r} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import pkgutil, importlib
for part in {parts!r}:
    package = importlib.import_module(f"harness.{{part}}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
"""


def importable(parts: list[str], blocked: list[str]) -> subprocess.CompletedProcess[str]:
    program = BLOCKED.format(parts=parts, blocked=blocked)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_specs_and_training_need_no_launcher_search_report_or_command_line() -> None:
    absent = ["submitit", "optuna", "pandas", "typer", "rich", "matplotlib", "scipy", "jinja2", "tabulate"]
    done = importable(["spec", "store", "core"], absent)
    assert done.returncode == 0, done.stderr


def test_blocking_works() -> None:
    assert "No module named 'pydantic'" in importable(["spec"], ["pydantic"]).stderr
