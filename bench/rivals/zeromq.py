"""ZeroMQ by pyzmq: a PAIR of sockets over ipc://, no server.

asyncio    zmq.asyncio: both ends sleep in their loops          blocking   both sleep in recv

Large messages are sent and received with copy=False, as its documentation recommends for them; small ones copied.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import contender

#: pyzmq's own threshold; at it, copying is still the faster way.
_LARGE_BYTES: Final = 64 << 10


def missing() -> str:
    return contender.missing_module("zmq")


def start(home: Path) -> contender.Place:
    return contender.Place(home)


def _socket(module: str) -> Any:
    importlib.import_module("zmq")
    context = importlib.import_module(module).Context()
    return context.socket(importlib.import_module("zmq").PAIR)


def _address() -> str:
    return f"ipc://{contender.place()}/zmq"


def _copy(body: bytes) -> bool:
    return len(body) <= _LARGE_BYTES


class Asynchronous:
    """zmq.asyncio."""

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        socket = _socket("zmq.asyncio")
        socket.connect(_address())
        yield socket
        socket.close(linger=0)

    def _bound(self, ready: contender.Ready) -> Any:
        socket = _socket("zmq.asyncio")
        socket.bind(_address())
        ready()
        return socket

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
        async with self._connected() as socket:

            async def request(body: bytes) -> bytes:
                copy = _copy(body)
                await socket.send(body, copy=copy)
                reply = await socket.recv(copy=copy)
                return reply if copy else reply.buffer  # type: ignore[no-any-return]

            yield request

    async def answer(self, ready: contender.Ready) -> None:
        socket = self._bound(ready)
        while True:
            frame = await socket.recv(copy=False)
            await socket.send(frame, copy=False)

    @asynccontextmanager
    async def posting(self) -> AsyncIterator[Callable[[Sequence[bytes]], Awaitable[int]]]:
        async with self._connected() as socket:

            async def send(bodies: Sequence[bytes]) -> int:
                copy = _copy(bodies[0])
                for body in bodies:
                    await socket.send(body, copy=copy)
                return 0

            yield send

    async def take(self, ready: contender.Ready, taken: contender.Taken) -> None:
        socket = self._bound(ready)
        while True:
            taken((await socket.recv(copy=False)).buffer)


class Blocking:
    """zmq."""

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        socket = _socket("zmq")
        socket.connect(_address())
        yield socket
        socket.close(linger=0)

    def _bound(self, ready: contender.Ready) -> Any:
        socket = _socket("zmq")
        socket.bind(_address())
        ready()
        return socket

    @contextmanager
    def asking(self) -> Iterator[Callable[[bytes], bytes]]:
        with self._connected() as socket:

            def request(body: bytes) -> bytes:
                copy = _copy(body)
                socket.send(body, copy=copy)
                return socket.recv() if copy else socket.recv(copy=False).buffer  # type: ignore[no-any-return]

            yield request

    def answer(self, ready: contender.Ready) -> None:
        socket = self._bound(ready)
        while True:
            socket.send(socket.recv(copy=False), copy=False)

    @contextmanager
    def posting(self) -> Iterator[Callable[[Sequence[bytes]], int]]:
        with self._connected() as socket:

            def send(bodies: Sequence[bytes]) -> int:
                copy = _copy(bodies[0])
                for body in bodies:
                    socket.send(body, copy=copy)
                return 0

            yield send

    def take(self, ready: contender.Ready, taken: contender.Taken) -> None:
        socket = self._bound(ready)
        while True:
            taken(socket.recv(copy=False).buffer)


def ends(mode: str) -> Asynchronous | Blocking:
    return Blocking() if mode == "blocking" else Asynchronous()
