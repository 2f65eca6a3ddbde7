"""Where the store lies: as said, as a profile says, or in the project root; the same for every caller."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.spec import HarnessError
from harness.store.place import open_store


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without a profile, as the current folder; the user's own profile is not written yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "harness").mkdir(parents=True)
    (tmp_path / "project" / "below").mkdir(parents=True)
    (tmp_path / "project" / "harness.toml").touch()
    monkeypatch.chdir(tmp_path / "project" / "below")
    return tmp_path / "project"


def test_without_a_word_it_lies_in_the_project_root(project: Path) -> None:
    assert open_store().root == open_store(root=project).root == project / "runs"
    assert open_store("there").root == project / "below" / "there"


def test_a_place_is_relative_to_the_profile_that_names_it(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config" / "harness" / "site.toml").write_text('store = "../mine"')
    assert open_store().root == tmp_path / "config" / "mine"
    profile = project / "harness.toml"
    profile.write_text('store = "../ours"')
    assert open_store().root == open_store(root=project).root == tmp_path / "ours"
    assert open_store(tmp_path / "said").root == tmp_path / "said"
    profile.write_text('store = "/shared/ours"')
    assert open_store().root == Path("/shared/ours")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    profile.write_text('store = "~/ours"')
    assert open_store().root == tmp_path / "home" / "ours"


@pytest.mark.parametrize("text", ["store = 3", "store = [\n", "a = " + "[" * 100_000])
def test_a_profile_that_names_no_place_is_named(project: Path, text: str) -> None:
    (project / "harness.toml").write_text(text)
    with pytest.raises(HarnessError) as refusal:
        open_store()
    assert str(project / "harness.toml") in str(refusal.value)
    assert "\n" not in str(refusal.value)
