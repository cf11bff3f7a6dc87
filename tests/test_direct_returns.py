"""What becomes of pairs when agentd ends, in whatever way, and comes back; and of an end that does not."""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon, wait_until
from peers import peer
from test_direct_truth import _pairs, held

from agentd.host.config import DirectLimits
from agentd.hub.pairs import Pairs
from agentd.hub.session import Session
from agentd.wire.messages import Priority
from agentd_client import State, blocking, connect, errors
from agentd_client.receipt import Call

LONG = 20.0


class Listed(Session):
    """A session that nobody serves."""


def test_a_daemon_that_follows_soon_gives_other_numbers(lane: Priority) -> None:
    limits, ends = DirectLimits(), (Listed(), Listed())
    given: set[int] = set()
    for started in range(1_800_000_000, 1_800_000_060):
        pairs = Pairs(limits, started)
        numbers = {pairs.open(lane, *ends, 1).number for _ in range(500)}
        assert not numbers & given
        given |= numbers
        for number in numbers:
            pairs.close(number)


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_a_channel_outlives_daemon_after_daemon(daemon: Daemon, end: str, lane: Priority) -> None:
    with peer(daemon.socket, "worker", "builder", lane) as builder:
        async with connect("planner", socket=daemon.socket, timeout=LONG) as me, me.channel("builder", lane) as channel:
            for number in range(5):
                await asyncio.to_thread(getattr(daemon, end))
                await asyncio.to_thread(daemon.start)
                await asyncio.to_thread(wait_until, lambda: _pairs(daemon) == 3, "for the pair and both relays")
                channel.send(str(number))
                assert await asyncio.to_thread(builder.line) == str(number)
                (view,) = [view for view in (await me.status()).lanes if view.lane is lane]
                assert ", 1 pair; " in view.reason


async def test_what_was_relayed_and_may_be_read_is_unknown_when_agentd_stops(daemon: Daemon, lane: Priority) -> None:
    with peer(daemon.socket, "sink", "builder", lane) as builder:
        async with connect("planner", socket=daemon.socket, timeout=LONG) as me:
            options: Any = {"priority": lane, "route": "relayed", "timeout": LONG}
            await me.send("builder", "opens the ring", **options)
            sending = asyncio.create_task(me.send("builder", "relayed", wait="acked", **options))
            await asyncio.to_thread(wait_until, lambda: _relayed(daemon) == 2, "for it to be written")
            await asyncio.to_thread(daemon.stop)
            assert (await sending).state is State.UNKNOWN
            builder.tell("2")
            assert [await asyncio.to_thread(builder.line) for _ in range(2)] == ["opens the ring", "relayed"]
            await asyncio.to_thread(daemon.start)


async def test_what_was_relayed_to_one_that_is_killed_is_dead(daemon: Daemon, lane: Priority) -> None:
    with peer(daemon.socket, "sink", "builder", lane) as builder:
        async with connect("planner", socket=daemon.socket, timeout=LONG) as me:
            options: Any = {"priority": lane, "route": "relayed", "timeout": LONG}
            await me.send("builder", "opens the ring", **options)
            sending = asyncio.create_task(me.send("builder", "relayed", wait="acked", **options))
            await asyncio.to_thread(wait_until, lambda: _relayed(daemon) == 2, "for it to be written")
            builder.kill()
            with pytest.raises(errors.Undelivered) as caught:
                await sending
            assert caught.value.receipt.state is State.DEAD


def _relayed(daemon: Daemon) -> int:
    with blocking.connect(socket=daemon.socket) as me:
        return me.stats().registries["direct"]["relayed"]


async def test_who_attaches_again_and_again_is_rung_and_keeps_no_bells(daemon: Daemon, lane: Priority) -> None:
    daemon.config(direct={"spin_us": 0.0})  # or it would look for what is to ring
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", lane) as channel:
            direct = builder.conversation.direct
            assert direct is not None
            before = len(os.listdir("/proc/self/fd"))
            for number in range(40):
                direct.attached = Call(0)
                direct.renew()
                await held(lambda: direct.attached.settled, "for it to be attached")
                waiting = asyncio.create_task(builder.receive(timeout=LONG))
                await asyncio.sleep(0)
                channel.send(number)
                assert (await waiting).value == number  # type: ignore[union-attr]
            # The bells of the last renewals are closed by the threads, each in its own time.
            await held(lambda: len(os.listdir("/proc/self/fd")) <= before + 6, "for the bells of earlier ones to go")
            direct.arm()
            assert not select.select([direct.readings[lane].mailbox.fileno()], [], [], 0)[0], "it is rung for ever"


def test_a_blocking_client_that_only_receives_comes_back_with_its_daemon(daemon: Daemon, lane: Priority) -> None:
    with blocking.connect("builder", socket=daemon.socket) as me, me.receiver(lane) as receiver:
        daemon.kill()
        daemon.start()
        sender = threading.Thread(target=_send_until_it_is_back, args=(daemon.socket, lane))
        sender.start()
        message = receiver.receive(timeout=60.0)
        assert message is not None and message.value == "back?"
        message.ack()
        sender.join(60.0)
        assert not sender.is_alive()


def _send_until_it_is_back(socket: Path, lane: Priority) -> None:
    with blocking.connect("planner", socket=socket) as me:
        for _ in range(2000):
            try:
                assert me.send("builder", "back?", priority=lane, wait="acked", timeout=60.0).state == "acked"
                return
            except (errors.Absent, errors.NoSuchAgent):
                time.sleep(0.01)
        raise AssertionError("it has not come back")
