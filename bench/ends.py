"""One end of a measurement: a process of its own, told by lines of JSON on stdin, answering on stdout.

    python ends.py CONTENDER ROLE SIZE_BYTES CORE      (-1: not pinned; the environment says where the server is)

ask     one request at a time. Timed: from before the call to after it returned. Each body has a new sequence number
        and the reply must equal it; what differs or raises ends the benchmark.
answer  echoes.
post    sends so many bodies as fast as it can. Timed: from before the first to the confirmation of the last.
take    receives. Sequence numbers must follow one another without gap or repetition; the last body of a chunk says so,
        and only then is the chunk's count reported.

Where bodies are large, `post` sends the same eight over and over again, as a program does that reuses its buffers, and
their sequence numbers are modulo eight; that of a chunk's last one is not.

The collector of cyclic garbage stays on: it is part of what a Python program gets.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
from collections.abc import Callable
from time import monotonic_ns, perf_counter_ns
from typing import Any

import contender

_HEAD = struct.Struct("<QQ")  # sequence, and that of the chunk's last
MIN_BODY_BYTES = _HEAD.size
#: From here on bodies come again.
LARGE_BYTES = 32 << 10
_CYCLE = 8
_NOT_LAST = 1 << 63


def say(**answer: object) -> None:
    """One line to the benchmark."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def ready() -> None:
    """This end is connected: the other may start."""
    say(ready=True)


def body(sequence: int, last: int, size_bytes: int) -> bytes:
    """A body that can be told from every other of this run."""
    return _HEAD.pack(sequence, last).ljust(size_bytes, b"\xa5")


class Checker:
    """Counts what arrives, and insists on its order."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._next = 0
        self._count = 0

    def taken(self, data: bytes) -> None:
        """The callback of `take`."""
        sequence, last = _HEAD.unpack_from(data)
        due = self._next if sequence == last or self._size_bytes < LARGE_BYTES else self._next % _CYCLE
        if sequence != due or len(data) != self._size_bytes:
            raise SystemExit(f"Message {due} was due, {sequence} came with {len(data)} bytes")
        self._next += 1
        self._count += 1
        if sequence == last:
            say(received=self._count, ended_ns=monotonic_ns())
            self._count = 0


class Chunks:
    """The bodies of one chunk after the other, for `post`."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._next = 0
        large = size_bytes >= LARGE_BYTES
        self._again = [body(sequence, _NOT_LAST, size_bytes) for sequence in range(_CYCLE)] if large else []

    def cut(self, count: int) -> list[bytes]:
        """The next `count` bodies."""
        first, last = self._next, self._next + count - 1
        self._next += count
        if self._again:
            some = [self._again[sequence % _CYCLE] for sequence in range(first, last)]
            return [*some, body(last, last, self._size_bytes)]
        return [body(sequence, last, self._size_bytes) for sequence in range(first, last + 1)]


def _is_echo(reply: Any, sent: bytes) -> bool:
    """Some systems give a view of their own memory; comparing that byte by byte would take longer than the trip."""
    return (reply if isinstance(reply, bytes) else bytes(reply)) == sent


def _wrong(sequence: int) -> SystemExit:
    return SystemExit(f"The reply to request {sequence} is not its echo")


async def _command() -> dict[str, Any] | None:
    line = await asyncio.to_thread(sys.stdin.readline)
    return json.loads(line) if line else None


async def ask(ends: contender.Asynchronous, size_bytes: int) -> None:
    sequence = 0
    async with ends.asking() as request:
        ready()
        while (command := await _command()) is not None:
            samples: list[int] = []
            deadline = perf_counter_ns() + int(command["seconds"] * 1e9)
            while True:
                sent = body(sequence, sequence, size_bytes)
                start = perf_counter_ns()
                reply = await request(sent)
                end = perf_counter_ns()
                if not _is_echo(reply, sent):
                    raise _wrong(sequence)
                samples.append(end - start)
                sequence += 1
                if end >= deadline:
                    break
            say(samples_ns=samples)


def ask_blocking(ends: contender.Blocking, size_bytes: int) -> None:
    sequence = 0
    with ends.asking() as request:
        ready()
        for line in sys.stdin:
            command = json.loads(line)
            samples: list[int] = []
            deadline = perf_counter_ns() + int(command["seconds"] * 1e9)
            while True:
                sent = body(sequence, sequence, size_bytes)
                start = perf_counter_ns()
                reply = request(sent)
                end = perf_counter_ns()
                if not _is_echo(reply, sent):
                    raise _wrong(sequence)
                samples.append(end - start)
                sequence += 1
                if end >= deadline:
                    break
            say(samples_ns=samples)


async def post(ends: contender.Asynchronous, size_bytes: int) -> None:
    chunks = Chunks(size_bytes)
    async with ends.posting() as send:
        ready()
        while (command := await _command()) is not None:
            bodies = chunks.cut(command["count"])
            started = monotonic_ns()
            confirmed = await send(bodies)
            say(sent=len(bodies), confirmed=confirmed, started_ns=started, ended_ns=monotonic_ns())


def post_blocking(ends: contender.Blocking, size_bytes: int) -> None:
    chunks = Chunks(size_bytes)
    with ends.posting() as send:
        ready()
        for line in sys.stdin:
            bodies = chunks.cut(json.loads(line)["count"])
            started = monotonic_ns()
            confirmed = send(bodies)
            say(sent=len(bodies), confirmed=confirmed, started_ns=started, ended_ns=monotonic_ns())


def run(name: str, role: str, size_bytes: int) -> None:
    """Be that end until the benchmark has no more commands."""
    mode = name.partition("/")[2]
    ends = contender.adapter(name).ends(mode)
    roles: dict[str, Callable[[], Any]] = {
        "ask": lambda: (ask_blocking if mode == "blocking" else ask)(ends, size_bytes),
        "answer": lambda: ends.answer(ready),
        "post": lambda: (post_blocking if mode == "blocking" else post)(ends, size_bytes),
        "take": lambda: ends.take(ready, Checker(size_bytes).taken),
    }
    if mode == "blocking":
        roles[role]()
    elif mode == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(roles[role]())
    else:
        asyncio.run(roles[role]())


if __name__ == "__main__":
    if int(sys.argv[4]) >= 0:
        os.sched_setaffinity(0, {int(sys.argv[4])})
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
