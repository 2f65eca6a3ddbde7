"""Records: what is not what was written counts as absent, and a later schema is refused and left alone."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import finish, owned, pretraining, snapshot

from harness.spec import HarnessError, key
from harness.store import Attempt, State, Store
from harness.store.cleaning import old_records, seal
from harness.store.files import sha256
from harness.store.layout import numbers
from harness.store.lease import UNKNOWN, read_owner, this_process
from harness.store.records import read_record, sealed
from harness.store.submissions import Submissions

RUN = pretraining()
NAME = key(RUN)
OLD = Path(__file__).parent / "files" / "schema1"
WORDS = {
    "finetune-b1fe79310260c31fbb28": "done",
    "pretrain-00ae29ed30c8644018d2": "failed",
    "pretrain-273defd5d1792c1bc354": "done",
    "pretrain-bee03461c34a826683f3": "interrupted",
    "pretrain-ce311c0b9b8b23484a6c": "missing",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def old(tmp_path: Path) -> Store:
    """A store of schema 1."""
    shutil.copytree(OLD, tmp_path / "old")
    return Store(tmp_path / "old")


def flips(data: bytes) -> list[bytes]:
    """The data with each of its bits changed."""
    return [
        data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
        for place in range(len(data))
        for bit in range(8)
    ]


DAMAGED: list[Callable[[bytes], bytes]] = [
    lambda data: b"",
    lambda data: b"{}",
    lambda data: b"[]",
    lambda data: b"null",
    lambda data: b"[" * 100_000,
    lambda data: b'{"schema": 2, "key": ' + b"[" * 900 + b"]" * 900 + b"}",
    lambda data: data + b" ",
    lambda data: data.replace(b"\n", b"\r\n"),
    lambda data: b"\0" * len(data),
    lambda data: data[: len(data) // 2] + b"\0" * (len(data) - len(data) // 2),
]


def test_a_record_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(sealed({"a": [1, 2.5, "ü"], "b": None}))
    record = read_record(path) or {}
    assert len(record.pop("digest")) == 64
    assert record == {"schema": 2, "a": [1, 2.5, "ü"], "b": None}
    assert read_record(tmp_path / "none") is None


def test_no_bit_of_a_record_changes_unseen(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    whole = sealed({"attempt": 1, "metrics": {"loss": 0.125}})
    for changed in (*flips(whole), *(whole[:length] for length in range(len(whole)))):
        path.write_bytes(changed)
        with contextlib.suppress(HarnessError):  # of a later schema, by its number
            assert read_record(path) is None, changed


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_records_of_a_run(store: Store, damage: Callable[[bytes], bytes]) -> None:
    finish(store, RUN)
    other = owned(store, pretraining(seed=1))
    for path in (store.folder(NAME).spec, store.folder(NAME).result, other.files.owner):
        path.write_bytes(damage(path.read_bytes()))
    assert store.state(NAME).word == "interrupted"
    with pytest.raises(HarnessError, match=r"spec.json is missing or damaged$"):
        store.spec(NAME)
    assert read_owner(other.files.owner) == UNKNOWN
    assert store.state(other.key).word == "running"  # by its heartbeat: a damaged owner is not a dead one
    other.release()
    assert store.state(other.key).word == "interrupted"
    finish(store, RUN)  # heals both
    assert store.spec(NAME) == RUN
    assert store.state(NAME).word == "done"


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_submission_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    log = Submissions(tmp_path)
    log.publish(1, "submission", "s", ["a"])
    log.record(1, 0, {"id": "12"})
    for path in (log.folder(1).entry, log.folder(1).answer(0)):
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(HarnessError, match="missing or damaged: move 000001 away") as refused:
        log.entries()
    assert "\n" not in str(refused.value)
    assert log.answer(1, 0) == {}


def test_a_later_schema_is_refused_and_left_alone(store: Store) -> None:
    finish(store, RUN)
    other = owned(store, pretraining(seed=1))
    other.release()
    result, spec = store.folder(NAME).result, store.folder(NAME).spec
    for path, asks in (
        (result, (lambda: store.state(NAME), lambda: store.acquire(RUN), lambda: store.metrics(NAME))),
        (spec, (lambda: store.spec(NAME), lambda: store.register(RUN))),
        (other.files.owner, (lambda: store.state(other.key), lambda: store.acquire(other.run))),
    ):
        kept = path.read_bytes()
        path.write_text(json.dumps({"schema": 3, "what": "nobody knows"}))
        before = snapshot(store.root)
        for ask in asks:
            with pytest.raises(HarnessError, match=r"schema 3, and this version of harness reads up to 2: use .*$"):
                ask()
        assert snapshot(store.root) == before
        path.write_bytes(kept)


def test_a_disk_that_cannot_be_read_harms_no_result(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(store, RUN)
    before = snapshot(store.root)
    real = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "result.json":
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr("harness.store.files.PAUSES", (0.0, 0.0))
    with pytest.raises(HarnessError, match=r"cannot read .*result.json: Input/output error"):
        store.acquire(RUN)
    monkeypatch.undo()
    assert snapshot(store.root) == before
    assert store.state(NAME).word == "done"


def test_files_of_a_finished_run_are_vouched_for(store: Store) -> None:
    attempt = owned(store, RUN)
    attempt.write_environment({"commit": "0" * 40}, "")
    attempt.begin_metrics()
    attempt.log({"step": 1, "loss": 0.5})
    attempt.artefact("curve.npz").write_bytes(b"curve")
    attempt.finish({"loss": 0.5}, 1.0)
    attempt.release()
    result = store.result(NAME)
    assert result is not None
    assert set(result.files) == {"env.json", "metrics.jsonl", "artefacts/curve.npz"}
    for path, ask in (
        (attempt.files.metrics, lambda: store.metrics(NAME)),
        (attempt.files.environment, lambda: store.environment(NAME)),
        (attempt.artefact("curve.npz"), lambda: store.checked(NAME, result, attempt.artefact("curve.npz"))),
    ):
        whole = path.read_bytes()
        assert ask()
        for changed in flips(whole):
            path.write_bytes(changed)
            with pytest.raises(HarnessError, match="is damaged: the run wrote something else; move it away"):
                ask()
        path.unlink()
        ask()
    assert store.metrics(NAME) == []


@pytest.mark.parametrize("name", ["²", "٣", "1", "00001", "-001", "1e3", "9" * 200])
def test_folders_that_are_no_numbers(store: Store, name: str) -> None:
    attempt = owned(store, RUN)
    log = Submissions(store.root)
    log.publish(1, "submission", "s", ["a"])
    for folder in (attempt.files.path.parent, log.folder(1).path.parent):
        (folder / name).mkdir()
    assert numbers(attempt.files.path.parent, 4) == [1]
    attempt.check()
    assert [entry.number for entry in log.entries()] == [1]
    attempt.release()


def test_attempts_are_counted_beyond_their_digits(store: Store) -> None:
    store.register(RUN)
    for number in (2, 10_000, 9_999):
        store.folder(NAME).attempt(number).path.mkdir(parents=True)
    assert owned(store, RUN).files.number == 10_001


def test_a_store_of_schema_1_is_read_and_never_rewritten(old: Store) -> None:
    before = snapshot(old.root)
    assert {name: state.word for name, state in old.states(old.keys()).items()} == WORDS
    assert {name: key(old.spec(name)) for name in WORDS} == {name: name for name in WORDS}
    tuned, start = "finetune-b1fe79310260c31fbb28", "pretrain-273defd5d1792c1bc354"
    result = old.result(start)
    assert result is not None
    assert (result.metrics, result.attempt, result.seconds) == ({"loss": 0.8773974776268005}, 1, 0.07681320200003938)
    weights = old.weights(start)
    assert weights is not None
    assert sha256(weights) == result.weights
    assert [line["step"] for line in old.metrics(tuned)] == [2, 4]
    assert old.environment(tuned)["commit"].startswith("483faf7")
    assert old.state("pretrain-00ae29ed30c8644018d2").error == "Diverged: the loss is nan at step 2 of 8"
    log = Submissions(old.root)
    assert [(entry.kind, len(entry.wants)) for entry in log.entries()] == [("submission", 3), ("cancel", 1)]
    assert [log.answer(1, array) for array in (0, 1)] == [
        {"id": "4711"},
        {"error": "sbatch: error: invalid partition"},
    ]
    for name in WORDS:
        old.register(old.spec(name))
    assert isinstance(old.acquire(old.spec(tuned)), State)
    assert snapshot(old.root) == before


def test_an_interrupted_run_of_schema_1_goes_on(old: Store) -> None:
    run = old.spec("pretrain-bee03461c34a826683f3")
    before = snapshot(old.root)
    attempt = owned(old, run)
    (checkpoint,) = attempt.checkpoints()
    assert checkpoint.step == 3
    assert [line["step"] for line in attempt.lines_before(checkpoint)] == [2]
    attempt.release()
    assert before.items() <= snapshot(old.root).items()


def test_a_store_is_sealed_on_request(old: Store) -> None:
    results = {name: old.result(name) for name in WORDS}
    entries = Submissions(old.root).entries()
    records = list(old_records(old))
    assert len(records) == 5 + 2 + 4 + 2 + 2 + 1  # specs, results, owners, entries, answers, a coordinator
    for path in records:
        seal(path)
        assert json.loads(path.read_bytes())["schema"] == 2
    assert list(old_records(old)) == []
    assert {name: old.result(name) for name in WORDS} == results
    assert Submissions(old.root).entries() == entries
    assert {name: key(old.spec(name)) for name in WORDS} == {name: name for name in WORDS}
    old.folder("finetune-b1fe79310260c31fbb28").attempt(1).metrics.write_text("")
    with pytest.raises(HarnessError, match="is damaged"):
        old.metrics("finetune-b1fe79310260c31fbb28")


def test_nothing_in_an_old_record_ends_in_a_traceback(old: Store) -> None:
    name = "finetune-b1fe79310260c31fbb28"
    folder, log = old.folder(name), Submissions(old.root)
    for path, ask in (
        (folder.result, lambda: old.state(name)),
        (folder.attempt(1).owner, lambda: read_owner(folder.attempt(1).owner)),
        (log.folder(1).entry, log.entries),
    ):
        whole = path.read_bytes()
        for changed in random.Random(0).sample(flips(whole), 150):
            path.write_bytes(changed)
            with contextlib.suppress(HarnessError):
                ask()
        path.write_bytes(whole)


def test_the_owner_of_now_reads_back(store: Store) -> None:
    attempt = owned(store, RUN)
    assert isinstance(attempt, Attempt)
    assert read_owner(attempt.files.owner) == this_process() == store.state(NAME).owner
    attempt.release()
