"""What stands between clients and a hub in the same process: no socket, no file. Only testing.py loads it.

    client -> Cable.say -> MemorySession (the daemon's session, framing and all) -> Cable.write -> client

Clients live in whatever threads and event loops their programs have; the hub is synchronous. So everything here runs
under one lock, the hub's, and a client hears by being told to come and take what has come.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
import threading
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from socket import MSG_DONTWAIT
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

from agentd.host.process import command_of
from agentd.server.server import Server
from agentd.server.session import SocketSession
from agentd.wire.errors import AgentdError
from agentd_client._link import Link
from agentd_client._socket import Plug

if TYPE_CHECKING:
    from agentd_client.testing import MemoryHub

#: What one read of a socket brings at most; and how much a kernel would take of who is not read.
_READ_BYTES: Final = 64 * 1024
_ROOM_BYTES: Final = 256 * 1024


class Clock:
    """The hub's time, which a test can advance, and what is due in it: what the server needs of an event loop."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._soon: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        """Seconds, the ones that were skipped included."""
        return monotonic() + self._ahead

    def call_soon(self, action: Callable[[], None]) -> None:
        """As asyncio's."""
        self._soon.append(action)

    def call_later(self, delay: float, action: Callable[[], None]) -> Timer:
        """As asyncio's."""
        timer = Timer(action)
        heapq.heappush(self._timers, (self.now() + delay, next(self._numbers), timer))
        return timer

    def next(self) -> float | None:
        """How long until the next timer."""
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - self.now()) if self._timers else None

    def run(self) -> None:
        """All that is due, and what comes of it."""
        while True:
            while self._soon:
                self._soon.popleft()()
            if self.next() != 0.0:
                return
            heapq.heappop(self._timers)[2].action()

    def clear(self) -> None:
        """Nothing is due any more."""
        self._soon.clear()
        self._timers.clear()

    def advance(self, seconds: float) -> None:
        """Go ahead by so much, from one timer to the next."""
        left = seconds
        while (wait := self.next()) is not None and wait < left:
            self._ahead += wait
            left -= wait
            self.run()
        self._ahead += max(0.0, left)
        self.run()


class Timer:
    """As asyncio's TimerHandle."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        """Never mind."""
        self.cancelled = True


class MemoryServer(Server):
    """The daemon's server, whose connections are cables."""

    def socket_closed(self, session: SocketSession) -> None:
        """The last of a session."""
        self.closing.discard(session)


class MemorySession(SocketSession):
    """The daemon's session. Its client's process is this one, which needs no watching."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Before a byte is read."""
        self._transport = cast(asyncio.Transport, transport)
        self.pid = os.getpid()
        self.command = command_of(self.pid)
        self.provenance = f"uid {self.server.uid} pid {self.pid} (in memory)"
        self._late = self.server.loop.call_later(self.server.config.connections.hello_s, self._check_hello)
        if self.server.admit(self):
            transport = cast(asyncio.WriteTransport, transport)
            transport.set_write_buffer_limits(high=self.server.config.connections.max_unread_bytes)


class Cable:
    """One connection. To the session it is its transport; the client says, hears and hangs up."""

    def __init__(self, hub: MemoryHub, tell: Callable[[], None], flush: Callable[[], None]) -> None:
        self.ended = False
        self.flush = flush  # have the client say what it has to say, if this is its place
        self.killed: AgentdError | None = None  # the client's process is to be thought of as dead
        self._hub = hub
        self._tell = tell  # the client: come and look
        self._said = bytearray()
        self._told = bytearray()
        self._high = _READ_BYTES
        self._full = self._paused = self._hung_up = False
        with hub.turn:
            hub.check_running()
            self._clock = hub.clock
            self.session = MemorySession(hub.server)
            self.session.connection_made(cast(asyncio.Transport, self))
            hub.cables.add(self)

    # The client's end.

    @property
    def has_room(self) -> bool:
        """Whether more may be said."""
        return len(self._said) < _ROOM_BYTES

    @property
    def has_news(self) -> bool:
        """Whether there is something to hear."""
        return bool(self._told) or self.ended

    def say(self, data: bytes) -> None:
        """Bytes to the hub; it has done all that it does about them when this comes back."""
        with self._hub.turn:
            if self.ended:
                raise BrokenPipeError
            self._said += data
            self._pump()
            self._hub.run()

    def hear(self) -> bytes:
        """What has come."""
        with self._hub.turn:
            data = bytes(self._told[:_READ_BYTES])
            del self._told[:_READ_BYTES]
            if self._full and len(self._told) <= self._high // 4:
                self._full = False
                self.session.resume_writing()
                self._hub.run()
            return data

    def hang_up(self) -> None:
        """The client ends it, or is gone. What it said before counts, also where that has to wait."""
        with self._hub.turn:
            self._hung_up = True
            self._pump()
            self._hub.run()

    def kill(self, error: AgentdError) -> None:
        """As if the client's process were killed: neither end hears more of the other."""
        self.killed = error
        self._told.clear()
        self._end()

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self._hub.cables.discard(self)
            self._said.clear()
            self._clock.call_soon(lambda: self.session.connection_lost(None))
            self._tell()

    def _pump(self) -> None:
        full = not self.has_room
        while self._said and not self._paused and not self.ended:
            data = bytes(self._said[:_READ_BYTES])
            del self._said[:_READ_BYTES]
            self.session.data_received(data)
        if self._hung_up and not self._said:
            self._end()
        elif full and self.has_room:
            self._tell()

    # The session's end: what it uses of a transport.

    def write(self, data: bytes) -> None:
        """Bytes to the client."""
        if self.ended:
            return
        if self._hung_up:
            self._clock.call_soon(self._end)
            return
        self._told += data
        if len(self._told) > self._high and not self._full:
            self._full = True
            self.session.pause_writing()
        self._tell()

    def pause_reading(self) -> None:
        """What is said waits."""
        self._paused = True

    def resume_reading(self) -> None:
        """It is read again."""
        if self._paused:
            self._paused = False
            self._clock.call_soon(self._pump)

    def set_write_buffer_limits(self, high: int) -> None:
        """Past so many unheard bytes the session is paused."""
        self._high = high

    def get_write_buffer_size(self) -> int:
        """What was written stays to be heard after the end."""
        return 0

    def close(self) -> None:
        """The session ends it."""
        self._end()

    abort = close


class MemoryLink(Link):
    """The asyncio face's end of a cable."""

    def __init__(self, hub: MemoryHub) -> None:
        super().__init__(hub.address)
        self._hub = hub

    async def _connect(self) -> None:
        LoopEnd(self._hub, self, self._loop)

    def _share(self, transport: asyncio.Transport) -> None:
        pass  # there is no socket: the hub has at once what is written

    def _write(self, data: bytes) -> int:
        assert self._transport is not None
        self._transport.write(data)
        return len(data)

    def kill(self, error: AgentdError) -> None:
        """This client is dead."""
        self._conversation.close(error)
        self._closing = True


class LoopEnd:
    """What a link uses of a transport."""

    def __init__(self, hub: MemoryHub, link: MemoryLink, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        self._told = self._lost = self._full = False
        self._cable = Cable(hub, self._tell, self._flush)
        link.connection_made(cast(asyncio.Transport, self))

    def _flush(self) -> None:
        """In any thread, but only its own loop may do it."""
        if asyncio._get_running_loop() is self._loop:
            self._link.flush()

    def _tell(self) -> None:
        """In any thread."""
        if not self._told:
            self._told = True
            try:
                self._loop.call_soon_threadsafe(self._look)
            except RuntimeError:  # its loop is closed: nobody is there any more
                self._cable.hang_up()

    def _look(self) -> None:
        self._told = False
        cable, link = self._cable, self._link
        if cable.killed is not None:
            link.kill(cable.killed)
        while not self._lost and (data := cable.hear()):
            link.get_buffer(-1)[: len(data)] = data
            link.buffer_updated(len(data))
        if cable.ended:
            self._lose()
        elif self._full and cable.has_room:
            self._full = False
            link.resume_writing()

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self._link.connection_lost(None)

    def write(self, data: bytes) -> None:
        """Bytes to the hub."""
        if self._lost or self._cable.ended:
            return
        self._cable.say(data)
        if not self._cable.has_room and not self._full:
            self._full = True
            self._link.pause_writing()

    def get_write_buffer_size(self) -> int:
        """Nothing is kept here."""
        return 0

    def is_closing(self) -> bool:
        """Whether what is written goes nowhere."""
        return self._lost or self._cable.ended

    def close(self) -> None:
        """Hang up; the link is told when its loop turns."""
        self._cable.hang_up()
        self._tell()

    abort = close


class MemoryPlug(Plug):
    """The blocking face's end of a cable."""

    def __init__(self, hub: MemoryHub) -> None:
        super().__init__(hub.address)
        self._hub = hub
        self._cable: Cable | None = None

    def _connect(self) -> None:
        cable = self._cable = Cable(self._hub, self._hub.turn.notify_all, self._flush)
        self._socket = cast(Any, _PlugEnd(self._hub.turn, cable))
        self._readable = cast(Any, _Poll(self._hub, cable, False))
        self._both = cast(Any, _Poll(self._hub, cable, True))
        self._conversation.connected()

    def _flush(self) -> None:
        """In any thread, but only its own may do it."""
        if get_ident() == self._thread:
            self.say()

    def _lost(self, reason: str) -> None:
        cable = self._cable
        if cable is not None and cable.killed is not None:
            self._conversation.close(cable.killed)
        super()._lost(reason)


class _PlugEnd:
    """What a plug uses of a socket."""

    def __init__(self, turn: threading.Condition, cable: Cable) -> None:
        self._turn = turn
        self._cable = cable

    def send(self, data: bytes, flags: int) -> int:
        if not self._cable.has_room:
            raise BlockingIOError
        self._cable.say(data)
        return len(data)

    def recv_into(self, buffer: memoryview, count: int = 0, flags: int = 0) -> int:
        with self._turn:
            if flags & MSG_DONTWAIT and not self._cable.has_news:
                raise BlockingIOError
            self._turn.wait_for(lambda: self._cable.has_news)
            data = self._cable.hear()
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._cable.hang_up()


class _Poll:
    """What a plug uses of poll()."""

    def __init__(self, hub: MemoryHub, cable: Cable, room: bool) -> None:
        self._turn: threading.Condition = hub.turn
        self._cable = cable
        self._room = room

    def poll(self, timeout_ms: float | None) -> bool:
        with self._turn:
            return self._turn.wait_for(
                lambda: self._cable.has_news or (self._room and self._cable.has_room),
                None if timeout_ms is None else timeout_ms / 1000,
            )

    def unregister(self, end: _PlugEnd) -> None:
        pass
