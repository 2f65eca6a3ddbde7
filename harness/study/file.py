"""Import of a study file: plain Python, with its project first on the import path."""

from __future__ import annotations

import difflib
import importlib.util
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from harness.machine import PROJECT_VARIABLE, project_root
from harness.spec import HarnessError, one_line
from harness.spec.data.datasets import planned_manifest

NOT_THE_USERS = (str(Path(__file__).parents[1]) + os.sep, sysconfig.get_paths()["stdlib"] + os.sep)
"""Folders of code that is not the user's: this package and the standard library."""

INSTALLED = {"site-packages", "dist-packages"}
"""Names of folders of installed packages; the second is Debian's."""


def run_file(path: Path) -> ModuleType:
    """The module of a study file, run with its project root first on the import path.

    Raises:
        HarnessError: the file is missing, does not parse, or fails.
    """
    path = path.resolve()
    if not path.is_file():
        close = difflib.get_close_matches(path.stem, [other.stem for other in path.parent.glob("*.py")], n=1)
        raise HarnessError(f"there is no study file {path}" + (f"; did you mean {close[0]}.py?" if close else ""))
    planned_manifest.cache_clear()  # a plan that is made again in one process sees what changed in a folder of images
    root = project_root(path.parent)
    os.environ[PROJECT_VARIABLE] = str(root)
    sys.path[:] = [str(root), *(folder for folder in sys.path if folder != str(root))]
    loaded = importlib.util.spec_from_file_location(f"harness_study_{path.stem}", path)
    if loaded is None or loaded.loader is None:
        raise HarnessError(f"{path.name} is no Python file")
    module = sys.modules[loaded.name] = importlib.util.module_from_spec(loaded)  # dataclasses look their module up
    cached, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # looking at a study leaves nothing behind
    try:
        loaded.loader.exec_module(module)
    except SyntaxError as error:
        raise HarnessError(f"{Path(error.filename or path).name}, line {error.lineno or 1}: {error.msg}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's own code, which may define such errors or leave by sys.exit
        raise HarnessError(f"{line_of(error) or f'{path.name}: '}{in_words(error)}") from error
    finally:
        sys.dont_write_bytecode = cached
    return module


def in_words(error: BaseException) -> str:
    """An error of a user's code in one line: a refusal as it is, others behind the name of their type."""
    match error:
        case ValidationError():
            return one_line(error)
        case HarnessError():
            return str(error)
        case _:
            try:
                text = str(error)
            except Exception:  # of the user's own type
                text = "(without words)"
            return " ".join(f"{type(error).__name__}: {text}".split())


def line_of(error: BaseException) -> str:
    """`first.py, line 12: `, the last line of a user's own file that an error went through; empty if there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not frame.filename.startswith(("<", *NOT_THE_USERS)) and not INSTALLED.intersection(path.parts):
            return f"{path.name}, line {frame.lineno}: "
    return ""
