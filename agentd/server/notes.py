"""What the journal is told and nobody can be refused: acks, ends, names. While the disk is behind it waits, and
whatever comes after it waits too: else a message could be stored whose sender knew of an ack that is not."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from agentd.wire.errors import AgentdError, Busy

log = logging.getLogger(__name__)


class Notes:
    """Of one journal. `append` writes one; Busy where that may succeed in a moment: as many wait as are said in one
    sync. Another AgentdError, and it is missing."""

    def __init__(self, append: Callable[[bytes], object]) -> None:
        self.has_holes = False  # one is missing, which a checkpoint makes up for
        self._append = append
        self._waiting: deque[bytes] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, body: bytes) -> None:
        """One more."""
        self._waiting.append(body)
        self.write()

    def write(self) -> bool:
        """Those that wait; whether none does any more."""
        while self._waiting:
            try:
                self._append(self._waiting[0])
            except Busy:
                return False
            except AgentdError as error:
                if not self.has_holes:
                    log.warning("the journal misses what has happened, until there is a checkpoint: %s", error.message)
                self.has_holes = True
            self._waiting.popleft()
        return True
