"""What large messages and long inboxes leave behind goes back to the machine. The allocator keeps what was freed for
the next of its size; without this, a burst's memory would be the daemon's for good."""

from __future__ import annotations

import asyncio
from typing import Final

from agentd._native import release_spare_memory
from agentd.host.process import rss_bytes

#: After turns it is looked at so often; while nothing happens, not at all.
_EVERY_S: Final = 1.0
#: Given back so seldom: it takes 18 ms after 200 MiB of small messages, and who needs it again soon has to ask for it.
_PAUSE_S: Final = 10.0
#: So much more than at the least is worth it.
_WORTH_BYTES: Final = 16 << 20
#: It grew by more since the last look: the burst goes on.
_GROWTH_BYTES: Final = 1 << 20


class SpareMemory:
    """Gives it back once the process has stopped growing."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._least = self._last = rss_bytes()

    def changed(self, loop: asyncio.AbstractEventLoop, pause_s: float = _EVERY_S) -> None:
        """A turn is over."""
        if self._timer is None:
            self._timer = loop.call_later(pause_s, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        last, self._last = self._last, rss_bytes()
        self._timer = None
        if self._last > last + _GROWTH_BYTES:
            self.changed(loop)
        elif self._last > self._least + _WORTH_BYTES:
            release_spare_memory()
            self._least = self._last = rss_bytes()  # what is still there is in use: not to be tried each time
            self.changed(loop, _PAUSE_S)
        else:
            self._least = min(self._least, self._last)

    def close(self) -> None:
        """The daemon ends."""
        if self._timer is not None:
            self._timer.cancel()
