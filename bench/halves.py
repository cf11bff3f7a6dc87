"""Two processes that share memory and talk by a direct lane: what sleeper.py, large_ends.py and file_ends.py share."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from time import perf_counter_ns
from typing import Any, Final

from agentd.wire.errors import AgentdError

_DEADLINE_S: Final = 10.0
_PR_SET_PDEATHSIG: Final = 1


def words() -> memoryview:
    """Numbers that both halves see, made before the fork."""
    return memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")


def split(*cores: int) -> int:
    """Fork, before anything is opened: 0 in the second half, which dies with the first. Each has its core, of two."""
    second_pid = os.fork()
    if cores:
        os.sched_setaffinity(0, {cores[0] if second_pid else cores[1]})
    if not second_pid:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return second_pid


async def channel(me: Any, to: str, lane: str, opened: AsyncExitStack) -> Any:
    """To the other half, as soon as that is there."""
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        try:
            return await opened.enter_async_context(me.channel(to, lane))
        except AgentdError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


async def until_taken(words: memoryview, place: int, number: int) -> int:
    """Until the count there is no more that number: the word behind it, which says when."""
    give_up = time.monotonic() + _DEADLINE_S
    while words[place] == number:
        if time.monotonic() > give_up:
            raise SystemExit(f"message {number} was not taken")
        await asyncio.sleep(0.0005)
    return int(words[place + 1])


@contextmanager
def longest_callback() -> Iterator[list[int]]:
    """The longest that a callback or a task's step of this loop took, in nanoseconds."""
    longest = [0]
    run, clock = asyncio.events.Handle._run, perf_counter_ns

    def timed(handle: asyncio.Handle) -> None:
        start = clock()
        run(handle)
        longest[0] = max(longest[0], clock() - start)

    asyncio.events.Handle._run = timed  # type: ignore[assignment,method-assign]
    try:
        yield longest
    finally:
        asyncio.events.Handle._run = run  # type: ignore[method-assign]
