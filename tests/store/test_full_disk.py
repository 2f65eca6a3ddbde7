"""A disk that refuses: one clear line, nothing half-written, what was there before stays."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_runs import finish, owned, pretraining, save, snapshot, steps

from harness.spec import HarnessError, key
from harness.store import Store, files
from harness.store.files import create_exclusively, require_exclusive_creation

RUN = pretraining()
NAME = key(RUN)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    root = tmp_path / "small"
    root.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(root)], capture_output=True)
    except OSError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip("mounting is not permitted here")
    yield root
    subprocess.run(["umount", str(root)], check=True)


def refuse(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))


def test_nothing_is_left_of_a_write_that_fails(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = owned(store, RUN)
    save(attempt, 10)
    before = snapshot(store.root)
    monkeypatch.setattr(os, "fsync", refuse)
    for act in (
        lambda: store.register(pretraining(seed=1)),
        lambda: store.acquire(pretraining(seed=1)),
        lambda: attempt.write_checkpoint(20, lambda file: file.write(b"data")),
        lambda: attempt.finish({"loss": 1.0}, 1.0, b"weights"),
        lambda: attempt.finish({"loss": 1.0}, 1.0),
        lambda: attempt.write_environment({}, "patch"),
        lambda: attempt.begin_metrics(),
    ):
        with pytest.raises(HarnessError, match=r"^cannot write /.*: No space left on device$"):
            act()
        assert snapshot(store.root) == before
    attempt.fail("no space")
    assert snapshot(store.root) == before
    attempt.release()
    monkeypatch.undo()
    again = owned(store, RUN)
    assert steps(again) == [10]
    again.release()


def test_a_folder_that_cannot_be_synced_is_a_clear_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = owned(store, RUN)
    real = os.fsync

    def refuse_folders(descriptor: int) -> None:
        (refuse if Path(f"/proc/self/fd/{descriptor}").is_dir() else real)(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    for act in (lambda: attempt.write_environment({}, ""), lambda: save(attempt, 10)):
        with pytest.raises(HarnessError, match=r"cannot write .*: No space left on device"):
            act()
    assert list(store.root.rglob("*.tmp")) == []
    attempt.release()


def test_a_full_disk(small: Path) -> None:
    store = Store(small / "runs")
    attempt = owned(store, RUN)
    save(attempt, 10)
    filler = small / "filler"
    fill(filler)
    before = snapshot(store.root)
    for act in (
        lambda: attempt.write_checkpoint(20, lambda file: file.write(bytes(100_000))),
        lambda: attempt.finish({"loss": 1.0}, 1.0, bytes(100_000)),
        lambda: store.register(pretraining(seed=1)),
    ):
        with pytest.raises(HarnessError, match="No space left on device"):
            act()
        assert snapshot(store.root) == before
    assert store.state(NAME).word == "running"  # not taken for dead because no clock file could be made
    with pytest.raises(HarnessError, match="No space left on device"):
        attempt.log({"step": 20, "text": "x" * 10_000})
    attempt.release()
    filler.unlink()
    again = owned(store, RUN)
    assert steps(again) == [10]
    again.release()
    finish(store, RUN)


LIMITED = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from made_runs import owned, pretraining, snapshot
from harness.spec import HarnessError
from harness.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store(Path(sys.argv[1]))
attempt = owned(store, pretraining())
before = snapshot(store.root)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for act in (
    lambda: attempt.write_checkpoint(1, lambda file: file.write(bytes(30_000))),
    lambda: attempt.finish({"loss": 1.0}, 1.0, bytes(30_000)),
):
    try:
        act()
    except HarnessError as error:
        print(error)
    assert snapshot(store.root) == before
attempt.release()
"""


def test_a_file_size_limit(tmp_path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_FSIZE)[1] != resource.RLIM_INFINITY:
        pytest.skip("file sizes are limited here already")
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "runs"), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("cannot write ") and line.endswith(": File too large") for line in lines)


@pytest.fixture
def unlinked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without hard links."""

    def refuse_links(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse_links)


@pytest.mark.usefixtures("unlinked")
def test_a_store_without_hard_links_works(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(store, RUN)
    assert store.state(NAME).word == "done"
    assert not require_exclusive_creation(store.root)
    result = store.folder(NAME).result
    kept = result.read_bytes()
    with pytest.raises(FileExistsError):
        create_exclusively(result, b"another")
    create_exclusively(result, kept)  # its own again, where the answer to the first try was lost
    assert result.read_bytes() == kept
    result.unlink()
    before = snapshot(store.root)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(HarnessError, match="No space left"):
        create_exclusively(result, kept)
    assert snapshot(store.root) == before


@pytest.mark.usefixtures("unlinked")
def test_half_a_result_that_was_put_aside_is_created_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real, path = os.fsync, store.root / "result.json"
    store.root.mkdir()

    def put_aside(descriptor: int) -> None:
        if path.exists() and not (store.root / "aside").exists():
            path.rename(store.root / "aside")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", put_aside)
    create_exclusively(path, b"whole")
    assert path.read_bytes() == (store.root / "aside").read_bytes() == b"whole"


def test_a_store_where_nothing_is_exclusive_is_refused_before_anything_is_computed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", os.replace)
    for ask in (lambda: store.register(RUN), lambda: store.acquire(RUN)):
        with pytest.raises(HarnessError, match="two files of one name can be created here"):
            ask()
    assert snapshot(store.root) == {}


def test_half_a_line_of_metrics_is_written_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = owned(store, RUN)
    attempt.log({"step": 1})
    real, count = Path.open, 0

    def half(path: Path, mode: str = "r", **options: object) -> object:
        nonlocal count
        if path.name == "metrics.jsonl" and (count := count + 1) < 3:
            with real(path, "ab") as file:
                file.write(b'{"step"')
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(path, mode, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(files, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(Path, "open", half)
    attempt.log({"step": 2})
    monkeypatch.undo()
    assert attempt.files.metrics.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    assert attempt.lines() == store.metrics(NAME) == [{"step": 1}, {"step": 2}]
    attempt.release()
