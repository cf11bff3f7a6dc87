"""The floor of large bodies: a Unix stream socket between two blocking Python programs, the length before each body.

The sender passes both to one sendmsg(2); the receiver reads into a buffer that it uses again and again, which no
message system can promise its users, and takes what is large where it lies.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import contender

_LENGTH: Final = struct.Struct("<Q")
#: What the kernel is asked to hold. It grants what net.core.wmem_max allows.
_BUFFER_BYTES: Final = 1 << 20


def missing() -> str:
    return ""


def start(home: Path) -> contender.Place:
    return contender.Place(home)


def _path() -> str:
    return str(contender.place() / "socket")


class Wire:
    """One end."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self._head = bytearray(_LENGTH.size)
        self._room = memoryview(bytearray(1 << 20))

    def send(self, body: bytes | memoryview) -> None:
        head = _LENGTH.pack(len(body))
        sent = self._socket.sendmsg((head, body)) - len(head)
        if sent < len(body):
            self._socket.sendall(memoryview(body)[sent:])

    def receive(self) -> memoryview:
        """The next body, until the one after it."""
        self._fill(memoryview(self._head))
        (size,) = _LENGTH.unpack(self._head)
        if size > len(self._room):
            self._room = memoryview(bytearray(size))
        body = self._room[:size]
        self._fill(body)
        return body

    def _fill(self, room: memoryview) -> None:
        while room:
            n = self._socket.recv_into(room)
            if not n:
                raise SystemExit  # the other end has ended
            room = room[n:]


def _listen(ready: contender.Ready) -> Wire:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(_path())
        listening.listen(1)
        ready()
        return Wire(listening.accept()[0])


@contextmanager
def _connect() -> Iterator[Wire]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connected:
        connected.connect(_path())
        yield Wire(connected)


class Blocking:
    """Both ends."""

    @contextmanager
    def asking(self) -> Iterator[Callable[[bytes], bytes]]:
        with _connect() as wire:

            def request(body: bytes) -> bytes:
                wire.send(body)
                return wire.receive()  # type: ignore[return-value]  # a view will do

            yield request

    def answer(self, ready: contender.Ready) -> None:
        wire = _listen(ready)
        while True:
            wire.send(wire.receive())

    @contextmanager
    def posting(self) -> Iterator[Callable[[Sequence[bytes]], int]]:
        with _connect() as wire:

            def send(bodies: Sequence[bytes]) -> int:
                for body in bodies:
                    wire.send(body)
                return 0

            yield send

    def take(self, ready: contender.Ready, taken: contender.Taken) -> None:
        wire = _listen(ready)
        while True:
            taken(wire.receive())  # type: ignore[arg-type]  # a view will do


def ends(mode: str) -> Blocking:
    return Blocking()
