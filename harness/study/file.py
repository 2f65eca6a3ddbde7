"""Running a study file: plain Python, with its project first on the import path."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from harness.spec import HarnessError, one_line
from harness.spec.content import PROJECT_VARIABLE, project_root


def run_file(path: Path) -> ModuleType:
    """The module of a study file, run with its project root first on the import path.

    Raises:
        HarnessError: the file is missing, does not parse, or fails.
    """
    path = path.resolve()
    if not path.is_file():
        raise HarnessError(f"there is no study file {path}")
    root = project_root(path.parent)
    os.environ[PROJECT_VARIABLE] = str(root)
    sys.path[:] = [str(root), *(folder for folder in sys.path if folder != str(root))]
    loaded = importlib.util.spec_from_file_location(f"harness_study_{path.stem}", path)
    if loaded is None or loaded.loader is None:
        raise HarnessError(f"{path.name} is no Python file")
    module = importlib.util.module_from_spec(loaded)
    cached, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # looking at a study leaves nothing behind
    try:
        loaded.loader.exec_module(module)
    except SyntaxError as error:
        raise HarnessError(f"{Path(error.filename or path).name}, line {error.lineno or 1}: {error.msg}") from None
    except ValidationError as error:
        raise HarnessError(f"{path.name}: {one_line(error)}") from None
    except HarnessError as error:
        raise HarnessError(f"{path.name}: {error}") from None
    except (Exception, SystemExit) as error:  # the user's own code
        raise HarnessError(f"{path.name}: {type(error).__name__}: {error}".replace("\n", " ")) from error
    finally:
        sys.dont_write_bytecode = cached
    return module
