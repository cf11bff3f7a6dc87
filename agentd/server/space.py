"""Room for the journal: who may still append, who holds the disk, and what is moved so that old segments can go.

Mail is refused in time: what is left of the last segment then is for acks, and a segment within the limits too. What
nobody can be refused may use both up; after that it is missing, and a checkpoint makes up for it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from pathlib import Path
from typing import Final

from agentd import _native
from agentd.host.config import JournalSettings
from agentd.hub import holding
from agentd.hub.hub import Hub
from agentd.hub.receipts import Entry
from agentd.server.disk import Disk
from agentd.wire.errors import AgentdError, DiskFull
from agentd.wire.messages import DiskView

log = logging.getLogger(__name__)

#: What is appended once more for the sake of its segment, in one turn.
_MOVED_BYTES: Final = 256 << 10
#: Mail is worth that if it has at most this part of the segments that it holds; the second where there is no room.
_WORTH_MOVING: Final = (4, 2)
#: A record takes that much beside its body, at most.
_OVERHEAD_BYTES: Final = 48
#: So long it is taken to be the same agent that holds the disk: all mail is gone through to know.
_HOLDER_FOR_S: Final = 1.0


class Space:
    """Of one journal."""

    def __init__(self, settings: JournalSettings, directory: Path) -> None:
        self.disk = Disk(settings, directory)
        self.is_short = False  # mail was refused, and none was taken since
        self.has_moved = False  # something, for the checkpoint that comes: there may be more to move
        self._settings = settings
        self._directory = directory
        self._native: _native.Journal
        self._hub: Hub
        self._mail_waits = False  # the segment was begun for other records: whether mail may be in it is to be seen
        self._holder: holding.Holder | None = None
        self._holder_until = 0.0
        self._moving: deque[Entry] | None = None

    def open(self, native: _native.Journal, hub: Hub) -> None:
        """It is about this journal."""
        self._native = native
        self._hub = hub
        self.disk.hold_reserve()

    # Who may append.

    def check_mail(self, size_bytes: int, *, is_preparing: bool) -> None:
        """DiskFull if it has to leave the rest to others. OSError where the directory can't be seen."""
        native = self._native
        if not self._mail_waits and native.room >= size_bytes + self.disk.kept_back_bytes:
            return
        if self._mail_waits:
            self._refuse(self.disk.against_mail(0))
            self._mail_waits = False
        if native.room < size_bytes + self.disk.kept_back_bytes and native.needs_prepare and not is_preparing:
            self._refuse(self.disk.against_mail())
        self.is_short = False

    def has_room(self, size_bytes: int, *, is_preparing: bool) -> bool:
        """Whether there is room that mail can do without. OSError as above."""
        native = self._native
        if native.room >= size_bytes + self.disk.kept_back_bytes:
            return not self._mail_waits or not self.disk.against_mail(0)
        return not native.needs_prepare or is_preparing or not self.disk.against_mail()

    def check_note(self, size_bytes: int, kept_back_bytes: int = 0) -> None:
        """The same for what needs to leave no more than that."""
        if self._native.room < size_bytes + _OVERHEAD_BYTES + kept_back_bytes and self._native.needs_prepare:
            self._refuse(self.disk.against_notes())

    def check_moved(self, size_bytes: int) -> None:
        """The same for what is there already, elsewhere."""
        self.check_note(size_bytes, self.disk.kept_back_bytes // 2)

    def note_rolled(self) -> None:
        """A note has begun a segment."""
        self.disk.changed()
        self._mail_waits = True

    def _refuse(self, why: str) -> None:
        if why:
            raise self.full(why)

    def full(self, why: str) -> DiskFull:
        """The refusal: which limit, and whose mail it is that holds the disk."""
        if not self.is_short:
            log.warning("%s: %s: mail that has to be kept is refused until there is room", self._directory, why)
        self.is_short = True
        who = "None of that is mail."
        if holder := self._find_holder():
            verb = "dead list" if holder.is_dead else "inbox"
            who = f"{holder.name} holds the oldest of what is kept: `agentctl {verb} {holder.name}`."
        return DiskFull(
            f"There is no room in {self._directory}: {why}", f"{who} Nothing that was stored is lost.", retry_after=1.0
        )

    def _find_holder(self) -> holding.Holder | None:
        if (now := time.monotonic()) >= self._holder_until:
            self._holder = holding.oldest(self._hub)
            self._holder_until = now + _HOLDER_FOR_S
        return self._holder

    def view(self) -> DiskView | None:
        """As it is now; None where that can't be seen."""
        try:
            room, full = self.disk.room(), self.disk.limit_on_mail()
        except OSError:
            return None
        holder = self._find_holder()
        return DiskView(
            room.used_bytes,
            self._settings.max_bytes,
            room.free_bytes,
            self._settings.min_free_bytes,
            full if self.is_short else "",
            None if holder is None else holder.name,
            0 if holder is None else holder.messages,
        )

    # What is moved before a checkpoint.

    @property
    def is_restless(self) -> bool:
        """Whether there is something to do though nothing is appended."""
        return self.is_short or self.has_moved or self._moving is not None

    @property
    def is_moving(self) -> bool:
        """Whether a checkpoint waits for what is appended once more."""
        return self._moving is not None

    def begin_moving(self, told: int) -> None:
        """Find out what is worth it, of what senders were told of: what is not is known by where it lies."""
        part = _WORTH_MOVING[self.is_short]
        self._moving = deque(holding.worth_copying(self._hub, told >> 32, self._settings.segment_bytes, part))
        self.has_moved = False

    def move_some(self) -> bool:
        """As much as one turn may take; whether there is more of it."""
        left, moving = _MOVED_BYTES, self._moving
        while moving and left > 0:
            entry = moving.popleft()
            if not holding.is_kept(entry):
                continue
            try:
                left -= self._hub.receipts.journal.copy(entry)
            except AgentdError as error:
                log.info("what holds old segments stays there: %s", error.message)
                moving.clear()
            else:
                self.has_moved = True
        if moving:
            return True
        self._moving = None
        return False
