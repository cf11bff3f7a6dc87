"""clients/c: agents in C that talk to each other and to agents in Python, through a real daemon."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from c_programs import C_CLIENT, LIBRARY, ROOT, build
from daemons import PATIENCE_S, Daemon, wait_until
from peers import peer

from agentd_client import Priority, State, connect, errors

LONG = 20.0

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example program."""
    return build(tmp_path_factory.mktemp("c") / "agentd-example", C_CLIENT / "example.c", *LIBRARY)


@pytest.fixture
def start(daemon: Daemon, example: Path) -> Iterator[Start]:
    """Starts it, and ends what is left of it."""
    running: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        running.append(subprocess.Popen([example, *words], env=daemon.env, stdout=pipe, stderr=pipe, text=True))
        if words[0] == "receive":
            assert running[-1].stdout is not None
            assert running[-1].stdout.readline() == f"{words[1]}: ready\n", output(running[-1], -1)
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def output(process: subprocess.Popen[str], status: int = 0) -> str:
    """All that it says until it ends, complaints last."""
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == status, out + err
    return out + err


async def test_c_to_python(daemon: Daemon, start: Start) -> None:
    async with connect("builder", socket=daemon.socket) as builder:
        sender = start("send", "planner", "builder", "stop", "no", "")
        for settle in ("ack", "reject", "ack"):
            message = await builder.receive(timeout=LONG)
            assert message is not None
            assert (message.sender, message.lane, message.attempt) == ("planner", Priority.CRITICAL, 1)
            assert f"pid {sender.pid} " in message.provenance
            await (message.reject("never") if settle == "reject" else message.ack())
        assert output(sender, 1) == "stop: acked\nno: dead (never)\n: acked\n"


async def test_c_asks_python(daemon: Daemon, start: Start) -> None:
    async with connect("builder", socket=daemon.socket) as builder:
        asker = start("ask", "planner", "builder", "how many?")
        message = await builder.receive(timeout=LONG)
        assert message is not None and message.wants_reply
        await message.reply("seven")
        assert output(asker) == "how many?: replied (seven)\n"


async def test_python_to_c(daemon: Daemon, start: Start) -> None:
    receiver = start("receive", "builder", "5")
    async with connect("planner", socket=daemon.socket) as me:
        critical: dict[str, Any] = {"priority": "critical", "timeout": LONG}
        receipt = await me.send("builder", "stop", wait="acked", route="direct", **critical)
        assert receipt.state is State.ACKED
        with pytest.raises(errors.Undelivered, match="this can't be done"):
            await me.send("builder", "bad", wait="acked", **critical)
        assert (await me.request("builder", b"12345678", priority="critical", timeout=LONG)).value == "8 bytes"
        with pytest.raises(errors.Undelivered, match="expired"):
            await me.send("builder", "late", ttl=0.0, wait="acked", **critical)
        relayed = await me.send("builder", "by way of agentd", wait="acked", route="relayed", **critical)
        assert (relayed.state, relayed.route) == (State.ACKED, "relayed")
        async with me.channel("builder") as channel:
            position = channel.send("x" * 8168)  # the largest
            assert await channel.delivered(position, timeout=LONG)
    lines = output(receiver).splitlines()
    assert lines[:4] == ["planner: stop", "planner: bad", "planner: 12345678", "planner: by way of agentd"]
    assert re.fullmatch("planner: x{8168}", lines[4])


async def test_c_to_c_in_a_burst(start: Start) -> None:
    receiver = asyncio.create_task(asyncio.to_thread(output, start("receive", "builder", "20000")))
    said = await asyncio.to_thread(output, start("burst", "planner", "builder", "20000"))
    assert said == "20000 delivered\n"
    assert (await receiver).splitlines() == [f"planner: {number}" for number in range(20000)]


def test_many_senders_at_once(start: Start) -> None:
    receiver = start("receive", "builder", "400")
    senders = [start("burst", f"planner-{n}", "builder", "100") for n in range(4)]
    assert [output(sender) for sender in senders] == ["100 delivered\n"] * 4
    lines = output(receiver).splitlines()
    for n in range(4):
        assert [line for line in lines if line.startswith(f"planner-{n}:")] == [f"planner-{n}: {i}" for i in range(100)]


async def test_a_channel_goes_on_while_the_daemon_is_dead_and_after_it_came_back(daemon: Daemon, start: Start) -> None:
    receiver = start("receive", "builder", "4")
    assert receiver.stdout is not None and receiver.stderr is not None
    async with connect("planner", socket=daemon.socket) as me, me.channel("builder") as channel:
        for body, step in (("before", daemon.kill), ("meanwhile", daemon.start), ("after", None)):
            channel.send(body)
            assert await asyncio.to_thread(receiver.stdout.readline) == f"planner: {body}\n"
            if step is not None:
                await asyncio.to_thread(step)
        assert "closed" in await asyncio.to_thread(receiver.stderr.readline)
        assert "is back" in await asyncio.to_thread(receiver.stderr.readline)
        # Both ends presented the pair, and the new daemon knows it.

        async def pairs() -> int:
            return int((await me.stats()).registries["pairs"]["pairs"])

        async with asyncio.timeout(LONG):
            while await pairs() < 2:  # this one, and the one that relays
                await asyncio.sleep(0.01)
        assert channel.state == "open"
        channel.send("at last")
        assert await asyncio.to_thread(receiver.stdout.readline) == "planner: at last\n"


async def test_a_dead_receiver_is_told_apart_from_one_that_did_not_say(daemon: Daemon, start: Start) -> None:
    with peer(daemon.socket, "sink", "builder", "critical") as builder:
        sender = start("send", "planner", "builder", "left")
        async with connect(socket=daemon.socket) as me:
            async with asyncio.timeout(LONG):
                while (await me.stats()).registries["pairs"]["pairs"] < 2:
                    await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # to be in the ring; if it is not yet, it is refused below
        builder.kill()
        said = await asyncio.to_thread(output, sender, 1)
        assert said.startswith("left: dead (it is gone") or "is gone" in said
    with peer(daemon.socket, "sink", "builder", "critical") as builder:
        sender = start("send", "planner", "builder", "taken")
        builder.tell("1")
        assert await asyncio.to_thread(builder.line) == "taken"
        builder.kill()
        assert "taken: unknown (it is gone" in await asyncio.to_thread(output, sender, 1)


async def test_it_is_asked_to_stop(daemon: Daemon, start: Start) -> None:
    receiver = start("receive", "builder")
    async with connect("planner", socket=daemon.socket) as me:
        await me.halt("builder", reason="enough")
        assert "planner asks to stop: enough" in await asyncio.to_thread(output, receiver)


def test_refusals_are_named(daemon: Daemon, example: Path, start: Start) -> None:
    assert "no_such_agent" in output(start("send", "planner", "nobody", "x"), 1)
    assert "bad_name" in output(start("send", "bad name", "nobody", "x"), 1)
    one = start("receive", "builder")
    other = start("send", "planner", "planner2", "x")
    output(other, 1)
    second = subprocess.run(
        [example, "receive", "builder"],
        env=daemon.env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert second.returncode == 1 and "name_in_use" in second.stderr
    one.send_signal(signal.SIGINT)
    one.wait(PATIENCE_S)
    wait_until(lambda: "absent" in output(start("send", "planner", "builder", "x"), 1))
    daemon.stop()
    assert "no agentd at" in output(start("send", "planner", "builder", "x"), 1)
    daemon.start()


def test_the_build_line_in_the_examples_head_builds_it(tmp_path: Path) -> None:
    line = next(line for line in (C_CLIENT / "example.c").read_text().splitlines() if " cc -O2" in line)
    command = line.strip(" *").replace("-o agentd-example", f"-o {tmp_path}/agentd-example")
    if subprocess.run("command -v cc", shell=True, capture_output=True).returncode != 0:
        pytest.skip("there is no C compiler cc")
    made = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert (made.returncode, made.stderr) == (0, "")
