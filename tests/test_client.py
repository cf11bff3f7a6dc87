"""Both faces of the client against a daemon that runs."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest
from daemons import Daemon

from agentd_client import Priority, connect, errors
from agentd_client import blocking as plain


async def test_send_receive_ack(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as planner:
        receipt = await planner.send("builder", {"pr": 7})
        message = await builder.receive(timeout=5)
        assert message is not None
        assert (message.id, message.sender, message.value, message.attempt) == (receipt.id, "planner", {"pr": 7}, 1)
        assert message.lane is Priority.NORMAL
        await message.ack()
        await message.ack()
        assert await builder.receive(timeout=0) is None
        view = await planner.trace(message.id[:8])
        assert [step.state for step in view.transitions] == ["accepted", "delivered", "acked"]


async def test_request_is_answered_by_whoever_loops_over_the_inbox(daemon: Daemon) -> None:
    async with connect("upper", socket=daemon.socket) as upper, connect("me", socket=daemon.socket) as me:

        async def serve() -> None:
            async for message in upper.inbox():
                async with message:
                    if message.value == "bad":
                        await message.reject("no such word")
                    else:
                        await message.reply(str(message.value).upper())

        serving = asyncio.create_task(serve())
        for word in ("one", "two"):
            assert (await me.request("upper", word, timeout=5)).value == word.upper()
        with pytest.raises(errors.Rejected, match="no such word"):
            await me.request("upper", "bad", timeout=5)
        with pytest.raises(errors.NoResponder):
            await me.request("nobody", "?", timeout=5)
        serving.cancel()
        await asyncio.wait([serving])


async def test_posts_are_answered_and_failures_told(daemon: Daemon) -> None:
    async with connect("me", socket=daemon.socket) as me:
        tickets = [me.post("me", b"x") for _ in range(1000)]
        receipts = [await ticket for ticket in tickets]
        assert len({receipt.id for receipt in receipts}) == 1000
        with pytest.raises(errors.NoSuchAgent):
            await me.post("nobody", b"x")
    with pytest.raises(errors.Undelivered, match="No agent nobody"):
        async with connect(socket=daemon.socket) as me:
            me.post("nobody", b"x")


@pytest.mark.parametrize("size", [0, 65_536, 5_000_000])
async def test_a_body_of_any_size_arrives_whole(daemon: Daemon, size: int) -> None:
    async with connect("me", socket=daemon.socket) as me:
        body = bytes(range(256)) * (size // 256)
        await me.send("me", body)
        message = await me.receive(timeout=10)
        assert message is not None
        assert message.body == body
        await message.ack()


async def test_an_exception_nacks_and_cancellation_gives_back(daemon: Daemon) -> None:
    async with connect("me", socket=daemon.socket) as me:
        await me.send("me", "work")

        async def work(failing: bool) -> None:
            message = await me.receive(timeout=5)
            assert message is not None
            async with message:
                if failing:
                    raise ValueError("not today")
                await asyncio.sleep(60)

        with pytest.raises(ValueError, match="not today"):
            await work(failing=True)
        task = asyncio.create_task(work(failing=False))
        while not (await me.look("me")).messages[0].holder:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
        message = await me.receive(timeout=5)
        assert message is not None
        assert message.attempt == 2  # one failed; the cancelled one does not count
        view = await me.trace(message.id)
        assert "ValueError: not today" in [step.note for step in view.transitions]


async def test_cancelled_waits_lose_nothing_and_leave_nothing(daemon: Daemon) -> None:
    async with connect("me", socket=daemon.socket) as me:
        inbox = me.inbox(window=4)
        before = None
        for number in range(300):
            waiting = asyncio.create_task(anext(inbox) if number % 2 else me.receive())
            if number % 3 == 0:
                me.post("me", number)
            await asyncio.sleep(0 if number % 5 else 0.002)
            waiting.cancel()
            try:
                if (message := await waiting) is not None:
                    await message.give_back()
            except asyncio.CancelledError:
                pass
            if number == 100:
                gc.collect()
                before = len(asyncio.all_tasks())
        assert len(asyncio.all_tasks()) == before
        values: list[int] = []
        while (message := await me.receive(timeout=0.2)) is not None:
            values.append(message.value)
            assert message.attempt == 1
            await message.ack()
        assert sorted(values) == list(range(0, 300, 3))  # two consumers, each giving back, keep no order


async def test_leaving_a_loop_gives_back_what_was_not_seen(daemon: Daemon) -> None:
    async with connect("me", socket=daemon.socket) as me:
        for number in range(5):
            await me.send("me", number)
        async for message in me.inbox(window=5):
            await message.ack()
            break
        del message
        view = await me.look("me")
        assert [one.holder for one in view.messages] == [""] * 4


async def test_events_reach_subscribers(daemon: Daemon) -> None:
    async with connect("a", socket=daemon.socket) as a, connect("b", socket=daemon.socket) as b:
        async with b.subscribe("task:*") as events:
            receipt = await a.publish("task:created", {"id": 7})
            assert (receipt.reached, receipt.refused) == (1, [])
            event = await anext(events)
            assert (event.topic, event.value, event.sender) == ("task:created", {"id": 7}, "a")
            async with event:
                pass
        await b.status()
        assert (await a.publish("task:created", 1)).reached == 0


async def test_a_restart_is_ridden_out(daemon: Daemon) -> None:
    async with connect("a", socket=daemon.socket) as a, connect("b", socket=daemon.socket) as b:
        got: list[object] = []

        async def take() -> None:
            async for message in b.inbox(window=8):
                async with message:
                    got.append(message.value)

        taking = asyncio.create_task(take())
        async with b.subscribe("topic") as events:
            await a.send("b", 1, wait="acked", timeout=5)
            await asyncio.to_thread(daemon.restart)
            assert (await a.send("b", 2, wait="acked", timeout=10)).state == "acked"
            with pytest.raises(errors.Lagged):
                await anext(events)
            await a.publish("topic", "again")
            assert (await anext(events)).value == "again"
        assert got == [1, 2]
        taking.cancel()
        await asyncio.wait([taking])


async def test_no_ticket_hangs_when_the_daemon_is_killed(daemon: Daemon) -> None:
    with pytest.raises(errors.Undelivered, match="unknown"):
        async with connect("a", socket=daemon.socket) as a:
            tickets = [a.post("a", b"x", wait="acked") for _ in range(10)]
            await asyncio.to_thread(daemon.kill)
            assert {(await ticket).state for ticket in tickets[1:]} == {"unknown"}
            with pytest.raises(errors.Unreachable):
                await a.send("a", 1, timeout=0.2)
    daemon.start()


async def test_a_name_has_one_taker(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connect("me", socket=daemon.socket) as me:
        with pytest.raises(errors.NameInUse):
            async with connect("me", socket=daemon.socket):
                pass
        async with connect("me", take=False, socket=daemon.socket) as sender:
            with pytest.raises(errors.NotPermitted):
                await sender.receive()
        monkeypatch.setenv("AGENTD_AGENT", "me")
        async with connect(socket=daemon.socket) as child:
            assert child.name == "me"
            await child.send("me", "hello")
        waiting = asyncio.create_task(me.receive())
        assert (message := await waiting) is not None
        assert message.sender == "me"
        async with connect("me", replace=True, socket=daemon.socket):
            with pytest.raises(errors.NameInUse):
                await me.receive(timeout=5)


async def test_connecting_to_nobody_fails_at_once(daemon: Daemon) -> None:
    with pytest.raises(errors.Unreachable, match="No agentd answers"):
        async with connect(socket=daemon.directory / "none.sock"):
            pass


# The blocking face.


def test_blocking_talk(daemon: Daemon) -> None:
    with plain.connect("a", socket=daemon.socket) as a, plain.connect("b", socket=daemon.socket) as b:
        receipt = a.send("b", "hi")
        message = b.receive(timeout=5)
        assert message is not None
        with message:
            assert (message.id, message.value) == (receipt.id, "hi")
        tickets = [a.post("b", n) for n in range(100)]
        assert tickets[-1].wait(5).state == "accepted"
        got = []
        for message in b.inbox(window=10):
            with message:
                got.append(message.value)
            if len(got) == 100:
                break
        assert got == list(range(100))
        assert b.receive(timeout=0) is None
        with b.subscribe("t") as events:
            assert a.publish("t", 1).reached == 1
            assert next(events).value == 1
        with pytest.raises(errors.NoSuchAgent):
            a.send("nobody", 1)
        assert a.find(str(receipt.id)[:10]) == receipt.id
        assert a.status().live == 2
        assert [agent.name for agent in a.agents().agents] == ["a", "b"]


def test_blocking_request(daemon: Daemon) -> None:
    ready = threading.Event()

    def serve() -> None:
        with plain.connect("upper", socket=daemon.socket) as upper:
            ready.set()
            message = upper.receive(timeout=10)
            assert message is not None
            message.reply(str(message.value).upper())

    serving = threading.Thread(target=serve)
    serving.start()
    assert ready.wait(10)
    with plain.connect(socket=daemon.socket) as me:
        assert me.request("upper", "hi", timeout=10).value == "HI"
    serving.join()


def test_blocking_rides_out_a_restart(daemon: Daemon) -> None:
    with plain.connect("a", socket=daemon.socket) as a:
        a.send("a", 1)
        daemon.restart()
        assert a.send("a", 2, timeout=10).state == "accepted"
        assert sorted(str(one.preview) for one in a.look("a").messages) == ["1", "2"]


def test_blocking_belongs_to_one_thread(daemon: Daemon) -> None:
    seen: list[BaseException] = []

    def elsewhere(me: plain.Client) -> None:
        try:
            me.status()
        except RuntimeError as error:
            seen.append(error)

    with plain.connect("a", socket=daemon.socket) as a:
        thread = threading.Thread(target=elsewhere, args=(a,))
        thread.start()
        thread.join()
    assert len(seen) == 1


def test_blocking_sender_hears_of_a_refused_join_with_its_first_call(daemon: Daemon) -> None:
    daemon.stop()
    with (
        pytest.raises(errors.Unreachable, match="No agentd answers"),
        plain.connect("a", take=False, socket=daemon.socket),
    ):
        pass
    daemon.start()
