"""Measures of the code: how much there is, how it is cut, and how it speaks.

    python tools/measure.py [FOLDER]    # FOLDER holds harness/ and tests/golden; this checkout without it

A room is a folder or a single module directly in harness/. A line of code is one that holds a token other than a
comment or a docstring. An arrow is a pair of rooms of which one imports the other, anywhere in a module.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

ENTRANCES = {"cli", "api", "use"}
"""These stand above all rooms, so their arrows say little: counted apart."""
FLOORS = (
    {"runtime"},
    {"model", "masks", "data"},
    {"weights"},
    {"train", "objective"},
    {"evaluate"},
    {"pretrain"},
)
"""The rooms of harness/core, from the lowest floor to the highest; one imports only from floors below its own."""
SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


class Module:
    """A source file: its room, its lines of code and of comment, its functions and what it imports."""

    def __init__(self, package: Path, path: Path) -> None:
        self.inner = path.relative_to(package)
        self.room = self.inner.parts[0].removesuffix(".py")
        text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(text)
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        self.comments = sum(token.type == tokenize.COMMENT for token in tokens)
        spoken = {(token.start[0], token.end[0]) for token in tokens if token.type not in SILENT}
        lines = {line for first, last in spoken for line in range(first, last + 1)}
        self.code = len(lines - docstring_lines(self.tree))
        self.lines = len(text.splitlines())

    def imports(self) -> Iterator[tuple[str, ...]]:
        """Path of each import from this package, below its name; `from a import b` counts as a.b."""
        for node in ast.walk(self.tree):
            match node:
                case ast.Import():
                    names = [name.name for name in node.names]
                case ast.ImportFrom(module=str(module)):
                    names = [f"{module}.{name.name}" for name in node.names]
                case _:
                    continue
            yield from (tuple(name.split(".")[1:]) for name in names if name.split(".")[0] == "harness")

    def functions(self) -> Iterator[tuple[int, str]]:
        """Lines from the def to the end of each function, docstring among them, and where it stands."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield (node.end_lineno or node.lineno) - node.lineno + 1, f"{self.inner}:{node.lineno} {node.name}"


def docstring_lines(tree: ast.Module) -> set[int]:
    """Lines of strings that stand alone: docstrings, also those of constants and fields."""
    alone = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )
    return {line for node in alone for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}


def arrows(modules: list[Module]) -> set[tuple[str, str]]:
    """Which room imports which."""
    found = {(module.room, path[0]) for module in modules for path in module.imports() if path}
    return {(here, there) for here, there in found if here != there and "__init__" not in (here, there)}


def core_arrows(modules: list[Module]) -> set[tuple[str, str]]:
    """Which room of core imports which; modules directly in core are one room, called core."""
    rooms = {module.inner.parts[1] for module in modules if module.room == "core" and len(module.inner.parts) > 2}
    found = set()
    for module in modules:
        if module.room == "core":
            here = module.inner.parts[1] if len(module.inner.parts) > 2 else "core"
            for path in module.imports():
                if path[:1] == ("core",) and len(path) > 1:
                    found.add((here, path[1] if path[1] in rooms else "core"))
    return {(here, there) for here, there in found if here != there}


def floor(room: str) -> int | None:
    """The floor of a room of core, from 1; None for one that has none."""
    return next((number for number, rooms in enumerate(FLOORS, start=1) if room in rooms), None)


def upward(pairs: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Arrows of core that do not lead to a lower floor."""
    return sorted((a, b) for a, b in pairs if (here := floor(a)) and (there := floor(b)) and there >= here)


def flat(modules: list[Module]) -> Counter[str]:
    """Folder -> number of modules directly in it, `__init__` not counted."""
    return Counter(str(module.inner.parent) for module in modules if module.inner.name != "__init__.py")


def measures(root: Path) -> Iterator[str]:
    """Lines of the report on a checkout."""
    package = root / "harness"
    modules = [Module(package, path) for path in sorted(package.rglob("*.py"))]
    code, count = Counter[str](), Counter[str]()
    for module in modules:
        code[module.room] += module.code
        count[module.room] += 1
    yield f"{'room':16}{'code lines':>12}{'modules':>10}"
    yield from (f"{room:16}{lines:12,}{count[room]:10}" for room, lines in code.most_common())
    yield f"{'total':16}{code.total():12,}{count.total():10}"
    custom = [module for module in modules if "custom" in module.inner.name or module.room == "testing"]
    yield f"of these in modules named custom and in testing: {sum(module.code for module in custom):,}"
    yield ""
    folder, size = flat(modules).most_common(1)[0]
    yield f"largest flat room            {size} ({folder})"
    found, inside = arrows(modules), core_arrows(modules)
    below = {pair for pair in found if not ENTRANCES.intersection(pair)}
    yield f"arrows between rooms         {len(below)} (with {', '.join(sorted(ENTRANCES))}: {len(found)})"
    yield from _listed(below)
    yield f"arrows between rooms of core {len(inside)}"
    yield from _listed(inside)
    yield f"of these not down            {', '.join(f'{a} -> {b}' for a, b in upward(inside)) or 'none'}"
    golden = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in (root / "tests/golden").glob("*.txt"))
    yield f"golden lines                 {golden:,}"
    lines = sum(module.lines for module in modules)
    yield f"comments a hundred lines     {100 * sum(module.comments for module in modules) / lines:.1f}"
    functions = sorted((pair for module in modules for pair in module.functions()), reverse=True)
    yield f"longest function             {functions[0][0]} ({functions[0][1]})"
    for limit in (20, 40):
        yield f"functions over {limit} lines      {sum(size > limit for size, _ in functions)} of {len(functions)}"


def _listed(pairs: set[tuple[str, str]]) -> Iterator[str]:
    by_room: dict[str, list[str]] = defaultdict(list)
    for here, there in sorted(pairs):
        by_room[here].append(there)
    yield from (f"    {here} -> {', '.join(there)}" for here, there in by_room.items())


if __name__ == "__main__":
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    if len(sys.argv) > 2 or not (root / "harness").is_dir():
        sys.exit(__doc__)
    print("\n".join(measures(root)))
