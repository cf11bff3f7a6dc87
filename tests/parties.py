"""Parties of the conformance suite: one connection each, in the test's own hands. They say verbs and expect answers."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import pytest
from daemons import PATIENCE_S

from agentd.wire.bodies import decode_body, encode_body
from agentd.wire.frames import MAGIC, FrameReader, FrameWriter
from agentd.wire.messages import (
    Accepted,
    Ack,
    DaemonMessage,
    Dead,
    DeadView,
    Delivered,
    Error,
    Inbox,
    InboxView,
    Leave,
    Message,
    Nack,
    Options,
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
)
from agentd.wire.ndjson import LineReader, LineWriter

T = TypeVar("T")

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

    def subscribe(self, pattern: str, name: str | None = None, window: int = 0, start: str = "new") -> int:
        """The number of the subscription."""
        found = self.ask(Subscribe(0, pattern, start, name, window))
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
        """The states that a message went through. What is `stored` counts as accepted: which, the disk decides."""
        states = [transition.state.value for transition in self.trace(id).transitions]
        return [state for state, _ in groupby("accepted" if state == "stored" else state for state in states)]

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
