"""What the journal has beyond what anything needs: what passed without being kept, and old segments, for as long as
the settings say. Both give way to mail."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agentd import _native
from agentd.host.config import JournalSettings
from agentd.host.retention import history_begins, segment_files
from agentd.server.ahead import PASSING
from agentd.server.disk import FULL
from agentd.server.space import Space
from agentd.wire.journal import FIRST_RECORD, OFFSET_BITS
from agentd.wire.stored import Recording, encode_record

log = logging.getLogger(__name__)

#: What is no reason to give the journal up: the record is missing, which the next one says.
_NO_ROOM: Final = (*FULL, *PASSING, errno.EAGAIN, errno.EMSGSIZE)
#: Old segments are looked for no more often than that.
_LEAST_PAUSE_S: Final = 1.0


class History:
    """Of one journal. `fail` is told of an error that nobody can do without."""

    def __init__(
        self,
        settings: JournalSettings,
        directory: Path,
        space: Space,
        record_type: int,
        fail: Callable[[OSError], None],
    ) -> None:
        self.needed = 0  # where what the checkpoint on disk needs begins
        self._settings = settings
        self._directory = directory
        self._space = space
        self._type = record_type
        self._fail = fail
        self._native: _native.Journal
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._missed = 0
        space.disk.give_way = self._give_way

    def open(self, native: _native.Journal, needed: int) -> None:
        """It is about this journal, and there is nothing to read back from it any more."""
        self._native = native
        self.needed = needed
        if self._settings.history == "all":
            self._append(encode_record(Recording(time.time())))

    def serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on there is a loop."""
        self._loop = loop
        self._again()

    # What passes.

    def record(self, body: bytes, *, is_preparing: bool) -> None:
        """Append it, if there is room that mail does not need; else it counts as missing."""
        try:
            if self._missed and self._append(encode_record(Recording(time.time(), self._missed)), is_preparing):
                self._missed = 0
            if not self._missed and self._append(body, is_preparing):
                return
        except OSError as error:
            self._fail(error)
            return
        if not self._missed:
            log.warning("%s: there is no room for history: what passes is not recorded for now", self._directory)
        self._missed += 1

    def _append(self, body: bytes, is_preparing: bool = False) -> bool:
        try:
            if not self._space.has_room(len(body), is_preparing=is_preparing):
                return False
            self._native.append(self._type, body)
        except OSError as error:
            if error.errno in _NO_ROOM:
                return False
            raise
        return True

    # What stays.

    def retire(self) -> None:
        """Let segments go that neither mail nor history needs. An OSError of the journal's."""
        files = segment_files(self._directory)
        now = time.time()
        first = history_begins(files, self.needed, self._settings, now)
        gone = self._native.retire(min(self.needed, first << OFFSET_BITS | FIRST_RECORD))
        self._space.disk.changed()
        if gone and self._loop is not None and self._settings.history == "all":
            self._append(encode_record(Recording(time.time())))  # what said so may have gone with them
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        oldest = next((file for file in files if first <= file.number < self.needed >> OFFSET_BITS), None)
        if oldest is not None and self._loop is not None:
            left_s = oldest.written_at + self._settings.history_s - now
            self._timer = self._loop.call_later(max(_LEAST_PAUSE_S, left_s), self._again)

    def _again(self) -> None:
        self._timer = None
        try:
            self.retire()
        except OSError as error:
            self._fail(error)

    def _give_way(self) -> bool:
        """Whether a segment went that was only history."""
        if self._native.first >> OFFSET_BITS >= self.needed >> OFFSET_BITS:
            return False
        _, after, *_ = segment_files(self._directory)
        return self._native.retire(after.number << OFFSET_BITS | FIRST_RECORD) > 0

    def close(self) -> None:
        """The daemon stops: what is missing is said, if there is room by now."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with contextlib.suppress(OSError):
            if self._missed:
                self._append(encode_record(Recording(time.time(), self._missed)))
