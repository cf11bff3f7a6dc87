"""fdatasync(2) of a few files, one after the other, while the loop goes on: by io_uring, or by a thread where that is
refused. The kernel's own thread is woken sooner than ours, and no lock of Python's is waited for at the end."""

from __future__ import annotations

import asyncio
import logging
import os
import select
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Protocol

from agentd import _native

log = logging.getLogger(__name__)

#: As many as are ever under way: two segments.
_ENTRIES: Final = 4

#: Hears how it ended: None, or the first error.
Then = Callable[[OSError | None], None]


class Syncing(Protocol):
    """What both have. One sync at a time."""

    how: str

    def begin(self, files: list[int], then: Then) -> None:
        """Sync these in this order; `then` is called in the loop, unless somebody waited."""

    def wait(self) -> OSError | None:
        """Until the one under way is over, here and now. Nobody else hears of it."""

    def close(self) -> None:
        """There is none under way."""


class Later:
    """A sync that nobody waits for: with what comes until then. Each costs as much as ten messages."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._timer: asyncio.TimerHandle | None = None

    def within(self, most_s: float, loop: asyncio.AbstractEventLoop) -> None:
        """So long from now at most, whatever was said before."""
        due = loop.time() + most_s
        if self._timer is None or due < self._timer.when():
            self.cancel()
            self._timer = loop.call_at(due, self._due)

    def _due(self) -> None:
        self._timer = None
        self._sync()

    def cancel(self) -> None:
        """None is needed any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class RingSyncing:
    """An io_uring of this loop's thread."""

    how = "io_uring"

    def __init__(self, loop: asyncio.AbstractEventLoop, engine: _native.Engine) -> None:
        self._loop = loop
        self._engine = engine
        self._left: set[int] = set()
        self._error: OSError | None = None
        self._then: Then | None = None
        loop.add_reader(engine.fileno(), self._reap)

    def begin(self, files: list[int], then: Then) -> None:
        """See Syncing. They are a chain: what follows one that fails is not begun."""
        self._error, self._then = None, then
        last = len(files) - 1
        self._left = {self._engine.fsync(file, True, place < last) for place, file in enumerate(files)}
        self._engine.submit()
        if not files:
            self._loop.call_soon(self._reap)

    def _reap(self) -> None:
        self._look()
        if not self._left and self._then is not None:
            then, self._then = self._then, None
            then(self._error)

    def _look(self) -> None:
        for token, result in self._engine.reap():
            self._left.discard(token)
            if result < 0 and self._error is None:
                self._error = OSError(-result, os.strerror(-result))

    def wait(self) -> OSError | None:
        """See Syncing."""
        self._then = None
        while self._left:
            self._look()
            if self._left:
                _until_readable(self._engine.fileno())
        return self._error

    def close(self) -> None:
        """See Syncing."""
        with suppress(RuntimeError):  # the loop is closed already
            self._loop.remove_reader(self._engine.fileno())
        self._engine.close()


class ThreadSyncing:
    """A thread of our own."""

    how = "a thread"

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: ThreadPoolExecutor) -> None:
        self._loop = loop
        self._threads = threads
        self._future: Future[OSError | None] | None = None

    def begin(self, files: list[int], then: Then) -> None:
        """See Syncing."""
        future = self._future = self._threads.submit(sync_all, files)

        def over() -> None:
            if self._future is future:
                self._future = None
                then(future.result())

        def tell(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed: somebody waits
                self._loop.call_soon_threadsafe(over)

        future.add_done_callback(tell)

    def wait(self) -> OSError | None:
        """See Syncing."""
        future, self._future = self._future, None
        return None if future is None else future.result()

    def close(self) -> None:
        """See Syncing."""


def make(loop: asyncio.AbstractEventLoop, threads: ThreadPoolExecutor, io_uring: bool) -> Syncing:
    """The faster way that there is here."""
    if io_uring:
        try:
            return RingSyncing(loop, _native.Engine(_ENTRIES))
        except OSError as error:
            log.info("the journal syncs in a thread: %s", error.strerror)
    return ThreadSyncing(loop, threads)


def sync_all(files: list[int]) -> OSError | None:
    """Here and now; the first error ends it."""
    try:
        for file in files:
            os.fdatasync(file)
    except OSError as error:
        return error
    return None


def _until_readable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll()
