"""Relayed into a ring: what those without shared memory send to an agent that reads one."""

from __future__ import annotations

import asyncio
import errno
import threading
from typing import Any

import pytest
from commands import Agentctl
from daemons import Daemon
from peers import peer

from agentd.lanes.relay import Relay
from agentd_client import Client, Priority, State, blocking, connect, errors

LONG = 20.0


async def attached(me: Client) -> None:
    """Wait until the daemon has an end of its own into this client's ring."""
    for _ in range(2000):
        if (await me.stats()).registries["direct"]["relays"]:
            return
        await asyncio.sleep(0.005)
    pytest.fail("no relay")


async def test_agentctl_reaches_a_handler(daemon: Daemon, agentctl: Agentctl) -> None:
    async with connect("builder", socket=daemon.socket) as builder:
        handled = asyncio.Queue[tuple[object, str, str, Priority]]()
        loop = asyncio.get_running_loop()
        builder.on_critical(
            lambda message: loop.call_soon_threadsafe(
                handled.put_nowait, (message.value, message.sender, message.provenance, message.lane)
            )
        )
        await attached(builder)
        sent = await asyncio.to_thread(
            lambda: agentctl(
                *("send", "builder", '{"stop": 1}', "--priority", "critical", "--wait", "acked", "--json"),
                name="planner",
                status=0,
            )
        )
        assert (sent.json["state"], sent.json["route"], sent.json["lane"]) == ("acked", "relayed", "critical")
        value, sender, provenance, lane = await asyncio.wait_for(handled.get(), LONG)
        assert (value, sender, lane) == ({"stop": 1}, "planner", Priority.CRITICAL)
        assert "agentd.cli" in provenance
        trace = agentctl("trace", sent.json["id"], "--json", status=0).json
        assert (trace["route"], [step["state"] for step in trace["transitions"]]) == (
            "relayed",
            ["accepted", "delivered", "acked"],
        )


async def test_its_end_comes_back_to_who_waits(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder:
        with builder.receiver(lane) as receiver:
            await attached(builder)
            outcomes: dict[str, object] = {}

            def send(body: str, wait: str) -> None:
                with blocking.connect("planner", socket=daemon.socket) as me:
                    try:
                        receipt = me.send("builder", body, priority=lane, wait=wait, timeout=LONG)
                        outcomes[body] = (receipt.state, receipt.route)
                    except errors.Undelivered as error:
                        outcomes[body] = (error.receipt.state, error.receipt.note)

            async def send_and_take(body: str, wait: str, how: str) -> None:
                thread = threading.Thread(target=send, args=(body, wait))
                thread.start()
                message = await asyncio.to_thread(receiver.receive, LONG)
                assert message is not None and message.value == body
                if how:
                    getattr(message, how)()
                await asyncio.to_thread(thread.join, LONG)

            await send_and_take("a", "delivered", "")
            await send_and_take("b", "acked", "ack")
            await send_and_take("c", "acked", "reject")
            assert outcomes == {
                "a": (State.DELIVERED, "relayed"),
                "b": (State.ACKED, "relayed"),
                "c": (State.DEAD, "rejected"),
            }


def test_a_full_ring_is_the_callers_backpressure(daemon: Daemon, lane: Priority) -> None:
    with (
        peer(daemon.socket, "sink", "builder", lane) as builder,
        blocking.connect("planner", socket=daemon.socket) as me,
    ):
        me.send("builder", b"first", priority=lane, route="relayed", timeout=LONG)  # which makes the way there
        sent = 0
        with pytest.raises(errors.Backpressure, match=r"ring is full|wait for builder to finish"):
            while True:
                me.send("builder", b"x" * 16_000, priority=lane, route="relayed", timeout=0.05)
                sent += 1
        assert 5 < sent < 64  # what a ring holds: nothing is kept elsewhere
        assert me.look("builder").total == 0
        builder.tell("1")
        assert builder.line()
        me.send("builder", b"again", priority=lane, route="relayed", timeout=LONG)


async def test_a_killed_receivers_relayed_messages_are_dead_or_unknown(daemon: Daemon, lane: Priority) -> None:
    with peer(daemon.socket, "sink", "builder", lane) as builder:
        states: dict[str, State] = {}

        def send(body: str) -> None:
            with blocking.connect(socket=daemon.socket) as me:
                try:
                    states[body] = me.send("builder", body, priority=lane, wait="acked", timeout=LONG).state
                except errors.Undelivered as error:
                    states[body] = error.receipt.state

        threads = [threading.Thread(target=send, args=(body,)) for body in ("taken", "left")]
        async with connect("watcher", socket=daemon.socket) as me:
            await attached(me)
            for number, thread in enumerate(threads):
                thread.start()
                while (await me.stats()).registries["direct"]["relayed"] <= number:
                    await asyncio.sleep(0.005)
            builder.tell("1")
            assert await asyncio.to_thread(builder.line) == "taken"
            builder.kill()
            for thread in threads:
                await asyncio.to_thread(thread.join, LONG)
        assert states == {"taken": State.UNKNOWN, "left": State.DEAD}


class Refusing:
    """A channel that takes nothing."""

    max_inline_bytes = 1000
    max_body_bytes = 10_000

    def __init__(self, lent: int) -> None:
        self.lent = lent


@pytest.mark.parametrize(
    ("error", "size", "lent", "code", "said"),
    [
        (errno.EAGAIN, 10, 3, "backpressure", "ring is full"),
        (errno.EAGAIN, 2000, 3, "backpressure", "keeps so many large bodies"),
        (errno.EAGAIN, 2000, 0, "backpressure", "ring is full"),
        (errno.ENOMEM, 2000, 0, "limit_reached", "No memory for a body of 2000 bytes"),
        (errno.ENOSPC, 2000, 0, "limit_reached", "No memory"),
        (errno.EBUSY, 10, 0, "backpressure", "is paused"),
        (errno.ESHUTDOWN, 10, 0, "absent", "has left"),
    ],
)
def test_what_a_relay_refuses_is_named_for_what_it_is(error: int, size: int, lent: int, code: str, said: str) -> None:
    hub: Any = None
    channel: Any = Refusing(lent)
    with pytest.raises(errors.AgentdError, match=said) as caught:
        Relay(hub, channel, "builder", Priority.HIGH, 4096).refuse(error, size)
    assert caught.value.code == code
