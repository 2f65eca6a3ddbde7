"""Submission and cancelling, with scripts named as Slurm's commands. No job is run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, slurm
from tiny_runs import by_key, finetuning, pretraining

from harness.launch.executor import Submitted, overview
from harness.launch.resources import Resources
from harness.launch.site import Site, Stage
from harness.launch.slurm.submit import Slurm, scripts, wanted
from harness.spec import HarnessError, Run, key
from harness.store import Attempt, Store
from harness.store.submissions import Submissions

__all__ = ["slurm"]

FIRST = [pretraining(seed=seed) for seed in range(3)]
THEN = [finetuning(first) for first in FIRST]
ALL = by_key(*FIRST, *THEN)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "a store" / "it's")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def profile(**fields: object) -> dict[Stage, Site]:
    return {"pretrain": Site(**fields), "evaluation": Site(**fields)}  # type: ignore[arg-type]


def queued(
    store: Store, project: Path, runs: dict[str, Run], *, study: str = "s", retry: bool = False, **fields: object
) -> Submitted:
    return Slurm(store, study, profile(**fields), Resources(), project).submit(runs, retry=retry)


def pending(slurm: FakeSlurm, store: Store) -> None:
    """Have squeue list all that was submitted as pending."""
    log = Submissions(store.root)
    lines = []
    for entry in log.entries():
        for place, array in enumerate(entry.arrays):
            job = log.answer(entry.number, place).get("id")
            for index in range(len(array.elements)) if job else ():
                name = f"{job}_{index}" if len(array.elements) > 1 else job
                lines.append(f"{name}|PENDING|Priority|{name}|{array.name}")
    slurm.says("squeue", *lines)


def finish(store: Store, run: Run) -> None:
    attempt = store.acquire(run)
    assert isinstance(attempt, Attempt)
    attempt.finish({"loss": 0.5}, 1.0, b"weights")
    attempt.release()


def test_everything_once(store: Store, project: Path, slurm: FakeSlurm) -> None:
    assert queued(store, project, ALL) == Submitted(runs=6, jobs=6, arrays=2)
    pending(slurm, store)
    assert queued(store, project, ALL) == Submitted(waiting=6)
    assert len(slurm.calls("sbatch")) == 2
    log = Submissions(store.root)
    text = next(log.folder(1).jobs(1).glob("*.sh")).read_text()
    assert "#SBATCH --dependency=aftercorr:1\n" in text
    assert "#SBATCH --kill-on-invalid-dep=yes\n" in text


def test_the_script_is_valid_shell_whatever_the_store_is_called(
    store: Store, project: Path, slurm: FakeSlurm, tmp_path: Path
) -> None:
    import subprocess

    queued(store, project, ALL, modules=["cuda/12&x", "gcc|9"], setup=["export A='1 2'"])
    for file in store.root.rglob("submission_file_*.sh"):
        assert subprocess.run(["bash", "-n", file], check=False).returncode == 0
        lines = file.read_text().splitlines()
        assert "module load 'cuda/12&x'" in lines
        assert "export A='1 2'" in lines
        exported = "\n".join(line for line in lines if line.startswith("export"))
        shown = subprocess.run(
            ["bash", "-c", f'PYTHONPATH=old\n{exported}\necho "$PYTHONPATH"'],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        parts = shown.strip().split(":")
        assert [Path(part).name for part in parts] == ["package", "project", "old"]
        assert all(Path(part).is_dir() for part in parts[:2])


def test_two_at_once_submit_everything_once(store: Store, project: Path, slurm: FakeSlurm) -> None:
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda study: queued(store, project, ALL, study=study), "abc"))
    assert sorted(one.runs for one in done) == [0, 0, 6]
    assert len(slurm.calls("sbatch")) == 2
    pending(slurm, store)
    names = [name for entry in Submissions(store.root).entries() for name in entry.places]
    assert sorted(names) == sorted(ALL)


def test_a_small_room_is_filled(store: Store, project: Path, slurm: FakeSlurm) -> None:
    assert queued(store, project, ALL, submit_limit=2) == Submitted(runs=2, jobs=2, arrays=1, left=4)
    pending(slurm, store)
    assert queued(store, project, ALL, submit_limit=2) == Submitted(left=4, waiting=2)
    for first in FIRST[:2]:
        finish(store, first)
    slurm.says("squeue")
    assert queued(store, project, ALL, submit_limit=2).runs == 2


def test_a_refusal_is_told_and_what_waits_for_it_is_not_sent(store: Store, project: Path, slurm: FakeSlurm) -> None:
    slurm.fails("sbatch", "sbatch: error: Batch job submission failed: Invalid qos specification")
    done = queued(store, project, ALL)
    assert done == Submitted(refused="sbatch: error: Batch job submission failed: Invalid qos specification")
    assert len(slurm.calls("sbatch")) == 1
    (slurm.folder / "sbatch.fails").unlink()
    assert queued(store, project, ALL).runs == 6


def test_an_evaluation_waits_for_a_job_that_is_queued_already(store: Store, project: Path, slurm: FakeSlurm) -> None:
    queued(store, project, by_key(*FIRST))
    pending(slurm, store)
    done = queued(store, project, by_key(FIRST[1], THEN[1]))
    assert done == Submitted(runs=1, jobs=1, arrays=1, waiting=1)
    assert Submissions(store.root).read(2).arrays[0].dependency == "afterok:1_1"


def test_an_evaluation_is_left_while_its_start_is_being_submitted(
    store: Store, project: Path, slurm: FakeSlurm
) -> None:
    queued(store, project, by_key(FIRST[0]))  # squeue lists no job yet: nothing that could be waited for
    assert overview(ALL, store).places[key(FIRST[0])].word == "queued"
    chosen, _ = wanted(by_key(FIRST[0], THEN[0]), store)
    assert chosen == {}


def test_squeue_that_does_not_answer_stops_a_submission(store: Store, project: Path, slurm: FakeSlurm) -> None:
    queued(store, project, ALL)
    slurm.fails("squeue", "Unable to contact slurm controller")
    with pytest.raises(HarnessError, match="cannot tell what is queued already: squeue: Unable"):
        queued(store, project, ALL)
    with pytest.raises(HarnessError, match="cannot tell what is queued: squeue: Unable"):
        Slurm(store, "s").cancel(ALL)
    assert len(Submissions(store.root).entries()) == 1


def test_weights_that_are_needed_again(store: Store, project: Path, slurm: FakeSlurm) -> None:
    queued(store, project, by_key(FIRST[0]))
    finish(store, FIRST[0])
    weights = store.weights(key(FIRST[0]))
    assert weights is not None
    weights.unlink()
    slurm.says("sacct", f"1|COMPLETED|0:0|1|{Submissions(store.root).read(1).arrays[0].name}")
    both = by_key(FIRST[0], THEN[0])
    shown, _ = scripts(both, store, profile())
    assert [array.stage for array in shown] == ["pretrain", "evaluation"]
    assert store.result(key(FIRST[0])) is not None  # to look changes nothing
    assert queued(store, project, both).runs == 2
    assert store.result(key(FIRST[0])) is None
    # It was done when the study was looked at; another study spares it all the same.
    assert set(Submissions(store.root).entries()[-1].wants) == set(both)
    pending(slurm, store)
    assert Slurm(store, "another").cancel(by_key(FIRST[0])) == ([], [key(FIRST[0])])


def test_scripts_writes_nothing(store: Store, slurm: FakeSlurm) -> None:
    made, texts = scripts(ALL, store, profile(partition="gpu"))
    assert len(made) == 2
    assert all("#SBATCH --partition=gpu\n" in text for text in texts.values())
    assert not store.root.exists()
    for array, text in enumerate(texts.values()):  # with the folder that it has when it is submitted
        assert f"/.submissions/000001/array-{array}/" in text


def test_cancel_takes_jobs_out_once(store: Store, project: Path, slurm: FakeSlurm) -> None:
    queued(store, project, ALL)
    pending(slurm, store)
    gone, spared = Slurm(store, "s").cancel(ALL)
    assert (sorted(gone), spared) == (sorted(ALL), [])
    assert sorted(slurm.calls("scancel")[0].split()) == ["1_0", "1_1", "1_2", "2_0", "2_1", "2_2"]
    assert {place.word for place in overview(ALL, store).places.values()} == {"cancelled"}
    assert Slurm(store).logs(ALL) == {}
    assert Slurm(store, "s").cancel(ALL) == ([], [])
    assert queued(store, project, ALL).runs == 6


def test_cancel_spares_what_another_study_waits_for(store: Store, project: Path, slurm: FakeSlurm) -> None:
    queued(store, project, by_key(FIRST[0], THEN[0]), study="one")
    pending(slurm, store)
    queued(store, project, by_key(FIRST[0]), study="two")
    gone, spared = Slurm(store, "one").cancel(by_key(FIRST[0], THEN[0]))
    assert (gone, spared) == ([key(THEN[0])], [key(FIRST[0])])
    assert slurm.calls("scancel") == ["2"]


def test_cancel_leaves_what_this_machine_computes_and_a_pack_with_others(
    store: Store, project: Path, slurm: FakeSlurm
) -> None:
    queued(store, project, by_key(*FIRST), pack=2)
    pending(slurm, store)
    assert Slurm(store, "s").cancel(by_key(FIRST[0])) == ([key(FIRST[0])], [])
    assert slurm.calls("scancel") == []
    Slurm(store, "s").cancel(by_key(FIRST[1]))
    assert slurm.calls("scancel") == ["1_0"]
    attempt = store.acquire(FIRST[2])
    slurm.says("squeue")
    assert Slurm(store, "s").cancel(by_key(FIRST[2])) == ([], [])  # no job of the cluster's
    assert isinstance(attempt, Attempt)
    attempt.release()


def test_cancel_spares_a_job_whose_other_run_was_submitted_again(store: Store, project: Path, slurm: FakeSlurm) -> None:
    again, left, other = FIRST
    queued(store, project, by_key(again, left), pack=2)  # job 1
    pending(slurm, store)
    Slurm(store, "s").cancel(by_key(again))
    queued(store, project, by_key(again, other), pack=2)  # job 2
    pending(slurm, store)
    queued(store, project, by_key(again), study="two")
    gone, spared = Slurm(store, "s").cancel(by_key(again, other))
    assert slurm.calls("scancel") == []  # job 2 goes on with the run that was submitted again
    assert (gone, spared) == ([key(other)], [key(again)])
    Slurm(store, "s").cancel(by_key(left))
    assert slurm.calls("scancel") == ["1"]  # which job 1 has dropped
