"""One end of runaway.py: a process of its own, told by lines of JSON on stdin, answering on stdout.

    python runaway_ends.py ROLE SOCKET

quiet    ten agents of agentd_client on one loop. Each sends its neighbour a message every 50 ms, and takes and acks
         what it gets. Timed: from before the send until the neighbour has the message. A refusal ends the benchmark.
runaway  one agent on the bare wire that writes as fast as the daemon reads, frames of a hundred messages made before,
         and wants no answers. Counts the refusals that it gets all the same.
sink     takes what the runaway sends and acks it, in the portions of agentd_client
computing
         keeps a core busy, and says nothing to the daemon
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from time import monotonic_ns
from typing import Any, Final

from agentd.wire import frames, messages
from agentd.wire.bodies import Content
from agentd_client import connect

AGENTS: Final = 10
PACE_S: Final = 0.05
SIZE_BYTES: Final = 64
_IN_A_FRAME: Final = 100
_CREDIT: Final = 8000
_ACKED_TOGETHER: Final = 128  # as agentd_client does
_READ_BYTES: Final = 1 << 16


def say(**answer: object) -> None:
    """One line to the benchmark."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


class Wire:
    """An agent on the bare wire."""

    def __init__(self, path: str, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self._writer = frames.FrameWriter()
        self._reader: frames.FrameReader[Any] = frames.FrameReader(messages.DaemonMessage, 1 << 20)
        self.socket.sendall(bytes([frames.MAGIC]))
        self.tell(messages.Hello(messages.VERSION, "bench"), messages.Join(1, name, take=True))
        while not any(isinstance(answer, messages.Joined) for answer in self.hear()):
            pass

    def tell(self, *verbs: Any) -> None:
        """Write these."""
        for verb in verbs:
            self._writer.push(verb)
        self.socket.sendall(self._writer.take())

    def hear(self) -> list[Any]:
        """What one read brings."""
        data = self.socket.recv(_READ_BYTES)
        if not data:
            raise SystemExit("agentd closed the connection")
        return self._reader.feed(data)


# The quiet ones.


async def quiet(path: str) -> None:
    """Samples for each command."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        names = [f"quiet-{number}" for number in range(AGENTS)]
        agents = [await stack.enter_async_context(connect(name, socket=path)) for name in names]
        samples: list[int] = []
        takers = [group.create_task(_take(me, samples)) for me in agents]
        say(ready=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            samples.clear()
            started_ns = monotonic_ns()
            until = time.monotonic() + json.loads(line)["seconds"]
            sent = sum(await asyncio.gather(*(_send(me, number, until) for number, me in enumerate(agents))))
            while len(samples) < sent:  # noqa: ASYNC110  what comes is counted where it is timed
                await asyncio.sleep(PACE_S)
            say(samples_ns=samples, sent=sent, started_ns=started_ns, ended_ns=monotonic_ns())
        for task in takers:
            task.cancel()


async def _send(me: Any, number: int, until: float) -> int:
    await asyncio.sleep(PACE_S * number / AGENTS)
    sent = 0
    neighbour = f"quiet-{(number + 1) % AGENTS}"
    due = time.monotonic()
    while due < until:
        await me.send(neighbour, monotonic_ns().to_bytes(8, "little").ljust(SIZE_BYTES, b"\xa5"), timeout=10)
        sent += 1
        due += PACE_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    return sent


async def _take(me: Any, samples: list[int]) -> None:
    async for message in me.inbox(window=64):
        samples.append(monotonic_ns() - int.from_bytes(message.body[:8], "little"))
        await message.ack()


# The runaway, and where its messages go.


def runaway(path: str) -> None:
    """Floods the sink."""
    flood(path, "runaway", messages.Send(0, "sink", Content.BYTES, bytes(SIZE_BYTES)), _expected)


def _expected(refusal: Any) -> str:
    if refusal.code == "rate_limited":
        return "limited"
    if refusal.code == "backpressure":
        return "refused"
    raise SystemExit(f"{refusal.code}: {refusal.message}")


def flood(path: str, name: str, verb: Any, counted_as: Callable[[Any], str]) -> None:
    """That verb, as fast as the daemon reads, for as long as it is told. `counted_as` is what to count a refusal as."""
    me = Wire(path, name)
    writer = frames.FrameWriter()
    for _ in range(_IN_A_FRAME):
        writer.push(verb)
    frame = writer.take()
    say(ready=True)
    for line in sys.stdin:
        sent, counts = 0, {"limited": 0, "refused": 0}
        started_ns = monotonic_ns()
        until = started_ns + int(json.loads(line)["seconds"] * 1e9)
        while monotonic_ns() < until:
            me.socket.sendall(frame)
            sent += _IN_A_FRAME
            while select.select([me.socket], [], [], 0)[0]:
                for refusal in me.hear():
                    counts[counted_as(refusal)] += 1
        say(sent=sent, **counts, started_ns=started_ns, ended_ns=monotonic_ns())


def sink(path: str) -> None:
    """Takes and acks until its stdin ends."""
    me = Wire(path, "sink")
    me.tell(messages.Receive(0, _CREDIT))
    say(ready=True)
    while select.select([sys.stdin, me.socket], [], [])[0] != [sys.stdin]:
        ids = [message.id for message in me.hear() if isinstance(message, messages.Message)]
        for start in range(0, len(ids), _ACKED_TOGETHER):
            some = ids[start : start + _ACKED_TOGETHER]
            me.tell(messages.Ack(0, some), messages.Receive(0, len(some)))


def computing(_path: str) -> None:
    """For as long as it is told."""
    say(ready=True)
    for line in sys.stdin:
        started_ns = monotonic_ns()
        until = started_ns + int(json.loads(line)["seconds"] * 1e9)
        while monotonic_ns() < until:
            pass
        say(started_ns=started_ns, ended_ns=monotonic_ns())


if __name__ == "__main__":
    if sys.argv[1] == "quiet":
        asyncio.run(quiet(sys.argv[2]))
    else:
        {"runaway": runaway, "sink": sink, "computing": computing}[sys.argv[1]](sys.argv[2])
