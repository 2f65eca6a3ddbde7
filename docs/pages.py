"""Pages that are written when the site is built: the reference of public names and commands."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import harness


@dataclass(frozen=True)
class Group:
    """A page of the reference: the public names that are defined in some modules."""

    file: str
    title: str
    about: str
    modules: tuple[str, ...]


GROUPS = (
    Group(
        "studies",
        "Studies",
        "A study is a grid of cells, a function from a cell to its evaluations, and the scales it can be run at.",
        ("harness.study", "harness.spec.scale"),
    ),
    Group(
        "data",
        "Data",
        "Where a data set lies is said in `harness.toml`; a key has its content, not its place.",
        ("harness.spec.data",),
    ),
    Group(
        "masks",
        "Masks",
        "True means hidden, everywhere. Sizes are pixels of the network's input, ratios are shares of hidden units.",
        ("harness.spec.masks",),
    ),
    Group(
        "objective",
        "Targets and losses",
        "What a pre-training predicts, and the error of the prediction.",
        ("harness.spec.objective",),
    ),
    Group(
        "model",
        "Backbones, heads and corruption",
        "The encoder, the head that predicts the target, and what the encoder is shown in place of hidden pixels.",
        ("harness.spec.model",),
    ),
    Group(
        "recipes", "Recipes", "Optimiser, schedule, augmentation and precision of a training.", ("harness.spec.recipe",)
    ),
    Group(
        "evaluations",
        "Pre-training and evaluations",
        "Runs, and the weights they may start from. Accuracies are percent.",
        ("harness.spec.run", "harness.spec.dense", "harness.spec.start"),
    ),
    Group(
        "analyses",
        "Analyses",
        "What a trained encoder or a mask is like, measured. They are evaluations: a study may return them.",
        ("harness.spec.analyses",),
    ),
    Group(
        "presets",
        "Papers and presets",
        "The papers' points in the space of specs, their published recipes and their tables.",
        ("harness.papers",),
    ),
    Group("search", "Search", "Searches over the cells of a study, by Optuna.", ("harness.search",)),
    Group(
        "python",
        "From Python",
        "Plan and run studies, read their results, and use trained models.",
        ("harness.api", "harness.use", "harness.launch.resources"),
    ),
    Group(
        "specs",
        "Specs and keys",
        "What all specs have in common, and how a run is named.",
        ("harness.spec.base", "harness.spec.keys", "harness.machine"),
    ),
)


def write(folder: Path) -> None:
    """Write all pages anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for group, names in grouped().items():
        (folder / f"{group.file}.md").write_text(reference(group, names))
    (folder / "testing.md").write_text(TESTING)
    (folder / "commands.md").write_text(commands())


def grouped() -> dict[Group, list[str]]:
    """The public names of each page.

    Raises:
        LookupError: a name is defined in a module that no page has.
    """
    found: dict[Group, list[str]] = {group: [] for group in GROUPS}
    for name in sorted(harness.__all__, key=str.lower):
        module = home(name)
        under = [group for group in GROUPS if f"{module}.".startswith(tuple(f"{place}." for place in group.modules))]
        if len(under) != 1:
            raise LookupError(f"harness.{name} of {module}: no page of docs/pages.py has this module")
        found[under[0]].append(name)
    return found


def home(name: str) -> str:
    """The module that defines a public name."""
    value = getattr(harness, name)
    if isinstance(value, ModuleType):
        return value.__name__
    module = getattr(value, "__module__", "")
    return module if module.startswith("harness") else _aliases()[name]


def aliases() -> dict[str, str]:
    """Public names of unions, which signatures shall have as they are, by the name in the source.

    `Scalar` is left out: it is short, and Sphinx cannot name it in the type of a property.
    """
    kinds = (inspect.isclass, inspect.isfunction, inspect.ismodule)
    names = [name for name in harness.__all__ if not any(kind(getattr(harness, name)) for kind in kinds)]
    return {name: f"harness.{name}" for name in names if name != "Scalar"}


@cache
def _aliases() -> dict[str, str]:
    """The module of each name that is assigned and not a class or function, such as a union."""
    found = {}
    for module in pkgutil.walk_packages(harness.spec.__path__, "harness.spec."):
        tree = ast.parse(inspect.getsource(importlib.import_module(module.name)))
        for target in (target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets):
            if isinstance(target, ast.Name):
                found[target.id] = module.name
    return found


def reference(group: Group, names: list[str]) -> str:
    """A page of the reference."""
    parts = [f"# {group.title}", group.about]
    for name in names:
        parts += [f"## {name}", *_entry(name)]
    return "\n\n".join(parts) + "\n"


def _entry(name: str) -> Iterator[str]:
    value = getattr(harness, name)
    if isinstance(value, ModuleType):
        yield _rst(f".. automodule:: {value.__name__}\n   :members: {', '.join(_functions(value))}")
    elif inspect.isclass(value):
        members = "" if hasattr(value, "model_fields") else "\n   :members:"
        yield _rst(f".. autoclass:: harness.{name}{members}")
    elif inspect.isfunction(value):
        yield _rst(f".. autofunction:: harness.{name}")
    else:
        yield _rst(f".. py:type:: harness.{name}\n\n   {_union(name)}")


def _functions(module: ModuleType) -> list[str]:
    """Its public functions, without those that it imports."""
    found = inspect.getmembers(module, inspect.isfunction)
    return [name for name, value in found if value.__module__ == module.__name__ and not name.startswith("_")]


def _union(name: str) -> str:
    """What an alias stands for: its docstring in the source if it has one, else the types it joins."""
    tree = ast.parse(inspect.getsource(importlib.import_module(home(name))))
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            stated = re.sub(r"\s+", " ", ast.unparse(node.value))
            about = (
                following.value.value
                if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                else ""
            )
            members = [word for word in re.findall(r"\w+", stated) if word in harness.__all__]
            return (
                f"{_sentence(str(about))}One of {', '.join(f'``{word}``' for word in members)}."
                if members
                else (f"{_sentence(str(about))}``{stated}``")
            )
    raise LookupError(name)


def _sentence(text: str) -> str:
    first = " ".join(text.split("\n\n")[0].split())
    return f"{first} " if first else ""


def _rst(text: str) -> str:
    return f"```{{eval-rst}}\n{text}\n```"


TESTING = f"""# Testing pieces of your own

{_rst(".. automodule:: harness.testing")}

{_rst(".. automodule:: harness.audit.pieces" + chr(10) + "   :members: " + ", ".join(
    ("check_augment", "check_backbone", "check_data", "check_evaluation", "check_head", "check_loss", "check_mask",
     "check_optimiser", "check_target")))}
"""  # fmt: skip


def command_tree() -> dict[str, Any]:
    """Every command by its words, such as `records export`."""
    import typer.main

    from harness.cli import app

    found = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {second}": inner[second] for second in inner}
    return found


def commands() -> str:
    """The page of the command line, from the texts of `harness COMMAND --help`."""
    parts = [
        "# Command line",
        "`harness COMMAND --help` says the same in a terminal. The exit code is 0, 1 if runs failed, 2 for a mistake "
        "in the call or the study, 130 if interrupted. `harness --debug COMMAND` shows where in Python a mistake was "
        "met.",
    ]
    tree = command_tree()
    short = [f"| [`{words}`](#{words.replace(' ', '-')}) | {_first(command)} |" for words, command in tree.items()]
    parts.append("| | |\n| --- | --- |\n" + "\n".join(short))
    for words, command in tree.items():
        about, _, example = (command.help or "").partition("Example: ")
        usage = " ".join(["harness", words, *map(_shown, _arguments(command)), "[OPTIONS]"])
        parts += [f"## {words}", about.strip(), f"```console\n{usage}\n```"]
        if example:
            parts.append(f"Example:\n\n```console\n{example.strip()}\n```")
        rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
        parts.append("| | |\n| --- | --- |\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _first(command: Any) -> str:
    """The first sentence of a command's help."""
    return re.split(r"(?<=\.)\s", " ".join((command.help or "").split()))[0].replace("|", "\\|")


def _arguments(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.param_type_name == "argument"]


def _shown(argument: Any) -> str:
    name = str(argument.metavar or argument.name).rstrip(".")
    return name + ("..." if argument.nargs == -1 else "")


def _row(parameter: Any) -> str:
    argument = parameter.param_type_name == "argument"
    names = [_shown(parameter)] if argument else [*parameter.opts, *parameter.secondary_opts]
    default = getattr(parameter.default, "value", parameter.default)
    shown = "" if default in (None, False, True) or callable(default) else f" Default: `{default}`."
    text = (parameter.help or "").replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
    return f"| {', '.join(f'`{name}`' for name in names)} | {text}{'' if text.endswith('.') else '.'}{shown} |"
