"""A client that leaves, or gives its lane back, while a thread of its reads there, or handles a message."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from typing import Any

from daemons import Daemon

from agentd_client import Priority, State, blocking, connect

LONG = 20.0

#: In a process of its own: what goes wrong here ends one.
_LEAVES = """
import asyncio, sys, threading
from agentd_client import connect

def read(receiver):
    try:
        while True:
            receiver.receive(timeout=0.01)
    except (ValueError, RuntimeError):
        pass

async def main(lane):
    for _ in range(40):
        async with connect("planner", socket=sys.argv[1]) as planner:
            async with connect("builder", socket=sys.argv[1]) as me:
                thread = threading.Thread(target=read, args=(me.receiver(lane),))
                thread.start()
                async with planner.channel("builder", lane) as channel:
                    for _ in range(20):
                        channel.send(b"x")
                    await asyncio.sleep(0.005)
            thread.join()

asyncio.run(main(sys.argv[2]))
"""


def test_leaving_while_a_thread_reads_harms_nobody(daemon: Daemon, lane: Priority) -> None:
    command = [sys.executable, "-P", "-X", "faulthandler", "-c", _LEAVES, str(daemon.socket), lane]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


async def test_leaving_waits_for_a_handler_that_waits_for_its_loop(daemon: Daemon) -> None:
    inside = threading.Event()
    ended: list[str] = []
    async with connect("planner", socket=daemon.socket) as planner:
        async with connect("builder", socket=daemon.socket) as me:
            loop = asyncio.get_running_loop()

            def handle(_: object) -> None:
                inside.set()
                time.sleep(0.05)
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result()
                ended.append("well")

            me.on_critical(handle, pin=False)
            sending = asyncio.create_task(planner.send("builder", "x", priority="critical", wait="acked", timeout=LONG))
            await asyncio.to_thread(inside.wait, LONG)
        assert ended == ["well"]
        assert (await sending).state is State.ACKED


async def test_a_receiver_that_is_closed_gives_the_lane_back_though_a_thread_waits(
    daemon: Daemon, lane: Priority
) -> None:
    async with connect("planner", socket=daemon.socket) as planner, connect("builder", socket=daemon.socket) as me:
        await planner.send("builder", 0, priority=lane, timeout=LONG)
        for number in range(1, 20):
            assert (await me.receive(timeout=LONG)).value == number - 1  # type: ignore[union-attr]
            receiver = me.receiver(lane)
            waiting = asyncio.create_task(asyncio.to_thread(receiver.receive, LONG))
            await asyncio.sleep(0.002)
            receiver.close()
            await planner.send("builder", number, priority=lane, timeout=LONG)
            assert await waiting is None


def test_a_blocking_client_leaves_though_its_handler_does_not_end(daemon: Daemon) -> None:
    inside, end = threading.Event(), threading.Event()

    def handle(_: Any) -> None:
        inside.set()
        end.wait(LONG)

    with blocking.connect("planner", socket=daemon.socket) as planner:
        try:
            with blocking.connect("builder", socket=daemon.socket) as me:
                me.on_critical(handle, pin=False)
                planner.send("builder", "x", priority="critical", timeout=LONG)
                assert inside.wait(LONG)
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        assert planner.agents().agents
        end.set()
