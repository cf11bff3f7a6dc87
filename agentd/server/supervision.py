"""The daemon under a service manager: says when it is ready, how it is, and, from its loop, that the loop still runs.

Without one there is none of this. The status line goes out at most once a second and only when it changed, so that an
idle daemon stays idle; the watchdog's timer is the one timer that runs without work, and only where it is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from agentd.host.notify import Notifier

_STATUS_EVERY_S: Final = 1.0
#: Two signs of life in the time that the service manager waits for one.
_FEED_PART: Final = 0.5


class Supervision:
    """What the service manager hears of this daemon."""

    def __init__(self, notifier: Notifier, watchdog_s: float | None, summary: Callable[[], str]) -> None:
        self._notifier = notifier
        self._watchdog_s = watchdog_s
        self._summary = summary
        self._said = ""
        self._loop: asyncio.AbstractEventLoop
        self._status_timer: asyncio.TimerHandle | None = None
        self._feed_timer: asyncio.TimerHandle | None = None

    def ready(self, loop: asyncio.AbstractEventLoop) -> None:
        """Clients can connect."""
        self._loop = loop
        self._said = self._summary()
        self._notifier.tell("READY=1", f"STATUS={self._said}")
        if self._watchdog_s is not None:
            self._feed()

    def _feed(self) -> None:
        assert self._watchdog_s is not None
        self._notifier.tell("WATCHDOG=1")
        self._feed_timer = self._loop.call_later(self._watchdog_s * _FEED_PART, self._feed)

    def something_happened(self) -> None:
        """The status may be another now; look in a second, once."""
        if self._status_timer is None and self._notifier:
            self._status_timer = self._loop.call_later(_STATUS_EVERY_S, self._say_status)

    def _say_status(self) -> None:
        self._status_timer = None
        status = self._summary()
        if status != self._said:
            self._said = status
            self._notifier.tell(f"STATUS={status}")

    def stopping(self) -> None:
        """What is out is being finished. The watchdog is fed until the end."""
        self._notifier.tell("STOPPING=1", "STATUS=stopping: finishing what is out")
        if self._status_timer is not None:
            self._status_timer.cancel()
        self._said = ""

    def close(self) -> None:
        """The loop ends."""
        for timer in (self._status_timer, self._feed_timer):
            if timer is not None:
                timer.cancel()
        self._notifier.close()
