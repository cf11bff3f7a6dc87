"""Who goes from ring to ring and who is relayed, as the table of ways says it beforehand: with real pairs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from daemons import Daemon
from test_client_choice import done, told
from test_direct_relay import attached

from agentd.host.config import DirectLimits, MessageLimits
from agentd.wire import records
from agentd_client import Client, blocking, connect, errors

LANES = ["critical", "high"]


async def row(me: Client, to: str, priority: str, **options: Any) -> str:
    """The row that holds for a message."""
    try:
        return (await me.choose(to, "hi", priority=priority, **options)).row
    except errors.AgentdError as error:
        return error.row


@pytest.mark.parametrize("lane", LANES)
async def test_to_ask_attaches_nobody(daemon: Daemon, lane: str) -> None:
    async with connect("builder", socket=daemon.socket), connect("planner", socket=daemon.socket) as me:
        for _ in range(3):
            assert await row(me, "builder", lane) == "direct_attaching"
            assert (await me.stats()).registries["direct"]["attached"] == 0
        assert (await me.send("builder", "hi", priority=lane)).route == "direct"
        assert await row(me, "builder", lane) == "direct"
        assert await row(me, "builder", lane, route="relayed") == "relayed_demanded"


@pytest.mark.parametrize("lane", LANES)
async def test_what_is_told_is_done_between_attached_agents(daemon: Daemon, lane: str) -> None:
    async with connect("builder", socket=daemon.socket), connect("planner", socket=daemon.socket) as me:
        with blocking.connect("plain", take=True, socket=daemon.socket):
            async with connect("gone", socket=daemon.socket):
                pass
            for to in ("builder", "plain", "gone", "nobody"):
                for route in (None, "direct", "relayed", "socket"):
                    for durable in (None, True):
                        options = {"priority": lane, "route": route, "durable": durable}
                        before = await told(me, to, "hi", **options)
                        assert before == await done(me, to, "hi", **options), (to, options)
            assert await row(me, "plain", lane) == "relayed_to_socket"


@pytest.mark.parametrize("lane", LANES)
async def test_requests_go_direct_or_not_at_all(daemon: Daemon, lane: str) -> None:
    async with connect("builder", socket=daemon.socket), connect("planner", socket=daemon.socket) as me:
        with blocking.connect("plain", take=True, socket=daemon.socket):
            assert await row(me, "builder", lane, verb="request") == "direct_attaching"
            for to, route in (("plain", None), ("gone", None), ("builder", "relayed"), ("builder", "socket")):
                options: Any = {"priority": lane, "route": route}
                with pytest.raises(errors.AgentdError) as refused:
                    await me.request(to, "?", timeout=20.0, **options)
                with pytest.raises(type(refused.value)) as foretold:
                    await me.choose(to, "?", verb="request", **options)
                assert str(foretold.value) == str(refused.value)


OPTIONS = [{}, {"ttl": 600.0}, {"headers": {"a": "b" * 90}}, {"hops": 3, "ttl": 600.0}, {"re": 77}]


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("options", OPTIONS)
async def test_the_largest_body_is_known_to_the_byte(daemon: Daemon, options: dict[str, Any], lane: str) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        builder.on_critical(lambda message: None)
        await attached(builder)
        for route in ("direct", "relayed"):
            how = {**options, "priority": lane, "route": route}
            most = records.max_body_bytes(DirectLimits().critical_bytes)
            if lane == "high":  # by way of the pool, which takes all that there may be
                most = MessageLimits().max_body_bytes
            fits, over = 0, most + 1
            while over - fits > 1:
                size = (fits + over) // 2
                if (await told(me, "builder", b"x" * size, **how))[0] == "too_large":
                    over = size
                else:
                    fits = size
            assert most - 300 < fits <= most
            assert await done(me, "builder", b"x" * fits, **how) == (lane, route)
            assert (await done(me, "builder", b"x" * over, **how))[0] == "too_large"


@pytest.mark.parametrize("lane", LANES)
async def test_a_blocking_client_is_relayed_first_and_direct_then(daemon: Daemon, lane: str) -> None:
    async with connect("builder", socket=daemon.socket) as builder:

        def talk() -> list[tuple[str, object]]:
            said: list[tuple[str, object]] = []
            with blocking.connect("planner", socket=daemon.socket) as me:
                for _ in range(3):
                    view = me.choose("builder", "hi", priority=lane)
                    receipt = me.send("builder", "hi", priority=lane)
                    assert view.route == receipt.route
                    said.append((view.row, receipt.route))
            return said

        assert await asyncio.to_thread(talk) == [
            ("relayed_attaching", "relayed"),
            ("direct", "direct"),
            ("direct", "direct"),
        ]
        assert builder.name == "builder"


async def test_without_shared_memory_the_lane_is_closed_to_all(daemon: Daemon) -> None:
    daemon.stop()
    daemon.config_path.write_text("[direct]\nenabled = false\n")
    daemon.start()
    async with connect("builder", socket=daemon.socket), connect("planner", socket=daemon.socket) as me:
        for options in ({}, {"durable": True}, {"route": "relayed"}):
            before = await told(me, "builder", "hi", priority="critical", **options)
            assert before == await done(me, "builder", "hi", priority="critical", **options)
            assert before[0] == "lane_unavailable" and "direct.enabled is false" in str(before[1])
        assert await row(me, "builder", "critical") == "closed"
