"""A journal for tests: small segments, syncs that wait, and files to be damaged."""

from __future__ import annotations

import os
from pathlib import Path

from agentd import _native

SEGMENT_BYTES = 1 << 20
FIRST = 1 << 32 | 4096
HEADER_BYTES = 40
#: The largest body.
LARGEST = (SEGMENT_BYTES // 3 & ~7) - HEADER_BYTES

Report = tuple[str, int, int]


def opened(
    directory: Path, reports: list[Report] | None = None, *, start: int = 0, segment_bytes: int = SEGMENT_BYTES
) -> _native.Journal:
    """The journal in a directory; what it finds goes to `reports`."""
    return _native.Journal(
        str(directory), segment_bytes, start, None if reports is None else lambda *one: reports.append(one)
    )


def sync(journal: _native.Journal) -> int:
    """Sync, and wait for it; everything before the answer is on disk."""
    upto, fds = journal.begin_sync()
    for fd in fds:
        os.fdatasync(fd)
    journal.end_sync()
    return upto


def prepare(journal: _native.Journal, directory: Path) -> None:
    """As the daemon's helper thread does."""
    _native.prepare_segment(str(directory), journal.id, journal.next_number, journal.segment_bytes)


def everything(journal: _native.Journal) -> list[tuple[int, int, bytes]]:
    """All records, a few at a time."""
    records: list[tuple[int, int, bytes]] = []
    position = journal.first
    while found := journal.scan(position, 7):
        records += found
        position = behind(found[-1])
    return records


def behind(record: tuple[int, int, bytes]) -> int:
    """The position behind a record."""
    position, _, body = record
    return position + (HEADER_BYTES + len(body) + 7 & ~7)


def segment_file(directory: Path, number: int) -> Path:
    """The file of a segment."""
    return directory / f"{number:016x}.segment"


def spoil(directory: Path, position: int, data: bytes = b"\xff") -> None:
    """Write over some bytes of a journal that is closed."""
    with segment_file(directory, position >> 32).open("r+b") as file:
        file.seek(position & 0xFFFFFFFF)
        file.write(data)
