"""Files from disk to disk: what arrives, under which name, and what everybody is told."""

from __future__ import annotations

import asyncio
import os
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Daemon
from filing import LONG, MIB, content, digest, file, offered, two
from hypothesis import given
from hypothesis import strategies as st

from agentd_client import blocking, connect, errors
from agentd_client._sending import PIECE_BYTES, WINDOW_BYTES
from agentd_client._target import safe_name


@pytest.fixture(params=["io_uring", "threads"])
def moved_by(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[str]:
    """Who reads and writes files."""
    if request.param == "threads":
        daemon.config(high={"io_uring": False})
    yield request.param


SIZES = [0, 1, 100_000, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 1, 2 * WINDOW_BYTES + 4097]


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_of_any_size_arrives_as_it_was(daemon: Daemon, tmp_path: Path, moved_by: str, size: int) -> None:
    data = content(size)
    source, target = file(tmp_path, "build.log", data), tmp_path / "saved"
    seen: list[tuple[int, int]] = []
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(
            me.send_file("builder", source, timeout=LONG, wait="acked", progress=lambda *at: seen.append(at))
        )
        message = await offered(builder, "build.log")
        assert (message.sender, message.lane, message.body, message.file.size) == ("planner", "high", b"", size)
        assert message.file.digest == ""
        async with message:
            saw: list[tuple[int, int]] = []
            where = await message.save(target, progress=lambda *at: saw.append(at))
            assert (where, message.file.digest) == (str(target), digest(data))
        receipt = await sending
    assert (receipt.state, receipt.lane, receipt.route) == ("acked", "high", "direct")
    assert target.read_bytes() == data
    for told in (seen, saw):
        assert told == sorted(told) and (not size or told[-1] == (size, size))
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


@pytest.mark.parametrize("pool_bytes", [0, 64 << 10, MIB])
async def test_a_file_larger_than_the_pool_is_streamed(daemon: Daemon, tmp_path: Path, pool_bytes: int) -> None:
    daemon.config(high={"pool_bytes": pool_bytes})
    data = content(5 * MIB + 17)
    source = file(tmp_path, "large", data)
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
        await (await offered(builder)).save(tmp_path / "saved")
        assert (await sending).state == "delivered"
    assert (tmp_path / "saved").read_bytes() == data


async def test_the_kernel_counts_what_it_moved(daemon: Daemon, tmp_path: Path) -> None:
    source = file(tmp_path, "large", content(3 * PIECE_BYTES))
    async with two(daemon) as (builder, me):
        engine = me.conversation.go_direct().submission
        if engine.ring is None:
            pytest.skip(f"no io_uring here: {engine.why}")
        sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
        await (await offered(builder)).save(tmp_path / "saved")
        await sending
        assert engine.ring.counts()["completed"]["read"] == 3
        other = builder.conversation.go_direct().submission.ring
        assert other is not None and other.counts()["completed"]["write"] == 3


async def test_a_sparse_file_arrives(daemon: Daemon, tmp_path: Path) -> None:
    source = tmp_path / "sparse"
    with source.open("wb") as sparse:
        sparse.seek(3 * MIB)
        sparse.write(b"here")
        sparse.truncate(5 * MIB)
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
        message = await offered(builder)
        await message.save(tmp_path / "saved")
        await sending
        assert message.file.digest == digest(source.read_bytes())
    assert (tmp_path / "saved").read_bytes() == source.read_bytes()


async def test_several_at_once_and_other_messages_overtake_them(daemon: Daemon, tmp_path: Path) -> None:
    sources = [file(tmp_path, f"file-{number}", content(3 * MIB, number)) for number in range(5)]
    async with two(daemon) as (builder, me):
        sending = [asyncio.create_task(me.send_file("builder", source, timeout=LONG)) for source in sources]
        messages = [await offered(builder) for _ in sources]
        saving = [asyncio.create_task(message.save(tmp_path / f"to-{message.file.name}")) for message in messages[:4]]
        for number in range(20):
            await me.send("builder", number, priority="high", route="direct")
            plain = await builder.receive(timeout=LONG)
            assert plain is not None and plain.value == number and plain.file is None
        await asyncio.gather(*saving)
        assert not all(one.done() for one in sending)  # one file is not saved yet
        await messages[4].save(tmp_path / f"to-{messages[4].file.name}")
        await asyncio.gather(*sending)
    for source in sources:
        assert (tmp_path / f"to-{source.name}").read_bytes() == source.read_bytes()


async def test_a_directory_takes_it_under_its_own_name(daemon: Daemon, tmp_path: Path) -> None:
    source = file(tmp_path, "build.log", b"log")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    async with two(daemon) as (builder, me):
        for given, name in ((None, "build.log"), ("../../escape\x1b[2J", "escape_[2J"), ("..", "_.")):
            sending = asyncio.create_task(me.send_file("builder", source, name=given, timeout=LONG))
            message = await offered(builder, name)
            assert await message.save(inbox) == str(inbox / name)
            await sending
    assert sorted(os.listdir(inbox)) == ["_.", "build.log", "escape_[2J"]


@given(st.text(max_size=400))
def test_a_safe_name_is_one_name(name: str) -> None:
    safe = safe_name(name)
    assert safe and "/" not in safe and not safe.startswith(".") and len(safe.encode()) <= 255
    assert not any(unicodedata.category(letter).startswith("C") for letter in safe)
    assert safe_name(safe) == safe


async def test_what_is_there_is_not_lost_unless_it_may_be(daemon: Daemon, tmp_path: Path) -> None:
    source, target = file(tmp_path, "new", b"new"), file(tmp_path, "target", b"old")
    async with two(daemon) as (builder, me):
        sending = asyncio.create_task(me.send_file("builder", source, timeout=LONG))
        message = await offered(builder)
        with pytest.raises(FileExistsError, match="target"):
            await message.save(target)
        with pytest.raises(FileNotFoundError):
            await message.save(tmp_path / "nowhere" / "x")
        assert (target.read_bytes(), sending.done()) == (b"old", False)
        assert await message.save(target, replace=True) == str(target)  # it was not asked for before
        with pytest.raises(errors.BadRequest, match="already"):
            await message.save(tmp_path / "again")
        await sending
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    os.umask(now := os.umask(0o77))
    return now


async def test_a_plain_message_offers_no_file(daemon: Daemon, tmp_path: Path) -> None:
    async with two(daemon) as (builder, me):
        await me.send("builder", "x", priority="high", route="direct")
        message = await builder.receive(timeout=LONG)
        assert message is not None and message.file is None
        with pytest.raises(errors.BadRequest, match="offers no file"):
            await message.save(tmp_path / "x")
        await me.send("builder", "x")
        message = await builder.receive(timeout=LONG)
        assert message is not None and message.file is None
        with pytest.raises(errors.BadRequest, match="offers no file"):
            await message.save(tmp_path / "x")


async def test_only_a_regular_file_that_can_be_read_is_sent(daemon: Daemon, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    async with two(daemon) as (builder, me):
        for path, kind in ((tmp_path / "fifo", "FIFO"), (Path("/dev/null"), "device"), (tmp_path, "directory")):
            with pytest.raises(errors.BadRequest, match=kind):
                await me.send_file("builder", path, timeout=LONG)
        with pytest.raises(FileNotFoundError):
            await me.send_file("builder", tmp_path / "nowhere", timeout=LONG)
        with pytest.raises(errors.BadRequest, match="wait"):
            await me.send_file("builder", file(tmp_path, "x", b""), wait="accepted")
        assert await builder.receive(timeout=0.0) is None


async def test_who_is_not_there_or_reads_no_shared_memory_is_named(daemon: Daemon, tmp_path: Path) -> None:
    source = file(tmp_path, "x", b"x")
    async with connect("planner", socket=daemon.socket) as me:
        with pytest.raises(errors.NoSuchAgent):
            await me.send_file("nobody", source, timeout=LONG)
        async with connect("builder", socket=daemon.socket):
            pass
        with pytest.raises(errors.Absent):
            await me.send_file("builder", source, timeout=LONG)
        with blocking.connect("builder", socket=daemon.socket) as builder:
            with pytest.raises(errors.LaneUnavailable, match="no shared memory") as refused:
                await me.send_file("builder", source, timeout=LONG)
            assert "priority normal" in refused.value.hint
            assert builder.receive(timeout=0.0) is None


def test_from_one_blocking_face_to_another(daemon: Daemon, tmp_path: Path) -> None:
    data = content(WINDOW_BYTES + 12345)
    source = file(tmp_path, "large", data)
    done: list[str] = []

    def build() -> None:
        with blocking.connect("builder", socket=daemon.socket) as builder:
            builder.attach()
            ready.set()
            message = builder.receive(timeout=LONG)
            assert message is not None
            with message:
                done.append(message.save(tmp_path / "saved"))

    ready = threading.Event()
    builder = threading.Thread(target=build)
    builder.start()
    assert ready.wait(LONG)
    with blocking.connect("planner", socket=daemon.socket) as me:
        assert me.send_file("builder", source, timeout=LONG, wait="acked").state == "acked"
    builder.join()
    assert (done, (tmp_path / "saved").read_bytes() == data) == ([str(tmp_path / "saved")], True)


async def test_a_thread_saves_what_its_receiver_took(daemon: Daemon, tmp_path: Path) -> None:
    data = content(WINDOW_BYTES + 12345)
    source = file(tmp_path, "large", data)
    async with two(daemon) as (builder, me):
        with builder.receiver("high") as receiver:

            def build() -> str:
                message = receiver.receive(LONG)
                assert message is not None
                with message:
                    return message.save(tmp_path / "saved")

            building = asyncio.create_task(asyncio.to_thread(build))
            assert (await me.send_file("builder", source, timeout=LONG, wait="acked")).state == "acked"
            assert await building == str(tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == data
