"""How the daemon waits: for a moment it looks again and again before it sleeps, as long as that pays.

Who is answered mostly says the next thing within a tenth of a millisecond. To wake a sleeping process takes a third of
that, and it goes on with cold caches: a round trip through a daemon that stayed awake was a fifth to a quarter shorter
(bench/request_reply.py). So the daemon looks as long as lately would have been enough, up to a bound: it grows while
what comes next comes within the bound, and shrinks to nothing where it does not, as KVM polls before it halts. Who
speaks once a second finds it asleep, and an idle daemon stays idle.

A flow of messages is another matter: while one is under way its ends need the core more, and the next read finds
something anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

#: It begins with this part of the bound, doubles, and gives up below it.
_FIRST_PART: Final = 0.25
#: So long between two looks: others had the core meanwhile, and need it more.
_LOST_CORE_S: Final = 0.001
#: Who says so much at a time is in no conversation, and for so long afterwards nobody is waited for. A pipeline beside
#: a daemon that looked all the same had a tenth less.
FLOW_BYTES: Final = 4096
_FLOW_S: Final = 0.001


class Alertness:
    """When the loop may sleep."""

    def __init__(self, spin_us: float, clock: Callable[[], float]) -> None:
        self._most_s = spin_us / 1e6
        self._clock = clock
        self._patience_s = 0.0  # so long it looks now
        self._looking = False
        self._busy = False  # something happened since the last look
        self._last = 0.0  # when something happened last
        self._looked = 0.0  # the last look
        self._flows_until = 0.0
        self._caught = 0
        self._slept = 0

    def much_came(self, now: float) -> None:
        """FLOW_BYTES and more, in one read."""
        self._flows_until = now + _FLOW_S

    def something_happened(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        """A turn that began at `now` is over: the next may come soon."""
        if now < self._flows_until or not self._most_s:
            self._last = now
            return
        self._busy = True
        if self._looking:
            return
        self._learn(now - self._last)
        self._last = now
        if self._patience_s:
            self._looking = True
            self._looked = now
            loop.call_soon(self._look, loop)

    def _learn(self, quiet_s: float) -> None:
        """It slept, and this came after so long."""
        if quiet_s > self._most_s:
            self._patience_s /= 2
            if self._patience_s < self._most_s * _FIRST_PART:
                self._patience_s = 0.0
        elif quiet_s > self._patience_s:
            self._patience_s = min(self._most_s, max(self._patience_s * 2, self._most_s * _FIRST_PART))

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop has looked for something to do. A callback that is due makes it look again, without sleeping."""
        now = self._clock()
        before, self._looked = self._looked, now
        if self._busy:
            self._busy = False
            self._last = now
            self._caught += 1
        elif now - before > _LOST_CORE_S:
            self._patience_s = 0.0
        if now - self._last < self._patience_s and now >= self._flows_until:
            loop.call_soon(self._look, loop)
        else:
            self._looking = False
            self._slept += 1

    def statistics(self) -> dict[str, int]:
        """Turns that found it awake, times it went to sleep after looking, and how long it looks now, in µs."""
        return {"caught": self._caught, "slept": self._slept, "patience_us": round(self._patience_s * 1e6)}
