"""The worlds that the conformance suite runs in, all behind one interface.

    hub      the hub in this process: sessions without a socket, the daemon's own handlers, a clock that jumps
    binary   a daemon in its own process, on the binary face
    json     the same on the JSON face

A party is one connection, in the test's own hands: it says verbs and expects answers. Waiting is always for something
that is to come. Where time must pass for it, the hub's clock jumps to the next deadline and the daemon's runs.
"""

from __future__ import annotations

import heapq
import itertools
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import hub_invariants
import msgspec
import pytest
from daemons import PATIENCE_S, Daemon, wait_until

from agentd.host.config import load_config
from agentd.hub.hub import Hub
from agentd.lanes.choice import Lanes
from agentd.lanes.closed import ClosedLane
from agentd.lanes.normal import NormalLane
from agentd.server.keeper import Keeper
from agentd.server.served import ServedSession
from agentd.server.server import Server
from agentd.wire.bodies import decode_body, encode_body
from agentd.wire.errors import AgentdError
from agentd.wire.frames import MAGIC, FrameReader, FrameWriter
from agentd.wire.messages import (
    VERSION,
    Accepted,
    Ack,
    Agents,
    AgentsView,
    ClientMessage,
    DaemonMessage,
    Dead,
    DeadView,
    Delivered,
    Drop,
    Error,
    Forget,
    Hello,
    Inbox,
    InboxView,
    Join,
    Joined,
    Leave,
    Message,
    Nack,
    Options,
    Priority,
    Publish,
    Receipt,
    Receive,
    Reply,
    Request,
    Send,
    Status,
    Subscribe,
    Subscribed,
    Trace,
    TraceView,
    Welcome,
)
from agentd.wire.ndjson import LineReader, LineWriter

T = TypeVar("T")

#: Limits within reach of a test.
LIMITS: dict[str, dict[str, Any]] = {
    "inbox": {"max_messages": 1000, "max_bytes": 64 << 20},
    "message": {"max_attempts": 3},
    "agents": {"max_names": 60, "max_requests": 40},
    "topics": {"max_events": 10, "max_subscriptions": 12},
    "connections": {"max_unread_bytes": 64 << 10},
}
_READ_BYTES = 1 << 16


class Refused(Exception):
    """A call was answered with an Error."""

    def __init__(self, error: Error) -> None:
        super().__init__(f"{error.code}: {error.message}")
        self.error = error
        self.code = error.code


class Party:
    """One connection. What has come and was not asked for yet is in `unread`."""

    name = ""

    def __init__(self) -> None:
        self.unread: deque[Any] = deque()
        self._cid = 0

    # What each world brings.

    def _write(self, verbs: tuple[Any, ...]) -> None:
        raise NotImplementedError

    def _more(self) -> None:
        """Wait until more has come, or fail because nothing will."""
        raise NotImplementedError

    def die(self) -> None:
        """End without a word, as a process that is killed does."""
        raise NotImplementedError

    # Saying.

    def say(self, *verbs: Any) -> int:
        """Verbs, in one go; the last one's cid. Calls get the next numbers, unless they have one."""
        for verb in verbs:
            if getattr(verb, "cid", None) == 0:
                verb.cid = self.number()
        self._write(verbs)
        return int(getattr(verbs[-1], "cid", 0))

    def number(self) -> int:
        """A cid that was not used."""
        self._cid += 1
        return self._cid

    def tell(self, *verbs: Any) -> None:
        """Verbs as they are: with cid 0, no answer is wanted."""
        self._write(verbs)

    def ask(self, verb: Any) -> Any:
        """A call and its answer; Refused when that is an error."""
        return self.answer(self.say(verb))

    def refusal(self, verb: Any) -> Error:
        """The error that this call is answered with."""
        with pytest.raises(Refused) as caught:
            self.ask(verb)
        return caught.value.error

    # Hearing.

    def answer(self, cid: int) -> Any:
        """The next answer to this call."""
        found = self._first(lambda m: _is_about(m, cid))
        if isinstance(found, Error):
            raise Refused(found)
        return found

    def expect(self, kind: type[T], **fields: Any) -> T:
        """The next of this kind with these fields; what came before it stays unread."""
        found: T = self._first(
            lambda m: type(m) is kind and all(getattr(m, name) == value for name, value in fields.items())
        )
        return found

    def so_far(self, kind: type[T]) -> list[T]:
        """All of one kind that it was told by now."""
        self.ask(Status(0))
        found = [message for message in self.unread if type(message) is kind]
        self.unread = deque(message for message in self.unread if type(message) is not kind)
        return found

    def _first(self, wanted: Callable[[Any], bool]) -> Any:
        passed = 0
        while True:
            for place in range(passed, len(self.unread)):
                message = self.unread[place]
                if wanted(message):
                    del self.unread[place]
                    return message
            passed = len(self.unread)
            self._more()

    # Short forms.

    def send(self, to: str, value: object = b"", **options: Any) -> int:
        """Send, and the id that it was accepted under."""
        return self.accepted(self.say(_send(to, value, options))).id

    def start_send(self, to: str, value: object = b"", **options: Any) -> int:
        """Send, and the call's number."""
        return self.say(_send(to, value, options))

    def refused_send(self, to: str, value: object = b"", **options: Any) -> Error:
        """Send, and the error."""
        return self.refusal(_send(to, value, options))

    def accepted(self, cid: int) -> Accepted:
        """The answer to one call as if it were alone: an Accepted can stand for several."""
        run = self.answer(cid)
        assert isinstance(run, Accepted), run
        after = run.count - 1 - (cid - run.cid)
        if cid > run.cid:
            self.unread.appendleft(msgspec.structs.replace(run, count=cid - run.cid))
        if after:
            self.unread.appendleft(
                msgspec.structs.replace(run, cid=cid + 1, id=run.id + cid - run.cid + 1, count=after)
            )
        return msgspec.structs.replace(run, cid=cid, id=run.id + cid - run.cid, count=1)

    def receipt(self, cid: int) -> Receipt:
        """The receipt that a call waits for."""
        return self.expect(Receipt, cid=cid)

    def request(self, to: str, value: object = b"", timeout: float = 600.0, **options: Any) -> int:
        """Ask; the call's number."""
        content, body = encode_body(value)
        return self.say(Request(0, to, content, body, timeout, Options(**options) if options else None))

    def reply(self, id: int, value: object = b"", **options: Any) -> Accepted:
        """Answer a message."""
        return self.accepted(self.start_reply(id, value, **options))

    def start_reply(self, id: int, value: object = b"", **options: Any) -> int:
        """Answer a message; the call's number."""
        content, body = encode_body(value)
        return self.say(Reply(0, id, content, body, Options(**options) if options else None))

    def publish(self, topic: str, value: object = b"", **options: Any) -> Receipt:
        """An event; how many have it."""
        content, body = encode_body(value)
        receipt = self.ask(Publish(0, topic, content, body, Options(**options) if options else None))
        assert isinstance(receipt, Receipt)
        return receipt

    def subscribe(self, pattern: str) -> int:
        """The number of the subscription."""
        found = self.ask(Subscribe(0, pattern))
        assert isinstance(found, Subscribed)
        return found.subscription

    def credit(self, count: int = 1) -> None:
        """Ask for so many messages."""
        self.ask(Receive(0, count))

    def arrives(self) -> Message:
        """The next message that comes. It is not delivered by that."""
        return self.expect(Message)

    def take(self) -> Message:
        """One message, handed to the application."""
        self.credit()
        message = self.arrives()
        self.delivered(message.id)
        return message

    def delivered(self, *ids: int, subscription: int = 0) -> None:
        """The application has these."""
        self.tell(Delivered(list(ids), subscription))

    def ack(self, *ids: int) -> int:
        """Done with these; how many were not done before."""
        return int(self.ask(Ack(0, list(ids))).count)

    def nack(self, id: int, reason: str = "", after_s: float = 0.0) -> None:
        """Not now."""
        self.ask(Nack(0, id, reason, after_s))

    def leave(self) -> None:
        """The orderly end."""
        self.ask(Leave(0))
        self.die()

    def trace(self, id: int) -> TraceView:
        """What happened to a message."""
        view = self.ask(Trace(0, id))
        assert isinstance(view, TraceView)
        return view

    def story(self, id: int) -> list[str]:
        """The states that a message went through."""
        return [transition.state.value for transition in self.trace(id).transitions]

    def state(self, id: int) -> str:
        """The state that it is in."""
        return self.trace(id).state.value

    def dead(self, name: str | None = None) -> DeadView:
        """Dead letters."""
        return cast(DeadView, self.ask(Dead(0, name)))

    def inbox(self, name: str) -> InboxView:
        """A look at an inbox."""
        return cast(InboxView, self.ask(Inbox(0, name)))


def _send(to: str, value: object, options: dict[str, Any]) -> Send:
    content, body = encode_body(value)
    return Send(0, to, content, body, Options(**options) if options else None)


def _is_about(message: Any, cid: int) -> bool:
    if type(message) is Accepted:
        return bool(message.cid <= cid < message.cid + message.count)
    return getattr(message, "cid", None) == cid


def value_of(message: Message) -> object:
    """What was sent."""
    return decode_body(message.content, message.body)


# The daemon's worlds.


class SocketParty(Party):
    """A connection to a daemon."""

    def __init__(self, path: Path, face: str) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(str(path))
        self._writer: FrameWriter | LineWriter = FrameWriter()
        self._reader: FrameReader[Any] | LineReader = FrameReader(DaemonMessage, 64 << 20)
        if face == "json":
            self._writer, self._reader = LineWriter(), LineReader(64 << 20)
        else:
            self._socket.sendall(bytes([MAGIC]))

    def _write(self, verbs: tuple[Any, ...]) -> None:
        data = b""
        for verb in verbs:
            self._writer.push(verb)
        while data := self._writer.take():
            self._socket.sendall(data)

    def _more(self) -> None:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise EOFError(f"the daemon closed the connection; unread: {list(self.unread)}")
        self.unread += self._reader.feed(data)

    def die(self) -> None:
        self._socket.close()


# The hub's world.


class JumpingLoop:
    """What the server needs of an event loop: timers, whose time comes when somebody waits for it."""

    def __init__(self) -> None:
        self.now = 5000.0
        self._timers: list[tuple[float, int, _Timer]] = []
        self._numbers = itertools.count()

    def call_later(self, delay: float, action: Callable[[], None]) -> _Timer:
        """As asyncio's."""
        timer = _Timer(action)
        heapq.heappush(self._timers, (self.now + delay, next(self._numbers), timer))
        return timer

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
    def __init__(self, action: Callable[[], None]) -> None:
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

    def close(self, why: str, *, error: AgentdError | None = None) -> None:
        if not self.closed:
            if error is not None:
                self.refuse(0, error)
            self.send_pending()
            self.closed = True
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
        now = self._server.now()
        self._session.handle([_read_verb(_encode(verb)) for verb in verbs], now)
        self._server.flush(now)

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


# Worlds.


class World:
    """Where parties meet."""

    kind = ""

    def __init__(self) -> None:
        self._parties: list[Party] = []

    def _connect(self) -> Party:
        raise NotImplementedError

    @contextmanager
    def stopping(self, witness: Party) -> Iterator[None]:
        """As SIGTERM does: within, the world takes no new work. Something must be out, or it is over at once."""
        raise NotImplementedError

    def connect(self) -> Party:
        """A party that has said hello and not joined."""
        party = self._connect()
        self._parties.append(party)
        party.tell(Hello(VERSION, "tests"))
        party.expect(Welcome)
        return party

    def stranger(self) -> Party:
        """A party that has said nothing yet."""
        party = self._connect()
        self._parties.append(party)
        return party

    def join(self, name: str | None = None, *, credit: int = 0, **how: bool) -> Party:
        """A party that speaks as that agent. take=True: it takes its mail; credit: and asks for so many at once."""
        party = self.connect()
        joined = party.ask(Join(0, name, **(how | ({"take": True} if credit else {}))))
        assert isinstance(joined, Joined)
        party.name = joined.name
        if credit:
            party.credit(credit)
        return party

    def close(self) -> None:
        """Everybody goes."""
        for party in self._parties:
            party.die()
        self._parties.clear()

    def clean(self) -> None:
        """After a behaviour: everybody goes, no mail and no name stays. Ends mail as people would."""
        self.close()
        sweeper = self.join()
        while (view := self._agents(sweeper)).agents:
            for row in view.agents:
                mail = [mail.id for mail in sweeper.inbox(row.name).messages]
                if mail:
                    owner = self.join(row.name)
                    owner.ack(*mail)
                    owner.leave()
                letters = [letter.id for letter in sweeper.dead(row.name).letters]
                if letters:
                    sweeper.ask(Drop(0, letters))
                try:
                    sweeper.ask(Forget(0, row.name))
                except Refused as refused:  # a connection that was closed above can still be in the making
                    assert refused.code == "not_permitted", refused
        status = sweeper.ask(Status(0))
        assert (status.agents, status.waiting, status.held, status.dead) == (0, 0, 0, 0)
        sweeper.leave()
        self._parties.clear()

    @staticmethod
    def _agents(party: Party) -> AgentsView:
        return cast(AgentsView, party.ask(Agents(0)))


class MemoryWorld(World):
    """The hub in this process."""

    kind = "hub"

    def __init__(self, directory: Path) -> None:
        super().__init__()
        settings = [f"{section}.{name}={value}" for section, table in LIMITS.items() for name, value in table.items()]
        config, _ = load_config(None, {}, settings)
        self.loop = JumpingLoop()
        self.hub = Hub(config, first_id=1 << 40)
        normal = NormalLane(self.hub.router)
        lanes = Lanes(
            normal if priority is Priority.NORMAL else ClosedLane(priority, "this version does not have it")
            for priority in Priority
        )
        self.server = Server(config, self.hub, lanes, Keeper(directory), directory / "no.sock", 1000)
        self.server.clock = lambda: self.loop.now
        self.server.loop = cast(Any, self.loop)

    def _connect(self) -> Party:
        return MemoryParty(self.server, self.loop)

    @contextmanager
    def stopping(self, witness: Party) -> Iterator[None]:
        self.hub.router.draining = True
        try:
            yield
        finally:
            self.hub.router.draining = False

    def clean(self) -> None:
        self.check()
        super().clean()
        self.check()

    def check(self) -> None:
        """Every registry against the others."""
        hub_invariants.check(self.hub, self.loop.now, 1 << 30)


class DaemonWorld(World):
    """A daemon, spoken to on one face."""

    def __init__(self, daemon: Daemon, face: str) -> None:
        super().__init__()
        self.daemon = daemon
        self.kind = face

    def _connect(self) -> Party:
        return SocketParty(self.daemon.socket, self.kind)

    @contextmanager
    def stopping(self, witness: Party) -> Iterator[None]:
        process = self.daemon.process
        assert process is not None
        process.terminate()
        wait_until(lambda: witness.ask(Status(0)).draining)
        yield


def make_world(kind: str, directory: Path) -> Iterator[World]:
    """The world of that name, for a fixture to yield from."""
    if kind == "hub":
        yield MemoryWorld(directory)
        return
    daemon = Daemon(directory)
    daemon.config_path.write_text(
        "\n".join(
            f"[{section}]\n" + "\n".join(f"{name} = {value}" for name, value in table.items())
            for section, table in LIMITS.items()
        )
    )
    daemon.start()
    try:
        yield DaemonWorld(daemon, kind)
    finally:
        daemon.close()
