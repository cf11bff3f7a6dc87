"""Redis as it keeps the most: appendonly with appendfsync always, over its Unix socket, XADD to one stream.

It answers a command after the sync, and syncs once for all that came in one turn of its loop. One at a time by
redis-py, blocking; 64 tasks by redis.asyncio, a connection each, in one process; "pipeline": 64 XADD in a pipeline of
one blocking connection, which none of them awaits alone.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import contender
import low_ends
import process

_STREAM = "kept"


def missing(home: Path) -> str:
    here = contender.find_program("redis-server") and not contender.missing_module("redis")
    return "" if here else "not installed: make bench-low installs it"


class Stream:
    """redis-server, and a connection."""

    def __init__(self, home: Path, *, pipelined: bool) -> None:
        self._socket = home / "redis.sock"
        command = [contender.find_program("redis-server") or "redis-server", "--port", "0"]
        command += ["--unixsocket", str(self._socket), "--save", "", "--dir", str(home)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"]
        self._child = process.spawn(command, log=home / "redis-server.log")
        deadline = time.monotonic() + 10
        while not self._socket.exists():
            if self._child.poll() is not None or time.monotonic() > deadline:
                process.stop(self._child)
                raise RuntimeError((home / "redis-server.log").read_text()[-500:] or "redis-server does not start")
            time.sleep(0.02)
        self._redis: Any = importlib.import_module("redis")
        self._connection = self._redis.Redis(unix_socket_path=str(self._socket))
        self._pipelined = pipelined
        self._number = 0

    def _next(self) -> dict[str, bytes]:
        self._number += 1
        return {"body": low_ends.body(self._number)}

    def _store(self) -> None:
        if not self._pipelined:
            self._connection.xadd(_STREAM, self._next())
            return
        with self._connection.pipeline(transaction=False) as pipeline:
            for _ in range(low_ends.TASKS):
                pipeline.xadd(_STREAM, self._next())
            pipeline.execute()

    def each(self, span_ns: int) -> list[int]:
        return low_ends.timed_each(self._store, span_ns)

    def together(self, span_ns: int) -> low_ends.Together:
        if not self._pipelined:
            return asyncio.run(self._connected(span_ns))
        first, begin = self._number, perf_counter_ns()
        self.each(span_ns)
        return self._number - first, perf_counter_ns() - begin

    async def _connected(self, span_ns: int) -> low_ends.Together:
        redis = importlib.import_module("redis.asyncio")
        async with redis.Redis(unix_socket_path=str(self._socket), max_connections=low_ends.TASKS) as connections:
            await asyncio.gather(*(connections.ping() for _ in range(low_ends.TASKS)))
            return await low_ends.timed_together(
                lambda: connections.xadd(_STREAM, self._next()), span_ns, low_ends.TASKS
            )

    def close(self) -> None:
        try:
            count = self._connection.xlen(_STREAM)
        finally:
            self._connection.close()
            process.stop(self._child)
        if count != self._number:
            raise SystemExit(f"{self._number} were stored, {count} are there")


def store(mode: str, home: Path) -> Stream:
    return Stream(home, pipelined=bool(mode))
