"""Where there is no memory for a pair: a named refusal, and messages go the other way. Never a signal."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import shims
from daemons import Daemon

from agentd_client import Priority, State, connect, errors

LONG = 20.0


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that brings the faults."""
    return shims.build(tmp_path_factory.mktemp("shim"))


def faulty(daemon: Daemon, shim: Path, fault: str) -> Path:
    """Start the daemon anew so that it can be made to fail; the file that does it."""
    daemon.stop()
    flag = daemon.directory / "fail"
    variables = [f"LD_PRELOAD={shim}", f"FAULT_FLAG={flag}", f"FAULT={fault}"]
    daemon.command = ["/usr/bin/env", *variables, *daemon.command]
    daemon.start()
    return flag


async def test_a_daemon_without_memory_refuses_by_name_and_relays(daemon: Daemon, shim: Path, lane: Priority) -> None:
    flag = await asyncio.to_thread(faulty, daemon, shim, "allocate")
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        flag.touch()
        with pytest.raises(errors.LimitReached, match=r"No memory for a pair of .* bytes: No space left"):
            async with me.channel("builder", lane):
                pass
        sending = asyncio.create_task(me.send("builder", "x", priority=lane, wait="acked", timeout=LONG))
        message = await builder.receive(timeout=LONG)
        assert message is not None
        await message.ack()
        receipt = await sending
        assert (receipt.state, receipt.route) == (State.ACKED, "relayed")
        flag.unlink()
        async with me.channel("builder", lane) as channel:
            channel.send("there is room again")
            assert (await builder.receive(timeout=LONG)).value == "there is room again"  # type: ignore[union-attr]
    assert "nothing can be relayed to" in daemon.stderr


async def test_a_daemon_that_never_has_any_says_so(daemon: Daemon, shim: Path, lane: Priority) -> None:
    daemon.stop()
    flag = daemon.directory / "fail"
    flag.touch()
    await asyncio.to_thread(daemon.start)
    await asyncio.to_thread(faulty, daemon, shim, "allocate")
    async with connect("builder", socket=daemon.socket), connect("planner", socket=daemon.socket) as me:
        with pytest.raises(errors.LaneUnavailable, match="no sealed memory can be made: No space left"):
            await me.send("builder", "x", priority=lane)


RECEIVER = """
import asyncio, sys
from agentd_client import connect

async def main():
    async with connect("builder", socket=sys.argv[1]) as me:
        print("ready", flush=True)
        message = await me.receive(timeout=60)
        await message.ack()
        print(message.value, message.lane, flush=True)

asyncio.run(main())
"""


async def test_a_receiver_that_can_not_map_it_is_relayed_to(daemon: Daemon, shim: Path, lane: Priority) -> None:
    flag = daemon.directory / "fail"
    flag.touch()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-c",
        RECEIVER,
        str(daemon.socket),
        env={**daemon.env, "LD_PRELOAD": str(shim), "FAULT_FLAG": str(flag), "FAULT": "populate"},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    async with connect("planner", socket=daemon.socket) as me:
        with pytest.raises(errors.LimitReached, match="builder can't read a pair: No space left"):
            async with me.channel("builder", lane):
                pass
        receipt = await me.send("builder", "hello", priority=lane, wait="acked", timeout=LONG)
        assert (receipt.state, receipt.route) == (State.ACKED, "relayed")
    assert await process.stdout.readline() == f"hello {lane}\n".encode()
    assert await process.wait() == 0
