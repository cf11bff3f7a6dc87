"""One process that stores messages of 1 KiB on a disk; low.py drives it.

    python low_ends.py CONTENDER CORE CORE DIRECTORY      told by lines of JSON on stdin, answering on stdout

CONTENDER is one of CONTENDERS. The directory is for what it keeps and for its server, if it has one. No end is pinned:
a message passes through the threads of both. What a message is told of counts: `send(priority="low")` to an agent that
is absent returns when the daemon has it at the level of its configuration; each rival's module says when it does.

{"each": MS}          one after the other, each timed alone: [ns, ...]
{"together": MS}      as many at a time as this contender can have: [how many, ns]; {"alone": MS}: one at a time
{"post": N}           agentd: N by `post`, each 500th ticket awaited, all of them counted afterwards: ns
{"take": [N, ACK]}    agentd: then an agent comes and takes these by `inbox(window=8000)`: ns until it has the last.
                      With ACK each is acked as it comes, else afterwards
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final, Protocol

import own
import uvloop

import agentd_client
from agentd_client import blocking

SIZE_BYTES: Final = 1024
TASKS: Final = 64
#: What fits into the inbox of an absent agent, and is handed out without an ack, by default.
POSTED: Final = 8000
_NUMBER_BYTES: Final = 8
_TO: Final = "taker"
#: Before so many wait there, they are taken: nothing of it is timed.
_MOST: Final = 1000
#: Rivals to their modules.
RIVALS: Final = {
    "sqlite": "rivals.sqlite",
    "sqlite/64 a commit": "rivals.sqlite",
    "lmdb": "rivals.lmdb",
    "lmdb/64 a commit": "rivals.lmdb",
    "redis": "rivals.redis_kept",
    "redis/pipeline": "rivals.redis_kept",
    "jetstream": "rivals.jetstream",
}
OURS: Final = tuple(f"{face}/{level}" for face in ("asyncio", "uvloop", "blocking") for level in ("mapped", "synced"))

Together = tuple[int, int]  # how many, in how many nanoseconds


class Store(Protocol):
    """A rival, running. Each must have the message where a power cut does not reach it before it answers."""

    def each(self, span_ns: int) -> list[int]: ...
    def together(self, span_ns: int) -> Together: ...
    def close(self) -> None: ...


class Rival(Protocol):
    """A module in RIVALS."""

    def missing(self, home: Path) -> str:
        """Why it can't run here, or can't be made to sync; empty when it can."""

    def store(self, mode: str, home: Path) -> Store:
        """`mode` is what is behind the slash of its name."""


def rival(name: str) -> Rival:
    """The module behind a name."""
    module: Rival = importlib.import_module(RIVALS[name])
    return module


def body(number: int) -> bytes:
    """That message."""
    return number.to_bytes(_NUMBER_BYTES, "little").ljust(SIZE_BYTES, b"\xa5")


def timed_each(one: Callable[[], object], span_ns: int) -> list[int]:
    """For a blocking call."""
    took_ns = []
    begin = perf_counter_ns()
    until = begin + span_ns
    while begin < until:
        one()
        end = perf_counter_ns()
        took_ns.append(end - begin)
        begin = end
    return took_ns


async def timed_awaited(one: Callable[[], Awaitable[object]], span_ns: int) -> list[int]:
    """For one that is awaited."""
    took_ns = []
    begin = perf_counter_ns()
    until = begin + span_ns
    while begin < until:
        await one()
        end = perf_counter_ns()
        took_ns.append(end - begin)
        begin = end
    return took_ns


async def timed_together(one: Callable[[], Awaitable[object]], span_ns: int, tasks: int) -> Together:
    """For one that is awaited, in so many tasks."""
    begin = perf_counter_ns()
    until = begin + span_ns

    async def task() -> int:
        count = 0
        while perf_counter_ns() < until:
            await one()
            count += 1
        return count

    counts = await asyncio.gather(*(task() for _ in range(tasks)))
    return sum(counts), perf_counter_ns() - begin


class Sender:
    """What both faces of agentd's client have in common: the daemon, and what waits at the absent agent."""

    def __init__(self, daemon: own.Daemon) -> None:
        self.socket = daemon.socket
        self.sent = self.taken = 0

    def next(self) -> bytes:
        """The body to send."""
        self.sent += 1
        return body(self.sent - 1)

    def stored(self, receipt: Any) -> None:
        """Insist on it."""
        if receipt.state != "stored":
            raise SystemExit(f"A message was {receipt.state}, not stored: {receipt.note}")

    def took(self, message: Any) -> bool:
        """Insist on order; whether that was the last one."""
        if message.body != body(self.taken):
            raise SystemExit(f"{_TO} got another message than number {self.taken}")
        self.taken += 1
        return self.taken == self.sent


class Asynchronous(Sender):
    """On an event loop."""

    async def run(self) -> None:
        async with agentd_client.connect(_TO, socket=self.socket):
            pass  # it is known, and absent
        async with agentd_client.connect("sender", socket=self.socket) as me:

            async def one() -> None:
                self.stored(await me.send(_TO, self.next(), priority="low"))

            say()
            while line := await asyncio.to_thread(sys.stdin.readline):
                ((what, wanted),) = json.loads(line).items()
                if what == "take":
                    say(await self._take(wanted[1]))
                    continue
                if self.sent - self.taken > _MOST or (what == "post" and self.sent > self.taken):
                    await self._take(True)
                if what == "post":
                    say(await self._post(me, wanted))
                elif what == "each":
                    say(await timed_awaited(one, wanted * 1_000_000))
                else:
                    say(await timed_together(one, wanted * 1_000_000, TASKS if what == "together" else 1))

    async def _post(self, me: Any, count: int) -> int:
        bodies = [self.next() for _ in range(count)]
        tickets = []
        begin = perf_counter_ns()
        for number, one in enumerate(bodies, 1):
            ticket = me.post(_TO, one, priority="low")
            if number % own.BATCH == 0 or number == count:
                tickets.append(ticket)
        for ticket in tickets:
            self.stored(await ticket)
        took_ns = perf_counter_ns() - begin
        if (waiting := (await me.look(_TO, limit=1)).total) != count:
            raise SystemExit(f"{count} were stored, {waiting} wait")
        return took_ns

    async def _take(self, ack: bool) -> int:
        kept = []
        async with agentd_client.connect(_TO, socket=self.socket) as me:
            inbox = me.inbox(window=own.WINDOW)
            begin = perf_counter_ns()
            while self.taken < self.sent:
                message = await anext(inbox)
                self.took(message)
                if ack:
                    await message.ack()
                else:
                    kept.append(message)
            took_ns = perf_counter_ns() - begin
            for message in kept:
                await message.ack()
        return took_ns


class Blocking(Sender):
    """On plain threads."""

    def run(self) -> None:
        with blocking.connect(_TO, socket=self.socket):
            pass  # it is known, and absent
        with blocking.connect("sender", socket=self.socket) as me:

            def one() -> None:
                self.stored(me.send(_TO, self.next(), priority="low"))

            say()
            for line in sys.stdin:
                ((_, span_ms),) = json.loads(line).items()
                if self.sent - self.taken > _MOST:
                    self._take()
                say(timed_each(one, span_ms * 1_000_000))

    def _take(self) -> None:
        with blocking.connect(_TO, socket=self.socket) as me:
            for message in me.inbox(window=own.WINDOW):
                last = self.took(message)
                message.ack()
                if last:
                    return


def say(answer: object = None) -> None:
    """One line."""
    print(json.dumps(answer), flush=True)


def _serve_rival(name: str, home: Path) -> None:
    store = rival(name).store(name.partition("/")[2], home)
    try:
        say()
        for line in sys.stdin:
            ((what, span_ms),) = json.loads(line).items()
            say(getattr(store, what)(span_ms * 1_000_000))
    finally:
        store.close()


def main(name: str, home: Path) -> None:
    """Whichever it is."""
    if name in RIVALS:
        _serve_rival(name, home)
        return
    face, _, level = name.partition("/")
    with ExitStack() as undo:
        daemon = own.Daemon(home, {"AGENTD_JOURNAL_LEVEL": level})
        undo.callback(daemon.close)
        if face == "blocking":
            Blocking(daemon).run()
        elif face == "uvloop":
            uvloop.run(Asynchronous(daemon).run())
        else:
            asyncio.run(Asynchronous(daemon).run())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[4]))
