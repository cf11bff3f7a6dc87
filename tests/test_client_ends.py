"""Conformance of the client: leaving, and calls that are cancelled or interrupted."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from daemons import wait_until
from faces import Face, until

from agentd_client import blocking, connect, errors

LONG = 30.0


# Leaving.


async def test_leaving_awaits_what_was_posted(face: Face) -> None:
    async with face.connect("builder") as builder:
        async with face.connect("planner") as planner:
            tickets = [planner.post("builder", number) for number in range(50)]
        assert all(ticket.done() for ticket in tickets)
        assert [(await builder.receive(timeout=LONG)).value for _ in range(50)] == list(range(50))


async def test_leaving_raises_the_failures_that_nobody_read(face: Face) -> None:
    async with face.connect("builder") as builder:
        with pytest.raises(errors.Undelivered, match=r"2 posts failed.*No agent nobody.*rejected, no") as caught:
            async with face.connect("planner") as planner:
                planner.post("nobody", b"x")
                ticket = planner.post("builder", b"x", wait="acked")
                await planner.status()
                await (await builder.receive(timeout=LONG)).reject("rejected, no")
                await until(lambda: _done(planner, ticket))
        assert "tickets" in caught.value.hint


async def _done(me: Any, ticket: Any) -> bool:
    await me.status()  # a blocking client reads only within its calls
    return bool(ticket.done())


async def test_a_failure_that_was_read_is_not_told_again(face: Face) -> None:
    async with face.connect("planner") as planner:
        with pytest.raises(errors.NoSuchAgent):
            await planner.post("nobody", b"x")


async def test_leaving_by_an_exception_hides_it_behind_nothing(face: Face) -> None:
    with pytest.raises(ZeroDivisionError):
        async with face.connect("planner") as planner:
            planner.post("nobody", b"x")
            raise ZeroDivisionError


async def test_after_leaving_every_verb_says_so(face: Face) -> None:
    async with face.connect("planner") as planner:
        pass
    with pytest.raises(errors.Unreachable, match="left"):
        await planner.send("planner", b"x")
    with pytest.raises(errors.Unreachable, match="left"):
        await planner.receive(timeout=1)
    with pytest.raises(errors.Unreachable, match="left"):
        await planner.status()
    with pytest.raises(errors.Unreachable):
        planner.post("planner", b"x")


# Cancelled.


@asynccontextmanager
async def clean(me: Any) -> AsyncIterator[None]:
    """Nothing of what is done within may leave anything behind."""
    before = asyncio.all_tasks()
    yield
    await me.status()
    conversation = me.conversation
    assert asyncio.all_tasks() <= before
    assert (conversation._open, list(conversation.mail.waiters), conversation.mail.windows) == ({}, [], [])
    assert (conversation.mail.receiving, conversation.mail.granted, list(conversation.mail.buffer)) == (0, 0, [])


async def cancel_after(turns: int, work: Any) -> Any:
    """Cancel a call when the loop has turned so often; its result, if it was quicker."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        return await task
    return None


@pytest.fixture
def socket(worlds: dict[str, Any]) -> Iterator[Path]:
    """Of the daemon that many behaviours share."""
    yield worlds["binary"].daemon.socket
    worlds["binary"].clean()


async def test_a_cancelled_receive_loses_no_message(socket: Path) -> None:
    async with connect("planner", socket=socket) as planner, connect("builder", socket=socket) as builder:
        got = []
        async with clean(builder):
            for turns in range(60):
                planner.post("builder", turns)
                message = await cancel_after(turns % 12, builder.receive())
                if message is not None:
                    got.append(message.value)
                    await message.ack()
            while len(got) < 60:
                message = await builder.receive(timeout=LONG)
                assert message is not None and message.attempt == 1
                got.append(message.value)
                await message.ack()
        assert sorted(got) == list(range(60))


async def test_a_receive_whose_time_is_over_loses_no_message(socket: Path) -> None:
    async with connect("planner", socket=socket) as planner, connect("builder", socket=socket) as builder:
        got = []
        async with clean(builder):
            for number in range(60):
                planner.post("builder", number)
                message = await builder.receive(timeout=number % 6 * 0.0001)
                if message is not None:
                    got.append(message.value)
                    await message.ack()
            while len(got) < 60:
                message = await builder.receive(timeout=LONG)
                assert message is not None and message.attempt == 1
                got.append(message.value)
                await message.ack()
        assert sorted(got) == list(range(60))


async def test_a_cancelled_inbox_loses_no_message_and_goes_on(socket: Path) -> None:
    async with connect("planner", socket=socket) as planner, connect("builder", socket=socket) as builder:
        got = []
        async with clean(builder):
            inbox = builder.inbox(window=3)
            for turns in range(60):
                planner.post("builder", turns)
                message = await cancel_after(turns % 12, anext(inbox))
                if message is not None:
                    got.append(message.value)
                    await message.ack()
            while len(got) < 60:
                async with await anext(inbox) as message:
                    assert message.attempt == 1
                    got.append(message.value)
            await inbox.aclose()
        assert sorted(got) == list(range(60))


async def test_a_cancelled_send_is_whole_or_not_at_all(socket: Path) -> None:
    async with connect("planner", socket=socket) as planner, connect("builder", socket=socket) as builder:
        async with clean(planner):
            for turns in range(12):
                await cancel_after(turns, planner.send("builder", [turns] * 50_000, wait="acked"))
        mail = (await planner.look("builder")).total
        for _ in range(mail):
            message = await builder.receive(timeout=LONG)
            assert message is not None and len(message.value) == 50_000
            await message.ack()
        assert mail >= 1


async def test_a_cancelled_request_leaves_its_reply_to_the_inbox(socket: Path) -> None:
    async with connect("planner", socket=socket) as planner, connect("builder", socket=socket) as builder:
        async with clean(planner):
            asking = asyncio.create_task(planner.request("builder", "?"))
            asked = await builder.receive(timeout=LONG)
            assert asked is not None
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
        await asked.reply("here it is")
        late = await planner.receive(timeout=LONG)
        assert late is not None and (late.value, late.re) == ("here it is", asked.id)
        await late.ack()


async def test_a_cancelled_body_gives_its_message_back(socket: Path) -> None:
    async with connect("me", socket=socket) as me:
        await me.send("me", b"x")
        began = asyncio.Event()

        async def work() -> None:
            async for message in me.inbox():
                async with message:
                    began.set()
                    await asyncio.Event().wait()

        working = asyncio.create_task(work())
        await began.wait()
        working.cancel()
        await asyncio.wait([working])
        again = await me.receive(timeout=LONG)
        assert again is not None and again.attempt == 1


async def test_cancelled_while_connecting_and_leaving_nothing_stays(socket: Path) -> None:
    before = asyncio.all_tasks()

    async def come_and_go() -> None:
        async with connect("me", socket=socket, replace=True) as me:
            me.post("me", b"x")

    for turns in range(30):
        await cancel_after(turns, come_and_go())
    assert asyncio.all_tasks() <= before
    async with connect("observer", socket=socket) as observer:
        await until(lambda: _live(observer, ["observer"]))


async def _live(me: Any, names: list[str]) -> bool:
    return [row.name for row in (await me.agents()).agents if row.live] == names


# Interrupted: the blocking face's way of being cancelled.


@contextmanager
def interrupted() -> Iterator[None]:
    """Raise KeyboardInterrupt in this thread, once, while it waits; it is swallowed here."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    main = threading.get_native_id()
    waiting = f"/proc/self/task/{main}/stat"

    def watch() -> None:
        wait_until(lambda: Path(waiting).read_text().rpartition(")")[2].split()[0] == "S")
        os.kill(os.getpid(), signal.SIGUSR1)

    watcher = threading.Thread(target=watch)
    try:
        with pytest.raises(KeyboardInterrupt):
            watcher.start()
            yield
            pytest.fail("it was not interrupted")
    finally:
        watcher.join()
        signal.signal(signal.SIGUSR1, before)


def test_an_interrupted_wait_loses_no_message(socket: Path) -> None:
    with blocking.connect("me", socket=socket) as me:
        for loops in (False, True):
            with interrupted():
                next(me.inbox()) if loops else me.receive(timeout=LONG)
            with blocking.connect("other", socket=socket) as other:
                other.send("me", b"x")
            message = me.receive(timeout=LONG)
            assert message is not None and message.attempt == 1
            message.ack()
