"""Files that do not arrive: whatever ends a transfer, both ends are told by name and nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon, wait_until
from filing import LONG, MIB, content, file, offered, open_files, two
from peers import peer

from agentd_client import blocking, connect, errors
from agentd_client._sending import WINDOW_BYTES

SIZE = WINDOW_BYTES + 4 * MIB


@pytest.fixture(params=["io_uring", "threads"])
def moved_by(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[str]:
    """Who reads and writes files."""
    if request.param == "threads":
        daemon.config(high={"io_uring": False})
    yield request.param


@pytest.fixture(params=["nameless", "hidden"])
def meantime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a file is until it is whole, as file systems differ."""
    if request.param == "hidden":
        opened = os.open

        def refuse(path: Any, flags: int, *args: Any, **names: Any) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(95, "Operation not supported")
            return opened(path, flags, *args, **names)

        monkeypatch.setattr("agentd_client._target.os.open", refuse)
    return str(request.param)


def once(action: Callable[[], object]) -> Callable[[int, int], None]:
    """As progress: does that the first time."""
    left = [action]

    def progress(done: int, total: int) -> None:
        if left and done:
            left.pop()()

    return progress


def left_in(directory: Path) -> list[str]:
    """What a transfer has left there, hidden or not."""
    return sorted(os.listdir(directory))


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Where files are saved."""
    directory = tmp_path / "inbox"
    directory.mkdir()
    return directory


def touch(source: Path) -> None:
    with source.open("r+b") as changed:
        changed.write(b"changed")


@pytest.mark.parametrize("change", [lambda path: os.truncate(path, SIZE - 1), lambda path: os.truncate(path, 5), touch])
async def test_a_source_that_changes_is_an_error_at_both_ends(
    daemon: Daemon, tmp_path: Path, inbox: Path, moved_by: str, change: Callable[[Path], object]
) -> None:
    source = file(tmp_path, "source", content(SIZE))
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
        message = await offered(builder)
        with pytest.raises(errors.FileChanged, match="source"):
            await message.save(inbox, progress=once(lambda: change(source)))
        with pytest.raises(errors.FileChanged, match=r"source (changed|ended)"):
            await sending
        assert message.settled and left_in(inbox) == []


async def test_a_source_that_grows_is_one_too(daemon: Daemon, tmp_path: Path, inbox: Path) -> None:
    source = file(tmp_path, "source", content(1000))
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
        message = await offered(builder)
        with source.open("ab") as grown:
            grown.write(b"more")
        with pytest.raises(errors.FileChanged):
            await message.save(inbox)
        with pytest.raises(errors.FileChanged, match="from 1000 to 1004 bytes"):
            await sending
        assert left_in(inbox) == []


async def test_a_source_whose_name_goes_is_read_to_its_end(daemon: Daemon, tmp_path: Path, inbox: Path) -> None:
    data = content(SIZE)
    source = file(tmp_path, "source", data)
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
        await (await offered(builder)).save(inbox, progress=once(source.unlink))
        assert (await sending).state == "delivered"
    assert (inbox / "source").read_bytes() == data


async def test_a_full_disk_is_told_to_both(
    daemon: Daemon, tmp_path: Path, inbox: Path, moved_by: str, meantime: str
) -> None:
    source = file(tmp_path, "source", content(SIZE))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
        message = await offered(builder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MIB + 5, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                await message.save(inbox)
            with pytest.raises(errors.Undelivered, match=r"was not saved.*File too large"):
                await sending
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        await asyncio.to_thread(wait_until, lambda: left_in(inbox) == [])


async def test_a_name_that_somebody_took_meanwhile_is_not_lost(
    daemon: Daemon, tmp_path: Path, inbox: Path, meantime: str
) -> None:
    source = file(tmp_path, "source", content(SIZE))
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
        message = await offered(builder)
        with pytest.raises(FileExistsError):
            await message.save(inbox, progress=once(lambda: (inbox / "source").write_bytes(b"other")))
        with pytest.raises(errors.Undelivered, match="File exists"):
            await sending
    assert left_in(inbox) == ["source"] and (inbox / "source").read_bytes() == b"other"


@pytest.mark.parametrize("replace", [False, True])
async def test_a_file_is_named_when_it_is_whole(
    daemon: Daemon, tmp_path: Path, inbox: Path, meantime: str, replace: bool
) -> None:
    data = content(SIZE)
    source = file(tmp_path, "source", data)
    if replace:
        (inbox / "source").write_bytes(b"old")
    seen: list[list[str]] = []
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
        message = await offered(builder)
        await message.save(inbox, replace=replace, progress=lambda *_: seen.append(left_in(inbox)))
        await sending
    assert all(("source" in names) is replace for names in seen)
    assert left_in(inbox) == ["source"] and (inbox / "source").read_bytes() == data


@pytest.mark.parametrize("verb", ["ack", "reject", "nack", "leave"])
async def test_who_does_not_save_ends_it(daemon: Daemon, tmp_path: Path, verb: str) -> None:
    source = file(tmp_path, "source", content(SIZE))
    async with connect("planner", socket=daemon.socket) as me:
        async with connect("builder", socket=daemon.socket) as builder:
            sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
            message = await offered(builder)
            if verb != "leave":
                await getattr(message, verb)(*(["no room"] if verb != "ack" else []))
        expected = {
            "ack": (errors.Undelivered, "acked source without saving it"),
            "leave": (errors.ReceiverGone, "it was not saved"),
        }.get(verb, (errors.Undelivered, "no room"))
        with pytest.raises(expected[0], match=expected[1]):
            await sending


async def test_who_never_saves_holds_up_this_file_alone(daemon: Daemon, tmp_path: Path, inbox: Path) -> None:
    source = file(tmp_path, "source", content(SIZE))
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(me.send_file("builder", source, timeout=0.2))
        message = await offered(builder)
        with pytest.raises(errors.Timeout, match="asked for source in time: 0 of"):
            await sending
        await me.send("builder", "x", priority="high", route="direct")
        plain = await builder.receive(timeout=LONG)
        assert plain is not None and plain.value == "x"
        with pytest.raises(errors.FileIncomplete):
            await message.save(inbox)
        assert left_in(inbox) == []


async def test_a_file_that_is_not_wanted_in_time_expires(daemon: Daemon, tmp_path: Path) -> None:
    source = file(tmp_path, "source", content(100))
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(me.send_file("builder", source, ttl=0.001, timeout=LONG))
        while not me.conversation.go_direct()._outgoing:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)  # longer than it is of use
        assert await builder.receive(timeout=0.0) is None
        with pytest.raises(errors.Undelivered, match="expired"):
            await sending


async def test_a_cancelled_sender_ends_it_at_both_ends(
    daemon: Daemon, tmp_path: Path, inbox: Path, moved_by: str
) -> None:
    source = file(tmp_path, "source", content(SIZE))
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
        message = await offered(builder)
        with pytest.raises(errors.FileIncomplete, match="given up"):
            await message.save(inbox, progress=once(sending.cancel))
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert left_in(inbox) == []


async def test_a_cancelled_receiver_ends_it_at_both_ends(
    daemon: Daemon, tmp_path: Path, inbox: Path, moved_by: str, meantime: str
) -> None:
    source = file(tmp_path, "source", content(SIZE))
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
        message = await offered(builder)
        saving = asyncio.create_task(message.save(inbox, progress=once(lambda: saving.cancel())))
        with pytest.raises(asyncio.CancelledError):
            await saving
        with pytest.raises(errors.Undelivered, match="given up"):
            await sending
        await asyncio.to_thread(wait_until, lambda: left_in(inbox) == [])


async def test_a_progress_that_raises_ends_it_at_both_ends(daemon: Daemon, tmp_path: Path, inbox: Path) -> None:
    source = file(tmp_path, "source", content(SIZE))
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG, progress=lambda *_: 1 // 0))
        message = await offered(builder)
        with pytest.raises(errors.FileIncomplete):
            await message.save(inbox)
        with pytest.raises(ZeroDivisionError):
            await sending
        assert left_in(inbox) == []


async def test_a_client_that_leaves_while_it_saves_leaves_nothing(daemon: Daemon, tmp_path: Path, inbox: Path) -> None:
    source = file(tmp_path, "source", content(SIZE))
    async with connect("planner", socket=daemon.socket) as me:
        before = open_files()
        sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
        began = asyncio.Event()
        async with connect("builder", socket=daemon.socket) as builder:
            message = await offered(builder)
            saving = asyncio.create_task(message.save(inbox, progress=once(began.set)))
            await began.wait()
        with pytest.raises(errors.FileIncomplete, match="left"):
            await saving
        with pytest.raises((errors.ReceiverGone, errors.Undelivered)):
            await sending
        await asyncio.to_thread(wait_until, lambda: left_in(inbox) == [])
        await asyncio.to_thread(wait_until, lambda: len(open_files()) <= len(before) + 1)


async def test_a_killed_receiver_is_named_and_leaves_no_file(daemon: Daemon, tmp_path: Path, inbox: Path) -> None:
    source = file(tmp_path, "source", content(SIZE))
    async with connect("planner", socket=daemon.socket) as me:
        with peer(daemon.socket, "saver", "builder", str(inbox)) as builder:
            sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
            assert await asyncio.to_thread(builder.line) == "saving"
            builder.kill()
            with pytest.raises(errors.ReceiverGone, match="it was not saved"):
                await sending
    assert left_in(inbox) == []


async def test_a_killed_sender_is_named_and_leaves_no_file(daemon: Daemon, tmp_path: Path, inbox: Path) -> None:
    source = file(tmp_path, "source", content(SIZE))
    async with connect("builder", socket=daemon.socket) as builder:
        with peer(daemon.socket, "filer", "planner", "builder", str(source)) as planner:
            message = await offered(builder)
            planner.signal(signal.SIGSTOP)  # it has offered, and can't go on
            saving = asyncio.create_task(message.save(inbox))
            planner.kill()
            with pytest.raises(errors.FileIncomplete, match="planner was gone before source was whole"):
                await saving
            await asyncio.to_thread(wait_until, lambda: left_in(inbox) == [])
            assert message.settled


async def test_a_daemon_that_is_killed_stops_no_file(daemon: Daemon, tmp_path: Path, inbox: Path) -> None:
    data = content(SIZE)
    source = file(tmp_path, "source", data)
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
        await (await offered(builder)).save(inbox, progress=once(daemon.kill))
        assert (await sending).state == "delivered"
        daemon.start()
    assert (inbox / "source").read_bytes() == data


async def test_what_is_not_the_files_ends_it(daemon: Daemon, tmp_path: Path, inbox: Path) -> None:
    """A sender that lies about what it sends."""
    from agentd.wire import records

    async with two(daemon) as (builder, me), me.channel("builder", "high") as channel:
        pair = channel.pair
        for lie in (
            [(b"x" * 11, b"")],
            [(b"x" * 9, b""), (b"", records.encode_file(None, end=records.End(9, 0)))],
            [(b"x" * 10, b""), (b"", records.encode_file(None, end=records.End(10, 1)))],
            [(b"", records.encode_file(None, end=records.End(0, 0, "name_in_use", "no")))],
        ):
            async with me.channel("builder", "high") as other:
                pair = other.pair
                pair.ask(b"", 0, records.ASKED, records.encode_file(None, offer=records.Offer("x", 10)), 0)
                message = await offered(builder, "x")
                saving = asyncio.create_task(message.save(inbox))
                while message.source.saving is None:
                    await asyncio.sleep(0.001)
                for body, details in lie:
                    pair.ask(body, 0, 0, details, 0)
                with pytest.raises(errors.FileIncomplete):
                    await saving
        assert left_in(inbox) == []


@pytest.mark.parametrize("face", ["loop", "thread"])
async def test_what_a_disk_does_in_parts_is_done_in_full(
    daemon: Daemon, tmp_path: Path, inbox: Path, face: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As file systems over a network read and write."""
    daemon.config(high={"io_uring": False})
    read, write = os.preadv, os.pwritev
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: read(fd, [buffers[0][: 1 << 19]], at))
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, at: write(fd, [buffers[0][:300_001]], at))
    data = content(5 * MIB + 3)
    source = file(tmp_path, "source", data)
    async with two(daemon) as (builder, me):
        if face == "loop":
            sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
            await (await offered(builder)).save(inbox)
            await sending
        else:

            def send() -> None:
                with blocking.connect("other", socket=daemon.socket) as other:
                    other.send_file("builder", source, timeout=LONG)

            with builder.receiver("high") as receiver:
                sent = asyncio.create_task(asyncio.to_thread(send))
                message = await asyncio.to_thread(receiver.receive, LONG)
                assert message is not None
                await asyncio.to_thread(message.save, inbox)
            await sent
    assert (inbox / "source").read_bytes() == data


async def test_a_message_of_a_client_that_has_left_saves_nothing(daemon: Daemon, tmp_path: Path, inbox: Path) -> None:
    source = file(tmp_path, "source", content(100))
    async with connect("planner", socket=daemon.socket) as me:
        async with connect("builder", socket=daemon.socket) as builder:
            sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
            message = await offered(builder)
        with pytest.raises(errors.FileIncomplete, match="left"):
            await message.save(inbox)
        with pytest.raises(errors.ReceiverGone):
            await sending
    assert left_in(inbox) == []
