"""How a sender of the high lane submits: doorbells together, cores leased, and what agentd counts of it."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import Agentctl
from daemons import Daemon, wait_until

from agentd import _native
from agentd.hub.session import Session
from agentd.server.leases import Leases
from agentd_client import blocking, connect, errors

LONG = 20.0
RINGS = not _native.io_uring_errno()


def high_lane(agentctl: Agentctl) -> dict[str, object]:
    """As `agentctl lanes --json` shows it."""
    lanes = agentctl("lanes", "--json", status=0).json["lanes"]
    found: dict[str, object] = next(lane for lane in lanes if lane["lane"] == "high")
    return found


@pytest.mark.skipif(not RINGS, reason="no io_uring here")
async def test_a_burst_rings_several_sleepers_in_one_submission(daemon: Daemon, agentctl: Agentctl) -> None:
    names = [f"builder-{number}" for number in range(4)]
    async with connect("planner", socket=daemon.socket) as me:
        builders = [await connect(name, socket=daemon.socket).__aenter__() for name in names]
        channels = [await me.channel(name, "high").__aenter__() for name in names]
        waiting = [asyncio.create_task(builder.receive(timeout=LONG)) for builder in builders]
        for builder in builders:
            await asyncio.to_thread(wait_until, partial(sleeps, builder), "for it to sleep")
        before = counts(me)
        with channels[0].burst():
            for channel in channels:
                channel.send(b"now")
            assert counts(me)["by_engine"] == before["by_engine"]
        after = counts(me)
        assert (after["by_engine"] - before["by_engine"], after["submissions"] - before["submissions"]) == (4, 1)
        for message in await asyncio.gather(*waiting):
            assert message is not None and message.body == b"now"
        await asyncio.to_thread(
            wait_until, lambda: high_lane(agentctl)["operations"] == {"doorbell": 4}, "for agentd to have heard"
        )
        for channel in channels:
            await channel.__aexit__()
        for builder in builders:
            await builder.__aexit__(None)


def sleeps(builder: Any) -> bool:
    """Somebody waits for mail there, and it has looked for some in vain."""
    waiters, direct = builder.conversation.mail.waiters, builder.conversation.direct
    return bool(waiters) and (direct is None or not direct._looking._looks)


def counts(me: object) -> dict[str, int]:
    """What its doorbells count."""
    found: dict[str, int] = me.conversation.direct.submission.doorbells.counts()  # type: ignore[attr-defined]
    return found


def test_a_blocking_client_has_bursts_too(daemon: Daemon) -> None:
    with blocking.connect("builder", socket=daemon.socket) as builder, builder.receiver("high") as receiver:
        with blocking.connect("planner", socket=daemon.socket) as me, me.channel("builder", "high") as channel:
            with channel.burst():
                for number in range(200):
                    channel.send(number)
            taken = [receiver.receive(LONG) for _ in range(200)]
            assert [one.value for one in taken if one] == list(range(200))


async def asleep(builder: Any) -> asyncio.Task[Any]:
    """It waits for a message, and its receiving end sleeps."""
    task = asyncio.create_task(builder.receive(timeout=LONG))
    await asyncio.to_thread(wait_until, partial(sleeps, builder), "for it to sleep")
    return task


async def test_who_waits_in_a_burst_for_what_was_sent_in_it_does_not_wait_for_its_end(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel:
            for wait in ("channel", "send"):
                receiving = await asleep(builder)
                with channel.burst():
                    if wait == "channel":
                        assert await channel.delivered(channel.send(b"now"), timeout=LONG)
                    else:
                        await me.send("builder", b"now", priority="high", wait="delivered", timeout=LONG)
                assert (await receiving).body == b"now"


async def test_a_burst_whose_program_waits_holds_nobody_up(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel:
            with channel.burst():
                for body in (b"before the first turn", b"later"):
                    receiving = await asleep(builder)
                    channel.send(body)
                    assert (await receiving).body == body
            assert counts(me)["bursts"] == 1


async def test_the_wait_for_a_delivery_in_a_burst_of_a_blocking_client(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as builder:
        receiving = await asleep(builder)

        def send() -> bool:
            with blocking.connect("planner", socket=daemon.socket) as me, me.channel("builder", "high") as channel:
                with channel.burst():
                    return channel.delivered(channel.send(b"now"), timeout=LONG)

        assert await asyncio.to_thread(send)
        assert (await receiving).body == b"now"


async def test_a_channel_that_is_closed_has_no_bursts_and_no_loans(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket), connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel:
            with (loan := channel.loan(10)):
                pass
            with pytest.raises(ValueError, match="take another"):
                loan.__enter__()
        with pytest.raises(RuntimeError, match="not open"):
            channel.burst()
        with pytest.raises(RuntimeError, match="not open"):
            channel.loan(10)


@pytest.mark.skipif(not RINGS, reason="no io_uring here")
async def test_another_thread_is_told_to_connect_anew(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket), connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel:
            with pytest.raises(RuntimeError, match="belongs to the thread that opened it"):
                await asyncio.to_thread(channel.send, b"x")


async def test_a_critical_channel_has_no_bursts_and_no_loans(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket), connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder") as channel:
            with pytest.raises(errors.NotOnThisLane):
                channel.burst()
            with pytest.raises(errors.NotOnThisLane):
                channel.loan(10)


def configured(daemon: Daemon, text: str) -> None:
    """Start it anew with that."""
    daemon.stop()
    Path(daemon.config_path).write_text(text)
    daemon.start()


@pytest.mark.skipif(not RINGS, reason="no io_uring here")
async def test_a_core_for_the_kernels_thread_is_one_senders(daemon: Daemon, agentctl: Agentctl) -> None:
    configured(daemon, "[high]\nsqpoll_cores = [0]\n")
    async with (
        connect("builder", socket=daemon.socket) as builder,
        connect("first", socket=daemon.socket) as first,
    ):
        async with first.channel("builder", "high") as one:
            one.send(b"1")
            assert (await builder.receive(timeout=LONG)).body == b"1"  # type: ignore[union-attr]
            assert "core 0: first" in str(high_lane(agentctl)["reason"])
            async with connect("second", socket=daemon.socket) as second, second.channel("builder", "high") as two:
                two.send(b"2")
                assert (await builder.receive(timeout=LONG)).body == b"2"  # type: ignore[union-attr]
                assert "second without" in str(high_lane(agentctl)["reason"])
    await asyncio.to_thread(wait_until, lambda: "core 0" not in str(high_lane(agentctl)["reason"]), "for it to be free")


@pytest.mark.skipif(not RINGS, reason="no io_uring here")
async def test_a_core_stays_its_senders_when_agentd_is_killed(daemon: Daemon, agentctl: Agentctl) -> None:
    configured(daemon, "[high]\nsqpoll_cores = [0, 1]\n")
    async with (
        connect("builder", socket=daemon.socket) as builder,
        connect("first", socket=daemon.socket, timeout=LONG) as first,
        connect("second", socket=daemon.socket, timeout=LONG) as second,
        first.channel("builder", "high"),
        second.channel("builder", "high"),
    ):
        await asyncio.to_thread(daemon.kill)
        await asyncio.to_thread(daemon.start)

        def all_are_back() -> bool:
            reason = str(high_lane(agentctl)["reason"])
            agents = agentctl("agents", "--json", status=0).json["agents"]
            live = {agent["name"] for agent in agents if agent["live"]}
            return "builder" in live and "core 0: first; core 1: second" in reason

        await asyncio.to_thread(wait_until, all_are_back, "for builder and both senders")
        async with connect("third", socket=daemon.socket) as third, third.channel("builder", "high") as three:
            assert "third without: each of high.sqpoll_cores is another's" in str(high_lane(agentctl)["reason"])
            three.send(b"x")
            assert (await builder.receive(timeout=LONG)).body == b"x"  # type: ignore[union-attr]


def test_a_core_that_is_not_on_the_list_any_more_is_named() -> None:
    leases, session = Leases([1]), Session()
    session.name = "first"
    assert (leases.acquire(session, [0]), len(leases)) == ([], 0)
    assert "core 0, which it has still, is not its own any more" in leases.shown()
    assert (leases.acquire(session, [1]), leases.acquire(session, []), leases.acquire(Session(), [1])) == ([1], [1], [])


@pytest.mark.skipif(not RINGS, reason="no io_uring here")
async def test_a_core_that_there_is_not_is_given_back_and_named(daemon: Daemon, agentctl: Agentctl) -> None:
    configured(daemon, "[high]\nsqpoll_cores = [4000]\n")
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel:
            channel.send(b"x")
            assert (await builder.receive(timeout=LONG)).body == b"x"  # type: ignore[union-attr]
            assert "planner without: core 4000" in str(high_lane(agentctl)["reason"])


async def test_io_uring_can_be_switched_off(daemon: Daemon, agentctl: Agentctl) -> None:
    configured(daemon, "[high]\nio_uring = false\n")
    assert "high.io_uring is false" in str(high_lane(agentctl)["reason"])
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel:
            with channel.burst():
                channel.send(b"x")
            assert (await builder.receive(timeout=LONG)).body == b"x"  # type: ignore[union-attr]
            assert counts(me)["by_engine"] == 0
