"""The journal of a hub in memory: only _memory.py's clients come to it, and the tests of the hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agentd.hub import checkpoint, remembered
from agentd.hub.hub import Hub
from agentd.server.journal import Journal
from agentd.wire.messages import Level
from agentd.wire.stored import Kept, Record, decode_record

#: For what has ended.
_ROOM_BYTES: Final = 64 << 20


class MemoryJournal(Journal):
    """Keeps what the daemon's journal keeps, in the bytes that its files would have. Nothing appended is ever lost."""

    def __init__(self) -> None:
        self._written: list[bytes] = []
        self._checkpoint: bytes | None = None

    @property
    def persistence(self) -> str:
        """For people."""
        return "names, mail for absent agents and dead letters outlive MemoryHub.stop() and crash()"

    def disk_view(self) -> None:
        """It has no disk."""

    def restore(self, hub: Hub, now: float) -> None:
        """Into the fresh hub what the last run kept."""
        self._hub = hub
        start = 1 if self._checkpoint is None else checkpoint.decode(self._checkpoint).position
        records = ((at, decode_record(self._written[at - 1])) for at in range(start, len(self._written) + 1))
        checkpoint.restore(hub, checkpoint.recover(self._checkpoint, self._kept_at, records), now)
        hub.receipts.journal.book = self
        hub.receipts.journal.reached(len(self._written) + 1, now, Level.SYNCED)

    def _kept_at(self, position: int) -> Kept | None:
        record = decode_record(self._written[position - 1])
        return record if isinstance(record, Kept) else None

    def append(self, body: bytes, *, wait: bool = False) -> int:
        """See Book."""
        self._written.append(body)
        return len(self._written)

    def note(self, body: bytes) -> None:
        """See Book."""
        self._written.append(body)

    record = note

    def look_back(self, take: Callable[[Record], None], then: Callable[[str], None]) -> None:
        """See Book."""
        for body in self._written:
            take(decode_record(body))
        then("")

    def end_turn(self, now: float) -> None:
        """Everything is stored at once."""
        journal = self._hub.receipts.journal
        journal.end_turn()
        journal.reached(len(self._written) + 1, now, Level.SYNCED)

    def close(self, hub: Hub, now: float) -> None:
        """The sessions have left."""
        self.end_turn(now)
        found = checkpoint.collect(hub, len(self._written) + 1)
        found.over += remembered.encode(remembered.collect(hub, _ROOM_BYTES))
        self._checkpoint = checkpoint.encode(found)
