"""One connection made of arbitrary bytes, to the daemon's own server and hub in this process; only the socket and the
loop are others. What must hold, whatever the bytes, is asserted here: `converse` raises when it does not."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

sys.path.insert(0, str(Path(__file__).parent.parent))  # the tests' own modules, also where this is run as a program

import hub_invariants
from memory import JumpingLoop
from worlds import MemoryWorld

from agentd.server.served import ServedSession
from agentd.wire import messages as wire
from agentd.wire.errors import AgentdError
from agentd.wire.frames import FrameReader, FrameWriter
from agentd.wire.ndjson import BadLine, LineReader, LineWriter
from agentd.wire.text import TextFace

MAX_BODY_BYTES: Final = 1 << 16
FACES: Final = ("binary", "json", "text")
#: Turns that one input may take: what goes on for ever is a defect, too.
_MAX_TURNS: Final = 10_000


class _Loud(logging.Handler):
    """What the server logs as a defect of its own is one."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            raise AssertionError(record.getMessage()) from (record.exc_info[1] if record.exc_info else None)


class FuzzLoop(JumpingLoop):
    """Also does what is to be done soon."""

    def __init__(self) -> None:
        super().__init__()
        self._soon: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def call_soon(self, action: Callable[..., object], *arguments: Any) -> None:
        """As asyncio's."""
        self._soon.append((action, arguments))

    def settle(self) -> None:
        """Everything that is due now."""
        turns = 0
        while self._soon:
            turns += 1
            assert turns < _MAX_TURNS, "it goes on for ever"
            action, arguments = self._soon.popleft()
            action(*arguments)


class Connection(ServedSession):
    """The daemon's side, as server/session.py is it, without a socket."""

    provenance = "uid 1000 pid 4711 (fuzz)"
    pid = 4711
    command = "fuzz"
    unsent = False

    def __init__(self, world: MemoryWorld, face: str) -> None:
        super().__init__(world.server)
        world.server.sessions.add(self)
        self.reader: Any
        self.writer: Any
        if face == "binary":
            self.reader, self.writer = FrameReader(wire.ClientMessage, MAX_BODY_BYTES), FrameWriter()
        elif face == "json":
            self.reader, self.writer = LineReader(MAX_BODY_BYTES), LineWriter()
        else:
            self.reader = self.writer = TextFace(MAX_BODY_BYTES)
        self.out = bytearray()
        self.reading = True

    def write(self, message: wire.DaemonMessage) -> None:
        self.writer.push(message)
        if not self.dirty:
            self.dirty = True
            self.server.dirty.append(self)

    def send_pending(self) -> None:
        self.end_run()
        self.dirty = False
        while self.writer.pending:
            self.out += self.writer.take()

    def close(self, why: str, *, error: AgentdError | None = None) -> None:
        if self.closed:
            return
        if error is not None:
            self.refuse(0, error)
        self.send_pending()
        self.closed = True
        self.wait_no_more()
        self.server.session_gone(self, why)

    def stop_reading(self) -> None:
        self.reading = False

    def read_on(self) -> None:
        self.reading = True

    def feed(self, data: bytes) -> None:
        """As SocketSession.data_received."""
        try:
            verbs = self.reader.feed(data)
        except AgentdError as error:
            self.close("protocol violation", error=error)
            return
        self.take_in(verbs)

    def go_on_with_lines(self) -> None:
        """On the text face, the commands that waited for the answers to those before them."""
        face = self.reader
        turns = 0
        while isinstance(face, TextFace) and not self.closed and (face.more or face.wait_s is not None):
            turns += 1
            assert turns < _MAX_TURNS, "it goes on for ever"
            self.take_in(face.next_verbs() if face.more else face.give_up())
            self.server.flush(self.server.now())


def _world() -> MemoryWorld:
    world = MemoryWorld(Path(tempfile.gettempdir()))
    loop = FuzzLoop()
    world.loop = loop
    world.server.clock = lambda: loop.now
    world.server.loop = cast(Any, loop)
    return world


def converse(face: str, data: bytes) -> None:
    """Say `data` on that face: its first byte says in which pieces, the rest is what comes from the client."""
    logging.getLogger("agentd").handlers[:] = [_Loud()]
    logging.getLogger("agentd").propagate = False
    world = _world()
    loop = cast(FuzzLoop, world.loop)
    # Somebody to talk to, who takes mail and listens.
    builder = Connection(world, "binary")
    builder.take_in([wire.Hello(wire.VERSION, "fuzz"), wire.Join(1, "builder", take=True), wire.Receive(2, 4)])
    builder.take_in([wire.Subscribe(3, "task:*")])
    connection = Connection(world, face)
    size = 1 + (data[0] if data else 0)
    stream = data[1:]
    for start in range(0, len(stream), size):
        if connection.closed:
            break
        connection.feed(stream[start : start + size])
        loop.settle()
        connection.go_on_with_lines()
        loop.settle()
        assert connection.reader.unfinished_bytes <= len(stream)
    _check_answers(face, bytes(connection.out))
    hub_invariants.check(world.hub, loop.now, 1 << 30)
    connection.close("the input is over")
    loop.settle()
    hub_invariants.check(world.hub, loop.now, 1 << 30)
    builder.close("the input is over")
    world.hub.let_go()  # or what waits keeps this world for ever: the collector does not see it


def _check_answers(face: str, out: bytes) -> None:
    """A client of that face understands every byte."""
    if face == "binary":
        reader: FrameReader[Any] = FrameReader(wire.DaemonMessage, 64 << 20)
        reader.feed(out)
        assert not reader.unfinished
    elif face == "json":
        assert not [line for line in LineReader(64 << 20).feed(out) if isinstance(line, BadLine)]
    else:
        assert not out or out.endswith(b"\n")
        out.decode()
