"""Large bodies on the high lane: through the pair's pool, copied by the kernel, filled in place, read in place."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from daemons import Daemon, wait_until
from peers import peer

from agentd import _native
from agentd_client import _reading, blocking, connect, errors

LONG = 30.0
MIB = 1 << 20


@pytest.fixture(params=["io_uring", "threads"])
def copied_by(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[str]:
    """Who copies what is large."""
    if request.param == "threads":
        daemon.stop()
        daemon.config_path.write_text("[high]\nio_uring = false\n")
        daemon.start()
    yield request.param


@pytest.mark.parametrize("size", [16 << 10, (16 << 10) + 1, MIB, MIB + 1, 16 * MIB])
async def test_a_body_of_any_size_arrives_as_it_was(daemon: Daemon, copied_by: str, size: int) -> None:
    body = bytes(range(251)) * (size // 251 + 1)
    body = body[:size]
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        sending = asyncio.create_task(me.send("builder", body, priority="high", route="direct", wait="acked"))
        message = await builder.receive(timeout=LONG)
        assert message is not None
        async with message:
            assert (message.size, message.body == body) == (size, True)
        assert (await sending).state == "acked"


async def test_order_holds_among_small_and_large(daemon: Daemon, copied_by: str) -> None:
    sizes = [1, 2 * MIB, 2, 100 << 10, 3 * MIB, 3, 4 * MIB, 4, 5]
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel:
            positions = [channel.send(bytes([number]) * size) for number, size in enumerate(sizes)]
            assert positions == sorted(positions)
            for number, size in enumerate(sizes):
                message = await builder.receive(timeout=LONG)
                assert message is not None and message.body == bytes([number]) * size


async def test_who_closes_a_channel_at_once_loses_nothing(daemon: Daemon, copied_by: str) -> None:
    async with connect("builder", socket=daemon.socket) as builder:
        async with connect("planner", socket=daemon.socket) as me, me.channel("builder", "high") as channel:
            for number in range(3):
                channel.send(bytes([number]) * 8 * MIB)
            channel.send(b"last")
        for number in range(3):
            message = await builder.receive(timeout=LONG)
            assert message is not None and message.body == bytes([number]) * 8 * MIB
        assert (await builder.receive(timeout=LONG)).body == b"last"  # type: ignore[union-attr]


@pytest.mark.skipif(bool(_native.io_uring_errno()), reason="no io_uring here")
@pytest.mark.parametrize("broken", ["copy", "commit", "doorbell"])
async def test_a_chain_that_breaks_is_ended_by_hand(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel:
            engine = channel.pair.direct.submission.engine
            assert engine is not None
            write_chain, read_only = engine.write_chain, os.open("/dev/null", os.O_RDONLY)

            def fail(*steps: Any) -> Any:
                at = ["copy", "commit", "doorbell"].index(broken)
                return write_chain(*steps[:at], (read_only, *steps[at][1:]), *steps[at + 1 :])

            monkeypatch.setattr(engine, "write_chain", fail)
            for number in range(4):
                channel.send(bytes([number]) * 2 * MIB)
                channel.send(b"behind it")
            for number in range(4):
                assert (await builder.receive(timeout=LONG)).body == bytes([number]) * 2 * MIB  # type: ignore[union-attr]
                assert (await builder.receive(timeout=LONG)).body == b"behind it"  # type: ignore[union-attr]
            os.close(read_only)


#: In a process of its own, which may write no large files: so the kernel refuses the copy, and the one by hand.
_REFUSED = """
import asyncio, resource, sys
from agentd_client import connect, errors

async def main(socket):
    async with connect("builder", socket=socket) as builder, connect("planner", socket=socket) as me:
        assert (await me.send("builder", "hello", priority="high", route="direct", timeout=20)).route == "direct"
        assert (await builder.receive()).value == "hello"
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        async with me.channel("builder", "high") as channel:
            waiting = me.post("builder", bytes(8 << 20), priority="high", wait="acked")
            channel.send(bytes(8 << 20))
            for _ in range(2000):
                await asyncio.sleep(0.01)
                try:
                    channel.send(b"behind it")
                except errors.ReceiverGone as error:
                    print(error.message)
                    break
            print(waiting.outcome().state)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        receipt = asyncio.create_task(me.send("builder", bytes(8 << 20), priority="high", wait="acked", timeout=20))
        async with await builder.receive() as message:
            print(message.size)
        print((await receipt).state)

asyncio.run(main(sys.argv[1]))
"""


def test_a_copy_that_nobody_can_make_ends_its_channel(daemon: Daemon, copied_by: str) -> None:
    command = [sys.executable, "-P", "-c", _REFUSED, str(daemon.socket)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    said = "The channel to builder is over: no room for a body of 8388608 bytes: File too large"
    assert done.stdout.splitlines() == [said, "unknown", str(8 << 20), "acked"]


async def test_a_copy_that_nobody_can_make_harms_no_other_channel(
    daemon: Daemon, copied_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several were sent in one turn of the loop: two by that channel, one by another."""
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel, me.channel("builder", "high") as other:
            engine = channel.pair.direct.submission.engine
            assert engine is not None
            wrong: list[object] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))

            def no_room(*_: Any, **__: Any) -> Any:
                monkeypatch.undo()
                monkeypatch.setattr(os, "pwrite", no_disk)
                raise BlockingIOError

            def no_disk(*_: Any) -> Any:
                monkeypatch.undo()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(engine, "write" if engine.kind == "threads" else "write_chain", no_room)
            for pair, body in ((channel, b"1"), (channel, b"2"), (other, b"3")):
                pair.send(body * 2 * MIB)
            while not channel.pair.gone:
                await asyncio.sleep(0.001)
            while (message := await builder.receive(timeout=LONG)) is not None and message.body[:1] != b"3":
                pass
            assert message is not None and message.body == b"3" * 2 * MIB
            assert not wrong


async def test_an_engine_without_room_leaves_no_descriptor_behind(
    daemon: Daemon, copied_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel:
            engine = channel.pair.direct.submission.engine
            assert engine is not None

            def full(*_: Any, **__: Any) -> Any:
                raise BlockingIOError

            monkeypatch.setattr(engine, "write", full)
            before = len(os.listdir("/proc/self/fd"))
            channel.send(b"x" * 2 * MIB)
            assert len(os.listdir("/proc/self/fd")) == before
            assert (await builder.receive(timeout=LONG)).body == b"x" * 2 * MIB  # type: ignore[union-attr]


async def test_who_has_no_pool_is_told_so(daemon: Daemon) -> None:
    daemon.stop()
    daemon.config_path.write_text("[high]\nmax_pool_bytes = 67108864\n")
    daemon.start()
    async with connect("builder", socket=daemon.socket), connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as first, me.channel("builder", "high") as second:
            first.send(bytes(2 * MIB))
            for act in (lambda: second.send(bytes(2 * MIB)), lambda: second.loan(10)):
                with pytest.raises(
                    errors.TooLarge, match=r"this channel to builder has none(.|\n)*high\.max_pool_bytes"
                ):
                    act()


async def test_what_may_change_is_copied_before_send_returns(daemon: Daemon) -> None:
    body = bytearray(b"a" * 4 * MIB)
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel:
            channel.send(body)
            body[:] = b"b" * len(body)
            assert (await builder.receive(timeout=LONG)).body == b"a" * 4 * MIB  # type: ignore[union-attr]


async def test_a_full_pool_is_backpressure_until_something_is_given_back(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel:
            sent = 0
            with pytest.raises(errors.Backpressure, match="no room for"):
                while True:
                    channel.send(b"x" * 8 * MIB)
                    sent += 1
            assert sent == 8  # 64 MiB
            with pytest.raises(errors.TooLarge, match=r"high\.pool_bytes"):
                channel.send(bytes(65 * MIB))
            channel.send(b"a small one has room")
            message = await builder.receive(timeout=LONG)
            assert message is not None
            view = message.view()
            with view as data:
                assert bytes(data[:1]) == b"x"
                await message.ack()
                with pytest.raises(errors.Backpressure):
                    channel.send(b"x" * 8 * MIB)
            channel.send(b"y" * 8 * MIB)


async def test_a_loan_is_sent_without_a_copy_and_one_that_fails_is_given_back(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel:
            for _ in range(20):  # more than there is room for
                with pytest.raises(LookupError), channel.loan(16 * MIB):
                    raise LookupError
            with (loan := channel.loan(16 * MIB)) as buffer:
                buffer[:5] = b"first"
                buffer[-4:] = b"last"
            assert loan.position is not None
            message = await builder.receive(timeout=LONG)
            assert message is not None and message.size == 16 * MIB
            with message.view() as data:
                assert (bytes(data[:5]), bytes(data[-4:]), data.readonly) == (b"first", b"last", True)
            await message.ack()


async def test_pools_are_given_back_when_they_are_idle(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel:
            for _ in range(3):
                channel.send(b"x" * 8 * MIB)
            for _ in range(3):
                message = await builder.receive(timeout=LONG)
                assert message is not None and message.body
            assert channel.pair.touched_bytes >= 24 * MIB
            while channel.pair.touched_bytes > 2 * MIB:
                await asyncio.sleep(0.05)
            channel.send(b"y" * 8 * MIB)
            assert (await builder.receive(timeout=LONG)).body == b"y" * 8 * MIB  # type: ignore[union-attr]


@pytest.mark.parametrize("kept", ["view", "message"])
async def test_a_body_that_is_kept_too_long_is_shown(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    monkeypatch.setattr(_reading, "_KEPT_S", 0.05)
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:

        async def trouble() -> str:
            return next(agent.trouble for agent in (await me.agents()).agents if agent.name == "builder")

        await me.send("builder", b"x" * MIB, priority="high", route="direct")
        message = await builder.receive(timeout=LONG)
        assert message is not None
        view = message.view() if kept == "view" else None
        while "keeps 1 large body that planner sent" not in await trouble():
            await asyncio.sleep(0.02)
        if view is not None:
            view.release()
            await message.ack()
        else:
            assert len(message.body) == MIB
        while await trouble():
            await asyncio.sleep(0.02)


def test_who_keeps_a_view_while_its_thread_does_something_else_is_shown(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reading, "_KEPT_S", 0.05)
    with blocking.connect("builder", socket=daemon.socket) as builder, builder.receiver("high") as receiver:
        with blocking.connect("planner", socket=daemon.socket) as me, me.channel("builder", "high") as channel:
            channel.send(b"x" * MIB)
            message = receiver.receive(LONG)
            assert message is not None
            with message.view():  # and no call of builder's
                wait_until(lambda: any("keeps 1 large" in agent.trouble for agent in me.agents().agents), "it is named")


def test_the_blocking_face_sends_and_reads_them_too(daemon: Daemon) -> None:
    with blocking.connect("builder", socket=daemon.socket) as builder, builder.receiver("high") as receiver:
        with blocking.connect("planner", socket=daemon.socket) as me, me.channel("builder", "high") as channel:
            for size in (100, MIB, 16 * MIB):
                channel.send(b"x" * size)
                message = receiver.receive(LONG)
                assert message is not None and message.body == b"x" * size
            with channel.loan(3 * MIB) as buffer:
                buffer[:] = b"z" * (3 * MIB)
            assert receiver.receive_bytes(LONG) == b"z" * 3 * MIB


async def test_without_a_pool_there_are_no_large_bodies(daemon: Daemon) -> None:
    daemon.stop()
    daemon.config_path.write_text("[high]\npool_bytes = 67108864\nmax_pool_bytes = 67108864\n")
    daemon.start()
    async with (
        connect("builder", socket=daemon.socket) as builder,
        connect("planner", socket=daemon.socket) as me,
        me.channel("builder", "high") as one,
        me.channel("builder", "high") as two,
    ):
        one.send(b"x" * MIB)
        with pytest.raises(errors.TooLarge):
            two.send(b"x" * MIB)
        two.send(b"y")
        taken = [await builder.receive(timeout=LONG) for _ in range(2)]
        assert {len(message.body) for message in taken if message} == {MIB, 1}


async def test_a_sender_killed_with_copies_under_way_harms_nobody(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as me:
        direct = me.conversation.go_direct()
        direct.invited()
        while not direct.attached.settled:
            await asyncio.sleep(0.01)
        for _ in range(3):
            with peer(daemon.socket, "pours", "planner", "builder") as planner:
                message = await me.receive(timeout=LONG)
                assert message is not None and message.body == b"p" * 8 * MIB
                planner.kill()
            while (message := await me.receive(timeout=0.2)) is not None:
                assert message.body == b"p" * 8 * MIB  # whole, or not at all
        await asyncio.to_thread(
            wait_until, lambda: all(one.relays for one in direct._incoming.values()), "for the pairs to be let go of"
        )


async def test_a_receiver_killed_with_views_leaves_its_sender_in_peace(daemon: Daemon) -> None:
    async with connect("planner", socket=daemon.socket) as me:
        with peer(daemon.socket, "hoards", "builder") as builder:
            async with me.channel("builder", "high") as channel:
                for _ in range(4):
                    channel.send(b"x" * 8 * MIB)
                assert await asyncio.to_thread(builder.line) == "4"
                assert channel.pair.lent == 4
                builder.kill()
                await asyncio.to_thread(wait_until, lambda: channel.state == "closed", "for it to be over")
                with pytest.raises(errors.ReceiverGone):
                    channel.send(b"x" * 8 * MIB)


async def test_copies_go_on_while_the_daemon_is_dead(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel:
            channel.send(b"a" * 8 * MIB)
            daemon.kill()
            channel.send(b"b" * 8 * MIB)
            for letter in (b"a", b"b"):
                assert (await builder.receive(timeout=LONG)).body == letter * 8 * MIB  # type: ignore[union-attr]
        daemon.start()


def taken_bytes(builder: Any) -> list[int]:
    """What the memory of each pair takes that leads there on the high lane."""
    pairs = [pair for pair in builder.conversation.direct._incoming.values() if pair.lane == "high"]
    return [512 * os.fstat(pair.memory_fd).st_blocks for pair in pairs]


@pytest.mark.parametrize("way", ["loan", "text", "bytes", "relayed"])
async def test_a_pool_that_nobody_uses_is_given_back_however_it_was_filled(daemon: Daemon, way: str) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", "high") as channel:
            if way == "loan":
                with channel.loan(12 * MIB) as buffer:
                    buffer[::4096] = bytes(len(buffer) // 4096)
            elif way == "relayed":
                await me.send("builder", b"x" * 12 * MIB, priority="high", route="relayed", timeout=LONG)
            else:
                channel.send("x" * 12 * MIB if way == "text" else b"x" * 12 * MIB)
            message = await builder.receive(timeout=LONG)
            assert message is not None and len(message.body) == 12 * MIB
            assert max(taken_bytes(builder)) > 12 * MIB
            await message.ack()
            del message
            await asyncio.to_thread(wait_until, lambda: max(taken_bytes(builder)) < 4 * MIB, "for it to be given back")


def test_a_blocking_clients_pool_is_given_back_in_a_later_call(daemon: Daemon) -> None:
    with blocking.connect("builder", socket=daemon.socket) as builder, builder.receiver("high") as receiver:
        with blocking.connect("planner", socket=daemon.socket) as me, me.channel("builder", "high") as channel:
            channel.send(b"x" * 12 * MIB)
            message = receiver.receive(LONG)
            assert message is not None and len(message.body) == 12 * MIB

            def is_given_back() -> bool:
                me.status()
                return taken_bytes(builder)[0] < 4 * MIB

            wait_until(is_given_back, "for it to be given back")
