"""The floor of a round trip through a third process: a relay that passes on what it reads, and asks nothing.

No frames, no names, no receipts, no deadlines: two Unix stream sockets and an epoll, and ends that write a body and
read its echo. What a round trip takes here is four wake-ups and Python itself, so no broker that sleeps while it waits
and whose ends are Python gets below it on the same machine, whatever it leaves out. One that stays awake for a moment,
as agentd does, can save two of the four.

`python bench/relay.py SOCKET` is the relay itself: who connects is paired with who connects next.
"""

from __future__ import annotations

import asyncio
import select
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from os import environ
from pathlib import Path
from typing import Any, Final

import contender
import process

_CHUNK_BYTES: Final = 1 << 16


def missing() -> str:
    return ""


class Server:
    """The relay, in a process of its own."""

    def __init__(self, home: Path) -> None:
        path = home / "relay.sock"
        log = home / "relay.log"
        self._child = process.spawn([sys.executable, __file__, str(path)], log=log)
        self.pid = self._child.pid
        self.environ = {"BENCH_RELAY": str(path)}
        deadline = time.monotonic() + 10
        while not path.exists():
            if self._child.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(log.read_text()[-500:] or "the relay does not start")
            time.sleep(0.02)

    def close(self) -> None:
        process.stop(self._child)


def start(home: Path) -> Server:
    return Server(home)


def _connect() -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.connect(environ["BENCH_RELAY"])
    return connected


class Blocking:
    """Both ends in recv(2)."""

    @contextmanager
    def asking(self) -> Iterator[Callable[[bytes], bytes]]:
        with _connect() as wire:

            def request(body: bytes) -> bytes:
                wire.sendall(body)
                echo = wire.recv(_CHUNK_BYTES)
                while len(echo) < len(body):
                    echo += wire.recv(_CHUNK_BYTES)
                return echo

            yield request

    def answer(self, ready: contender.Ready) -> None:
        with _connect() as wire:
            ready()
            while data := wire.recv(_CHUNK_BYTES):
                wire.sendall(data)


class _Asker(asyncio.Protocol):
    """Writes a body, and settles a future when as much has come back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def ask(self, body: bytes) -> asyncio.Future[bytes]:
        self._echo, self._wanted = b"", len(body)
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._transport.write(body)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._echo += data
        if len(self._echo) >= self._wanted:
            self._answer.set_result(self._echo)


class _Answerer(asyncio.Protocol):
    """Echoes."""

    def __init__(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set_result(None)


class Asynchronous:
    """Both ends on an event loop, without streams or tasks."""

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
        transport, asker = await asyncio.get_running_loop().create_unix_connection(_Asker, sock=_connect())
        yield asker.ask
        transport.close()

    async def answer(self, ready: contender.Ready) -> None:
        _, answerer = await asyncio.get_running_loop().create_unix_connection(_Answerer, sock=_connect())
        ready()
        await answerer.ended


def ends(mode: str) -> Blocking | Asynchronous:
    return Blocking() if mode == "blocking" else Asynchronous()


def relay(path: str) -> None:
    """Pass on whatever either of a pair says to the other; when one ends, so does the other's connection."""
    facing: dict[int, tuple[socket.socket, socket.socket]] = {}
    alone: socket.socket | None = None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening, select.epoll() as waiting:
        listening.bind(path)
        listening.listen()
        waiting.register(listening, select.EPOLLIN)
        while True:
            for fd, _ in waiting.poll():
                if fd == listening.fileno():
                    one, alone = alone, listening.accept()[0]
                    if one is not None:
                        facing[one.fileno()], facing[alone.fileno()] = (one, alone), (alone, one)
                        waiting.register(one, select.EPOLLIN)
                        waiting.register(alone, select.EPOLLIN)
                        alone = None
                elif fd in facing:
                    speaker, hearer = facing[fd]
                    if data := speaker.recv(_CHUNK_BYTES):
                        hearer.sendall(data)
                    else:
                        del facing[fd], facing[hearer.fileno()]
                        speaker.close()
                        hearer.close()


if __name__ == "__main__":
    relay(sys.argv[1])
