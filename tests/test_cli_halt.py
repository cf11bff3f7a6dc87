"""`agentctl halt`: agents are asked, waited for, and if it must be signalled; each says what it took."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from commands import Agentctl
from daemons import Daemon, wait_until

AGENT = """
import asyncio, signal, sys
from agentd_client import connect

async def main(name, kind):
    if kind == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    async with connect(name) as me:
        if kind == "busy":
            import threading
            stopped = threading.Event()
            me.on_critical(lambda message: None)
            await me.status()
            print("ready", flush=True)
            while not me.conversation.stopping_by:  # its loop turns seldom
                await asyncio.sleep(0.05)
        else:
            print("ready", flush=True)
            await (me.stopping.wait() if kind == "good" else asyncio.sleep(600))
    print(me.conversation.stopping_by, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def agent(daemon: Daemon, name: str, kind: str) -> Iterator[subprocess.Popen[str]]:
    """One in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", AGENT, name, kind], env=daemon.env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("kind", ["good", "busy"])
def test_an_agent_that_listens_stops_when_asked(daemon: Daemon, agentctl: Agentctl, kind: str) -> None:
    with agent(daemon, "builder", kind) as process:
        done = agentctl("halt", "builder", "--reason", "enough", "--json", name="planner", status=0)
        assert done.json["halted"] == [
            {"agent": "builder", "pid": process.pid, "command": done.json["halted"][0]["command"], "ended": "asked"}
        ]
        assert process.stdout is not None
        assert process.stdout.readline() == "planner: enough\n"
        assert process.wait() == 0


def test_one_that_does_not_listen_is_left_without_kill_and_signalled_with_it(
    daemon: Daemon, agentctl: Agentctl
) -> None:
    with agent(daemon, "builder", "stubborn") as process:
        left = agentctl("halt", "builder", "--timeout", "0.1s", name="planner", status=1)
        assert "has not stopped" in left.out and process.poll() is None
        done = agentctl("halt", "builder", "--kill", "--timeout", "0.1s", name="planner", status=0)
        assert "took SIGTERM" in done.out
        assert process.wait() == -15


def test_one_that_ignores_sigterm_is_killed(daemon: Daemon, agentctl: Agentctl) -> None:
    with agent(daemon, "builder", "deaf") as process:
        done = agentctl("halt", "builder", "--kill", "--timeout", "0s", "--json", name="planner", status=0)
        assert done.json["halted"][0]["ended"] == "SIGKILL"
        assert process.wait() == -9


def test_all_means_all_but_who_asks(daemon: Daemon, agentctl: Agentctl) -> None:
    follower = agentctl.start("recv", "--follow", name="follower")
    wait_until(lambda: any(one["live"] for one in agentctl("agents", "--json").json["agents"]))
    with agent(daemon, "builder", "good"):
        done = agentctl("halt", "--all", "--json", name="planner", status=0)
    assert {row["agent"] for row in done.json["halted"]} == {"builder", "follower"}
    result = follower.result()
    assert result.status == 0 and "planner asked to stop" in follower.err


def test_nobody_there_is_said(agentctl: Agentctl) -> None:
    assert agentctl("halt", "nobody", "--json", status=66).error["code"] == "no_such_agent"
    agentctl("send", "builder", "hi", "--allow-absent", name="planner", status=0)
    assert "builder  is not live" in agentctl("halt", "builder", status=0).out
    assert "Nobody is live" in agentctl("halt", "--all", status=0).out
    for wrong in ((), ("--all", "builder")):
        assert "--all" in agentctl("halt", *wrong, status=2).err
