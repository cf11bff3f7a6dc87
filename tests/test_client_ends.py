"""Conformance of the client: leaving, cancelled and interrupted calls, and a daemon that goes and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon, wait_until
from faces import Face, until

from agentd_client import State, blocking, connect, errors

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
        with pytest.raises(errors.Undelivered, match="2 posts failed.*No agent nobody.*rejected, no") as caught:
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
    for call in (lambda: planner.send("planner", b"x"), lambda: planner.receive(timeout=1), lambda: planner.status()):
        with pytest.raises(errors.Unreachable, match="left"):
            await call()
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
def interrupted(when: Callable[[], bool]) -> Iterator[None]:
    """Raise KeyboardInterrupt in this thread, once, when the condition holds; it is swallowed here."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    main = threading.get_native_id()
    waiting = f"/proc/self/task/{main}/stat"

    def watch() -> None:
        wait_until(lambda: when() and Path(waiting).read_text().rpartition(")")[2].split()[0] == "S")
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
        for take in (lambda: me.receive(timeout=LONG), lambda: next(me.inbox())):
            with interrupted(lambda: True):
                take()
            with blocking.connect("other", socket=socket) as other:
                other.send("me", b"x")
            message = me.receive(timeout=LONG)
            assert message is not None and message.attempt == 1
            message.ack()


# A daemon that goes, and comes back.


async def test_no_daemon_is_unreachable_and_says_how_to_start_it(own_face: Face, daemon: Daemon) -> None:
    daemon.stop()
    for name in ("me", None):
        with pytest.raises(errors.Unreachable, match=r"No agentd answers on .*agentd\.sock.*\n.*agentd"):
            async with own_face.connect(name) as me:
                await me.status()


async def gone_and_back(daemon: Daemon, how: str) -> None:
    """The next daemon is there; this loop has turned meanwhile."""
    await asyncio.to_thread(getattr(daemon, how))
    await asyncio.to_thread(daemon.start)


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_restart_is_ridden_out(own_face: Face, daemon: Daemon, how: str) -> None:
    async with own_face.connect("me") as me:
        await me.send("me", "before")
        await gone_and_back(daemon, how)
        assert (await me.send("me", "after", timeout=LONG)).state is State.ACCEPTED
        values = [(await me.receive(timeout=LONG)).value for _ in range(2 if how == "stop" else 1)]
        assert values == (["before", "after"] if how == "stop" else ["after"])  # as the receipt's note says
        assert me.name == "me"


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_receive_waits_across_a_restart(own_face: Face, daemon: Daemon, how: str) -> None:
    async with own_face.connect("me") as me:
        waiting = asyncio.create_task(me.receive(timeout=LONG))
        await gone_and_back(daemon, how)
        async with own_face.connect() as other:
            await other.send("me", "there you are", allow_absent=True)
        assert (await waiting).value == "there you are"


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_tickets_without_an_answer_are_unknown(own_face: Face, daemon: Daemon, how: str) -> None:
    with suppress(errors.Undelivered):
        async with own_face.connect("me", timeout=LONG) as me:
            ticket = me.post("me", b"x", wait="acked")
            await me.status()
            daemon.config_path.write_text("[shutdown]\ndrain_s = 0.0\n")
            getattr(daemon, how)()
            receipt = await ticket
            assert receipt.state is State.UNKNOWN and receipt.id is not None
            daemon.start()


async def test_a_request_under_way_when_the_daemon_dies_is_unknown(own_face: Face, daemon: Daemon) -> None:
    async with own_face.connect("me") as me, own_face.connect("builder") as builder:
        asking = asyncio.create_task(me.request("builder", "?", timeout=600))
        assert (await builder.receive(timeout=LONG)).value == "?"
        await asyncio.to_thread(daemon.kill)
        with pytest.raises(errors.Unreachable, match="whether the request was worked on is unknown"):
            await asking
        daemon.start()


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_subscription_is_renewed_with_a_gap(own_face: Face, daemon: Daemon, how: str) -> None:
    async with own_face.connect("me") as me, me.subscribe("t") as events:
        await gone_and_back(daemon, how)
        with pytest.raises(errors.Lagged) as caught:
            await anext(events)
        assert caught.value.missed is None  # nobody knows
        async with own_face.connect() as other:
            assert (await other.publish("t", "again")).reached == 1
        assert (await anext(events)).value == "again"


async def test_a_name_taken_while_it_was_away_stays_taken(own_face: Face, daemon: Daemon) -> None:
    async with own_face.connect("me") as old:
        async with own_face.connect("me", replace=True) as new:
            with pytest.raises(errors.NameInUse):
                await old.receive(timeout=LONG)
            await gone_and_back(daemon, "stop")
            await new.send("me", "for the new one", timeout=LONG)
            await old.send("me", "from the old one", timeout=LONG)
            assert [(await new.receive(timeout=LONG)).value for _ in range(2)] == [
                "for the new one", "from the old one",
            ]  # fmt: skip


async def test_another_version_is_a_sentence(own_face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentd_client._conversation.VERSION", 99)
    with pytest.raises(errors.VersionMismatch, match="speaks protocol version 99, agentd .* speaks 1") as caught:
        async with own_face.connect("me"):
            pytest.fail("they can't understand each other")
    assert caught.value.hint


async def test_while_the_daemon_stops_new_work_is_refused(own_face: Face, daemon: Daemon) -> None:
    async with own_face.connect("me") as me, own_face.connect("other") as other:
        await me.send("me", b"x")
        message = await me.receive(timeout=LONG)
        await me.status()
        assert daemon.process is not None
        daemon.process.terminate()

        async def draining() -> bool:
            return bool((await me.status()).draining)

        await until(draining)
        with pytest.raises(errors.ShuttingDown):
            await other.send("me", b"x")
        await message.ack()
        await asyncio.to_thread(daemon.process.wait, LONG)
        daemon.process = None
        daemon.start()
        assert (await other.look("me")).total == 0


# What it needs.

ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        agentd = top == "agentd" and name != "agentd" and not name.startswith(("agentd.wire", "agentd._native"))
        if agentd or top not in sys.stdlib_module_names | {"agentd", "agentd_client", "msgspec"}:
            raise ImportError(f"{name} is not to be had here")

sys.meta_path.insert(0, Refuse())
"""
BLOCKING_TALK = """
from agentd_client import Priority, blocking, errors
with blocking.connect("me") as me, me.subscribe("t") as events:
    me.send("me", {"a": 1}, priority=Priority.NORMAL)
    with me.receive(timeout=30) as message:
        assert message.value == {"a": 1}
    me.publish("t", "x")
    assert next(events).value == "x"
    try:
        me.send("nobody", b"")
    except errors.NoSuchAgent:
        pass
assert "asyncio" not in sys.modules
"""
ASYNCIO_TALK = """
import asyncio
from agentd_client import connect
async def main():
    async with connect("me") as me, me.subscribe("t") as events:
        await me.send("me", {"a": 1})
        async with await me.receive(timeout=30) as message:
            assert message.value == {"a": 1}
        await me.publish("t", "x")
        assert (await anext(events)).value == "x"
asyncio.run(main())
"""


@pytest.mark.parametrize("talk", [BLOCKING_TALK, ASYNCIO_TALK], ids=["blocking", "asyncio"])
def test_msgspec_alone_suffices(daemon: Daemon, talk: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", ALONE + textwrap.dedent(talk)],
        env=daemon.env,
        cwd=daemon.directory,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
