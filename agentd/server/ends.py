"""A session that is attached to shared memory, and a pair that it was offered; where its threads may run; whether there
is such memory at all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import NamedTuple

from agentd import _native
from agentd.server.grants import GrantsConnection
from agentd.wire import grants


class End:
    """An attached session: its connection, and the daemon's own descriptors of its doorbells."""

    def __init__(self, connection: GrantsConnection) -> None:
        self.connection = connection
        self.mail_bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.verdict_bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.reads = False

    def close(self) -> None:
        """The client has its own."""
        os.close(self.mail_bell)
        os.close(self.verdict_bell)


def pinned_to(setting: str) -> list[int]:
    """The cores that direct.pin names; none for `off`."""
    return [int(part) for part in setting.split(",") if part.strip().isdigit()]


def no_shared_memory(enabled: bool) -> str:
    """Why there is none between agents; empty where there is: tried, not looked up."""
    if not enabled:
        return "direct.enabled is false"
    try:
        os.close(_native.create_pair(grants.CRITICAL, 0, 4096, 4096, 0, False))
    except OSError as error:
        return f"no sealed memory can be made: {error.strerror}"
    return ""


class Offer(NamedTuple):
    """A pair that its receiver has yet to answer for."""

    memory: int
    then: Callable[[str], None]  # with why not, or nothing
    timer: asyncio.TimerHandle
