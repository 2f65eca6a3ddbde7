"""Results that travel: export and import of finished runs, without weights and without harm to either store."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import pytest
from made_runs import finetuning, finish, owned, pretraining, snapshot

from harness.spec import HarnessError, Run, key
from harness.store import Store, Superseded, exchange
from harness.store.exchange import export_records, import_records
from harness.store.files import create_exclusively
from harness.store.records import sealed

OLD = Path(__file__).parent / "files" / "schema1"
FIRST, SECOND = pretraining(0), pretraining(1)
RUNS = (FIRST, SECOND, finetuning(FIRST))
NAMES = [key(run) for run in RUNS]


def compute(store: Store, run: Run, loss: float = 0.25) -> None:
    """Have a run done that leaves a file of each kind."""
    attempt = owned(store, run)
    attempt.alone = run == FIRST
    attempt.begin_metrics()
    attempt.log({"step": 1, "loss": loss})
    attempt.write_environment({"commit": "ä" * 3}, "--- a\n+++ b\n")
    attempt.artefact("pictures.npz").write_bytes(bytes(range(256)))
    attempt.finish({"loss": loss}, 1.5, b"weights")
    attempt.release()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "runs")
    for run in RUNS:
        compute(made, run)
    return made


@pytest.fixture
def file(store: Store, tmp_path: Path) -> Path:
    path = tmp_path / "all.records"
    assert export_records(store, NAMES, path) == 3
    return path


def kept(store: Store, name: str) -> dict[str, bytes]:
    """The files that the attempt of a finished run keeps, except weights, log and owner."""
    attempt = store.final_attempt(name)
    assert attempt is not None
    return {path.relative_to(attempt.path).as_posix(): path.read_bytes() for path in attempt.kept()}


def test_an_empty_store_gets_results_and_files_but_no_weights(store: Store, file: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    merged = import_records(other, [file])
    assert (sorted(merged.new), merged.present) == (sorted(NAMES), ())
    before, after = ([one.result(name) for name in NAMES] for one in (store, other))
    assert [result and result.cpu_seconds for result in before] == [result and result.cpu_seconds for result in after]
    assert [result is not None and result.cpu_seconds is not None for result in after] == [True, False, False]
    for name, run in zip(NAMES, RUNS, strict=True):
        assert other.spec(name) == run
        assert (found := other.result(name)) is not None
        assert found == store.result(name)
        assert found.files == store.result(name).files  # type: ignore[union-attr]
        assert len(found.files) == 4
        assert kept(other, name) == kept(store, name)
        assert other.metrics(name) == [{"step": 1, "loss": 0.25}]
        assert other.weights(name) is None


def test_bytes_do_not_depend_on_order_nor_on_the_store(store: Store, file: Path, tmp_path: Path) -> None:
    export_records(store, NAMES[::-1], tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == file.read_bytes()
    other = Store(tmp_path / "other")
    import_records(other, [file])
    export_records(other, NAMES, tmp_path / "from other")
    assert (tmp_path / "from other").read_bytes() == file.read_bytes()


def test_unfinished_runs_stay_at_home(store: Store, tmp_path: Path) -> None:
    third = pretraining(2)
    owned(store, third).fail("no")
    assert export_records(store, [*NAMES, key(third)], tmp_path / "file") == 3


def test_a_store_that_has_some_is_filled_up_and_loses_nothing(file: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    compute(other, FIRST)
    failed = owned(other, SECOND)
    failed.fail("out of memory")
    failed.release()
    before = snapshot(other.root)
    merged = import_records(other, [file])
    assert (sorted(merged.new), merged.present) == (sorted(NAMES[1:]), (NAMES[0],))
    after = snapshot(other.root)
    assert {path: after[path] for path in before} == before
    state = other.state(NAMES[1])
    assert (state.word, state.attempt) == ("done", 2)
    assert other.weights(NAMES[0]) is not None
    assert import_records(other, [file]).new == ()
    assert snapshot(other.root) == after


def test_a_damaged_result_here_is_put_aside(file: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    compute(other, FIRST)
    result = other.folder(NAMES[0]).result
    result.write_bytes(result.read_bytes().replace(b"0.25", b"0.35"))
    assert other.state(NAMES[0]).word != "done"
    assert NAMES[0] in import_records(other, [file]).new
    assert (found := other.result(NAMES[0])) is not None
    assert found.metrics == {"loss": 0.25}
    assert len(other.folder(NAMES[0]).results_put_aside()) == 1


def test_two_stores_that_overlap_are_merged(tmp_path: Path) -> None:
    one, two, merged = Store(tmp_path / "one"), Store(tmp_path / "two"), Store(tmp_path / "merged")
    held: list[tuple[Store, list[Run]]] = [(one, [FIRST, SECOND]), (two, [FIRST, RUNS[2]])]
    for store, runs in held:
        for run in runs:
            compute(store, run)
        export_records(store, [key(run) for run in runs], store.root.with_suffix(".records"))
    found = import_records(merged, [tmp_path / "one.records", tmp_path / "two.records"])
    assert sorted(found.new) == sorted(NAMES)
    assert all(merged.state(name).word == "done" for name in NAMES)


def test_a_run_at_work_here_is_done_then_and_its_process_finds_out(file: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    attempt = owned(other, FIRST)
    import_records(other, [file])
    assert other.state(NAMES[0]).word == "done"
    with pytest.raises(Superseded):
        attempt.finish({"loss": 9.0}, 1.0, b"")
    attempt.release()
    assert (result := other.result(NAMES[0])) is not None
    assert result.metrics == {"loss": 0.25}


@pytest.mark.parametrize("place", ["store", "files"])
def test_two_results_of_one_run_are_refused(place: str, file: Path, tmp_path: Path) -> None:
    other, third = Store(tmp_path / "other"), Store(tmp_path / "third")
    compute(other, SECOND, loss=0.26)
    export_records(other, NAMES, tmp_path / "second.records")
    into, files = (other, [file]) if place == "store" else (third, [file, tmp_path / "second.records"])
    before = snapshot(into.root)
    with pytest.raises(HarnessError, match=rf"two results of {NAMES[1]} differ \(loss 0\.2\d* and 0\.2\d*\)"):
        import_records(into, files)
    assert snapshot(into.root) == before


@pytest.mark.parametrize(("number", "told"), [(0, "nothing was imported"), (2, "only 2 runs before it were imported")])
def test_a_run_that_ends_otherwise_while_it_is_imported_is_refused_with_what_was_done(
    number: int, told: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Store(tmp_path / "other")
    name = sorted(NAMES)[number]

    def late(path: Path, data: bytes) -> None:
        if path.parent.name == name:
            create_exclusively(
                path, sealed({"key": name, "attempt": 1, "metrics": {"loss": 9.0}, "seconds": 1.0, "weights": ""})
            )
        create_exclusively(path, data)

    monkeypatch.setattr(exchange, "create_exclusively", late)
    with pytest.raises(HarnessError, match=rf"results of {name} differ \(loss 0\.25 and 9\.0\): {told}; decide"):
        import_records(other, [file])
    assert [one for one in sorted(NAMES) if other.result(one) is not None] == sorted(NAMES)[: number + 1]


def test_every_flipped_bit_is_noticed_and_nothing_is_written(file: Path, tmp_path: Path) -> None:
    data, other = file.read_bytes(), Store(tmp_path / "other")
    draw = random.Random(0)
    for place in draw.sample(range(len(data)), 300):
        flipped = bytes([data[place] ^ 1 << draw.randrange(8)])
        file.write_bytes(data[:place] + flipped + data[place + 1 :])
        with pytest.raises(HarnessError, match="damaged") as raised:
            import_records(other, [file])
        assert len(str(raised.value).splitlines()) == 1
        assert not other.root.exists()


def test_a_file_that_was_cut_between_two_runs_is_noticed(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    ends = [found.end() for found in re.finditer(rb"\n\}\n", whole)]
    for end in (0, *ends[:-1]):
        file.write_bytes(whole[:end])
        with pytest.raises(HarnessError, match="damaged"):
            import_records(Store(tmp_path / "other"), [file])


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    with pytest.raises(HarnessError, match="there is no file"):
        import_records(other, [tmp_path / "nowhere"])
    (tmp_path / "text").write_text("hello")
    with pytest.raises(HarnessError, match="did not write it"):
        import_records(other, [tmp_path / "text"])
    (tmp_path / "later").write_bytes(sealed({"kind": "records", "runs": 0}).replace(b'"schema": 2', b'"schema": 3'))
    with pytest.raises(HarnessError, match="has schema 3, and this version of harness reads up to 2"):
        import_records(other, [tmp_path / "later"])


def test_a_spec_that_does_not_belong_to_its_key_is_refused(tmp_path: Path) -> None:
    record = {"key": NAMES[0], "run": SECOND.to_plain(), "result": {}, "files": {}}
    (tmp_path / "file").write_bytes(sealed({"kind": "records", "runs": 1}) + sealed(record))
    with pytest.raises(HarnessError, match=f"the spec of {NAMES[0]} has the key {NAMES[1]} here"):
        import_records(Store(tmp_path / "other"), [tmp_path / "file"])


@pytest.mark.parametrize("place", ["../../escape", "weights.safetensors", "artefacts/../../x", "/etc/x", "artefacts"])
def test_files_that_no_run_keeps_are_refused(place: str, tmp_path: Path) -> None:
    result = {"metrics": {"loss": 1.0}, "seconds": 1.0, "weights": ""}
    record = {"key": NAMES[0], "run": FIRST.to_plain(), "result": result, "files": {place: {"text": ""}}}
    (tmp_path / "file").write_bytes(sealed({"kind": "records", "runs": 1}) + sealed(record))
    with pytest.raises(HarnessError, match="which no finished run keeps"):
        import_records(Store(tmp_path / "other"), [tmp_path / "file"])
    assert not (tmp_path / "other").exists()


def test_a_damaged_run_is_not_exported(store: Store, tmp_path: Path) -> None:
    attempt = store.final_attempt(NAMES[0])
    assert attempt is not None
    attempt.metrics.write_text("{}\n")
    with pytest.raises(HarnessError, match="is damaged"):
        export_records(store, NAMES, tmp_path / "file")
    attempt.metrics.unlink()
    with pytest.raises(HarnessError, match="is gone"):
        export_records(store, NAMES, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_runs_of_schema_1_are_exported(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "old")
    old, other = Store(tmp_path / "old"), Store(tmp_path / "other")
    assert export_records(old, old.keys(), tmp_path / "file") == 2
    import_records(other, [tmp_path / "file"])
    done = [name for name in old.keys() if old.state(name).word == "done"]  # noqa: SIM118
    assert other.keys() == done
    assert [other.result(name).metrics for name in done] == [old.result(name).metrics for name in done]  # type: ignore[union-attr]


def test_a_finished_run_without_files_takes_a_number(tmp_path: Path) -> None:
    store, other = Store(tmp_path / "runs"), Store(tmp_path / "other")
    finish(store, FIRST)
    attempt = store.final_attempt(NAMES[0])
    assert attempt is not None
    assert export_records(store, NAMES, tmp_path / "file") == 1
    import_records(other, [tmp_path / "file"])
    assert other.state(NAMES[0]).attempt == 1
