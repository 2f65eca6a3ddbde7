"""What env.json says of a project: commit, changes that are not committed, files that git does not know."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.launch import provenance
from harness.machine import PROJECT_VARIABLE


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(PROJECT_VARIABLE, str(tmp_path))
    _forget()
    yield tmp_path
    _forget()


def _forget() -> None:
    provenance.repository.cache_clear()
    provenance.untracked.cache_clear()


def git(project: Path, *command: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", "-C", project, *who, *command], check=True, capture_output=True, text=True).stdout


def test_clean_checkout(project: Path) -> None:
    git(project, "init", "-q")
    (project / "study.py").write_text("a = 1\n")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    found = provenance.environment("cpu", 1)
    assert found["commit"] == git(project, "rev-parse", "HEAD").strip()
    assert found["dirty"] is False
    assert found["versions"]["harness"]
    assert found["versions"]["torch"]


def test_the_patch_of_a_changed_file_applies(project: Path) -> None:
    test_clean_checkout(project)
    _forget()
    (project / "study.py").write_text("a = 2\n")
    assert provenance.environment("cpu", 1)["dirty"] is True
    patch = provenance.repository()[1]
    git(project, "checkout", "-q", "study.py")
    subprocess.run(["git", "-C", project, "apply", "-"], input=patch, text=True, check=True)
    assert (project / "study.py").read_text() == "a = 2\n"


def test_a_new_study_counts_as_a_change(project: Path) -> None:
    test_clean_checkout(project)
    _forget()
    (project / "other.py").write_text("b = 1\n")
    found = provenance.environment("cpu", 1)
    assert found["dirty"] is True
    assert found["untracked"] == ["other.py"]


def test_a_git_that_does_not_answer_is_no_clean_checkout(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_clean_checkout(project)
    _forget()
    known = subprocess.run

    def slow(command: list[str], **how: Any) -> Any:
        if "rev-parse" not in command:
            raise subprocess.TimeoutExpired(command, 20)
        return known(command, **how)

    monkeypatch.setattr(subprocess, "run", slow)
    found = provenance.environment("cpu", 1)
    assert (len(found["commit"]), found["dirty"]) == (40, True)
    assert found["untracked"] == ["git did not say what is not committed"]


def test_a_long_patch_says_that_it_was_cut(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_clean_checkout(project)
    _forget()
    monkeypatch.setattr(provenance, "LARGEST_PATCH", 100)
    (project / "study.py").write_text("a = 2\n" * 50)
    patch = provenance.repository()[1]
    assert patch[100:].startswith("\n... and ")
    assert patch.endswith(" characters more\n")


def test_no_checkout(project: Path) -> None:
    found = provenance.environment("cpu", 1)
    assert (found["commit"], found["dirty"], found["untracked"]) == ("", False, [])


def test_the_digest_of_the_code_is_that_of_what_determines_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "harness"
    for name in (
        "__init__.py",
        "core/train/training.py",
        "spec/run.py",
        "analysis/fourier.py",
        "report/tables/table.py",
    ):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(f"# {name}\n")
    monkeypatch.setattr(harness, "__file__", str(package / "__init__.py"))

    def digests() -> tuple[str, str]:
        provenance.package_digest.cache_clear()
        found = provenance.environment("cpu", 1)
        return found["code"], found["source"]

    seen = [digests()]
    for name in ("core/train/training.py", "spec/run.py", "analysis/fourier.py", "report/tables/table.py"):
        (package / name).write_text("changed\n")
        seen.append(digests())
    codes, sources = zip(*seen, strict=True)
    assert len(set(codes[:4])) == 4
    assert codes[4] == codes[3]
    assert len(set(sources)) == 5
    provenance.package_digest.cache_clear()
