"""The log of submissions: one number, one process; whole entries; old ones and torn ones."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.spec import HarnessError
from harness.store.layout import SubmissionFolder, submission_folder
from harness.store.records import read_record, sealed
from harness.store.submissions import Array, Entry, Submissions, asked_for

ARRAYS = (
    Array("mim-x-0", "pretrain", (("a", "b"), ("c",))),
    Array("mim-x-1", "evaluation", (("d",),), after=0),
    Array("mim-x-2", "evaluation", (("e",),), dependency="afterok:12_3"),
)
SETTINGS = {"pretrain": {"slots": 2, "resources": {"micro_batch": None}}, "retry": True}


def appended(root: Path, study: str, count: int) -> list[int]:
    """Append entries as a submitter does: read the last number, try the next, begin again if somebody was faster."""
    log = Submissions(root)
    numbers: list[int] = []
    while len(numbers) < count:
        number = log.last() + 1
        wants = [f"{study}-{place}" for place in range(50)]
        if log.publish(number, "submission", study, wants, ARRAYS, SETTINGS) is not None:
            numbers.append(number)
    return numbers


def check(root: Path, taken: list[list[int]]) -> None:
    """Numbers are unique and without a gap, entries whole, each by the one who was told that it is his."""
    flat = [number for numbers in taken for number in numbers]
    assert sorted(flat) == list(range(1, len(flat) + 1))
    entries = Submissions(root).entries()
    assert [entry.number for entry in entries] == sorted(flat)
    for entry in entries:
        assert entry.number in taken[int(entry.study)]
        assert entry.wants == tuple(f"{entry.study}-{place}" for place in range(50))
        assert entry.arrays == ARRAYS
    assert not [path.name for path in (root / ".submissions").iterdir() if path.name.startswith(".")]


def test_threads_that_publish_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(10) as pool:
        taken = list(pool.map(lambda number: appended(tmp_path, str(number), 4), range(10)))
    check(tmp_path, taken)


def test_processes_that_publish_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        taken = pool.starmap(appended, [(tmp_path, str(number), 5) for number in range(4)])
    check(tmp_path, taken)


def test_round_trip(tmp_path: Path) -> None:
    log = Submissions(tmp_path)
    entry = log.publish(1, "submission", "ratios/mini", ["a", "d"], ARRAYS, SETTINGS)
    assert entry is not None
    assert log.read(1) == entry
    assert log.entries() == [entry]
    assert entry.places == {"a": (0, 0), "b": (0, 0), "c": (0, 1), "d": (1, 0), "e": (2, 0)}
    given_up = log.publish(2, "cancel", "ratios/mini", iter(["a"]))
    assert given_up is not None
    assert log.read(2) == given_up
    assert given_up.places == {}
    assert log.publish(2, "submission", "late", ["z"], ARRAYS) is None
    assert log.read(2) == given_up


def test_answers(tmp_path: Path) -> None:
    log = Submissions(tmp_path)
    log.publish(1, "submission", "s", ["a"], ARRAYS)
    assert log.answer(1, 0) == {}
    log.record(1, 0, {"id": "12"})
    log.record(1, 1, {"error": "Invalid qos"})
    assert (log.answer(1, 0), log.answer(1, 1), log.answer(1, 2)) == ({"id": "12"}, {"error": "Invalid qos"}, {})
    log.folder(1).answer(0).write_text('{"id": "1')
    assert log.answer(1, 0) == {}


def test_closed_entries_are_read_on_request_and_keep_their_number(tmp_path: Path) -> None:
    log = Submissions(tmp_path)
    for number in (1, 2, 3):
        log.publish(number, "submission", "s", ["a"])
    log.close(3)
    log.close(1)
    assert [entry.number for entry in log.entries()] == [2]
    assert [entry.number for entry in log.entries(closed=True)] == [1, 2, 3]
    assert [entry.number for entry in log.entries(after=1, closed=True)] == [2, 3]
    assert log.last() == 3


def test_an_empty_log(tmp_path: Path) -> None:
    log = Submissions(tmp_path)
    assert (log.last(), log.entries(), list(tmp_path.iterdir())) == (0, [], [])
    with pytest.raises(HarnessError, match=r"000001.entry\.json is missing or damaged"):
        log.read(1)


def test_a_torn_entry_is_named_and_what_a_kill_leaves_passed_over(tmp_path: Path) -> None:
    log = Submissions(tmp_path)
    log.publish(1, "submission", "s", ["a"], ARRAYS)
    text = log.folder(1).entry.read_text()
    torn = submission_folder(tmp_path, 2)
    torn.path.mkdir()
    torn.entry.write_text(text[: len(text) // 2])
    half = SubmissionFolder(tmp_path / ".submissions" / ".000003.0123abcd.tmp")  # killed before the rename
    half.path.mkdir()
    half.entry.write_text(text)
    assert log.last() == 2
    for ask in (log.entries, lambda: log.read(2)):
        with pytest.raises(HarnessError, match="damaged: move 000002 away, and cancel jobs of it by hand"):
            ask()
    torn.path.rename(tmp_path / "away")
    assert [entry.number for entry in log.entries()] == [1]
    assert log.publish(2, "submission", "s", ["b"]) is not None


def test_an_entry_of_another_version_is_refused_in_one_line(tmp_path: Path) -> None:
    log = Submissions(tmp_path)
    log.publish(1, "submission", "s", ["a"], ARRAYS)
    record = read_record(log.folder(1).entry) or {}
    log.folder(1).entry.write_bytes(sealed({**record, "comment": "more than is known"}))
    assert log.read(1).arrays == ARRAYS
    log.folder(1).entry.write_text(json.dumps({"schema": 3, "what": "submission"}))
    for ask in (log.entries, lambda: log.read(1)):
        with pytest.raises(HarnessError, match="has schema 3, and this version of harness reads up to 2"):
            ask()


def test_numbers_beyond_six_digits_stay_in_order(tmp_path: Path) -> None:
    log = Submissions(tmp_path)
    for number in (999_999, 1_000_000):
        log.publish(number, "submission", "s", ["a"])
    assert [entry.number for entry in log.entries()] == [999_999, 1_000_000]
    assert log.last() == 1_000_000


def test_what_studies_wait_for() -> None:
    entries = [
        Entry(1, "submission", "one", ("a", "b")),
        Entry(2, "submission", "two", ("b", "c")),
        Entry(3, "cancel", "one", ("b",)),
        Entry(4, "submission", "one", ("d",)),
    ]
    assert asked_for(entries) == {"one": {"a", "d"}, "two": {"b", "c"}}
