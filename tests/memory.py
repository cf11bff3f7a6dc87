"""The hub in the tests' process, served as the daemon serves it: its server, its handlers, its sessions. Only the
socket and the event loop are others."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from parties import Party

from agentd.server.served import ServedSession
from agentd.server.server import Server
from agentd.wire.errors import AgentdError
from agentd.wire.messages import (
    ClientMessage,
    DaemonMessage,
)


class JumpingLoop:
    """What the server needs of an event loop: timers, whose time comes when somebody waits for it."""

    def __init__(self) -> None:
        self.now = 5000.0
        self._timers: list[tuple[float, int, _Timer]] = []
        self._numbers = itertools.count()

    def call_later(self, delay: float, action: Callable[[], object]) -> _Timer:
        """As asyncio's."""
        timer = _Timer(action)
        heapq.heappush(self._timers, (self.now + delay, next(self._numbers), timer))
        return timer

    def call_soon(self, action: Callable[..., object], *arguments: Any) -> None:
        """As asyncio's: when somebody waits."""
        self.call_later(0.0, lambda: action(*arguments))

    def jump(self) -> bool:
        """To the next timer, and run it; whether there was one."""
        while self._timers:
            at, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self.now = max(self.now, at)
                timer.action()
                return True
        return False


class _Timer:
    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class MemorySession(ServedSession):
    """The daemon's side of a connection that is a list."""

    provenance = "uid 1000 pid 4711 (memory)"
    pid = 4711
    command = "memory"
    unsent = False

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.told: deque[bytes] = deque()  # encoded: as it was when it was said, whatever the hub does to it later

    def write(self, message: msgspec.Struct) -> None:
        self.told.append(_encode(message))

    def send_pending(self) -> None:
        self.end_run()
        self.dirty = False

    def stop_reading(self) -> None:
        """What its party says is set aside until it is read again: there is no socket that it could wait in."""

    def read_on(self) -> None:
        """See stop_reading."""

    def close(self, why: str, *, error: AgentdError | None = None) -> None:
        if not self.closed:
            if error is not None:
                self.refuse(0, error)
            self.send_pending()
            self.closed = True
            self.wait_no_more()
            self.server.session_gone(self, why)


class MemoryParty(Party):
    """A session in this process. What is said goes through msgpack, so that every field is checked."""

    def __init__(self, server: Server, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop
        self._server = server
        self._session = MemorySession(server)
        server.sessions.add(self._session)

    def _write(self, verbs: tuple[Any, ...]) -> None:
        if self._session.closed:
            raise BrokenPipeError
        self._session.take_in([_read_verb(_encode(verb)) for verb in verbs])

    def _more(self) -> None:
        told = self._session.told
        while not told:
            if self._session.closed:
                raise EOFError(f"the session is over; unread: {list(self.unread)}")
            if not self._loop.jump():
                pytest.fail(f"nothing more will come; unread: {list(self.unread)}")
        while told:
            self.unread.append(_read_answer(told.popleft()))

    def die(self) -> None:
        self._session.close("gone")


_encode = msgspec.msgpack.Encoder().encode
_read_verb = msgspec.msgpack.Decoder(ClientMessage).decode
_read_answer = msgspec.msgpack.Decoder(DaemonMessage).decode
