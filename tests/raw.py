"""Connections in a test's own hands, to the byte: no client in between, so that what is tested is the daemon."""

from __future__ import annotations

import json
import socket
from collections import deque
from pathlib import Path
from typing import Any, TypeVar

from daemons import PATIENCE_S
from msgspec.msgpack import encode
from msgspec.structs import replace

from agentd.wire.frames import MAGIC, FrameReader, FrameWriter
from agentd.wire.messages import VERSION, Accepted, DaemonMessage, Error, Hello, Join, Receive, Status, Welcome

T = TypeVar("T")

_MAX_BODY_BYTES = 64 << 20
_READ_BYTES = 1 << 16


class Refused(Exception):
    """The daemon answered a call with an Error."""

    def __init__(self, error: Error) -> None:
        super().__init__(f"{error.code}: {error.message}")
        self.error = error
        self.code = error.code


class _Connection:
    """A socket whose every wait ends."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.connect(
                str(path)
            )  # with a time-out it would fail where the daemon has not accepted the last ones
        except OSError:
            self.sock.close()
            raise
        self.sock.settimeout(PATIENCE_S)

    def send(self, data: bytes) -> None:
        """These bytes, as they are."""
        self.sock.sendall(data)

    def receive(self) -> bytes:
        """What came; nothing at the end."""
        try:
            return self.sock.recv(_READ_BYTES)
        except ConnectionResetError:  # the daemon had not read all we sent when it closed
            return b""

    def rest_bytes(self) -> bytes:
        """Everything up to the end of the connection, as it came."""
        found = b""
        while data := self.receive():
            found += data
        return found

    def close(self) -> None:
        self.sock.close()

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Raw(_Connection):
    """The binary face."""

    def __init__(self, path: Path, name: str | None = None, *, greet: bool = True, take: bool = False) -> None:
        super().__init__(path)
        self.seen: deque[Any] = deque()  # has come, and nobody asked for it yet
        self.name = ""
        self._cid = 0
        self._writer = FrameWriter()
        self._reader: FrameReader[DaemonMessage] = FrameReader(DaemonMessage, _MAX_BODY_BYTES)
        if greet:
            try:
                self.greet()
                self.join(name, take=take)
            except BaseException:
                self.close()
                raise

    def greet(self) -> Welcome:
        """Say hello."""
        self.send(bytes([MAGIC]))
        self.say(Hello(VERSION, "raw"))
        return self.until(Welcome)

    def join(self, name: str | None, **how: bool) -> None:
        """Become a session of this agent."""
        self.name = self.ask(Join(0, name, **how)).name

    def take(self, credit: int) -> None:
        """Grant credit."""
        self.say(Receive(0, credit))

    def number(self) -> int:
        """A cid that was not used."""
        self._cid += 1
        return self._cid

    def say(self, *verbs: Any) -> None:
        """Verbs, in one frame where they fit, answered or not."""
        for verb in verbs:
            self._writer.push(verb)
        while data := self._writer.take():
            self.send(data)

    def frame(self, *verbs: Any) -> None:
        """One frame of exactly these, whatever their size."""
        encoded = encode(verbs)
        self.send(len(encoded).to_bytes(4, "little") + encoded)

    def start(self, verb: Any) -> int:
        """A call; its cid."""
        verb.cid = self.number()
        self.say(verb)
        return int(verb.cid)

    def ask(self, verb: Any) -> Any:
        """A call and its answer; Refused when that is an error."""
        return self.answer(self.start(verb))

    def answer(self, cid: int) -> Any:
        """The next answer to this call."""
        found = self._first(lambda m: getattr(m, "cid", None) == cid)
        if isinstance(found, Error):
            raise Refused(found)
        return found

    def refusal(self, verb: Any) -> Error:
        """The error that this call is answered with."""
        return self.error(self.start(verb))

    def error(self, cid: int = 0) -> Error:
        """The error that answers this call, or concerns the session."""
        found = self._first(lambda m: getattr(m, "cid", None) == cid)
        assert isinstance(found, Error), found
        return found

    def until(self, kind: type[T]) -> T:
        """The next message of this kind; what came before it stays."""
        found: T = self._first(lambda m: isinstance(m, kind))
        return found

    def so_far(self, kind: type[T]) -> list[T]:
        """Everything of this kind that the daemon has sent by now."""
        self.ask(Status(0))
        found = [m for m in self.seen if isinstance(m, kind)]
        self.seen = deque(m for m in self.seen if not isinstance(m, kind))
        return found

    def rest(self) -> list[Any]:
        """Everything up to the end of the connection."""
        while data := self.receive():
            self._take_in(data)
        found = list(self.seen)
        self.seen.clear()
        return found

    def read_some(self) -> None:
        """Read once from the socket, as much as is there."""
        data = self.receive()
        if not data:
            raise EOFError(f"the daemon closed the connection; unread: {list(self.seen)}")
        self._take_in(data)

    def _take_in(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            if isinstance(message, Accepted):  # one stands for several calls; here each has its own
                for place in range(message.count):
                    cid, id = message.cid + place, message.id + place
                    self.seen.append(replace(message, cid=cid, id=id, count=1))
            else:
                self.seen.append(message)

    def _first(self, wanted: Any) -> Any:
        passed = 0
        while True:
            for place in range(passed, len(self.seen)):
                message = self.seen[place]
                if wanted(message):
                    del self.seen[place]
                    return message
            passed = len(self.seen)
            self.read_some()


class Lines(_Connection):
    """The JSON face."""

    def __init__(self, path: Path, name: str | None = None, *, greet: bool = True, take: bool = False) -> None:
        super().__init__(path)
        self._buffer = b""
        self._cid = 0
        if greet:
            self.say({"verb": "hello", "version": VERSION, "client": "lines"})
            assert self.read()["verb"] == "welcome"
            self.ask({"verb": "join", "name": name, "take": take})

    def say(self, *verbs: dict[str, Any]) -> None:
        """Verbs, a line each."""
        self.send(b"".join(json.dumps(verb, ensure_ascii=False).encode() + b"\n" for verb in verbs))

    def read(self) -> Any:
        """The next line's object; None at the end."""
        while b"\n" not in self._buffer:
            data = self.receive()
            if not data:
                return None
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)

    def ask(self, verb: dict[str, Any]) -> Any:
        """A call and its answer, whatever it is. Anything that comes before it is passed over."""
        self._cid += 1
        self.say({**verb, "cid": self._cid})
        while (answer := self.read()) is not None:
            if answer.get("cid") == self._cid:
                return answer
        raise EOFError("the daemon closed the connection")

    def until(self, verb: str) -> Any:
        """The next object with this verb."""
        while (found := self.read()) is not None:
            if found["verb"] == verb:
                return found
        raise EOFError(f"the daemon closed the connection before any {verb}")


C = TypeVar("C", bound=_Connection)


class Opener:
    """Connections to one daemon, closed with the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: list[_Connection] = []

    def __call__(self, name: str | None = None, *, greet: bool = True, take: bool = False) -> Raw:
        """A connection on the binary face: greeted and joined unless told otherwise."""
        return self.keep(Raw(self.path, name, greet=greet, take=take))

    def lines(self, name: str | None = None, *, greet: bool = True, take: bool = False) -> Lines:
        """A connection on the JSON face."""
        return self.keep(Lines(self.path, name, greet=greet, take=take))

    def bare(self, data: bytes = b"") -> Raw:
        """A connection on which only these bytes were said."""
        one = self(greet=False)
        one.send(data)
        return one

    def keep(self, one: C) -> C:
        """Close it with the test."""
        self._open.append(one)
        return one

    def close(self) -> None:
        for one in self._open:
            one.close()
