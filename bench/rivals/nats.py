"""NATS: nats-server on a loopback port of its own choosing, JetStream storage in a temporary directory, nats-py.

asyncio, uvloop   core NATS. Requests by `request` and `respond`; the rate is that of `publish` into a subscription with
                  a callback. Nothing is acknowledged: a message counts when the subscriber's callback has it.
jetstream         `publish_async` into a stream in memory, 500 unacknowledged at most. A message counts when the
                  server's acknowledgement of it has come. No subscriber: only what is promised is compared. A stream
                  that keeps the last 100,000 messages, so that memory does not grow with the run.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from os import environ
from pathlib import Path
from typing import Any

import contender
import process

IN_FLIGHT = 500
_NO_LIMIT = -1


def missing() -> str:
    return contender.needs("nats-server", "nats")


class Server:
    """nats-server."""

    def __init__(self, home: Path) -> None:
        command = [contender.find_program("nats-server") or "nats-server", "-a", "127.0.0.1", "-p", "-1"]
        command += ["-js", "-sd", str(home / "store"), "--ports_file_dir", str(home)]
        self._child = process.spawn(command, log=home / "nats-server.log")
        self.pid = self._child.pid
        ports = home / f"nats-server_{self.pid}.ports"
        deadline = time.monotonic() + 10
        address = ""
        while not address:
            if self._child.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError((home / "nats-server.log").read_text()[-500:] or "nats-server does not start")
            time.sleep(0.02)
            try:
                address = json.loads(ports.read_text())["nats"][0]
            except (OSError, ValueError):
                continue  # not there yet, or half of it
        self.environ = {"BENCH_NATS": address}

    def close(self) -> None:
        process.stop(self._child)


def start(home: Path) -> Server:
    return Server(home)


async def _connect() -> Any:
    return await importlib.import_module("nats").connect(environ["BENCH_NATS"], connect_timeout=10)


class Core:
    """Request and reply, publish and subscribe."""

    def __init__(self, subject: str) -> None:
        self._subject = subject

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
        connection = await _connect()

        async def request(body: bytes) -> bytes:
            reply: bytes = (await connection.request(self._subject, body, timeout=5)).data
            return reply

        yield request
        await connection.close()

    async def answer(self, ready: contender.Ready) -> None:
        connection = await _connect()

        async def echo(message: Any) -> None:
            await message.respond(message.data)

        await connection.subscribe(self._subject, cb=echo)
        await connection.flush()
        ready()
        await asyncio.Event().wait()

    @asynccontextmanager
    async def posting(self) -> AsyncIterator[Callable[[Sequence[bytes]], Awaitable[int]]]:
        connection = await _connect()

        async def send(bodies: Sequence[bytes]) -> int:
            publish = connection.publish
            for body in bodies:
                await publish(self._subject, body)
            await connection.flush()
            return 0

        yield send
        await connection.close()

    async def take(self, ready: contender.Ready, taken: contender.Taken) -> None:
        connection = await _connect()

        async def arrived(message: Any) -> None:
            taken(message.data)

        await connection.subscribe(
            self._subject, cb=arrived, pending_msgs_limit=_NO_LIMIT, pending_bytes_limit=_NO_LIMIT
        )
        await connection.flush()
        ready()
        await asyncio.Event().wait()


class JetStream(Core):
    """Acknowledged publishing."""

    @asynccontextmanager
    async def posting(self) -> AsyncIterator[Callable[[Sequence[bytes]], Awaitable[int]]]:
        connection = await _connect()
        stream = connection.jetstream(publish_async_max_pending=IN_FLIGHT)
        await stream.add_stream(name="BENCH", subjects=[self._subject], storage="memory", max_msgs=100_000)

        async def send(bodies: Sequence[bytes]) -> int:
            publish = stream.publish_async
            acks = [await publish(self._subject, body) for body in bodies]
            numbers = [(await ack).seq for ack in acks]
            if numbers != list(range(numbers[0], numbers[0] + len(bodies))):
                raise SystemExit("JetStream acknowledged other messages than were sent")
            return len(numbers)

        yield send
        await connection.close()

    async def take(self, ready: contender.Ready, taken: contender.Taken) -> None:
        ready()
        await asyncio.Event().wait()


def ends(mode: str) -> contender.Asynchronous:
    subject = f"bench.{mode}"  # modes share a server
    return JetStream(subject) if mode == "jetstream" else Core(subject)
