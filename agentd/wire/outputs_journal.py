"""What `agentctl journal` prints with --json; see outputs.py."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType


class JournalFinding(Struct):
    """A place of the journal that holds no record where one could be."""

    what: Literal["skipped", "missing", "cut", "set aside"]  # `cut` is no damage: it was never synced
    position: int  # segment << 32 | offset
    bytes: int


class JournalChecked(Struct):
    """Whether the journal is whole."""

    ok: bool
    directory: str
    segments: int
    records: int
    bytes: int  # of their bodies
    findings: list[JournalFinding]


class JournalSegment(Struct):
    """One file of the journal."""

    segment: int
    records: int
    bytes: int  # of their bodies
    first: int | None  # sequence of the first record and of the last; null without one
    last: int | None
    end: int  # the position behind its last record
    file_bytes: int
    made_at: float
    written_at: float  # as the file system says


class JournalSegments(Struct):
    """Every file of the journal, oldest first."""

    directory: str
    segments: list[JournalSegment]


class JournalRecord(Struct):
    """One record of the journal: its body where that is msgpack, else its first bytes in hexadecimal."""

    position: int
    sequence: int
    type: int
    size_bytes: int
    body: Any = UNSET
    first_bytes: str | UnsetType = UNSET


class JournalGap(Struct):
    """A line of `journal dump` in place of what is no record."""

    no_record: JournalFinding


class JournalCopy(Struct):
    """A backup of the journal."""

    directory: str
    copy: str
    segments: int
    records: int
    bytes: int  # of the files


class JournalFile(Struct):
    """A segment that nothing that is kept lies in."""

    segment: int
    file_bytes: int


class JournalUnneeded(Struct):
    """What the daemon will remove, or could."""

    directory: str
    needed_from: int  # the position before which nothing is needed
    segments: list[JournalFile]
    bytes: int  # of these files
    kept_bytes: int  # of the others


class JournalRepaired(Struct):
    """What was wrong with the journal; `copy` is what it was before, null where nothing was done."""

    directory: str
    copy: str | None
    checkpoint_is_broken: bool
    findings: list[JournalFinding]
