"""What large messages and long inboxes leave behind goes back to the machine. The allocator keeps what was freed for
the next of its size; without this, a burst's memory would be the daemon's for good."""

from __future__ import annotations

import asyncio
from typing import Final

from agentd._native import release_spare_memory
from agentd.host.process import rss_bytes

#: So much more than at the least is worth it.
_WORTH_BYTES: Final = 16 << 20
#: It grew by more since the last look: the burst goes on, and it is looked at again when it may be over.
_GROWTH_BYTES: Final = 1 << 20
_AGAIN_S: Final = 1.0
#: Given back so seldom: it takes 18 ms after 200 MiB of small messages, and who needs it again soon has to ask for it.
_PAUSE_S: Final = 10.0


class SpareMemory:
    """Gives it back once the process has stopped growing. A timer runs only while there is some."""

    def __init__(self) -> None:
        self._least = self._last = rss_bytes()
        self._timer: asyncio.TimerHandle | None = None

    def look(self, size_bytes: int, loop: asyncio.AbstractEventLoop) -> None:
        """The process has this size now; whoever finds that out says so."""
        grew = size_bytes > self._last + _GROWTH_BYTES
        self._last = size_bytes
        self._least = min(self._least, size_bytes)
        if self._timer is not None or size_bytes <= self._least + _WORTH_BYTES:
            return
        if not grew:
            release_spare_memory()
            self._least = self._last = rss_bytes()  # what is still there is in use: not to be tried each time
        self._timer = loop.call_later(_AGAIN_S if grew else _PAUSE_S, self._again, loop)

    def _again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self.look(rss_bytes(), loop)

    def close(self) -> None:
        """The daemon ends."""
        if self._timer is not None:
            self._timer.cancel()
