"""How an asyncio client waits for shared memory: it looks once a turn of its loop, for a while; then it is rung for."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon
from test_direct_truth import held

from agentd.wire.messages import Priority
from agentd_client import Client, _looking, connect
from agentd_client._looking import Looking

LONG = 30.0


class Direct:
    """What it looks into, and a loop whose turns take a microsecond: mail is there after so long."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.due = 0.0
        self.spin_ns = 200_000
        self.closed = False
        self.is_waited_for = False
        self.armed = False
        self.looks = 0
        self.actions: list[Callable[[], None]] = []

    def monotonic(self) -> float:
        return self.now

    def has_mail(self) -> bool:
        self.looks += 1
        return self.now >= self.due

    def arm(self) -> bool:
        self.armed = not self.has_mail()
        return self.armed

    def mail_came(self) -> None:
        self.is_waited_for = False

    def next_turn(self, action: Callable[[], None]) -> None:
        self.actions.append(action)

    def turn(self) -> None:
        self.now += 1e-6
        actions, self.actions = self.actions, []
        for action in actions:
            action()


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> Direct:
    direct = Direct()
    monkeypatch.setattr(_looking, "monotonic", direct.monotonic)
    return direct


def waits(direct: Direct, *after_us: float) -> list[str]:
    """For mail after so long, one after the other: what each was found by."""
    subject: Any = direct
    looking = Looking(subject, direct.next_turn)
    found = []
    for us in after_us:
        direct.due = direct.now + us / 1e6
        direct.is_waited_for, direct.armed = True, False
        looks = looking.begins()
        if not looks:
            direct.arm()
        while direct.is_waited_for and not direct.armed:
            direct.turn()
        found.append("bell after look" if looks and direct.armed else "look" if looks else "bell")
        assert not direct.actions
        direct.now = max(direct.now, direct.due)
    return found


def test_what_comes_soon_is_found_without_a_doorbell(direct: Direct) -> None:
    assert waits(direct, 5, 100, 190) == ["look"] * 3
    assert direct.looks < 400


def test_who_looks_in_vain_looks_less_and_less(direct: Direct) -> None:
    assert waits(direct, *[5000] * 7) == [
        "bell after look",
        "bell after look",
        "bell",
        "bell after look",
        "bell",
        "bell",
        "bell",
    ]
    assert waits(direct, *[5000] * 2000).count("bell after look") < 20


def test_who_finds_something_looks_again(direct: Direct) -> None:
    assert waits(direct, 5000, 5, 5000, 5) == ["bell after look", "look", "bell after look", "look"]


def test_without_a_bound_it_never_looks(direct: Direct) -> None:
    direct.spin_ns = 0
    assert waits(direct, 5, 5) == ["bell", "bell"]


def test_what_comes_through_agentd_makes_it_look_less_too(direct: Direct) -> None:
    subject: Any = direct
    looking = Looking(subject, direct.next_turn)
    direct.due = direct.now + 1.0
    looks = 0
    for _ in range(1000):
        direct.is_waited_for = True
        if looking.begins():
            looks += 1
            assert looking.begins()  # a second one who waits has no look of his own
            assert len(direct.actions) == 1
        direct.is_waited_for = False
        direct.turn()
        assert not direct.actions
    assert not direct.armed
    assert 1 < looks < 20


@asynccontextmanager
async def channel_to(builder: Client, socket: Path, lane: Priority, spin_us: float) -> AsyncIterator[tuple[Any, Any]]:
    """A channel to it, and its part in the direct lanes, which knows how long to look."""
    async with connect("planner", socket=socket) as me, me.channel("builder", lane) as channel:
        direct: Any = builder.conversation.direct
        await held(lambda: direct.spin_ns == spin_us * 1000, "for it to know how long to look")
        yield channel, direct


async def test_a_reply_at_once_is_found_without_a_doorbell(daemon: Daemon, lane: Priority) -> None:
    daemon.config(direct={"spin_us": 1e6})
    async with connect("builder", socket=daemon.socket) as builder:
        async with channel_to(builder, daemon.socket, lane, 1e6) as (channel, direct):
            waiting = asyncio.create_task(builder.receive(timeout=LONG))
            await asyncio.sleep(0)
            channel.send("soon")
            assert not _is_rung(direct, lane)
            message = await waiting
            assert message is not None and message.value == "soon"


async def test_who_waits_long_is_woken_by_a_doorbell(daemon: Daemon, lane: Priority) -> None:
    daemon.config(direct={"spin_us": 1.0})
    async with connect("builder", socket=daemon.socket) as builder:
        async with channel_to(builder, daemon.socket, lane, 1.0) as (channel, direct):
            for number in range(20):
                waiting = asyncio.create_task(builder.receive(timeout=LONG))
                await held(lambda: direct.is_waited_for and not direct._looking._looks, "for it to sleep")
                channel.send(number)
                assert _is_rung(direct, lane)
                message = await waiting
                assert message is not None and message.value == number


async def test_who_is_never_quiet_takes_stock_all_the_same(daemon: Daemon, lane: Priority) -> None:
    """agentd is told what was taken, and pairs whose senders have left are let go of."""
    daemon.config(direct={"spin_us": 1e6})
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", lane) as channel, connect("visitor", socket=daemon.socket) as visitor:
            async with visitor.channel("builder", lane) as passing:
                passing.send("hello")
                assert await builder.receive(timeout=LONG) is not None
            direct = builder.conversation.direct
            assert direct is not None
            reading = direct.readings[lane]

            async def again() -> bool:
                waiting = asyncio.create_task(builder.receive(timeout=LONG))
                await asyncio.sleep(0)
                channel.send("again")
                assert await waiting is not None
                assert not _is_rung(direct, lane)
                senders = {incoming.sender for incoming in direct.incomings(reading)}
                return "visitor" not in senders and reading._told_taken > 1

            until = asyncio.get_running_loop().time() + LONG
            while not await again():
                assert asyncio.get_running_loop().time() < until


async def test_a_receiver_from_before_agentd_knew_the_client_looks_as_long(daemon: Daemon, lane: Priority) -> None:
    daemon.config(direct={"spin_us": 123.0})
    async with connect("builder", socket=daemon.socket) as builder:
        with builder.receiver(lane) as receiver:
            mailbox = receiver._reading.mailbox
            await held(lambda: mailbox.spin_ns == 123_000, "for it to know how long to look")
        assert mailbox.spin_ns == 0


def _is_rung(direct: Any, lane: Priority) -> bool:
    return bool(select.select([direct.readings[lane].mailbox.fileno()], [], [], 0)[0])
