"""Copy of the code that jobs run, made at submission, so that later edits do not change what they compute."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import harness
from harness.launch import provenance
from harness.machine import PROJECT_VARIABLE, SNAPSHOT_VARIABLE
from harness.spec import HarnessError
from harness.store import Store
from harness.store.files import disk_errors, publish_folder
from harness.store.layout import snapshot_folder

LARGEST_FILE = 2_000_000
SKIPPED = frozenset({"runs", "results", "node_modules", "__pycache__", "venv"})


def freeze(store: Store, project: Path) -> Path:
    """Copy the imported harness package and the user's project below the store, once for each content.

    Of a git checkout all tracked and new files that git does not ignore are taken as they are now, changed or not;
    of another folder its Python and TOML files. Files above 2 MB stay behind: they are data. So does the store.

    Returns:
        A folder with `package/harness`, `project` and the provenance that jobs record.
    """
    package = Path(harness.__file__).parent
    files = [(f"package/harness/{path.relative_to(package).as_posix()}", path) for path in _package_files(package)]
    files += [(f"project/{path.relative_to(project).as_posix()}", path) for path in _project_files(project, store.root)]
    commit, patch = provenance.repository()
    origin = json.dumps({"commit": commit, "patch": patch, "untracked": provenance.untracked() if commit else []})
    digest = hashlib.sha256(origin.encode())
    for name, path in files:
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    folder = snapshot_folder(store.root, digest.hexdigest()[:16])

    def fill(fresh: Path) -> None:
        for name, path in files:
            target = fresh / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        (fresh / "project").mkdir(exist_ok=True)
        (fresh / provenance.SNAPSHOT_FILE).write_text(origin)
        (fresh / ".gitignore").write_text("*\n")  # a copy below a checkout is no change of the project

    if not folder.is_dir():
        with disk_errors(folder):
            publish_folder(folder, fill)
    return folder


def environment(snapshot: Path) -> dict[str, str]:
    """Environment variables with which a process imports this copy instead of the original code."""
    path = os.pathsep.join(str(snapshot / part) for part in ("package", "project"))
    return {
        "PYTHONPATH": path,
        PROJECT_VARIABLE: str(snapshot / "project"),
        SNAPSHOT_VARIABLE: str(snapshot),
    }


def _package_files(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _project_files(project: Path, store: Path) -> list[Path]:
    listed = subprocess.run(
        ["git", "-C", str(project), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0 and listed.stdout:  # a folder that a checkout around it ignores has no files for git
        paths = [project / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    else:
        paths = list(_sources(project))
    paths = [path for path in paths if store != path and store not in path.parents]
    wanted = [path for path in paths if path.is_file() and not SKIPPED & set(path.relative_to(project).parts)]
    try:
        return sorted(path for path in wanted if path.stat().st_size <= LARGEST_FILE)
    except OSError as error:
        raise HarnessError(f"cannot copy the project: {error}") from None


def _sources(project: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(project):
        names[:] = [name for name in names if not name.startswith(".") and name not in SKIPPED]
        yield from (Path(folder) / name for name in files if name.endswith((".py", ".toml")))
