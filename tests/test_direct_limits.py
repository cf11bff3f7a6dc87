"""The direct lanes where the system allows next to nothing: few open files, no locked memory. What can't be had is
named or done another way, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from commands import Agentctl
from daemons import Daemon, wait_until
from peers import peer
from test_direct_truth import _pairs, held_by

from agentd_client import Priority, State, connect, errors

LONG = 20.0

#: Root may lock what it likes, unless it is without that capability.
UNLOCKED = ["prlimit", "--memlock=0:0"]
if os.geteuid() == 0:
    UNLOCKED = ["setpriv", "--bounding-set", "-ipc_lock", *UNLOCKED]


def under(daemon: Daemon, *launcher: str) -> None:
    """Start the daemon anew, by that."""
    daemon.stop()
    daemon.command = [*launcher, *daemon.command]
    daemon.start()


@pytest.mark.parametrize(("files", "route"), [(40, "relayed"), (64, "relayed"), (96, "direct")])
async def test_a_daemon_with_few_open_files(daemon: Daemon, lane: Priority, files: int, route: str) -> None:
    """With 40 nobody can be attached, with 64 one, with 96 two."""
    under(daemon, "prlimit", f"--nofile={files}:{files}")
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        for number in range(5):
            receipt = await me.send("builder", number, priority=lane, timeout=LONG)
            assert receipt.route == route
            message = await builder.receive(timeout=LONG)
            assert message is not None and (message.value, message.lane) == (number, lane)
            await message.ack()
        if route == "direct":
            async with me.channel("builder", lane) as channel:
                channel.send("by a channel")
                assert (await builder.receive(timeout=LONG)).value == "by a channel"  # type: ignore[union-attr]
        else:
            with pytest.raises((errors.LimitReached, errors.LaneUnavailable)):
                async with me.channel("builder", lane):
                    pass
    assert f"{ {40: 0, 64: 1, 96: 2}[files] } can be attached" in daemon.stderr


@pytest.mark.parametrize("files", [12, 33])
def test_a_daemon_with_too_few_open_files_says_so_and_ends(daemon: Daemon, files: int) -> None:
    daemon.stop()
    command = ["prlimit", f"--nofile={files}:{files}", *daemon.command]
    done = subprocess.run(command, env=daemon.env, cwd=daemon.directory, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines() == [
        f"agentd: A limit of {files} open files leaves none for a connection",
        "Raise it: ulimit -n, or LimitNOFILE=.",
    ]


#: In a process of its own: a client that has all it needs for its socket, and few descriptors more.
_FEW = """
import asyncio, os, resource, sys
from agentd_client import _receiver, connect, errors

socket, lane = sys.argv[1:]
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

async def main():
    async with connect("builder", socket=socket) as builder:
        async with connect(socket=socket) as first:  # imports what all need
            await first.send("builder", "x", priority=lane)
            assert (await builder.receive()).value == "x"
        for spare in range(30):
            async with connect("planner", socket=socket) as me:
                resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, hard))
                full = []
                try:
                    while True:
                        full.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    pass
                for fd in full[:spare]:
                    os.close(fd)
                sent = 0
                for attempt in (send, send, channel, receiver):
                    try:
                        sent += await attempt(me, spare)
                    except errors.AgentdError as error:
                        print(error.code)
                for fd in full[spare:]:
                    os.close(fd)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for _ in range(sent):
                    message = await builder.receive(timeout=20)
                    assert message.value == spare
                    await message.ack()
                await channel(me, spare)
                assert (await builder.receive(timeout=20)).value == spare

async def send(me, body):
    print((await me.send("builder", body, priority=lane, timeout=20)).route)
    return 1

async def channel(me, body):
    async with me.channel("builder", lane) as channel:
        channel.send(body)
        return 1

async def receiver(me, body):
    with me.receiver(lane):
        return 0

asyncio.run(main())
"""


def test_a_client_with_few_descriptors_is_refused_by_name_or_relayed(daemon: Daemon, lane: Priority) -> None:
    command = [sys.executable, "-P", "-c", _FEW, str(daemon.socket), lane]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.split()
    assert {"relayed", "direct", "limit_reached"} <= set(said)
    assert set(said) <= {"relayed", "direct", "limit_reached", "lane_unavailable", "unreachable"}


#: In a process of its own: somebody wants to send to it, and it has no descriptor left for that.
_NONE = """
import asyncio, os, resource, sys
from agentd_client import connect
import agentd_client._direct, agentd.wire.choice

async def main():
    async with connect("builder", socket=sys.argv[1]) as me:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, limits[1]))
        print("ready", flush=True)
        message = await me.receive(timeout=60)
        await message.ack()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        print(message.value, flush=True)

asyncio.run(main())
"""


async def test_an_invitation_that_can_not_be_accepted_harms_nobody(daemon: Daemon) -> None:
    lane = Priority.HIGH  # one is enough: it takes 5 s until it is given up
    with subprocess.Popen(  # noqa: ASYNC220 - it comes back at once
        [sys.executable, "-P", "-c", _NONE, str(daemon.socket)], stdout=subprocess.PIPE, text=True
    ) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "ready\n"
        async with connect("planner", socket=daemon.socket) as me:
            receipt = await me.send("builder", "x", priority=lane, wait="acked", timeout=60)
            assert (receipt.state, receipt.route) == (State.ACKED, "relayed")
        assert builder.stdout.readline() == "x\n"
        assert builder.wait() == 0


def why_without() -> str:
    """What agentd says of io_uring where no memory may be locked; nothing on kernels that do not care."""
    ask = "from agentd.host import machine; print(machine.why_no_io_uring_here())"
    done = subprocess.run([*UNLOCKED, sys.executable, "-P", "-c", ask], capture_output=True, text=True, check=True)
    return done.stdout.strip()


async def test_without_locked_memory_all_goes_on(daemon: Daemon, lane: Priority, agentctl: Agentctl) -> None:
    under(daemon, *UNLOCKED)
    with peer(daemon.socket, "worker", "builder", lane, under=UNLOCKED) as builder:
        with peer(daemon.socket, "source", "planner", lane, "builder", "100", under=UNLOCKED) as planner:
            planner.tell("go")
            assert planner.line() == "written"
            assert [builder.line() for _ in range(100)] == [str(number) for number in range(100)]
            planner.kill()
        wait_until(lambda: _pairs(daemon) == 1, "for the pair to be gone")  # the relay stays
        daemon.kill()
        daemon.start()
        async with connect("other", socket=daemon.socket, timeout=LONG) as me:
            await held_by(me, builder, lane)
    (high,) = [row for row in agentctl("lanes", "--json", status=0).json["lanes"] if row["lane"] == "high"]
    assert why_without() in high["reason"]
