"""The copy of the code that jobs run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_provenance import _forget, git

import harness
from harness.launch import provenance
from harness.launch.snapshot import LARGEST_FILE, environment, freeze
from harness.machine import PROJECT_VARIABLE
from harness.store import Store


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "project"
    (folder / "studies").mkdir(parents=True)
    (folder / "studies" / "one.py").write_text("A = 1\n")
    (folder / "harness.toml").write_text("")
    (folder / "notes.txt").write_text("for later")
    monkeypatch.setenv(PROJECT_VARIABLE, str(folder))
    _forget()
    yield folder
    _forget()


@pytest.fixture
def checkout(project: Path) -> Path:
    """The project with all it has committed; `*.log` is ignored."""
    git(project, "init", "-q")
    (project / ".gitignore").write_text("*.log\n")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    return project


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def copied(snapshot: Path) -> dict[str, str]:
    """The project in a copy: text by name."""
    folder = snapshot / "project"
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_package_is_copied_whole(store: Store, project: Path) -> None:
    package = Path(harness.__file__).parent
    copy = freeze(store, project) / "package" / "harness"
    names = {path.relative_to(package) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {path.relative_to(copy) for path in copy.rglob("*") if path.is_file()} == names
    assert all((package / name).read_bytes() == (copy / name).read_bytes() for name in names)


def test_equal_content_is_copied_once(store: Store, checkout: Path) -> None:
    one = freeze(store, checkout)
    marked = one.stat().st_mtime_ns
    assert freeze(store, checkout) == one
    assert one.stat().st_mtime_ns == marked
    (checkout / "studies" / "one.py").write_text("A = 2\n")
    _forget()
    two = freeze(store, checkout)
    assert two != one
    (checkout / "studies" / "one.py").write_text("A = 1\n")
    _forget()
    assert freeze(store, checkout) == one
    assert len([path for path in one.parent.iterdir() if not path.name.startswith(".")]) == 2
    assert [path for path in one.parent.iterdir() if path.name.startswith(".")] == []


def test_another_name_is_other_content(store: Store, project: Path) -> None:
    one = freeze(store, project)
    (project / "studies" / "one.py").rename(project / "studies" / "ones.py")
    two = freeze(store, project)
    assert two != one
    assert ("studies/ones.py" in copied(one), "studies/ones.py" in copied(two)) == (False, True)


def test_changed_and_new_files_are_taken_ignored_and_large_ones_are_not(store: Store, checkout: Path) -> None:
    (checkout / "studies" / "one.py").write_text("A = 2\n")
    (checkout / "masks.py").write_text("B = 1\n")
    (checkout / "train.log").write_text("step 1")
    (checkout / "weights.bin").write_bytes(b"0" * (LARGEST_FILE + 1))
    (checkout / "results").mkdir()
    (checkout / "results" / "table.csv").write_text("1")
    (checkout / "notes.txt").unlink()
    assert copied(freeze(store, checkout)) == {
        "studies/one.py": "A = 2\n",
        "masks.py": "B = 1\n",
        "harness.toml": "",
        ".gitignore": "*.log\n",
    }


def test_without_git_the_code_is_taken(store: Store, project: Path) -> None:
    (project / ".hidden").mkdir()
    (project / ".hidden" / "a.py").touch()
    (project / "runs").mkdir()
    (project / "runs" / "a.py").touch()
    assert copied(freeze(store, project)) == {"studies/one.py": "A = 1\n", "harness.toml": ""}


def test_a_project_that_an_outer_checkout_ignores(store: Store, project: Path) -> None:
    git(project.parent, "init", "-q")
    (project.parent / ".gitignore").write_text("*\n")
    assert copied(freeze(store, project)) == {"studies/one.py": "A = 1\n", "harness.toml": ""}


def test_a_store_in_the_project_is_not_copied(checkout: Path) -> None:
    store = Store(checkout / "out")
    one = freeze(store, checkout)
    (store.root / "pretrain-1").mkdir()
    (store.root / "pretrain-1" / "spec.json").write_text("{}")
    _forget()
    assert freeze(store, checkout) == one
    assert not (one / "project" / "out").exists()


def test_names_with_spaces_and_line_breaks(store: Store, checkout: Path) -> None:
    (checkout / "my notes\nold.py").write_text("C = 1\n")
    assert copied(freeze(store, checkout))["my notes\nold.py"] == "C = 1\n"


ASK = """
import json, harness, one
from harness.launch import provenance
print(json.dumps([harness.__file__, one.A, provenance.repository(), provenance.untracked()]))
"""


def test_jobs_run_the_copy_and_record_what_it_was_made_from(store: Store, checkout: Path) -> None:
    (checkout / "studies" / "one.py").write_text("A = 2\n")
    (checkout / "new.py").touch()
    before = (provenance.repository(), provenance.untracked())
    copy = freeze(store, checkout)
    (checkout / "studies" / "one.py").write_text("A = 3\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "second")
    told = environment(copy)
    told["PYTHONPATH"] += f"{os.pathsep}{copy / 'project' / 'studies'}"
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=os.environ | told, cwd=checkout, capture_output=True, text=True, check=True
    )
    file, value, repository, untracked = json.loads(done.stdout)
    assert file == str(copy / "package" / "harness" / "__init__.py")
    assert value == 2
    assert (tuple(repository), untracked) == before
    assert "+A = 2" in repository[1]
    assert untracked == ["new.py"]
