"""HIGH as the application sees it: beside CRITICAL, over rings of its own."""

from __future__ import annotations

import asyncio

import pytest
from daemons import Daemon

from agentd_client import connect, errors

LONG = 20.0


async def test_a_high_message_goes_direct_and_its_receipt_says_so(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        sending = asyncio.create_task(me.send("builder", {"pr": 7}, priority="high", wait="acked", timeout=LONG))
        message = await builder.receive(timeout=LONG)
        assert message is not None
        async with message:
            assert (message.value, message.lane, message.sender) == ({"pr": 7}, "high", "planner")
        receipt = await sending
        assert (receipt.state, receipt.lane, receipt.route) == ("acked", "high", "direct")


async def test_critical_mail_comes_before_high_and_high_before_normal(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        for priority in ("high", "critical"):
            await me.send("builder", priority, priority=priority, route="direct")
            assert (await builder.receive(timeout=LONG)).value == priority  # type: ignore[union-attr]
        for priority in ("normal", "high", "critical"):
            await me.send("builder", priority, priority=priority)
        taken = [await builder.receive(timeout=LONG) for _ in range(3)]
        assert [one.value for one in taken if one] == ["critical", "high", "normal"]


async def test_a_flood_of_critical_mail_does_not_starve_high(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "critical") as critical, me.channel("builder", "high") as high:
            for _ in range(200):
                critical.send("critical")
            high.send("high")
            taken: list[str] = []
            async for message in builder.inbox(window=64):
                async with message:
                    taken.append(str(message.value))
                if len(taken) == 201:
                    break
        assert taken.index("high") < 50


async def test_each_lane_has_a_reader_of_its_own(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        with builder.receiver("high") as receiver:
            with pytest.raises(errors.LaneBusy):
                builder.receiver("high")
            async with me.channel("builder", "high") as high, me.channel("builder", "critical") as critical:
                high.send(b"for the thread")
                critical.send(b"for the inbox")
                message = await asyncio.to_thread(receiver.receive, LONG)
                assert message is not None and (message.body, message.lane) == (b"for the thread", "high")
                other = await builder.receive(timeout=LONG)
                assert other is not None and (other.body, other.lane) == (b"for the inbox", "critical")


async def test_who_is_not_attached_is_relayed(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        sending = asyncio.create_task(me.send("builder", b"x", priority="high", route="relayed", wait="acked"))
        message = await builder.receive(timeout=LONG)
        assert message is not None
        async with message:
            assert (message.lane, message.sender) == ("high", "planner")
        assert ((await sending).route, (await sending).state) == ("relayed", "acked")
