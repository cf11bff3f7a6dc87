"""A part of low.py: how long agentd takes to start over a journal of 10 GB.

The journal is written by the binding, not by a daemon, in that one's own records: messages of 1 KiB to one agent that
is absent, each 100 acked by one record, but for 5,000 spread from end to end which wait. The checkpoint is as old as it
can be, 64 MiB of records. Then everything is synced and dropped from the page cache, and a daemon is started: from its
fork until it answers, which includes Python's own start; beside it a daemon with an empty directory. It must know of
all that wait. Journals of that size need a larger journal.max_bytes than the default.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Final

import low_ends
import own
import report
from msgspec import msgpack

from agentd import _native
from agentd.hub import checkpoint
from agentd.wire.answers import Message
from agentd.wire.bodies import Content
from agentd.wire.stored import Acked, Kept, Named
from agentd.wire.types import Priority, State
from agentd.wire.views import Transition
from agentd_client import blocking

JOURNAL_BYTES: Final = 10_000_000_000
SMOKE_BYTES: Final = 20_000_000
BOUND_S: Final = 2
WAITING: Final = 5000
_SMOKE_WAITING: Final = 100
_TO: Final = "absent"
_TOGETHER: Final = 100
_START_S: Final = 60
_TYPE: Final = 1


class Recovery:
    """What the runs gave."""

    def __init__(self, result: report.Report, home: Path) -> None:
        self._result = result
        self._home = home / "recovery"
        self._bytes = SMOKE_BYTES if result.smoke else JOURNAL_BYTES
        self._waiting = _SMOKE_WAITING if result.smoke else WAITING
        self._checkpoint = b""
        self._took_s: list[float] = []
        self._empty_s: list[float] = []

    def measure(self, run: int) -> None:
        """One start of each. The journal is written before the first."""
        empty = self._home / f"empty-{run}"
        empty.mkdir(parents=True)
        self._empty_s.append(_start_s(empty, 0))
        state = self._home / "state"
        if not self._checkpoint:
            self._home.chmod(0o700)
            directory = state / "journal"
            directory.mkdir(parents=True, mode=0o700)
            state.chmod(0o700)
            begin = time.monotonic()
            self._checkpoint = _write(directory, self._bytes, self._waiting)
            self._result.notes.append(f"the journal was written in {time.monotonic() - begin:.0f} s")
        (state / "journal" / "checkpoint").write_bytes(self._checkpoint)  # a stop made a younger one
        _forget_pages(state / "journal")
        self._took_s.append(_start_s(self._home, self._waiting))

    def figures(self) -> None:
        """All of it, into the report."""
        name = f"agentd, journal of {self._bytes / 1e9:g} GB, {self._waiting} waiting"
        self._result.figure("start until it answers", name, "s", self._took_s, verified=self._waiting)
        self._result.figure("start until it answers", "agentd, nothing kept", "s", self._empty_s)

    def judge(self) -> None:
        """The promise."""
        size = f"{self._bytes / 1e9:g} GB"
        self._result.at_most(f"start over a journal of {size} that no cache holds", BOUND_S, self._took_s, "s")


def _start_s(home: Path, waiting: int) -> float:
    begin = time.monotonic()
    daemon = own.Daemon(home, {"AGENTD_JOURNAL_MAX_BYTES": str(2 * JOURNAL_BYTES)}, _START_S)
    took_s = time.monotonic() - begin
    try:
        if waiting:
            with blocking.connect(socket=daemon.socket) as me:
                found = me.look(_TO, limit=1).total
            if found != waiting:
                raise RuntimeError(f"{waiting} messages waited, {found} do after the start")
    finally:
        daemon.close()
    return took_s


def _kept(id: int, at: float) -> bytes:
    message = Message(id, "sender", "uid 0 pid 1 (bench)", Content.BYTES, low_ends.body(id), at, lane=Priority.LOW)
    trail = [Transition(State.ACCEPTED, at, "sender"), Transition(State.STORED, at, "agentd")]
    return msgpack.encode(Kept(_TO, message, trail))


def _write(directory: Path, size_bytes: int, waiting: int) -> bytes:
    """The journal; its checkpoint, 64 MiB before its end where it is as long as that."""
    journal = _native.Journal(str(directory))
    now = time.time()
    each = low_ends.SIZE_BYTES + 160
    count = size_bytes // each
    every, behind = count // waiting, count - (64 << 20) // each
    placed: list[checkpoint.Placed] = []
    trail = [Transition(State.STORED, now, "agentd")]
    found = checkpoint.Checkpoint(checkpoint.FORMAT, 0, 1, [checkpoint.KnownName(_TO, now)], placed, [])
    acked: list[int] = []
    data = b""
    _append(journal, msgpack.encode(Named(_TO, now)))
    for id in range(1, count + 1):
        if id == max(behind, 1):
            found.position, found.next_id = journal.tail, id
            data = checkpoint.encode(found)
        position = _append(journal, _kept(id, now))
        if id % every == 0 and id // every <= waiting:
            placed.append(checkpoint.Placed(position, 1, trail))
        else:
            acked.append(id)
        if len(acked) == _TOGETHER:
            _append(journal, msgpack.encode(Acked(acked)))
            acked = []
    _append(journal, msgpack.encode(Acked(acked)))
    _sync(journal)
    journal.close()
    return data


def _append(journal: _native.Journal, body: bytes) -> int:
    try:
        return journal.append(_TYPE, body)
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
    _sync(journal)
    return journal.append(_TYPE, body)


def _sync(journal: _native.Journal) -> None:
    _, files = journal.begin_sync()
    for file in files:
        os.fdatasync(file)
    journal.end_sync()


def _forget_pages(directory: Path) -> None:
    """From the page cache: they are synced."""
    for path in directory.iterdir():
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)
