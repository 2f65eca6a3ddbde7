"""One place for the file names of the store."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from harness.store import layout

PACKAGE = Path(layout.__file__).parents[1]
WHOLE, BEGINNING = r"[a-z]+\.[a-z]+|\.[a-z]+(?=/)", r"[a-z-]+-(?=<)"


def names(pattern: str) -> set[str]:
    """File names in the tree that the module shows. Those that are words, such as `closed`, mean other things too."""
    return set(re.findall(rf"(?<=[/ ])(?:{pattern})", str(layout.__doc__)))


def texts(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every text of a module but its docstrings, and the parts of texts with values in them; each with its line."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value, node.lineno


def written_out(text: str) -> list[tuple[str, int]]:
    """The texts of a module that are file names of the store."""
    whole, beginnings = names(WHOLE), tuple(names(BEGINNING))
    return [found for found in texts(ast.parse(text)) if found[0] in whole or found[0].startswith(beginnings)]


def test_only_the_layout_writes_file_names_of_the_store_out() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text!r}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != Path(layout.__file__)
        for text, line in written_out(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_the_check_sees_names() -> None:
    assert {"spec.json", "owner.json", "dirty.patch", ".searches"} <= names(WHOLE)
    assert {"checkpoint-", "answer-", "result-put-aside-"} <= names(BEGINNING)
    shown = '"""spec.json"""\na = path / "spec.json"\nb = f"snapshot-{epoch}.pt"\nc = folder.glob("answer-*.json")\n'
    assert [line for _, line in written_out(shown)] == [2, 3, 4]
    assert not written_out('"a spec.json of the user"')
