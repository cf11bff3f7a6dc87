"""A receiver that sleeps and a sender that wakes it, wake by wake beside a bare eventfd in the same two processes.

    python sleeper.py LANE/HOW CORE CORE DIRECTORY      told by lines of JSON on stdin, answering on stdout

HOW is inbox (`async for message in me.inbox()`), receive (`await me.receive()`), both in asyncio's own loop, or
on_critical, a handler in its thread. Beside it, always in the loop: an eventfd, loop.add_reader and an awaited future.
The sender sits in asyncio's loop, too: it sleeps there between two wakes, and sends by `channel.send`.

This process forks before anything is opened. The sender is told {"wakes": N, "pause_ms": [from, to], "beside": bool}
and answers [nanoseconds of each agentd wake, of each eventfd wake]: agentd, eventfd, agentd ..., each after a pause of
random length and never before the last one was taken. A wake begins just before the send and ends when the receiver's
own code runs again; both read CLOCK_MONOTONIC. `beside`: meanwhile another Python thread of the receiver computes. The
receiver writes when each wake ended into memory that both share, so nothing but the wake itself comes its way.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final

import awake
import halves
import own

import agentd_client

_NAME: Final = "sleeper"
#: Where each way's count of wakes is in the shared memory; when the last one ended is behind it.
_DIRECT: Final = 0
_BARE: Final = 2


class Receiver:
    """The half that sleeps."""

    def __init__(self, how: str, words: memoryview, bell: int, wire: socket.socket) -> None:
        self._how = how
        self._words = words
        self._bell = bell
        self._wire = wire
        self._computing: threading.Thread | None = None

    async def run(self, path: str) -> None:
        loop = asyncio.get_running_loop()
        self._wire.setblocking(False)
        loop.add_reader(self._wire, self._told)
        async with agentd_client.connect(_NAME, socket=path) as me:
            ways: dict[str, Callable[[Any], Any]] = {"inbox": self._inbox, "receive": self._receive}
            if self._how == "on_critical":
                me.on_critical(self._handle, pin=False)
                await self._bare()
            await asyncio.gather(self._bare(), ways[self._how](me))

    def _told(self) -> None:
        order = self._wire.recv(1)
        if not order:
            os._exit(0)
        if self._computing is not None:
            thread, self._computing = self._computing, None
            thread.join()
        if order == b"b":
            self._computing = threading.Thread(target=self._compute, daemon=True)
            self._computing.start()
        self._wire.send(b"!")

    def _compute(self) -> None:
        while self._computing is not None:
            for _ in range(1000):
                pass

    async def _bare(self) -> None:
        loop = asyncio.get_running_loop()
        bell, words, read, clock = self._bell, self._words, os.eventfd_read, perf_counter_ns
        future = loop.create_future()

        def rung() -> None:
            if read(bell) != 1:
                raise SystemExit("one bell was to ring once")
            future.set_result(None)

        loop.add_reader(bell, rung)
        while True:
            await future
            words[_BARE + 1] = clock()
            future = loop.create_future()
            words[_BARE] += 1

    async def _inbox(self, me: agentd_client.Client) -> None:
        words, clock = self._words, perf_counter_ns
        async for message in me.inbox():
            words[_DIRECT + 1] = clock()
            self._taken(message.body)
            await message.ack()

    async def _receive(self, me: agentd_client.Client) -> None:
        words, clock = self._words, perf_counter_ns
        while True:
            message = await me.receive()
            words[_DIRECT + 1] = clock()
            assert message is not None
            self._taken(message.body)
            await message.ack()

    def _handle(self, message: Any) -> None:
        self._words[_DIRECT + 1] = perf_counter_ns()
        self._taken(message.body)

    def _taken(self, body: bytes) -> None:
        if body != awake.body(self._words[_DIRECT]):
            os._exit(1)  # the sender says which
        self._words[_DIRECT] += 1


class Sender:
    """The half that wakes it."""

    def __init__(self, words: memoryview, bell: int, wire: socket.socket, send: Callable[[bytes], object]) -> None:
        self._words = words
        self._bell = bell
        self._wire = wire
        self._send = send

    async def wake(self, pause_ms: tuple[float, float]) -> tuple[int, int]:
        """One of each: how long they took."""
        words = self._words
        number = words[_DIRECT]
        body = awake.body(number)
        await self._pause(pause_ms)
        start = perf_counter_ns()
        self._send(body)
        direct_ns = await halves.until_taken(words, _DIRECT, number) - start
        number = words[_BARE]
        await self._pause(pause_ms)
        start = perf_counter_ns()
        os.eventfd_write(self._bell, 1)
        return direct_ns, await halves.until_taken(words, _BARE, number) - start

    async def _pause(self, pause_ms: tuple[float, float]) -> None:
        await asyncio.sleep(random.uniform(*pause_ms) / 1000)

    async def run(self) -> None:
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            low, high = command["pause_ms"]
            beside = command["beside"]
            if beside:
                self._tell(b"b")
            await self.wake((low, high))  # of the processor's sleep after another program, not counted
            wakes = [await self.wake((low, high)) for _ in range(command["wakes"])]
            if beside:
                self._tell(b".")
            print(json.dumps(list(zip(*wakes, strict=True))), flush=True)

    def _tell(self, order: bytes) -> None:
        self._wire.send(order)
        self._wire.recv(1)


async def _send(
    daemon: own.Daemon, lane: str, words: memoryview, bell: int, wire: socket.socket, pids: list[int]
) -> None:
    async with agentd_client.connect("waker", socket=daemon.socket) as me, AsyncExitStack() as opened:
        channel = await halves.channel(me, _NAME, lane, opened)
        print(json.dumps(pids), flush=True)
        await Sender(words, bell, wire, channel.send).run()


def main(name: str, first_core: int, last_core: int, home: Path) -> None:
    """Both halves."""
    lane, _, how = name.partition("/")
    daemon = own.Daemon(home)
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    words = halves.words()
    sender_wire, receiver_wire = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    receiver_pid = halves.split(first_core, last_core)
    if not receiver_pid:
        sender_wire.close()
        asyncio.run(Receiver(how, words, bell, receiver_wire).run(daemon.socket))
        return
    receiver_wire.close()
    try:
        pids = [daemon.pid, os.getpid(), receiver_pid]
        asyncio.run(_send(daemon, lane, words, bell, sender_wire, pids))
    finally:
        daemon.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
