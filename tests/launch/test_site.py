"""The site profile: merging of its files and tables, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.launch.site import Site, read_site
from harness.spec import HarnessError


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own profile, not written yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "harness").mkdir(parents=True)
    return tmp_path / "config" / "harness" / "site.toml"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project's profile, not written yet."""
    (tmp_path / "project").mkdir()
    return tmp_path / "project" / "harness.toml"


def test_without_files_both_stages_have_the_defaults(user: Path, project: Path) -> None:
    assert read_site(project.parent) == {"pretrain": Site(), "evaluation": Site()}


def test_the_project_overrides_the_user_and_a_stage_overrides_both(user: Path, project: Path) -> None:
    user.write_text(
        '[slurm]\npartition = "gpu"\naccount = "lab"\nminutes = 60\n'
        "[slurm.pretrain]\nminutes = 600\npack = 2\n[slurm.evaluation]\nslots = 3\n"
    )
    project.write_text('[slurm]\npartition = "long"\nminutes = 90\n[slurm.pretrain]\npack = 4\n')
    found = read_site(project.parent)
    assert found["pretrain"] == Site(partition="long", account="lab", minutes=600, pack=4)
    assert found["evaluation"] == Site(partition="long", account="lab", minutes=90, slots=3)


def test_time_limit_of_a_pack() -> None:
    assert Site(minutes=30, slots=2).allocation_minutes(1) == 30
    assert Site(minutes=30, slots=2).allocation_minutes(4) == 60
    assert Site(minutes=30, slots=2).allocation_minutes(5) == 90


@pytest.mark.parametrize("field", ["partition", "account", "qos", "constraint", "reservation", "gres"])
@pytest.mark.parametrize("character", ["\\n", " ", "'", '\\"', "#", ";", "$", "`", "\\\\", "\\u0000", "\\t"])
def test_what_would_break_an_sbatch_line_is_refused(user: Path, project: Path, field: str, character: str) -> None:
    project.write_text(f'[slurm]\n{field} = "a{character}b"\n')
    refused(project, field, "does not fit on an sbatch line")


@pytest.mark.parametrize("word", ["a100&ib", "a|b", "[rack1*2&rack2]", "gpu:a100:4", "lab-1/x_2", "n1,n2", "!old"])
def test_what_sbatch_knows_is_taken(user: Path, project: Path, word: str) -> None:
    project.write_text(f'[slurm]\nconstraint = "{word}"\n')
    assert read_site(project.parent)["pretrain"].constraint == word


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("memory = 3", "memory"),
        ("[slurm.evaluate]\nminutes = 3", "evaluate"),
        ('minutes = "0-00:30:00"', "minutes"),
        ("minutes = 30.5", "minutes"),
        ("minutes = true", "minutes"),
        ("minutes = 0", "minutes"),
        ("pack = 0", "pack"),
        ("slots = 0", "slots"),
        ("nodes = -1", "nodes"),
        ("parallel = 0", "parallel"),
        ("submit_limit = 0", "submit_limit"),
        ("attempts = 0", "attempts"),
        ("gpus_per_node = 0", "gpus_per_node"),
        ("mem_gb = 0", "mem_gb"),
        ("signal_seconds = 9", "signal_seconds"),
        ("multiply_adds_per_second = 0.0", "multiply_adds_per_second"),
        ('shared_store = "yes"', "shared_store"),
        ("partition = 3", "partition"),
        ('setup = ["module purge\\nrm -r x"]', "setup.0"),
        ('setup = [" "]', "setup.0"),
        ('setup = "module purge"', "setup"),
        ('modules = ["cuda; ls"]', "modules.0"),
        ('container = "a\\nb"', "container"),
        ('srun_args = ["--x\\r"]', "srun_args.0"),
        ("[slurm.pretrain]\nminutes = 0", "minutes"),
    ],
)
def test_refusals_are_one_line_that_names_the_choices(user: Path, project: Path, line: str, where: str) -> None:
    project.write_text(f"[slurm]\n{line}\n")
    refused(project, where, "valid: partition, account,")


@pytest.mark.parametrize(
    "text", ["slurm = 3", "[slurm]\npretrain = 3", "[slurm\n", "[slurm]\nminutes = 3\nminutes = 4"]
)
def test_a_file_that_does_not_read_is_named(user: Path, project: Path, text: str) -> None:
    project.write_text(text)
    with pytest.raises(HarnessError) as refusal:
        read_site(project.parent)
    assert str(project) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_bytes_that_are_no_text_are_refused(user: Path, project: Path) -> None:
    user.write_bytes(b"\xff\xfe")
    with pytest.raises(HarnessError, match=r"site\.toml"):
        read_site(project.parent)


def refused(project: Path, *parts: str) -> None:
    """Reading the profile raises one line with these parts."""
    with pytest.raises(HarnessError) as refusal:
        read_site(project.parent)
    text = str(refusal.value)
    assert len(text.splitlines()) == 1
    assert all(character.isprintable() for character in text), text
    for part in (*parts, "valid: ", "partition", "minutes", "pretrain"):
        assert part in text, text
