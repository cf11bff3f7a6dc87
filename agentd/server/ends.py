"""A session that is attached to shared memory, and a pair that it was offered; where its threads may run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import NamedTuple

from agentd.server.grants import GrantsConnection
from agentd.wire import grants
from agentd.wire.messages import Priority


class End:
    """An attached session: its connection, and the daemon's own descriptors of its doorbells."""

    def __init__(self, connection: GrantsConnection) -> None:
        self.connection = connection
        self.mail_bells: dict[Priority, int] = {}  # in the order of the lanes' numbers
        try:
            for lane in grants.LANES:
                self.mail_bells[lane] = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self.verdict_bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:
            self._close_mail_bells()
            raise
        self.reads: set[Priority] = set()  # lanes
        self.unrelayed: set[Priority] = set()  # lanes for which there was no memory to relay: its socket gets that mail

    def close(self) -> None:
        """The client has its own."""
        self._close_mail_bells()
        os.close(self.verdict_bell)

    def _close_mail_bells(self) -> None:
        for bell in self.mail_bells.values():
            os.close(bell)


def pinned_to(setting: str) -> list[int]:
    """The cores that direct.pin names; none for `off`."""
    return [int(part) for part in setting.split(",") if part.strip().isdigit()]


class Offer(NamedTuple):
    """A pair that its receiver has yet to answer for."""

    memory: int
    then: Callable[[str], None]  # with why not, or nothing
    timer: asyncio.TimerHandle
