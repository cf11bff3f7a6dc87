"""A flood on one lane beside traffic on another: LOW still drains, CRITICAL is neither lost nor refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from daemons import Daemon, wait_until
from raw import Raw, Refused

from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.messages import Accepted, Error, Message, Options
from agentd_client import Priority, blocking, connect

LONG = 90.0  # a watchdog: every sender of a flood waits for its turn, and so do these
MAIL = 60
LOW = Options(Priority.LOW, allow_absent=True)
NORMAL = Options()
BATCH = 100


class Flood(threading.Thread):
    """One sender that sends as fast as the daemon takes it, whether that is refused or not."""

    def __init__(self, daemon: Daemon, name: str, to: str, options: Options, size_bytes: int = 0) -> None:
        super().__init__()
        self.taken = self.refused = 0
        self._raw = Raw(daemon.socket, name)
        self._to, self._options, self._body = to, options, bytes(size_bytes)
        self._over = threading.Event()

    def run(self) -> None:
        with self._raw as me:
            cid = 1
            while not self._over.is_set():
                me.say(*(wire.Send(cid + n, self._to, Content.BYTES, self._body, self._options) for n in range(BATCH)))
                for n in range(BATCH):
                    try:
                        me.answer(cid + n)
                        self.taken += 1
                    except Refused as refused:
                        assert refused.error.retryable, refused
                        self.refused += 1
                cid += BATCH

    def end(self) -> None:
        self._over.set()
        self.join()


@contextmanager
def flooding(*floods: Flood) -> Iterator[None]:
    """From when each has begun until the end."""
    for flood in floods:
        flood.start()
    try:
        for flood in floods:
            wait_until(lambda flood=flood: flood.taken or flood.refused, "for the flood")  # type: ignore[misc]
        yield
    finally:
        for flood in floods:
            flood.end()


def set_up(daemon: Daemon, **sections: dict[str, Any]) -> None:
    """Rates are off: what holds is what each lane does."""
    daemon.config(rate={"messages_per_s": 0}, **sections)


class Taker(threading.Thread):
    """Takes and acks whatever comes, until it has so many of the lane low."""

    def __init__(self, daemon: Daemon, name: str, wanted: int) -> None:
        super().__init__()
        self.low: list[int] = []
        self.others_before: list[int] = []  # of each of these
        self._raw = Raw(daemon.socket, name, take=True)
        self._wanted = wanted

    def run(self) -> None:
        others = 0
        with self._raw as me, suppress(OSError, EOFError):
            me.take(100)
            while len(self.low) < self._wanted:
                message = me.until(Message)
                if message.lane is Priority.LOW:
                    self.low.append(int.from_bytes(message.body, "little"))
                    self.others_before.append(others)
                else:
                    others += 1
                me.say(wire.Ack(0, [message.id]), wire.Receive(0, 1))


@pytest.mark.parametrize("to", ["sink", "other"])
def test_low_drains_under_a_flood_of_normal(daemon: Daemon, to: str) -> None:
    """To the same agent too, whose inbox is full most of the time: every sender waits its turn there."""
    set_up(daemon, inbox={"max_messages": 500})
    taker = Taker(daemon, "sink", MAIL)
    with Raw(daemon.socket, "other"), Raw(daemon.socket, "planner") as me:
        floods = [Flood(daemon, f"flood-{number}", to, NORMAL) for number in range(2)]
        with flooding(*floods):
            taker.start()
            for number in range(MAIL):
                while isinstance(answer := answered(me, number), Error):
                    assert answer.code == "backpressure"
            taker.join(LONG)
            assert taker.low == list(range(MAIL))
            before = [flood.taken + flood.refused for flood in floods]
            wait_until(lambda: all(f.taken + f.refused > n for f, n in zip(floods, before, strict=True)))
    assert to == "other" or taker.others_before[-1] > MAIL


def answered(me: Raw, number: int) -> Accepted | Error:
    try:
        answer: Accepted = me.ask(wire.Send(0, "sink", Content.BYTES, number.to_bytes(4, "little"), LOW))
        return answer
    except Refused as refused:
        return refused.error


def test_what_waited_on_low_comes_before_a_flood_that_came_later(daemon: Daemon) -> None:
    """One inbox is one order, that of the ids: nothing that comes later on a faster lane can hold it up."""
    set_up(daemon)
    with Raw(daemon.socket, "planner") as me:
        for number in range(200):
            assert isinstance(answered(me, number), Accepted)
        taker = Taker(daemon, "sink", 200)
        with flooding(Flood(daemon, "flood", "sink", NORMAL)):
            taker.start()
            taker.join(LONG)
    assert taker.low == list(range(200)) and taker.others_before == [0] * 200


@pytest.mark.parametrize("route", ["direct", "relayed"])
@pytest.mark.parametrize("disk", ["free", "full"])
async def test_a_flood_of_low_loses_and_refuses_nothing_critical(daemon: Daemon, route: str, disk: str) -> None:
    """The channel too is opened beside it, and the disk may be full."""
    room = {"max_bytes": 4 << 20} if disk == "full" else {}
    set_up(daemon, journal={"segment_bytes": 1 << 20, "min_free_bytes": 0, **room}, inbox={"max_bytes": 1 << 30})
    flood = Flood(daemon, "flood", "store", LOW, 20_000)
    got: list[Any] = []

    def send() -> None:
        with blocking.connect("planner", socket=daemon.socket) as me:
            for number in range(1000):
                me.send("builder", number, priority=Priority.CRITICAL, route=route, timeout=LONG)

    with flooding(flood):
        if disk == "full":
            await asyncio.to_thread(wait_until, lambda: flood.refused, "for the disk to be full")
        async with connect("builder", socket=daemon.socket) as builder:
            builder.on_critical(lambda message: got.append(message.value))
            await asyncio.to_thread(send)
            await asyncio.to_thread(wait_until, lambda: len(got) == 1000, "for all of it")
            before = flood.taken + flood.refused
            await asyncio.to_thread(wait_until, lambda: flood.taken + flood.refused > before, "the flood goes on")
    assert got == list(range(1000))
