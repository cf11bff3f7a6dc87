"""agentd._native.Journal: what agentd/_native.pyi promises. The core beneath it has its own tests in native/tests/."""

from __future__ import annotations

import array
import errno
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from daemons import wait_until
from hypothesis import given
from hypothesis import strategies as st
from journals import (
    FIRST,
    LARGEST,
    SEGMENT_BYTES,
    Report,
    behind,
    everything,
    opened,
    prepare,
    segment_file,
    spoil,
    sync,
)

from agentd import _native

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(directory: Path) -> Iterator[_native.Journal]:
    with opened(directory) as journal:
        yield journal


def fill(journal: _native.Journal, segment: int) -> None:
    """Append until the next record goes into that segment."""
    while journal.append(0, bytes(200_000)) >> 32 < segment:
        pass


def test_a_new_journal_is_empty_and_private(journal: _native.Journal, directory: Path) -> None:
    assert (journal.first, journal.tail, journal.sequence) == (FIRST, FIRST, 0)
    assert (journal.segments, journal.next_number, journal.segment_bytes) == (0, 1, SEGMENT_BYTES)
    assert len(journal.id) == 16 and any(journal.id)
    assert journal.poisoned == 0
    assert journal.needs_prepare is True
    assert journal.read(FIRST) is None
    assert journal.scan(FIRST, 10) == []
    assert directory.stat().st_mode & 0o777 == 0o700
    journal.append(1, b"")
    assert (journal.segments, journal.next_number) == (1, 2)
    assert segment_file(directory, 1).stat().st_size == SEGMENT_BYTES


def test_what_is_appended_is_read(journal: _native.Journal) -> None:
    first = journal.append(7, b"hello")
    second = journal.append(0xFFFF, b"")
    journal.flush()
    assert first == FIRST
    assert journal.read(first) == (7, b"hello", second)
    assert journal.read(second) == (0xFFFF, b"", journal.tail)
    assert journal.read(journal.tail) is None
    assert journal.read(0) == (7, b"hello", second)  # the first behind it
    assert journal.scan(0, 10) == [(first, 7, b"hello"), (second, 0xFFFF, b"")]
    assert journal.scan(0, 1) == [(first, 7, b"hello")]
    assert journal.scan(0, 0) == []
    assert journal.sequence == 2


def test_whatever_is_expected_what_is_there_is_read(directory: Path) -> None:
    """What of it comes from the disk before it is read: native/tests/test_journal_segments.c."""
    with opened(directory) as journal:
        position = journal.append(1, b"x" * 10_000)
        fill(journal, 2)
        sync(journal)
        tail = journal.tail
    with opened(directory, start=tail) as journal:
        journal.expect([position, position + 8, position | 0xFFFFFFF8, 12, 1 << 63])  # the others are no records
        assert journal.read(position) == (1, b"x" * 10_000, behind((position, 1, b"x" * 10_000)))
        journal.expect([])
        for wrong, error in (([-1], OverflowError), (["text"], TypeError), (7, TypeError)):
            with pytest.raises(error):
                journal.expect(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="closed"):
        journal.expect([1])


@pytest.mark.parametrize("body", [b"bytes", memoryview(b"a view"), array.array("I", [1, 2, 3]), memoryview(b"x")[:0]])
def test_a_body_is_any_buffer(journal: _native.Journal, body: ReadableBuffer) -> None:
    position = journal.append(1, body)
    journal.flush()
    assert journal.read(position) == (1, bytes(body), journal.tail)


def test_a_body_is_let_go(journal: _native.Journal) -> None:
    body = bytearray(b"bytes")
    journal.append(1, body)
    with pytest.raises(OSError, match="at most"):
        journal.append(1, bytearray(SEGMENT_BYTES))
    body.append(0)  # BufferError while anybody holds it


@pytest.mark.parametrize(
    ("type", "body", "error"),
    [
        (1, "text", TypeError),
        (1, memoryview(b"abcd")[::2], BufferError),
        (-1, b"", ValueError),
        (1 << 16, b"", ValueError),
    ],
)
def test_what_is_no_record_is_refused(journal: _native.Journal, type: int, body: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        journal.append(type, body)
    assert journal.sequence == 0


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, LARGEST)), max_size=12))
def test_records_of_any_size_and_type_come_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[int, int]]
) -> None:
    """The machine in test_journal_machine.py does the rest; this looks at sizes."""
    directory = tmp_path_factory.mktemp("journal")
    appended = []
    with opened(directory) as journal:
        for number, (type, size) in enumerate(records):
            body = number.to_bytes(4, "little") * (size // 4 + 1)
            appended.append((journal.append(type, body[:size]), type, body[:size]))
            sync(journal)
        assert everything(journal) == appended
    with opened(directory) as journal:
        assert everything(journal) == appended


def test_the_largest_body_is_a_third_of_a_segment(journal: _native.Journal) -> None:
    assert journal.max_body_bytes == LARGEST
    position = journal.append(1, bytes(journal.max_body_bytes))
    with pytest.raises(OSError, match=f"body of {LARGEST + 1} bytes.* {LARGEST} at most") as caught:
        journal.append(1, bytes(journal.max_body_bytes + 1))
    assert caught.value.errno == errno.EMSGSIZE
    journal.flush()
    assert [record[0] for record in everything(journal)] == [position]


def test_a_third_segment_wants_a_sync_first(journal: _native.Journal) -> None:
    with pytest.raises(BlockingIOError, match="Sync first") as caught:
        fill(journal, 3)
    assert caught.value.errno == errno.EAGAIN
    assert journal.tail >> 32 == 2
    sync(journal)
    fill(journal, 3)
    assert journal.segments == 3
    journal.flush()
    assert len(everything(journal)) == journal.sequence


def test_a_sync_names_what_is_not_synced(journal: _native.Journal) -> None:
    journal.append(1, b"x")
    upto, fds = journal.begin_sync()
    assert (upto, len(fds)) == (journal.tail, 1)
    with pytest.raises(OSError, match="under way") as caught:
        journal.begin_sync()
    assert caught.value.errno == errno.EALREADY
    os.fdatasync(fds[0])
    assert journal.synced == FIRST
    journal.end_sync()
    assert journal.synced == upto
    assert journal.begin_sync() == (upto, [])  # nothing to do
    journal.end_sync()
    with pytest.raises(ValueError, match="No sync"):
        journal.end_sync()
    fill(journal, 2)
    _, fds = journal.begin_sync()
    assert len(set(fds)) == 2  # the oldest first
    journal.end_sync()


def test_beside_a_sync_records_gather_until_the_flush(journal: _native.Journal) -> None:
    before = journal.append(1, b"before")
    upto, _ = journal.begin_sync()
    beside = journal.append(2, b"beside")
    assert beside == upto
    assert journal.read(beside) is None  # not flushed
    journal.flush()
    assert journal.read(beside) == (2, b"beside", journal.tail)
    journal.end_sync()
    assert journal.synced == upto
    after = journal.append(3, b"after")
    journal.flush()
    assert everything(journal) == [(before, 1, b"before"), (beside, 2, b"beside"), (after, 3, b"after")]


def test_more_than_4_mib_beside_a_sync_is_written_at_once(directory: Path) -> None:
    with opened(directory, segment_bytes=64 << 20) as journal:
        journal.append(1, b"x")
        journal.begin_sync()
        bodies = [bytes([number]) * (1 << 20) for number in range(6)]
        for body in bodies:
            journal.append(2, body)
        assert len(journal.scan(journal.first, 10)) > 1
        journal.flush()
        journal.end_sync()
        assert [body for _, _, body in everything(journal)[1:]] == bodies


def test_an_error_of_a_sync_poisons(journal: _native.Journal, directory: Path) -> None:
    journal.append(1, b"x")
    journal.begin_sync()
    journal.end_sync(errno.EIO)
    assert journal.poisoned == errno.EIO
    for act in (lambda: journal.append(1, b"y"), journal.flush, journal.begin_sync):
        with pytest.raises(OSError, match="poisoned by: Input/output error") as caught:
            act()
        assert caught.value.errno == errno.EIO
    assert journal.synced == FIRST
    with pytest.raises(OSError, match="poisoned by"):
        journal.close()
    with opened(directory) as again:
        assert again.poisoned == 0
        again.append(2, b"z")
        sync(again)


@pytest.mark.parametrize("error", [-1, 4096])
def test_an_error_of_a_sync_is_an_errno(journal: _native.Journal, error: int) -> None:
    journal.append(1, b"x")
    journal.begin_sync()
    with pytest.raises(ValueError, match="an errno"):
        journal.end_sync(error)
    journal.end_sync()


def test_a_closed_journal_is_of_no_use(directory: Path) -> None:
    journal = opened(directory)
    journal.append(1, b"x")
    journal.close()
    journal.close()
    for act in (
        lambda: journal.append(1, b"y"),
        journal.flush,
        journal.begin_sync,
        journal.end_sync,
        lambda: journal.read(0),
        lambda: journal.scan(0, 1),
        lambda: journal.retire(0),
        lambda: journal.tail,
        lambda: journal.needs_prepare,
        lambda: journal.id,
    ):
        with pytest.raises(ValueError, match="closed"):
            act()


def test_a_sync_under_way_keeps_it_open(directory: Path) -> None:
    journal = opened(directory)
    journal.append(1, b"x")
    _, fds = journal.begin_sync()
    with pytest.raises(OSError, match="under way"):
        journal.close()
    os.fdatasync(fds[0])
    journal.end_sync()
    journal.close()


def test_one_writer(journal: _native.Journal, directory: Path) -> None:
    with pytest.raises(BlockingIOError, match="Another process has this journal open") as caught:
        opened(directory)
    assert caught.value.filename == str(directory)
    code = f"from agentd import _native; _native.Journal({str(directory)!r})"
    other = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert "BlockingIOError" in other.stderr
    journal.close()
    opened(directory).close()


def test_dropping_it_lets_another_open_it(directory: Path) -> None:
    journal = opened(directory)
    journal.append(1, b"x")
    del journal
    gc.collect()
    with opened(directory) as again:
        assert [body for _, _, body in everything(again)] == [b"x"]


def test_a_child_process_neither_uses_nor_writes_it(directory: Path) -> None:
    journal = opened(directory)
    journal.append(1, b"x")
    journal.begin_sync()
    journal.append(2, b"gathered")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for act in (lambda: journal.append(3, b"of the child"), journal.flush, journal.close, lambda: journal.tail):
                with pytest.raises(RuntimeError, match="child"):
                    act()
            del journal, act
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ((_, _, _, _, n_records, *_),) = _native.check_journal(str(directory))
    assert n_records == 1  # what is gathered was not written by the child
    journal.flush()
    journal.end_sync()
    assert [body for _, _, body in everything(journal)] == [b"x", b"gathered"]
    with pytest.raises(BlockingIOError):
        opened(directory)  # the child's end has not unlocked it
    journal.close()


def test_another_thread_prepares_the_next_segment(journal: _native.Journal, directory: Path) -> None:
    def is_ready() -> bool:
        return not journal.needs_prepare

    for number in range(1, 5):
        assert not is_ready()
        thread = threading.Thread(target=prepare, args=(journal, directory))
        thread.start()
        thread.join()
        assert is_ready()
        assert journal.next_number == number
        file = segment_file(directory, number).stat().st_ino
        sync(journal)
        fill(journal, number)
        assert segment_file(directory, number).stat().st_ino == file  # that one is used
    journal.flush()
    assert len(everything(journal)) == journal.sequence


def test_preparing_twice_is_no_error_and_what_can_not_be_is_named(directory: Path) -> None:
    with opened(directory) as journal:
        prepare(journal, directory)
        prepare(journal, directory)
        with pytest.raises(ValueError, match="16 bytes"):
            _native.prepare_segment(str(directory), b"short", 3, SEGMENT_BYTES)
        with pytest.raises(FileNotFoundError):
            _native.prepare_segment(str(directory / "no"), journal.id, 3, SEGMENT_BYTES)
        with pytest.raises(OSError, match="Invalid argument"):
            _native.prepare_segment(str(directory), journal.id, 3, 4097)


def test_retired_segments_go_and_their_files_are_used_again(journal: _native.Journal, directory: Path) -> None:
    for number in range(2, 7):
        sync(journal)
        fill(journal, number)
    journal.flush()
    records = everything(journal)
    kept = next(record for record in records if record[0] >> 32 == 5)
    sync(journal)
    assert journal.retire(kept[0]) == 4
    assert (journal.segments, journal.first >> 32) == (2, 5)
    assert everything(journal) == [record for record in records if record[0] >= kept[0]]
    assert journal.read(0) == (kept[1], kept[2], behind(kept))
    assert sorted(file.name for file in directory.glob("spare-*")) == ["spare-0", "spare-1"]
    inodes = {file.stat().st_ino for file in directory.glob("spare-*")}
    prepare(journal, directory)
    assert segment_file(directory, 7).stat().st_ino in inodes
    fill(journal, 7)
    assert everything(journal)[: len(records) - records.index(kept)] == records[records.index(kept) :]
    assert journal.retire(0) == 0


def test_what_is_not_synced_is_not_retired(journal: _native.Journal) -> None:
    sync(journal)
    fill(journal, 2)
    assert journal.retire(journal.tail) == 0
    sync(journal)
    assert journal.retire(journal.tail) == 1


def test_an_unsynced_end_that_is_not_whole_is_cut(directory: Path) -> None:
    with opened(directory) as journal:
        journal.append(1, b"kept")
        sync(journal)
        lost = journal.append(2, b"spoiled")
        journal.append(3, b"behind it")
    spoil(directory, lost + 40)
    reports: list[Report] = []
    with opened(directory, reports) as journal:
        assert [(what, position) for what, position, _ in reports] == [("cut", lost)]
        assert journal.tail == lost
        assert [body for _, _, body in everything(journal)] == [b"kept"]
    assert (directory / f"broken-{lost:016x}").read_bytes()[40:47] == b"\xffpoiled"


def test_damage_is_skipped_and_told(directory: Path) -> None:
    with opened(directory) as journal:
        journal.append(1, b"first")
        bad = journal.append(2, b"spoiled")
        sync(journal)
        good = journal.append(3, b"last")
        sync(journal)
        journal.append(4, b"says that it was synced")
        sync(journal)
    spoil(directory, bad + 40)
    reports: list[Report] = []
    with opened(directory, reports) as journal:
        assert reports == [("skipped", bad, 48)]
        with pytest.raises(OSError, match=f"is at {good}") as caught:
            journal.read(bad)
        assert caught.value.errno == errno.EILSEQ
        reports.clear()
        assert [body for _, _, body in journal.scan(0, 10)] == [b"first", b"last", b"says that it was synced"]
        assert reports == [("skipped", bad, 48)]


def test_a_segment_that_is_missing_is_told(directory: Path) -> None:
    with opened(directory) as journal:
        for number in range(2, 5):
            sync(journal)
            fill(journal, number)
        sync(journal)
        journal.append(1, b"says so")
        sync(journal)
        before = everything(journal)
    segment_file(directory, 2).unlink()
    reports: list[Report] = []
    with opened(directory, reports) as journal:
        assert ("missing", 2 << 32, SEGMENT_BYTES) in reports
        assert everything(journal) == [record for record in before if record[0] >> 32 != 2]


def test_segments_before_the_start_are_not_looked_at(directory: Path) -> None:
    with opened(directory) as journal:
        bad = journal.append(1, b"spoiled")
        fill(journal, 2)
        start = sync(journal)
        journal.append(1, b"says so")
        sync(journal)
    spoil(directory, bad + 40)
    reports: list[Report] = []
    with opened(directory, reports, start=start) as journal:
        assert reports == []
        assert journal.synced == journal.tail
    with opened(directory, reports) as journal:
        assert reports == [("skipped", bad, 48)]


def test_what_report_raises_is_raised(directory: Path) -> None:
    with opened(directory) as journal:
        lost = journal.append(2, b"spoiled")
        journal.append(3, b"behind it")
    spoil(directory, lost + 40)
    with pytest.raises(ZeroDivisionError):
        _native.Journal(str(directory), report=lambda *one: 1 // 0)
    opened(directory).close()  # it is closed


def test_what_can_not_be_opened_says_why(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such size") as caught:
        opened(directory, segment_bytes=4097)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "no" / "journal")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        opened(tmp_path / "file")
    directory = tmp_path / "headless"
    with opened(directory) as journal:
        journal.append(1, b"x")
        sync(journal)
    for offset in (0, 2048):
        spoil(directory, 1 << 32 | offset, bytes(64))
    before = segment_file(directory, 1).read_bytes()
    with pytest.raises(OSError, match="header that can be read") as caught:
        opened(directory)
    assert caught.value.errno == errno.EILSEQ
    assert segment_file(directory, 1).read_bytes() == before


def test_another_thread_is_kept_out(directory: Path) -> None:
    """One that comes while a large record is read gets an error, never half a journal."""
    stop = threading.Event()
    kept_out = []
    with opened(directory, segment_bytes=64 << 20) as journal:
        big = os.urandom(journal.max_body_bytes)
        position = journal.append(1, big)
        journal.flush()
        tail = journal.tail

        def intrude() -> None:
            while not stop.is_set():
                try:
                    assert journal.tail == tail
                except RuntimeError as error:
                    kept_out.append(str(error))

        thread = threading.Thread(target=intrude)
        thread.start()

        def is_kept_out() -> bool:
            assert journal.read(position) == (1, big, tail)
            return bool(kept_out)

        try:
            wait_until(is_kept_out)
        finally:
            stop.set()
            thread.join()
    assert "one at a time" in kept_out[0]


def test_the_records_of_a_killed_process_are_there(directory: Path) -> None:
    """What was flushed survives the process, whatever kills it."""
    code = f"""
import os, signal
from agentd import _native
journal = _native.Journal({str(directory)!r}, {SEGMENT_BYTES})
for number in range(100):
    journal.append(number, b"body %d" % number)
journal.flush()
journal.begin_sync()
journal.append(100, b"not flushed")
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-P", "-c", code])
    assert killed.returncode == -signal.SIGKILL
    with opened(directory) as journal:
        assert [(type, body) for _, type, body in everything(journal)] == [(n, b"body %d" % n) for n in range(100)]
