"""Two processes with one asyncio loop each, and large bodies between them on the high lane; large.py drives it.

    python large_ends.py LANE/HOW CORE CORE DIRECTORY      told by lines of JSON on stdin, answering on stdout

The receiver looks at each body where it lies (`view()`), checks the number at both of its ends and writes down when it
had it. The sender is told:

{"hold": [SIZE, N]}   N times `channel.send` of a body: [how long the call took; the longest that anything held the loop
                      until the receiver had the body, the call or a callback; how long until then; what a memcpy of the
                      body takes] each. The loop sleeps meanwhile but for a look each millisecond
{"loan": [SIZE, N]}   N times `with channel.loan(SIZE)`: from the end of that block to the receiver's code. What is
                      written into the loan before is no part of it
{"burst": N}          N records of 64 B within one burst(), between two calls of getrusage(2): marks in a trace
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final

import halves
import own

import agentd_client

_NAME: Final = "receiver"
_NUMBER_BYTES: Final = 8
_SMALL_BYTES: Final = 64
_PAUSE_S: Final = (0.001, 0.003)
#: Where the count of bodies is in the shared memory; when the last one came is behind it.
_TAKEN: Final = 0


async def _receive(path: str, words: memoryview) -> None:
    clock = perf_counter_ns
    async with agentd_client.connect(_NAME, socket=path) as me:
        async for message in me.inbox(window=64):
            with message.view() as body:
                at = clock()
                number = words[_TAKEN].to_bytes(_NUMBER_BYTES, "little")
                if body[:_NUMBER_BYTES] != number or body[-_NUMBER_BYTES:] != number:
                    os._exit(1)  # the sender says which
            await message.ack()
            words[_TAKEN + 1] = at
            words[_TAKEN] += 1


class Sender:
    """The half that is asked."""

    def __init__(self, words: memoryview, channel: Any) -> None:
        self._words = words
        self._channel = channel
        self._copy = bytearray()

    async def hold(self, size_bytes: int, times: int) -> list[list[int]]:
        return [await self._hold(size_bytes) for _ in range(times)]

    async def _hold(self, size_bytes: int) -> list[int]:
        words, clock = self._words, perf_counter_ns
        number = words[_TAKEN]
        body = _body(number, size_bytes)
        await asyncio.sleep(random.uniform(*_PAUSE_S))
        with halves.longest_callback() as longest_ns:
            start = clock()
            self._channel.send(body)
            call_ns = clock() - start
            taken_ns = await halves.until_taken(words, _TAKEN, number) - start
        return [call_ns, max(call_ns, longest_ns[0]), taken_ns, self._memcpy(body)]

    def _memcpy(self, body: bytes) -> int:
        if len(self._copy) != len(body):
            self._copy = bytearray(len(body))
        room = memoryview(self._copy)
        start = perf_counter_ns()
        room[:] = body
        return perf_counter_ns() - start

    async def loan(self, size_bytes: int, times: int) -> list[int]:
        return [await self._loan(size_bytes) for _ in range(times)]

    async def _loan(self, size_bytes: int) -> int:
        number = self._words[_TAKEN]
        await asyncio.sleep(random.uniform(*_PAUSE_S))
        with self._channel.loan(size_bytes) as buffer:
            buffer[:_NUMBER_BYTES] = buffer[-_NUMBER_BYTES:] = number.to_bytes(_NUMBER_BYTES, "little")
            start = perf_counter_ns()
        return await halves.until_taken(self._words, _TAKEN, number) - start

    async def burst(self, count: int) -> int:
        first = self._words[_TAKEN]
        bodies = [_body(first + number, _SMALL_BYTES) for number in range(count)]
        send = self._channel.send
        await asyncio.sleep(_PAUSE_S[1])
        resource.getrusage(resource.RUSAGE_SELF)
        with self._channel.burst():
            for body in bodies:
                send(body)
        resource.getrusage(resource.RUSAGE_SELF)
        while self._words[_TAKEN] != first + count:
            await halves.until_taken(self._words, _TAKEN, self._words[_TAKEN])
        return os.getpid()

    async def run(self) -> None:
        while line := await asyncio.to_thread(sys.stdin.readline):
            ((what, wanted),) = json.loads(line).items()
            verb = getattr(self, what)
            print(json.dumps(await (verb(wanted) if what == "burst" else verb(*wanted))), flush=True)


def _body(number: int, size_bytes: int) -> bytes:
    ends = number.to_bytes(_NUMBER_BYTES, "little")
    return ends.ljust(size_bytes - _NUMBER_BYTES, b"\xa5") + ends


async def _send(path: str, words: memoryview, pids: list[int]) -> None:
    async with agentd_client.connect("sender", socket=path) as me, AsyncExitStack() as opened:
        channel = await halves.channel(me, _NAME, "high", opened)
        print(json.dumps(pids), flush=True)
        await Sender(words, channel).run()


def main(first_core: int, last_core: int, home: Path) -> None:
    """Both halves."""
    daemon = own.Daemon(home)
    words = halves.words()
    receiver_pid = halves.split(first_core, last_core)
    if not receiver_pid:
        asyncio.run(_receive(daemon.socket, words))
        return
    try:
        asyncio.run(_send(daemon.socket, words, [daemon.pid, os.getpid(), receiver_pid]))
    finally:
        daemon.close()


if __name__ == "__main__":
    main(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
