"""Conformance of the client: a daemon that goes, comes back, or speaks another version; what a client needs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from contextlib import suppress

import pytest
from daemons import Daemon
from faces import Face, MemoryDaemon, until

from agentd_client import State, errors

LONG = 30.0


async def test_no_daemon_is_unreachable_and_says_how_to_start_it(daemon_face: Face, daemon: Daemon) -> None:
    daemon.stop()
    for name in ("me", None):
        with pytest.raises(errors.Unreachable, match=r"No agentd answers on .*agentd\.sock.*\n.*agentctl daemon start"):
            async with daemon_face.connect(name) as me:
                await me.status()


async def gone_and_back(place: Daemon | MemoryDaemon, how: str) -> None:
    """The next daemon is there; this loop has turned meanwhile."""
    await asyncio.to_thread(getattr(place, how))
    await asyncio.to_thread(place.start)


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_restart_is_ridden_out(own_face: Face, place: Daemon | MemoryDaemon, how: str) -> None:
    async with own_face.connect("me") as me:
        await me.send("me", "before")
        await gone_and_back(place, how)
        assert (await me.send("me", "after", timeout=LONG)).state is State.ACCEPTED
        values = [(await me.receive(timeout=LONG)).value for _ in range(2 if how == "stop" else 1)]
        assert values == (["before", "after"] if how == "stop" else ["after"])  # as the receipt's note says
        assert me.name == "me"


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_receive_waits_across_a_restart(own_face: Face, place: Daemon | MemoryDaemon, how: str) -> None:
    async with own_face.connect("me") as me:
        waiting = asyncio.create_task(me.receive(timeout=LONG))
        await gone_and_back(place, how)
        async with own_face.connect() as other:
            await other.send("me", "there you are", allow_absent=True)
        assert (await waiting).value == "there you are"


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_tickets_without_an_answer_are_unknown(daemon_face: Face, daemon: Daemon, how: str) -> None:
    with suppress(errors.Undelivered):
        async with daemon_face.connect("me", timeout=LONG) as me:
            ticket = me.post("me", b"x", wait="acked")
            await me.status()
            daemon.config_path.write_text("[shutdown]\ndrain_s = 0.0\n")
            getattr(daemon, how)()
            receipt = await ticket
            assert receipt.state is State.UNKNOWN and receipt.id is not None
            daemon.start()


async def test_a_request_under_way_when_the_daemon_dies_is_unknown(
    own_face: Face, place: Daemon | MemoryDaemon
) -> None:
    async with own_face.connect("me") as me, own_face.connect("builder") as builder:
        asking = asyncio.create_task(me.request("builder", "?", timeout=600))
        assert (await builder.receive(timeout=LONG)).value == "?"
        await asyncio.to_thread(place.kill)
        with pytest.raises(errors.Unreachable, match="whether the request was worked on is unknown"):
            await asking
        place.start()


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_subscription_is_renewed_with_a_gap(own_face: Face, place: Daemon | MemoryDaemon, how: str) -> None:
    async with own_face.connect("me") as me, me.subscribe("t") as events:
        await gone_and_back(place, how)
        with pytest.raises(errors.Lagged) as caught:
            await anext(events)
        assert caught.value.missed is None  # nobody knows
        async with own_face.connect() as other:
            assert (await other.publish("t", "again")).reached == 1
        assert (await anext(events)).value == "again"


async def test_a_name_taken_while_it_was_away_stays_taken(own_face: Face, place: Daemon | MemoryDaemon) -> None:
    async with own_face.connect("me") as old, own_face.connect("me", replace=True) as new:
        with pytest.raises(errors.NameInUse):
            await old.receive(timeout=LONG)
        await gone_and_back(place, "stop")
        await new.send("me", "for the new one", timeout=LONG)
        await old.send("me", "from the old one", timeout=LONG)
        assert [(await new.receive(timeout=LONG)).value for _ in range(2)] == [
            "for the new one", "from the old one",
        ]  # fmt: skip


async def test_another_version_is_a_sentence(own_face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentd_client._conversation.VERSION", 99)
    with pytest.raises(errors.VersionMismatch, match=r"speaks protocol version 99, agentd .* speaks 1") as caught:
        async with own_face.connect("me"):
            pytest.fail("they can't understand each other")
    assert caught.value.hint


async def test_while_the_daemon_stops_new_work_is_refused(daemon_face: Face, daemon: Daemon) -> None:
    async with daemon_face.connect("me") as me, daemon_face.connect("other") as other:
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
