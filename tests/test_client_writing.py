"""The asyncio client writes as soon as there is enough, not when its loop turns: the daemon works beside it."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import uvloop
from daemons import Daemon

from agentd_client import blocking, connect
from agentd_client.client import Ticket

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
#: Of 1 KiB: more than any socket and any transport holds.
MANY = 2000


@pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "uvloop"])
def test_what_a_loop_posts_that_does_not_turn_is_on_its_way(
    daemon: Daemon, new_loop: type[asyncio.AbstractEventLoop]
) -> None:
    async def main() -> int:
        async with connect("planner", socket=daemon.socket) as me:
            tickets: list[Ticket] = []

            def post(count: int) -> None:
                for _ in range(count):
                    number = len(tickets)
                    tickets.append(me.post("builder", number.to_bytes(4, "little") * 256))

            with blocking.connect("builder", take=False, socket=daemon.socket) as witness:
                post(MANY)
                while witness.look("builder").total < MANY - 100:
                    post(1)  # Backpressure ends it where nothing is written
            for ticket in tickets:
                await ticket
            return len(tickets)

    with blocking.connect("builder", socket=daemon.socket):
        pass
    with asyncio.Runner(loop_factory=new_loop) as runner:
        sent = runner.run(main())
    with blocking.connect("builder", socket=daemon.socket) as builder:
        for number in range(sent):
            message = builder.receive(timeout=30)
            assert message is not None
            assert message.body == number.to_bytes(4, "little") * 256
            message.ack()


@pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "uvloop"])
def test_small_and_large_ones_keep_their_order_while_the_daemon_does_not_read(
    daemon: Daemon, new_loop: type[asyncio.AbstractEventLoop]
) -> None:
    sizes = [10, 200_000, 5000, 1, 70_000, 30_000, 2_000_000, 7] * 6

    async def main() -> None:
        async with connect("planner", socket=daemon.socket) as me, connect("builder", socket=daemon.socket) as builder:
            os.kill(daemon.pid, signal.SIGSTOP)
            try:
                tickets = []
                for turn in range(len(sizes)):
                    tickets.append(me.post("builder", bytes([turn]) * sizes[turn]))
                    if turn % 3 == 0:
                        await asyncio.sleep(0)
            finally:
                os.kill(daemon.pid, signal.SIGCONT)
            for ticket in tickets:
                await ticket
            for turn, size in enumerate(sizes):
                message = await builder.receive(timeout=30)
                assert message is not None
                assert message.body == bytes([turn]) * size
                await message.ack()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
