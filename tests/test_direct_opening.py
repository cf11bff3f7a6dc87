"""What goes wrong while a client attaches, or opens a channel, ends there: nothing hangs, nothing stays behind."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from commands import Agentctl
from daemons import Daemon
from test_direct_grants import attachment
from test_direct_registry import pairs_of
from test_direct_truth import held

from agentd_client import Priority, State, blocking, connect

LONG = 20.0


async def test_an_opening_that_is_cancelled_when_it_is_done_leaves_no_channel(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket), connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", lane):
            pass
        direct = me.conversation.direct
        assert direct is not None
        for _ in range(5):
            opening = asyncio.create_task(me.channel("builder", lane).__aenter__())
            while not direct._opening:
                await asyncio.sleep(0)
            next(iter(direct._opening.values())).when_settled(partial(_cancel, opening))
            with pytest.raises(asyncio.CancelledError):
                await opening
        await held(lambda: not direct._outgoing, "for the channels to be left")
        for _ in range(400):
            if await asyncio.to_thread(pairs_of, daemon) == 2:  # those that relay
                return
    pytest.fail("agentd still has the pairs")


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()


async def test_who_is_turned_away_at_the_grants_socket_is_relayed(daemon: Daemon) -> None:
    lane = Priority.HIGH  # one is enough: it takes 5 s until they are given up
    with blocking.connect("other", socket=daemon.socket) as other:
        path = attachment(other).socket
    with ExitStack() as stack:
        for _ in range(64):  # as many strangers as may stand there
            silent = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            silent.connect(path)
        async with connect("builder", socket=daemon.socket), connect("planner", socket=daemon.socket) as me:
            receipt = await asyncio.wait_for(me.send("builder", "x", priority=lane), LONG)
            assert receipt.state is State.ACCEPTED


async def test_two_threads_that_want_shared_memory_at_once_have_the_same(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as me:
        conversation = me.conversation
        record, both = conversation.record, threading.Barrier(2)

        def slow() -> Any:
            both.wait(LONG)  # both have seen that there is none yet
            return record()

        conversation.record = slow
        made = await asyncio.gather(*(asyncio.to_thread(conversation.go_direct) for _ in range(2)))
        assert made[0] is made[1] is conversation.direct


async def test_sends_that_come_at_once_share_one_channel_and_keep_their_order(
    daemon: Daemon, agentctl: Agentctl, lane: Priority
) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        sending = [me.send("builder", number, priority=lane, route="direct") for number in range(20)]
        receipts = await asyncio.gather(*sending)
        taken = [await builder.receive(timeout=LONG) for _ in receipts]
        assert [message.value for message in taken if message] == list(range(20))
        lanes = agentctl("lanes", "--json", status=0).json["lanes"]
        assert any("memory" in one["reason"] and " 1 pair;" in one["reason"] for one in lanes if one["lane"] == lane)


async def test_who_is_cancelled_while_it_opens_the_shared_channel_holds_up_nobody(
    daemon: Daemon, lane: Priority
) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        first, second = (
            asyncio.create_task(me.send("builder", name, priority=lane, route="direct")) for name in ("first", "second")
        )
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).route == "direct"
        message = await builder.receive(timeout=LONG)
        assert message is not None and message.value == "second"


#: In a process of its own, whose descriptors run out.
_FULL = """
import asyncio, os, resource, sys
from agentd_client import connect, errors

async def main(lane):
    async with connect("builder", socket=sys.argv[1]) as builder, connect("planner", socket=sys.argv[1]) as me:
        await me.send("builder", "x", priority=lane)
        await builder.receive()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        for spare in range(7):
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, limits[1]))
            full = []
            try:
                while True:
                    full.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                pass
            for fd in full[:spare]:
                os.close(fd)
            try:
                async with me.channel("builder", lane):
                    print("opened")
            except errors.AgentdError as error:
                print(error.code)
            for fd in full[spare:]:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            async with me.channel("builder", lane) as channel:
                channel.send(spare)
                assert (await builder.receive()).value == spare

asyncio.run(main(sys.argv[2]))
"""


def test_a_process_without_descriptors_is_refused_by_name_and_goes_on(daemon: Daemon, lane: Priority) -> None:
    command = [sys.executable, "-P", "-c", _FULL, str(daemon.socket), lane]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[0] == "limit_reached"
    assert set(done.stdout.split()) <= {"limit_reached", "lane_unavailable", "opened"}
