"""What becomes of pairs when agentd ends, in whatever way, and comes back; and of an end that does not."""

from __future__ import annotations

import asyncio

from daemons import Daemon, wait_until
from peers import peer
from test_direct_truth import _pairs

from agentd.host.config import DirectLimits
from agentd.hub.pairs import Pairs
from agentd.hub.session import Session
from agentd.wire.messages import Priority
from agentd_client import connect

LONG = 20.0


class Listed(Session):
    """A session that nobody serves."""


def test_a_daemon_that_follows_soon_gives_other_numbers() -> None:
    limits, ends = DirectLimits(), (Listed(), Listed())
    given: set[int] = set()
    for started in range(1_800_000_000, 1_800_000_060):
        pairs = Pairs(limits, started)
        numbers = {pairs.open(Priority.CRITICAL, *ends, 1).number for _ in range(500)}
        assert not numbers & given
        given |= numbers
        for number in numbers:
            pairs.close(number)


async def test_a_channel_outlives_daemon_after_daemon(daemon: Daemon) -> None:
    with peer(daemon.socket, "worker", "builder") as builder:
        async with connect("planner", socket=daemon.socket, timeout=LONG) as me, me.channel("builder") as channel:
            for number in range(5):
                await asyncio.to_thread(daemon.kill)
                await asyncio.to_thread(daemon.start)
                await asyncio.to_thread(wait_until, lambda: _pairs(daemon) == 3, "for the pair and both relays")
                channel.send(str(number))
                assert await asyncio.to_thread(builder.line) == str(number)
