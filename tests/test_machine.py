"""Where the store and the data sets lie: as said, as a profile says, or in the project root."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine import data_location, data_names, store_folder
from harness.spec import HarnessError


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
    assert store_folder() == store_folder(root=project) == project / "runs"
    assert store_folder("there") == project / "below" / "there"


def test_a_place_is_relative_to_the_profile_that_names_it(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config" / "harness" / "site.toml").write_text('store = "../mine"')
    assert store_folder() == tmp_path / "config" / "mine"
    profile = project / "harness.toml"
    profile.write_text('store = "../ours"')
    assert store_folder() == store_folder(root=project) == tmp_path / "ours"
    assert store_folder(tmp_path / "said") == tmp_path / "said"
    profile.write_text('store = "/shared/ours"')
    assert store_folder() == Path("/shared/ours")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    profile.write_text('store = "~/ours"')
    assert store_folder() == store_folder("~/ours") == tmp_path / "home" / "ours"
    monkeypatch.setenv("HARNESS_DATA_NETS", "~/nets")
    assert data_location("nets") == tmp_path / "home" / "nets"


@pytest.mark.parametrize("text", ["store = 3", "store = [\n", "a = " + "[" * 100_000])
def test_a_profile_that_names_no_place_is_named(project: Path, text: str) -> None:
    (project / "harness.toml").write_text(text)
    with pytest.raises(HarnessError) as refusal:
        store_folder()
    assert str(project / "harness.toml") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_of_two_places_for_data_the_variables_counts_then_the_projects(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config" / "harness" / "site.toml").write_text('[data]\nnets = "mine"\nzoo = "/zoo"\n')
    assert data_location("nets") == tmp_path / "config" / "harness" / "mine"
    (project / "harness.toml").write_text('[data]\nnets = "ours"\n')
    assert (data_location("nets"), data_location("zoo")) == (project / "ours", Path("/zoo"))
    monkeypatch.setenv("HARNESS_DATA_NETS", "/said")
    assert data_location("nets") == Path("/said")
    assert data_names() >= {"nets", "zoo"}
    assert data_location("none") is None
