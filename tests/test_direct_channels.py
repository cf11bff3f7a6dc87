"""Channels and receivers between live agents: what goes from ring to ring, on every way that it can be taken."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from daemons import Daemon, wait_until

from agentd.wire.messages import Route
from agentd_client import Priority, State, blocking, connect, errors

LONG = 20.0
#: epoll_wait(2) and epoll_pwait(2), on x86-64 and arm64.
WAITS = ("232", "281", "22")


def is_asleep(thread: threading.Thread) -> bool:
    """Whether it waits for its doorbell."""
    return Path(f"/proc/self/task/{thread.native_id}/syscall").read_text().split()[0] in WAITS


async def test_a_channel_carries_every_kind_of_body(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", lane) as channel:
            bodies = [b"stop", "halt", {"pr": 7}, b"", [1, 2.5, None], "ünïcode", bytearray(b"copied")]
            positions = [channel.send(body) for body in bodies]
            assert positions == sorted(set(positions))
            taken = [await builder.receive(timeout=LONG) for _ in bodies]
        assert [message.value for message in taken if message] == [*bodies[:-1], b"copied"]
        first = taken[0]
        assert first is not None
        assert (first.sender, first.lane, first.attempt, first.topic) == ("planner", lane, 1, None)
        assert f"pid {os.getpid()}" in first.provenance


async def test_delivered_is_when_the_receiver_has_it_and_not_before(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect(socket=daemon.socket) as me:
        async with me.channel("builder", lane) as channel:
            position = channel.send(b"x")
            assert not await channel.delivered(position, timeout=0.01)
            assert await builder.receive(timeout=LONG)
            assert await channel.delivered(position, timeout=LONG)
            assert (channel.sent, channel.dead, channel.unknown) == (1, 0, 0)


async def test_send_says_the_state_that_was_reached(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        receipt = await me.send("builder", "a", priority=lane, headers={"k": "v"}, route="direct")
        assert (receipt.state, receipt.lane, receipt.route) == (State.ACCEPTED, lane, Route.DIRECT)
        taken = await builder.receive(timeout=LONG)
        assert taken is not None
        assert (taken.id, taken.headers) == (receipt.id, {"k": "v"})
        for wait, settle, state in (
            ("delivered", "ack", State.DELIVERED),
            ("acked", "ack", State.ACKED),
        ):
            sending = asyncio.create_task(me.send("builder", wait, priority=lane, wait=wait, timeout=LONG))
            taken = await builder.receive(timeout=LONG)
            assert taken is not None
            if state is State.DELIVERED:
                assert (await sending).state is state
            await getattr(taken, settle)()
            assert (await sending).state is state


async def test_what_is_not_done_ends_dead_with_its_reason(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        for how, reason in (("reject", "never"), ("nack", "not now")):
            sending = asyncio.create_task(me.send("builder", how, priority=lane, wait="acked", timeout=LONG))
            taken = await builder.receive(timeout=LONG)
            assert taken is not None
            with pytest.raises(errors.NotOnThisLane, match="come back"):
                await taken.nack("later", after=1)
            await getattr(taken, how)(reason)
            with pytest.raises(errors.Undelivered, match=reason) as caught:
                await sending
            assert caught.value.receipt.state is State.DEAD


async def test_a_message_too_late_is_expired_and_never_seen(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        await me.send("builder", "first", priority=lane)
        assert await builder.receive(timeout=LONG)
        sending = asyncio.create_task(me.send("builder", "late", priority=lane, wait="acked", ttl=0.0, timeout=LONG))
        assert await builder.receive(timeout=0.2) is None
        with pytest.raises(errors.Undelivered, match="expired"):
            await sending


async def test_a_request_is_answered_with_its_verdict(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        asking = asyncio.create_task(me.request("builder", {"q": 1}, timeout=LONG, priority=lane))
        asked = await builder.receive(timeout=LONG)
        assert asked is not None and asked.wants_reply and asked.value == {"q": 1}
        with pytest.raises(errors.TooLarge, match="over what a verdict takes"):
            await asked.reply(b"x" * 5000)
        await asked.reply({"a": 2})
        await asked.ack()  # it was acked by its reply
        answer = await asking
        assert (answer.value, answer.re, answer.sender) == ({"a": 2}, asked.id, "builder")
        asking = asyncio.create_task(me.request("builder", "no?", timeout=LONG, priority=lane))
        asked = await builder.receive(timeout=LONG)
        assert asked is not None
        await asked.reject("no")
        with pytest.raises(errors.Rejected, match="no"):
            await asking
        asking = asyncio.create_task(me.request("builder", "?", timeout=LONG, priority=lane))
        asked = await builder.receive(timeout=LONG)
        assert asked is not None
        await asked.ack()
        with pytest.raises(errors.NoResponder, match="acked the request and did not reply"):
            await asking
        await asked.reply("after all")  # then it is mail
        late = await me.receive(timeout=LONG)
        assert late is not None and (late.value, late.re) == ("after all", asked.id)


async def test_a_handler_that_nobody_would_await_is_refused(daemon: Daemon) -> None:
    async def handler(message: object) -> None:
        raise AssertionError("never run")

    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        for wrong in (handler, None):
            with pytest.raises(TypeError, match="plain function"):
                builder.on_critical(wrong)  # type: ignore[arg-type]
        builder.on_critical(lambda message: handler(message))
        with pytest.raises(errors.Undelivered, match="returned an awaitable"):
            await me.send("builder", "x", priority="critical", wait="acked", timeout=LONG)


async def test_a_full_ring_is_backpressure_and_loses_nothing(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", lane) as channel:
            written = 0
            with pytest.raises(errors.Backpressure, match="ring is full"):
                while True:
                    channel.send(b"%06d" % written + b"x" * 994)
                    written += 1
            assert written > 50
            with pytest.raises(errors.TooLarge, match=f"the {lane} lane takes"):
                channel.send(bytes(33_000 if lane == "critical" else (64 << 20) + 1))
            taken = [(await builder.receive(timeout=LONG)).body[:6] for _ in range(written)]  # type: ignore[union-attr]
            assert taken == [b"%06d" % number for number in range(written)]
            channel.send(b"again")
            assert (await builder.receive(timeout=LONG)).body == b"again"  # type: ignore[union-attr]


async def test_sends_that_ask_are_bounded_by_the_room_for_verdicts(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        await me.send("builder", "the channel is open", priority=lane, timeout=LONG)
        sent = 1
        with pytest.raises(errors.Backpressure, match="wait for builder to finish"):
            while True:
                await me.send("builder", sent, priority=lane, timeout=0.0)
                sent += 1
        assert sent == 64
        for _ in range(sent):
            message = await builder.receive(timeout=LONG)
            assert message is not None
            await message.reject("x" * 1000)  # the longest verdicts there are
        assert (await me.send("builder", "more", priority=lane, timeout=LONG)).state is State.ACCEPTED


async def test_what_a_direct_lane_can_not_do_is_named(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket), connect("planner", socket=daemon.socket) as me:
        for options in ({"key": "k"}, {"durable": True}):
            with pytest.raises(errors.NotOnThisLane):
                await me.send("builder", "x", priority=lane, **options)
        with pytest.raises(errors.NotOnThisLane):
            await me.publish("task:x", "x", priority=lane)
        with pytest.raises(errors.NoSuchAgent, match="builder"):
            await me.send("bilder", "x", priority=lane)
        with pytest.raises(errors.BadRequest, match="no direct lane"):
            me.channel("builder", "normal")


async def test_the_absent_are_absent_at_once(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket):
        pass
    async with connect("planner", socket=daemon.socket) as me:
        with pytest.raises(errors.Absent):
            await me.send("builder", "x", priority=lane)
        with pytest.raises(errors.Absent):
            async with me.channel("builder", lane):
                pass


async def test_a_rings_mail_comes_first_and_starves_nobody(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", lane) as channel:
            for number in range(8):
                await me.send("builder", f"normal {number}")
            for number in range(100):
                channel.send(number)
            direct, normals = [], []
            async for message in builder.inbox(window=4):
                async with message:
                    if message.lane == lane:
                        direct.append(message.value)
                        number += 1
                        channel.send(number)  # for ever
                    else:
                        normals.append(message.value)
                if len(normals) == 8:
                    break
        assert normals == [f"normal {number}" for number in range(8)]
        assert len(direct) > 50 and direct == list(range(len(direct)))


async def test_an_inbox_wakes_for_a_ring_and_counts_it_in_its_window(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        inbox = builder.inbox(window=2)
        async with me.channel("builder", lane) as channel:
            for number in range(20):
                waiting = asyncio.ensure_future(anext(inbox))
                await asyncio.sleep(0)
                channel.send(number)
                message = await asyncio.wait_for(waiting, LONG)
                assert message.value == number
                await message.ack()
            for number in range(3):
                channel.send(number)
            held = [await anext(inbox), await anext(inbox)]
            third = asyncio.ensure_future(anext(inbox))
            assert not (await asyncio.wait([third], timeout=0.05))[0]
            await held[0].ack()
            assert (await asyncio.wait_for(third, LONG)).value == 2


async def test_a_receiver_in_a_thread_has_the_lane_alone(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        taken: list[bytes] = []

        def read() -> None:
            with builder.receiver(lane) as receiver:
                assert receiver.receive(timeout=0) is None
                ready.set()
                message = receiver.receive(timeout=LONG)
                assert message is not None
                message.ack()
                taken.append(message.body)
                body = receiver.receive_bytes(timeout=LONG)
                assert body is not None
                taken.append(body)
                while len(taken) < 12:
                    taken.extend(one.body for one in receiver.drain(256))

        ready = threading.Event()
        thread = threading.Thread(target=read)
        thread.start()
        await asyncio.to_thread(ready.wait, LONG)
        with pytest.raises(errors.LaneBusy):
            builder.receiver(lane)
        await asyncio.to_thread(wait_until, lambda: is_asleep(thread), "for it to sleep until it is rung")
        assert (await me.send("builder", b"a", priority=lane, wait="acked", timeout=LONG)).state is State.ACKED
        async with me.channel("builder", lane) as channel:
            for _ in range(11):
                channel.send(b"b")
            await asyncio.to_thread(thread.join, LONG)
        assert taken == [b"a"] + [b"b"] * 11
        await me.send("builder", "now the inbox", priority=lane)  # leaving gave the lane back
        assert (await builder.receive(timeout=LONG)).value == "now the inbox"  # type: ignore[union-attr]


async def test_on_critical_acks_what_returns_and_nacks_what_raises(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        threads: set[str] = set()

        def handle(message: object) -> None:
            threads.add(threading.current_thread().name)
            if getattr(message, "value", None) == "bad":
                raise ValueError("this can't be done")

        builder.on_critical(handle)
        assert (await me.send("builder", "good", priority="critical", wait="acked", timeout=LONG)).state is State.ACKED
        with pytest.raises(errors.Undelivered, match="ValueError: this can't be done"):
            await me.send("builder", "bad", priority="critical", wait="acked", timeout=LONG)
        assert threads == {"agentd-critical"}
        lane = next(lane for lane in (await me.status()).lanes if lane.lane is Priority.CRITICAL)
        assert lane.cores.startswith("builder: ")
        assert lane.latency is not None and lane.latency.count >= 1 and 0 < lane.latency.p50_s < LONG


def test_the_blocking_face_has_the_same(daemon: Daemon, lane: Priority) -> None:
    with blocking.connect("builder", socket=daemon.socket) as builder:
        with builder.receiver(lane) as receiver:
            sender = threading.Thread(target=_send_blocking, args=(daemon.socket, lane))
            sender.start()
            first = receiver.receive(timeout=LONG)
            assert first is not None and first.value == "a"
            first.ack()
            assert receiver.receive(timeout=LONG) is not None
        third = builder.receive(timeout=LONG)  # given back to the inbox, woken by the ring
        assert third is not None and third.value == "c"
        third.ack()
        sender.join(LONG)
        assert not sender.is_alive()


def _send_blocking(socket: Path, lane: Priority) -> None:
    with blocking.connect("planner", socket=socket) as me:
        receipt = me.send("builder", "a", priority=lane, route="direct", wait="acked", timeout=LONG)
        assert (receipt.state, receipt.route) == (State.ACKED, Route.DIRECT)
        with me.channel("builder", lane) as channel:
            assert channel.delivered(channel.send("b"), timeout=LONG)
        assert me.send("builder", "c", priority=lane, wait="acked", timeout=LONG).state is State.ACKED


async def test_a_child_can_not_use_its_parents_channel(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", lane) as channel:
            child = os.fork()
            if child == 0:
                try:
                    channel.send(b"from the child")
                except errors.NotPermitted:
                    os._exit(0)
                finally:
                    os._exit(1)
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            channel.send(b"from the parent")
            assert (await builder.receive(timeout=LONG)).body == b"from the parent"  # type: ignore[union-attr]


async def test_a_paused_receiver_is_backpressure_to_its_senders(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", lane) as channel:
            channel.send("before")
            await me.pause("builder")
            await asyncio.to_thread(wait_until, lambda: channel.state == "paused")
            with pytest.raises(errors.Backpressure, match="builder is paused"):
                channel.send("meanwhile")
            async with me.channel("builder", lane) as another:  # paused from its beginning
                await asyncio.to_thread(wait_until, lambda: another.state == "paused")
            agents = {row.name: row.trouble for row in (await me.agents()).agents}
            assert "paused" in agents["builder"]
            await me.pause("builder", on=False)
            await asyncio.to_thread(wait_until, lambda: channel.state == "open")
            channel.send("after")
        taken = [await builder.receive(timeout=LONG) for _ in range(2)]
        assert [one.value for one in taken if one] == ["before", "after"]


@pytest.mark.parametrize("senders", [65, 300])
async def test_many_senders_into_one_receiver(daemon: Daemon, senders: int, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        channels = [me.channel("builder", lane) for _ in range(senders)]
        for channel in channels:
            await channel.__aenter__()
        for channel in channels:
            channel.send(b"x")
        with builder.receiver(lane) as receiver:
            taken = 0
            while taken < senders:
                assert await asyncio.to_thread(receiver.receive, LONG) is not None
                taken += 1
        stats = await me.stats()
        assert stats.registries["pairs"]["pairs"] == senders + 2  # and those that relay to both
        for channel in channels:
            await channel.__aexit__(None, None, None)
        for channel in channels:
            assert channel.dead == 0
    async with connect(socket=daemon.socket) as me:
        await asyncio.to_thread(wait_until, lambda: blocking_pairs(daemon.socket) == 0, "for the pairs to be gone")


def blocking_pairs(socket: Path) -> int:
    """How many the daemon knows."""
    with blocking.connect(socket=socket) as me:
        return me.stats().registries["pairs"]["pairs"]
