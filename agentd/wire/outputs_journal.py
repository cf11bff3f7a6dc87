"""What `agentctl journal` prints with --json; see outputs.py."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from agentd.wire.bodies import Content
from agentd.wire.types import Id, Priority, State


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


class HistoryRow(Struct):
    """A message as the journal has it, and the state that it reached last. `body` is what `content` says."""

    id: Id
    sender: str
    to: str  # the agent; of an event, the topic
    sent_at: float
    lane: Priority
    state: State
    at: float | None  # when it reached that; null: a record of an earlier version does not say
    note: str  # and why
    content: Content
    size_bytes: int
    body: Any
    topic: str | UnsetType = UNSET
    event: Id | UnsetType = UNSET  # of what a durable subscription got: the event that it is a copy of
    headers: dict[str, str] | UnsetType = UNSET
    re: Id | UnsetType = UNSET
    hops: int | UnsetType = UNSET


class Replayed(Struct):
    """history --into: how many messages were sent once more."""

    sent: int
    to: str


class HistoryHeld(Struct):
    """What of history there is, and is not."""

    directory: str
    messages: int  # that were shown, or sent
    since: float | None  # the first message that there is; null without any
    all_since: float | None  # from then on those are held too that were not kept; null: they never were
    missed: int  # records for which there was no room
    gone: int  # messages that went while they were read
    never: list[Priority]  # lanes that pass agentd by


class HistoryEnd(Struct):
    """The last line of `history`."""

    history: HistoryHeld


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
    history: list[JournalFile]  # of the others, those that only history is in
    history_bytes: int


class JournalRepaired(Struct):
    """What was wrong with the journal; `copy` is what it was before, null where nothing was done."""

    directory: str
    copy: str | None
    checkpoint_is_broken: bool
    findings: list[JournalFinding]
