"""`make demo`: a daemon in a temporary directory, three agents that talk through it, what became of each message."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agentd_client import Client, Message, Priority, Receipt, connect, errors

_START_S = 10.0
_IMAGE_BYTES = 8 << 20


async def builder(ready: asyncio.Event, done: asyncio.Event) -> None:
    """Takes orders, answers questions, announces what it built."""
    async with connect("builder") as me:
        ready.set()
        inbox = me.inbox()
        async for message in inbox:
            async with message:
                if message.lane is Priority.CRITICAL:
                    continue  # seen at once: that is all there is to do
                if message.lane is Priority.HIGH:
                    with message.view() as image:  # where it lies, without a copy
                        assert len(image) == _IMAGE_BYTES
                    continue
                if message.wants_reply:
                    await message.reply({"idle": False, "queue": 0})
                else:
                    await me.publish("build:finished", {"pr": message.value["pr"], "ok": True})
            if done.is_set():
                break
        await inbox.aclose()


async def watcher(ready: asyncio.Event, seen: asyncio.Queue[Message]) -> None:
    """Watches the builds."""
    async with connect("watcher") as me, me.subscribe("build:*") as events:
        ready.set()
        async for event in events:
            await seen.put(event)
            return


async def planner(me: Client, seen: asyncio.Queue[Message], done: asyncio.Event) -> list[tuple[str, str | Receipt]]:
    """Orders, asks, and leaves mail for somebody who is not there; what it did, and under which id."""
    story: list[tuple[str, str | Receipt]] = []

    receipt = await me.send("builder", {"pr": 7}, wait="acked")
    story.append(("planner sends builder an order, and waits until it is acked", str(receipt.id)))

    event = await seen.get()
    story.append(("builder publishes build:finished, which watcher subscribes to", event.id))

    began = time.perf_counter()
    receipt = await me.send("builder", "hold on with pr 8", priority="critical", wait="acked", timeout=5)
    took_ms = (time.perf_counter() - began) * 1000
    story.append(
        (
            f"planner tells builder something urgent, from ring to ring, in {took_ms:.1f} ms, introduction included",
            receipt,
        )
    )

    image = os.urandom(_IMAGE_BYTES)
    began = time.perf_counter()
    receipt = await me.send("builder", image, priority="high", wait="acked", timeout=5)
    took_ms = (time.perf_counter() - began) * 1000
    story.append(
        (f"planner sends builder 8 MiB, which the kernel copies into their pool, in {took_ms:.1f} ms", receipt)
    )

    done.set()
    answer = await me.request("builder", "are you idle?", timeout=5)
    story.append((f"planner asks builder, which replies {answer.value}", str(answer.re)))

    receipt = await me.send("reviewer", "please look at pr 7", allow_absent=True)
    story.append((f"planner leaves mail for reviewer, who is not there ({receipt.note})", str(receipt.id)))

    began = time.perf_counter()
    receipt = await me.send("reviewer", "and at pr 8, when you have time", priority="low")
    took_ms = (time.perf_counter() - began) * 1000
    story.append(
        (f"and something for later: {receipt.state} after {took_ms:.1f} ms, which the disk took", str(receipt.id))
    )
    return story


async def account(me: Client, story: list[tuple[str, str | Receipt]]) -> None:
    """Who sent what, which way it went, and what became of it."""
    for what, id in story:
        if isinstance(id, Receipt):
            _say(f"\n{what}")
            _say(f"  {id.id}  planner -> builder  lane {id.lane}, route {id.route}: {id.state}; agentd never saw it")
            continue
        trace = await me.trace(id)
        _say(f"\n{what}")
        _say(f"  {id}  {trace.sender} -> {trace.to}  lane {trace.lane}, route {trace.route}, {trace.size_bytes} bytes")
        begin = trace.transitions[0].at
        for step in trace.transitions:
            note = f"  ({step.note})" if step.note else ""
            _say(f"    {(step.at - begin) * 1000:8.3f} ms  {step.state:<10} {step.who}{note}")
    status = await me.status()
    _say("\nlanes")
    for lane in status.lanes:
        if lane.open:
            _say(f"  {lane.lane:<9} open: {lane.reason}")
            continue
        try:
            await me.send("builder", b"now", priority=lane.lane)
        except errors.LaneUnavailable as error:
            _say(f"  {lane.lane:<9} refused, not sent another way: {error.message}")
    _say(f"\nPersistence: {status.persistence}")


async def talk() -> None:
    """All three of them."""
    done, seen = asyncio.Event(), asyncio.Queue[Message]()
    async with asyncio.TaskGroup() as agents:
        building, watching = asyncio.Event(), asyncio.Event()
        agents.create_task(builder(building, done))
        agents.create_task(watcher(watching, seen))
        await building.wait()
        await watching.wait()
        async with connect("planner") as me:
            await account(me, await planner(me, seen, done))


async def review() -> None:
    """What was left for somebody who was not there, after the daemon was killed."""
    async with connect("reviewer") as me:
        for _ in range(2):
            message = await me.receive(timeout=5)
            assert message is not None
            _say(f"  {message.id}  from {message.sender}, lane {message.lane}: {message.value}")
            await message.ack()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> int:
    """Start the daemon, talk, stop the daemon."""
    with tempfile.TemporaryDirectory(prefix="agentd-demo-") as directory:
        os.environ["AGENTD_RUNTIME_DIR"] = f"{directory}/run"
        os.environ["AGENTD_STATE_DIR"] = f"{directory}/state"
        for name in ("AGENTD_SOCKET", "AGENTD_CONFIG", "AGENTD_AGENT"):
            os.environ.pop(name, None)
        daemon = _start(Path(directory))
        try:
            _say(f"agentd runs as pid {daemon.pid} in {directory}")
            asyncio.run(talk())
            daemon.kill()
            daemon.wait()
            daemon = _start(Path(directory))
            _say(f"\nagentd was killed, and runs again as pid {daemon.pid}; reviewer comes, and finds")
            asyncio.run(review())
        finally:
            daemon.terminate()
            status = daemon.wait()
        _say(f"\nagentd stopped with status {status}; {directory} is removed")
        return status


def _start(directory: Path) -> subprocess.Popen[bytes]:
    """A daemon that answers; SystemExit with what it said where it does not."""
    log, sock = directory / "log", directory / "run" / "agentd.sock"
    sock.unlink(missing_ok=True)  # that of one that was killed
    with log.open("ab") as stderr:
        daemon = subprocess.Popen([sys.executable, "-P", "-m", "agentd.daemon"], stderr=stderr)
    give_up = time.monotonic() + _START_S
    while not sock.exists():
        if daemon.poll() is not None or time.monotonic() > give_up:
            daemon.kill()
            raise SystemExit(log.read_text())
        time.sleep(0.01)
    return daemon


if __name__ == "__main__":
    sys.exit(main())
