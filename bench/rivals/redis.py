"""Redis: redis-server on a Unix socket in a temporary directory, nothing persisted, redis-py with hiredis, blocking.

Requests go by RPUSH to one list and replies by RPUSH to another, each side asleep in BLPOP. The rate is that of RPUSH
in pipelines of 500 (each answered by the server) into a receiver that takes up to 500 by one BLMPOP.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import Any

import contender
import process

_PIPELINE = 500


def missing() -> str:
    return contender.needs("redis-server", "redis", "hiredis")


class Server:
    """redis-server."""

    def __init__(self, home: Path) -> None:
        socket = home / "redis.sock"
        command = [contender.find_program("redis-server") or "redis-server", "--port", "0"]
        command += ["--unixsocket", str(socket), "--save", "", "--appendonly", "no", "--dir", str(home)]
        self._child = process.spawn(command, log=home / "redis-server.log")
        self.pid = self._child.pid
        self.environ = {"BENCH_REDIS": str(socket)}
        deadline = time.monotonic() + 10
        while not socket.exists():
            if self._child.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError((home / "redis-server.log").read_text()[-500:] or "redis-server does not start")
            time.sleep(0.02)

    def close(self) -> None:
        process.stop(self._child)


def start(home: Path) -> Server:
    return Server(home)


def _connect() -> Any:
    return importlib.import_module("redis").Redis(unix_socket_path=environ["BENCH_REDIS"])


class Lists:
    """Redis lists as mailboxes."""

    @contextmanager
    def asking(self) -> Iterator[Callable[[bytes], bytes]]:
        connection = _connect()

        def request(body: bytes) -> bytes:
            connection.rpush("asks", body)
            reply: bytes = connection.blpop(["replies"])[1]
            return reply

        yield request
        connection.close()

    def answer(self, ready: contender.Ready) -> None:
        connection = _connect()
        connection.ping()
        ready()
        while True:
            connection.rpush("replies", connection.blpop(["asks"])[1])

    @contextmanager
    def posting(self) -> Iterator[Callable[[Sequence[bytes]], int]]:
        connection = _connect()

        def send(bodies: Sequence[bytes]) -> int:
            for first in range(0, len(bodies), _PIPELINE):
                pipeline = connection.pipeline(transaction=False)
                for body in bodies[first : first + _PIPELINE]:
                    pipeline.rpush("posts", body)
                pipeline.execute()
            return len(bodies)

        yield send
        connection.close()

    def take(self, ready: contender.Ready, taken: contender.Taken) -> None:
        connection = _connect()
        connection.ping()
        ready()
        while True:
            for body in connection.blmpop(0, 1, "posts", direction="LEFT", count=_PIPELINE)[1]:
                taken(body)


def ends(mode: str) -> contender.Blocking:
    return Lists()
