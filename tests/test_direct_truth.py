"""What is said of messages in rings when somebody dies, and that rings go on while the daemon is dead."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon, wait_until
from peers import Peer, peer

from agentd_client import Priority, State, blocking, connect, errors

LONG = 20.0


async def held(condition: Any, what: str) -> None:
    """Wait until it holds, while this loop turns."""
    for _ in range(4000):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"waited in vain {what}")


async def test_a_killed_receivers_unread_are_dead_and_its_unacked_unknown(daemon: Daemon, lane: Priority) -> None:
    with peer(daemon.socket, "sink", "builder", lane) as builder:
        async with connect("planner", socket=daemon.socket) as me:
            taken = [asyncio.create_task(_fate(me, f"taken {n}", lane)) for n in range(2)]
            await asyncio.sleep(0)
            await me.send("builder", "third", priority=lane, timeout=LONG)
            builder.tell("2")
            said = {await asyncio.to_thread(builder.line) for _ in range(2)}
            left = [asyncio.create_task(_fate(me, f"left {n}", lane)) for n in range(3)]
            await asyncio.sleep(0.05)
            builder.kill()
            states = [await task for task in [*taken, *left]]
            assert len(said) == 2
            assert states.count(State.UNKNOWN) == sum(one.startswith("taken") for one in said)
            assert states[2:] == [State.DEAD] * 3


async def _fate(me: Any, body: str, lane: Priority) -> State:
    try:
        return (await me.send("builder", body, priority=lane, wait="acked", timeout=LONG)).state  # type: ignore[no-any-return]
    except errors.Undelivered as error:
        return error.receipt.state  # type: ignore[no-any-return]


@pytest.mark.parametrize("daemon_is", ["alive", "dead"])
async def test_a_channel_counts_what_its_receiver_left(daemon: Daemon, daemon_is: str, lane: Priority) -> None:
    with peer(daemon.socket, "sink", "builder", lane) as builder:
        async with connect("planner", socket=daemon.socket) as me, me.channel("builder", lane) as channel:
            for number in range(10):
                last = channel.send(str(number))
            builder.tell("4")
            assert [await asyncio.to_thread(builder.line) for _ in range(4)] == ["0", "1", "2", "3"]
            if daemon_is == "dead":
                await asyncio.to_thread(daemon.kill)
            builder.kill()
            await held(lambda: channel.state == "closed", "for the end to be seen")
            assert not await channel.delivered(last, timeout=LONG)
            with pytest.raises(errors.ReceiverGone):
                channel.send("more")
            await held(lambda: channel.dead == 6, "for the dead to be counted")
        if daemon_is == "dead":
            await asyncio.to_thread(daemon.start)


async def test_what_was_taken_stays_delivered_when_its_receiver_leaves(daemon: Daemon, lane: Priority) -> None:
    async with connect("planner", socket=daemon.socket) as me:
        channel = me.channel("builder", lane)
        async with connect("builder", socket=daemon.socket) as builder:
            await channel.__aenter__()
            taken, left = channel.send("taken"), channel.send("left")
            assert await builder.receive(timeout=LONG)
        await held(lambda: channel.pair.gone, "for the end to be seen")
        assert await channel.delivered(taken, timeout=LONG)
        assert not await channel.delivered(left, timeout=LONG)


async def test_what_a_killed_sender_wrote_is_read(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as me:
        planner = Peer(daemon.socket, "source", "planner", lane, "builder", "100")
        with closing(planner):
            assert await asyncio.to_thread(planner.line) == "ready"
            planner.tell("go")
            assert await asyncio.to_thread(planner.line) == "written"
            planner.kill()
            taken = [await me.receive(timeout=LONG) for _ in range(100)]
            assert [one.value for one in taken if one] == [str(number) for number in range(100)]
        direct = me.conversation.direct
        assert direct is not None
        mailbox = direct.readings[lane].mailbox
        await held(lambda: all(one.relays for one in mailbox.incomings()), "for the pair to be let go of")
        await asyncio.to_thread(wait_until, lambda: _pairs(daemon) == 1, "for the pair to be gone")  # the relay stays


def _pairs(daemon: Daemon) -> int:
    with blocking.connect(socket=daemon.socket) as me:
        return me.stats().registries["pairs"]["pairs"]


async def test_rings_go_on_while_the_daemon_is_dead_and_after_it_is_back(daemon: Daemon, lane: Priority) -> None:
    with peer(daemon.socket, "worker", "builder", lane) as builder:
        async with connect("planner", socket=daemon.socket, timeout=LONG) as me:
            async with me.channel("builder", lane) as channel:
                said: list[str] = []

                async def exchange(count: int) -> None:
                    for _ in range(count):
                        channel.send(str(len(said)))
                        said.append(await asyncio.to_thread(builder.line))

                await exchange(5)
                await me.send("builder", "open", priority=lane, wait="acked", timeout=LONG)
                assert await asyncio.to_thread(builder.line) == "open"
                await asyncio.to_thread(daemon.kill)
                await exchange(20)
                receipt = await me.send("builder", "acked without it", priority=lane, wait="acked", timeout=LONG)
                assert await asyncio.to_thread(builder.line) == "acked without it"
                await asyncio.to_thread(daemon.start)
                await exchange(20)
                await asyncio.to_thread(wait_until, lambda: _pairs(daemon) >= 1, "for the pair to be believed")
                await exchange(5)
                assert receipt.state is State.ACKED
                assert said == [str(number) for number in range(50)]


async def test_a_pair_that_only_one_end_presents_is_closed(daemon: Daemon, lane: Priority) -> None:
    daemon.config_path.write_text("[direct]\nreturn_s = 0.2\n")
    with peer(daemon.socket, "worker", "builder", lane) as builder:
        async with connect("planner", socket=daemon.socket, timeout=LONG) as me:
            async with me.channel("builder", lane) as channel:
                channel.send("before")
                assert await asyncio.to_thread(builder.line) == "before"
                await asyncio.to_thread(daemon.kill)
                builder.signal(signal.SIGSTOP)  # it can't come back
                await asyncio.to_thread(daemon.start)
                await held(lambda: channel.state == "closed", "for the pair to be closed")
                builder.signal(signal.SIGCONT)
            await held_by(me, builder, lane)


async def held_by(me: Any, builder: Any, lane: Priority) -> None:
    """Afterwards a new channel can be had."""
    for _ in range(200):
        try:
            async with me.channel("builder", lane) as channel:
                channel.send("after")
                assert await asyncio.to_thread(builder.line) == "after"
                return
        except (errors.TryAgain, errors.LaneUnavailable, errors.NoSuchAgent):
            await asyncio.sleep(0.05)
    pytest.fail("no channel after the return")


async def test_a_stopped_receiver_delays_and_loses_nothing(daemon: Daemon, lane: Priority) -> None:
    with peer(daemon.socket, "worker", "builder", lane) as builder:
        async with connect("planner", socket=daemon.socket) as me, me.channel("builder", lane) as channel:
            builder.signal(signal.SIGSTOP)
            for number in range(100):
                position = channel.send(str(number))
            assert not await channel.delivered(position, timeout=0.05)
            builder.signal(signal.SIGCONT)
            assert await channel.delivered(position, timeout=LONG)
            assert [await asyncio.to_thread(builder.line) for _ in range(100)] == [str(n) for n in range(100)]


async def test_leaving_tells_the_other_end(daemon: Daemon, lane: Priority) -> None:
    async with connect("planner", socket=daemon.socket) as me:
        async with connect("builder", socket=daemon.socket) as builder:
            channel = me.channel("builder", lane)
            await channel.__aenter__()
            channel.send("read")
            channel.send("not read")
            assert await builder.receive(timeout=LONG)
        await held(lambda: channel.state == "closed", "for the end to be seen")
        await held(lambda: channel.dead == 1, "for the dead to be counted")
        await channel.__aexit__()


async def test_nothing_is_left_of_clients_that_came_and_went(daemon: Daemon, tmp_path: Path, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder:

        async def round_trip() -> None:
            async with connect("planner", socket=daemon.socket) as me, me.channel("builder", lane) as channel:
                channel.send(b"x")
                assert await builder.receive(timeout=LONG)

        await round_trip()
        fds, maps = _mine(), _maps()
        daemon_fds = daemon.descriptors()
        for _ in range(20):
            await round_trip()
        await held(lambda: _mine() <= fds + 2, "for descriptors to be closed")
        await held(lambda: _maps() <= maps, "for memory to be unmapped")
        await held(lambda: daemon.descriptors() <= daemon_fds, "for the daemon's descriptors")


def _mine() -> int:
    return len(os.listdir("/proc/self/fd"))


def _maps() -> int:
    return Path("/proc/self/maps").read_text().count("agentd-pair")


async def test_what_a_receiver_may_still_read_is_not_dead(daemon: Daemon, lane: Priority) -> None:
    daemon.config_path.write_text("[direct]\nreturn_s = 0.2\n")
    with peer(daemon.socket, "worker", "builder", lane) as builder:
        async with connect("planner", socket=daemon.socket, timeout=LONG) as me, me.channel("builder", lane) as channel:
            channel.send("before")
            assert await asyncio.to_thread(builder.line) == "before"
            await asyncio.to_thread(daemon.kill)
            builder.signal(signal.SIGSTOP)  # it can't come back
            status = Path(f"/proc/{builder.process.pid}/status")
            await asyncio.to_thread(wait_until, lambda: "T (stopped)" in status.read_text())
            channel.send("meanwhile")
            await asyncio.to_thread(daemon.start)
            await held(lambda: channel.unknown == 1, "for the end to be seen")
            assert (channel.state, channel.dead) == ("closed", 0)
            builder.signal(signal.SIGCONT)
            assert await asyncio.to_thread(builder.line) == "meanwhile"


async def test_what_is_left_in_a_channel_that_is_closed_is_read_and_not_dead(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder:
        async with connect("planner", socket=daemon.socket) as me:
            async with me.channel("builder", lane) as channel:
                channel.send("in a channel")
            await me.send("builder", "sent", priority=lane, timeout=LONG)
            ticket = me.post("builder", "posted", priority=lane, wait="acked")
        assert (channel.dead, channel.unknown) == (0, 1)
        assert ticket.outcome().state is State.UNKNOWN
        taken = {(await builder.receive(timeout=LONG)).value for _ in range(3)}  # type: ignore[union-attr]
        assert taken == {"in a channel", "sent", "posted"}


async def test_what_was_delivered_stays_so_when_its_receiver_is_gone(daemon: Daemon, lane: Priority) -> None:
    with peer(daemon.socket, "sink", "builder", lane) as builder:
        async with connect("planner", socket=daemon.socket) as me, me.channel("builder", lane) as channel:
            read, unread = channel.send("read"), channel.send("unread")
            builder.tell("1")
            assert await asyncio.to_thread(builder.line) == "read"
            builder.kill()
            await held(lambda: channel.dead == 1, "for the end to be seen")
            assert await channel.delivered(read, timeout=LONG)
            assert not await channel.delivered(unread, timeout=LONG)


async def test_requests_given_up_take_no_room_from_the_verdicts_of_others(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        await me.send("builder", "opens the channel", priority=lane, timeout=LONG)
        taken = [await builder.receive(timeout=LONG)]
        with pytest.raises(errors.Backpressure, match="wait for builder to finish"):
            while True:
                with pytest.raises(errors.Timeout):
                    await me.request("builder", "?", timeout=0.001, priority=lane, ttl=LONG)
                taken.append(await builder.receive(timeout=LONG))
        assert len(taken) == 64
        for message in taken:
            assert message is not None
            await message.reject("x" * 1000)  # the longest verdicts there are
        sending = asyncio.create_task(me.send("builder", "x", priority=lane, wait="acked", timeout=LONG))
        last = await builder.receive(timeout=LONG)
        assert last is not None
        await last.ack()
        assert (await sending).state is State.ACKED
