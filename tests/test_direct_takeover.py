"""Another session takes over a name: from then on no message of a direct lane reaches the one that had it."""

from __future__ import annotations

import asyncio
import threading

import pytest
from daemons import Daemon
from test_direct_truth import held

from agentd_client import Priority, State, connect, errors

LONG = 20.0


async def test_who_is_displaced_reads_no_ring_any_more(daemon: Daemon, lane: Priority) -> None:
    async with connect("planner", socket=daemon.socket) as me, connect("builder", socket=daemon.socket) as old:
        receiver = old.receiver(lane)
        await me.send("builder", "first", priority=lane, timeout=LONG)
        assert await asyncio.to_thread(receiver.receive, LONG)
        async with me.channel("builder", lane) as channel:
            async with connect("builder", socket=daemon.socket, replace=True) as new:
                await held(lambda: channel.state == "closed", "for the channel to be over")
                for number in range(3):
                    route = "relayed" if number == 1 else None
                    await me.send("builder", number, priority=lane, route=route, timeout=LONG)
                    assert (await new.receive(timeout=LONG)).value == number  # type: ignore[union-attr]
                with pytest.raises((ValueError, RuntimeError)):
                    receiver.receive(timeout=0)
                with pytest.raises(errors.NameInUse):
                    await old.receive(timeout=0)
                with pytest.raises(errors.NameInUse):
                    old.receiver(lane)
                assert (await old.send("planner", "it still sends", timeout=LONG)).state is State.ACCEPTED


async def test_what_the_displaced_had_not_taken_is_dead_and_never_seen(daemon: Daemon, lane: Priority) -> None:
    async with connect("planner", socket=daemon.socket) as me, connect("builder", socket=daemon.socket) as old:
        first = await me.send("builder", "opens the channel", priority=lane, timeout=LONG)
        assert first.state is State.ACCEPTED
        async with me.channel("builder", lane) as channel:
            for number in range(5):
                channel.send(number)
            async with connect("builder", socket=daemon.socket, replace=True):
                await held(lambda: channel.dead == 5, "for the dead to be counted")
                with pytest.raises(errors.NameInUse):
                    await old.receive(timeout=0)


async def test_a_thread_that_waits_comes_back_when_its_name_is_taken(daemon: Daemon, lane: Priority) -> None:
    seen: list[object] = []
    async with connect("builder", socket=daemon.socket) as old:

        def read() -> None:
            with pytest.raises((ValueError, RuntimeError)):
                while True:
                    seen.append(receiver.receive())

        receiver = old.receiver(lane)
        thread = threading.Thread(target=read)
        thread.start()
        async with connect("builder", socket=daemon.socket, replace=True):
            await asyncio.to_thread(thread.join, LONG)
        assert not thread.is_alive()
        assert set(seen) <= {None}
