r"""The text face: one line a command, one line an answer, for shells that have `nc -U` and nothing else.

    AS planner                 SEND builder compile it           RECV 30
    planner                    k7qa2tnvstnqw accepted            m2sbe5vstnqwg builder it compiles

Commands are answered in their order, each when the one before it is done. What is not there is an empty line. A refusal
is `!code message`, and a value that begins with `!` begins with `!!`. A backslash in a body, there and back, begins an
escape: \\ a backslash, \n a newline, \r a return, \xff any byte; so every body fits on a line.

This file translates lines to the verbs of the other faces, and their answers to lines. It keeps nobody's time: a RECV
that waits is told by the session that its time is over (`give_up`).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from agentd.wire.bodies import Content
from agentd.wire.errors import BadRequest
from agentd.wire.escapes import BadCommand, escaped, unescaped, value
from agentd.wire.frames import CHUNK_BYTES
from agentd.wire.lines import Lines
from agentd.wire.messages import (
    VERSION,
    Accepted,
    Ack,
    Agents,
    AgentsView,
    Answer,
    Bye,
    Delivered,
    Done,
    Error,
    Find,
    Found,
    GiveBack,
    Hello,
    Join,
    LaggedEvent,
    Message,
    Nack,
    Options,
    Publish,
    Receipt,
    Receive,
    Reject,
    Reply,
    Request,
    Send,
    Stop,
    Subscribe,
    Welcome,
)
from agentd.wire.names import id_text

#: What a text line can begin with; other bytes are another face, or nothing.
FIRST: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
#: Lines that wait for those before them; with more the client is not read.
MAX_WAITING: Final = 64
DEFAULT_REQUEST_S: Final = 30.0
_MAX_WAIT_S: Final = 366 * 86400.0
_UNBUILT: Final = ("GET", "SET", "DEL")
_HTTP: Final = re.compile(rb" HTTP/1\.\d$")


class _Command:
    """What is being done, and which answer ends it."""

    __slots__ = ("cid", "finish", "wait_s")

    def __init__(self, cid: int, finish: Callable[[Any], bytes | None]) -> None:
        self.cid = cid
        self.finish = finish  # an answer with this cid to the line that ends the command; None: not yet
        self.wait_s: float | None = None  # RECV: how long a message is waited for


class TextFace(Lines):
    """One connection's lines: reader and writer in one, since an answer's form depends on its command."""

    def __init__(self, max_body_bytes: int) -> None:
        super().__init__(max_body_bytes)
        self._lines: deque[bytes] = deque()
        self._verbs: list[Any] = []
        self._out = bytearray()
        self._cid = 0
        self._joining = 0  # the call that joins
        self._now: _Command | None = None
        self._greeted = False
        self._joined = False
        self._takes = False
        self._name: str | None = None

    # What comes from the client.

    @property
    def waiting(self) -> int:
        """Lines that wait for those before them."""
        return len(self._lines)

    @property
    def idle(self) -> bool:
        """Whether everything that was said is answered."""
        return self._now is None and not self._lines and not self._verbs

    @property
    def wait_s(self) -> float | None:
        """How long the command that is being done waits for a message, if it does."""
        return None if self._now is None else self._now.wait_s

    @property
    def more(self) -> bool:
        """Whether `next_verbs` would give some."""
        return bool(self._verbs) or (self._now is None and bool(self._lines))

    def feed(self, data: bytes) -> list[Any]:
        """The verbs of the next command, if none is being done; TooLarge for a line without end."""
        for line in self.cut(data):
            if _HTTP.search(line.removesuffix(b"\r")):
                raise BadCommand("HTTP is not spoken here", "See clients/PROTOCOL.md for what is.")
            if line.strip():
                self._lines.append(line.removesuffix(b"\r"))
        return self.next_verbs()

    def next_verbs(self) -> list[Any]:
        """What is to be done next."""
        while self._now is None and self._lines and not self._verbs:
            try:
                self._begin(self._lines.popleft())
            except BadRequest as error:
                self._now = None
                self._verbs.clear()
                self._refuse(error.code, error.message, error.hint)
        verbs, self._verbs = self._verbs, []
        return verbs

    def give_up(self) -> list[Any]:
        """The time of the RECV that waits is over."""
        if self.wait_s is None:
            return []
        self._end(b"")
        self._verbs.append(Receive(0, -1))
        return self.next_verbs()

    def _begin(self, line: bytes) -> None:
        word, _, rest = line.partition(b" ")
        name = word.decode("ascii", "replace").upper()
        if name in _UNBUILT:
            raise BadCommand(f"{name} needs the key/value store, which this version does not have")
        begin = _COMMANDS.get(name)
        if begin is None:
            raise BadCommand(f"No command {name[:40]!a}", f"There are: {', '.join(_COMMANDS)}.")
        if not self._joined and name != "AS":
            self._join(None)
        begin(self, rest)

    def _join(self, name: str | None) -> int:
        self._joined = True
        self._name = name
        if not self._greeted:
            self._greeted = True
            self._verbs.append(Hello(VERSION, "text"))
        cid = self._next_cid()
        self._verbs.append(Join(cid, name))
        self._joining = cid
        return cid

    def _next_cid(self) -> int:
        self._cid += 1
        return self._cid

    def _do(self, verb: Any, finish: Callable[[Any], bytes | None]) -> _Command:
        """Say the verb; its answer ends the command."""
        self._verbs.append(verb)
        self._now = _Command(verb.cid, finish)
        return self._now

    # The commands.

    def _as(self, rest: bytes) -> None:
        if self._joined:
            raise BadCommand("AS comes first on a connection", "Open another one to speak as somebody else.")
        name = _text(rest, "AS needs a name")
        self._now = _Command(self._join(name), lambda answer: value(answer.name.encode()))

    def _send(self, rest: bytes) -> None:
        absent = rest.startswith(b"--allow-absent ")
        to, content, body = _addressed(rest.removeprefix(b"--allow-absent "), "SEND needs a name and a body")
        options = Options(allow_absent=True) if absent else None
        self._do(Send(self._next_cid(), to, content, body, options), _accepted)

    def _request(self, rest: bytes) -> None:
        to, content, body = _addressed(rest, "REQUEST needs a name and a body")

        def finish(answer: Answer) -> bytes:
            self._verbs.append(Ack(0, [answer.message.id]))
            return value(escaped(answer.message.body))

        self._do(Request(self._next_cid(), to, content, body, DEFAULT_REQUEST_S), finish)

    def _publish(self, rest: bytes) -> None:
        topic, content, body = _addressed(rest, "PUB needs a topic and a body")
        self._do(Publish(self._next_cid(), topic, content, body), lambda answer: b"%d" % (answer.reached or 0))

    def _subscribe(self, rest: bytes) -> None:
        pattern = _text(rest, "SUB needs a pattern")
        self._do(Subscribe(self._next_cid(), pattern), lambda answer: b"%d" % answer.subscription)

    def _receive(self, rest: bytes) -> None:
        wait_s = _seconds(rest)
        if self._name is None:
            raise BadCommand("RECV needs to know whose mail", "Begin the connection with AS and your name.")
        if not self._takes:
            self._takes = True
            self._verbs.append(Join(self._next_cid(), self._name, take=True))

        def finish(answer: Any) -> bytes | None:
            if type(answer) is not Done:
                return None
            if command.wait_s:
                return None  # a message will end it, or its time
            self._verbs.append(Receive(0, -1))
            return b""

        command = self._do(Receive(self._next_cid(), 1), finish)
        command.wait_s = wait_s

    def _found(self, rest: bytes, what: str, verb: Callable[[int, int, bytes], Any], done: Any) -> None:
        """A command about a message that is named by the beginning of its id."""
        prefix, _, more = rest.partition(b" ")

        def finish(answer: Any) -> bytes | None:
            if type(answer) is Found:
                self._do(verb(self._next_cid(), answer.id, more), done)
                return None
            return b""

        self._do(Find(self._next_cid(), _text(prefix, f"{what} needs a message's id")), finish)

    def _ack(self, rest: bytes) -> None:
        self._found(rest, "ACK", lambda cid, id, _: Ack(cid, [id]), _count)

    def _nack(self, rest: bytes) -> None:
        self._found(rest, "NACK", lambda cid, id, why: Nack(cid, id, _text(why, "")), _count)

    def _reject(self, rest: bytes) -> None:
        self._found(rest, "REJECT", lambda cid, id, why: Reject(cid, id, _text(why, "")), _count)

    def _reply(self, rest: bytes) -> None:
        content, body = _body(rest.partition(b" ")[2])
        self._found(rest, "REPLY", lambda cid, id, _: Reply(cid, id, content, body), _accepted)

    def _agents(self, rest: bytes) -> None:
        def finish(answer: AgentsView) -> bytes:
            return b" ".join(agent.name.encode() for agent in answer.agents if agent.live)

        self._do(Agents(self._next_cid()), finish)

    def _help(self, rest: bytes) -> None:
        self._end(" ".join(_COMMANDS).encode())

    # What comes from the daemon, with the interface of FrameWriter.

    @property
    def pending(self) -> bool:
        """Whether `take` would give bytes."""
        return bool(self._out)

    @property
    def full(self) -> bool:
        """Whether a frame's worth and more waits."""
        return len(self._out) > CHUNK_BYTES

    def take(self) -> bytes:
        """All that was answered."""
        taken = bytes(self._out)
        self._out.clear()
        return taken

    def push(self, message: msgspec.Struct) -> None:
        """An answer, a message or an event."""
        now = self._now
        if isinstance(message, Message):
            self._arrived(message)
        elif isinstance(message, Error):
            self._refused(message)
        elif isinstance(message, LaggedEvent):
            self._say(b"!lagged %d events of subscription %d were missed" % (message.missed, message.subscription))
        elif isinstance(message, Stop):
            reason = f"{message.by}: {message.reason}" if message.reason else message.by
            self._say(b"!stop " + escaped(reason.encode()))
        elif isinstance(message, Bye):
            self._say(b"!shutting_down " + escaped(message.reason.encode()))
        elif now is not None and not isinstance(message, Welcome) and message.cid == now.cid:  # type: ignore[attr-defined]
            line = now.finish(message)
            if line is not None:
                self._end(line)

    def _arrived(self, message: Message) -> None:
        details = message.details
        body = escaped(message.body)
        sender = message.sender.encode()
        if details is not None and details.subscription:
            self._say(b"%s %s %s" % ((details.topic or "").encode(), sender, body))
            self._verbs.append(Delivered([message.id], details.subscription))
        elif self.wait_s is not None:
            self._end(b"%s %s %s" % (id_text(message.id).encode(), sender, body))
        else:
            self._verbs.append(GiveBack(0, [message.id]))

    def _refused(self, error: Error) -> None:
        if self._now is not None or not error.cid:
            # What was said for the same command behind the verb that was refused will be refused too: once is enough.
            self._refuse(error.code, error.message, error.hint)
            self._now = None
            if error.cid == self._joining:
                self._joined = False
            elif error.code == "name_in_use":
                self._takes = False

    def _refuse(self, code: str, message: str, hint: str) -> None:
        text = f"{message.rstrip('.')}. {hint}" if hint else message
        self._say(b"!%s %s" % (code.encode(), escaped(text.encode())))

    def _say(self, line: bytes) -> None:
        self._out += line + b"\n"

    def _end(self, line: bytes) -> None:
        self._now = None
        self._say(line)


def _text(given: bytes, otherwise: str) -> str:
    """A name or a reason; BadCommand when it has to be there and is not."""
    try:
        text = given.decode().strip()
    except UnicodeDecodeError:
        raise BadCommand(f"{given[:40]!r} is not UTF-8") from None
    if not text and otherwise:
        raise BadCommand(otherwise)
    return text


def _body(given: bytes) -> tuple[Content, bytes]:
    """Text where it is text, else bytes."""
    body = unescaped(given)
    try:
        body.decode()
    except UnicodeDecodeError:
        return Content.BYTES, body
    return Content.TEXT, body


def _addressed(rest: bytes, otherwise: str) -> tuple[str, Content, bytes]:
    to, _, body = rest.partition(b" ")
    return (_text(to, otherwise), *_body(body))


def _seconds(given: bytes) -> float:
    if not given.strip():
        return 0.0
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _MAX_WAIT_S:
        raise BadCommand(f"RECV takes seconds to wait, not {given[:40]!r}")
    return seconds


def _accepted(answer: Any) -> bytes | None:
    if isinstance(answer, Accepted | Receipt):
        return f"{id_text(answer.id)} {answer.state.value}".encode()
    return None


def _count(answer: Any) -> bytes | None:
    return b"%d" % answer.count if isinstance(answer, Done) else None


_COMMANDS: Final[dict[str, Callable[[TextFace, bytes], None]]] = {
    "AS": TextFace._as,
    "SEND": TextFace._send,
    "RECV": TextFace._receive,
    "ACK": TextFace._ack,
    "NACK": TextFace._nack,
    "REJECT": TextFace._reject,
    "REPLY": TextFace._reply,
    "REQUEST": TextFace._request,
    "PUB": TextFace._publish,
    "SUB": TextFace._subscribe,
    "AGENTS": TextFace._agents,
    "HELP": TextFace._help,
}
