"""Files and doorbells from an event loop without holding it: an io_uring of the client's own, or where that is refused
system calls and a few threads. Chosen once, by trying; both have one interface and the same results.

    engine = open_engine()
    n = await engine.read(fd, buffer, 0)

A request is queued by calling, and what is queued in one turn of the loop leaves together, in one io_uring_enter. The
future has the number of bytes (poll: the events) or an OSError. Cancelling it asks for the request's end; its buffer
stays untouchable until then, which `close` waits for. The daemon may get its own beside its journal.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Protocol

from agentd import _native

#: Or whatever else has a buffer, an mmap.mmap say.
WriteableBuffer = bytearray | memoryview
ReadableBuffer = bytes | WriteableBuffer

#: What a write of a chain has: descriptor, buffer, offset, punt.
Step = tuple[int, ReadableBuffer, int, bool]

#: How soon a submission is tried again that the kernel had no memory for.
_RETRY_S: Final = 0.001
#: How long `close` waits for what is under way, without holding the loop.
_CLOSE_S: Final = 1.0


class Request(asyncio.Future[int]):
    """What becomes of a request. To cancel it asks the kernel to end it."""

    engine: _Cancels | None = None
    token = 0

    def cancel(self, msg: Any | None = None) -> bool:
        """As a future's."""
        if not super().cancel(msg):
            return False
        if self.engine is not None:
            self.engine.cancelled(self.token)
        return True

    def settle(self, result: int) -> None:
        """Told by the kernel, or by who stands for it."""
        self.engine = None
        if self.done():
            return
        if result >= 0:
            self.set_result(result)
        else:
            self.set_exception(OSError(-result, os.strerror(-result)))


class _Cancels(Protocol):
    def cancelled(self, token: int) -> None: ...


class Engine(Protocol):
    """What both have. Methods raise BlockingIOError where there is no room: `await room(n)`, then queue without waiting
    in between. link: the next request queued starts when this one has succeeded in full, or ends with ECANCELED."""

    kind: str
    """`io_uring` or `threads`."""
    why: str
    """Why it is no io_uring; empty where it is."""

    @property
    def native(self) -> _native.Engine | None:
        """The io_uring, where it is one."""

    def read(
        self, fd: int, buffer: WriteableBuffer, offset: int = -1, *, link: bool = False, punt: bool = False
    ) -> Request:
        """Into the buffer; -1: at the file's own position, or it has none. Waits for what is not there yet."""

    def write(
        self, fd: int, buffer: ReadableBuffer, offset: int = -1, *, link: bool = False, punt: bool = False
    ) -> Request:
        """From the buffer. punt: by another thread from the start, for large copies into files."""

    def write_chain(self, *steps: Step) -> Request:
        """Writes, each of which starts when the one before it has succeeded in full; the request is the last one's, and
        fails with ECANCELED where another has failed."""

    def fsync(self, fd: int, data_only: bool = True, *, link: bool = False) -> Request:
        """fdatasync(2), or fsync(2)."""

    def poll(self, fd: int, events: int, *, link: bool = False) -> Request:
        """Wait for one of these events of poll(2)."""

    def has_room(self, n: int) -> bool:
        """Whether that many can be queued now."""

    def hurry(self) -> None:
        """Submit what is queued, and settle what has ended: for who can't go back to the loop."""

    def counts(self) -> dict[str, Any]:
        """As agentd._native.Engine.counts()."""

    async def room(self, n: int = 1) -> None:
        """Wait until that many can be queued."""

    async def close(self) -> None:
        """End every request, and wait for that."""

    def close_now(self) -> None:
        """The same at once, where nothing is under way that matters."""


class RingEngine:
    """Over an io_uring. Made in the loop's thread, and used there."""

    kind = "io_uring"
    why = ""

    def __init__(self, native: _native.Engine) -> None:
        self.native = native
        self._loop = asyncio.get_running_loop()
        self._requests: dict[int, Request] = {}
        self._cancelled: list[int] = []
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._due = False  # a submission, at the end of this turn
        self._linked = False  # the last one queued waits for its successor
        self._most = native.room()
        self._closing = self._closed = False
        self._loop.add_reader(native.fileno(), self._reap)

    def read(
        self, fd: int, buffer: WriteableBuffer, offset: int = -1, *, link: bool = False, punt: bool = False
    ) -> Request:
        """See Engine."""
        return self._queue(link, self.native.read, fd, buffer, offset, link, punt)

    def write(
        self, fd: int, buffer: ReadableBuffer, offset: int = -1, *, link: bool = False, punt: bool = False
    ) -> Request:
        """See Engine."""
        return self._queue(link, self.native.write, fd, buffer, offset, link, punt)

    def write_chain(self, *steps: Step) -> Request:
        """See Engine. Queued without a future for each: what a large body costs its sender is mostly this."""
        native = self.native
        if not self.has_room(len(steps)):
            raise BlockingIOError(errno.EAGAIN, "No room for a chain")
        for fd, buffer, offset, punt in steps[:-1]:
            native.write(fd, buffer, offset, True, punt)
        fd, buffer, offset, punt = steps[-1]
        return self._queue(False, native.write, fd, buffer, offset, False, punt)

    def fsync(self, fd: int, data_only: bool = True, *, link: bool = False) -> Request:
        """See Engine."""
        return self._queue(link, self.native.fsync, fd, data_only, link)

    def poll(self, fd: int, events: int, *, link: bool = False) -> Request:
        """See Engine."""
        return self._queue(link, self.native.poll, fd, events, link)

    def has_room(self, n: int) -> bool:
        """See Engine."""
        if self.native.room() < n:
            self._submit()
        return self.native.room() >= n

    def hurry(self) -> None:
        """See Engine."""
        self._submit()

    def counts(self) -> dict[str, Any]:
        """See Engine."""
        return self.native.counts()

    def _queue(self, link: bool, queue: Any, *args: Any) -> Request:
        try:
            if self.native.room() < 1 + link:
                if not self._linked:
                    self._submit()
                if self.native.room() < 1 + link:
                    raise BlockingIOError(errno.EAGAIN, "No room for another request")
            token = queue(*args)
        except BaseException:
            if self._linked:  # or what is queued next would be taken for the successor
                self._submit()
            raise
        self._linked = link
        self._requests[token] = request = Request(loop=self._loop)
        request.engine, request.token = self, token
        self._submit_soon()
        return request

    def _submit_soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._submit_now)

    def _submit_now(self) -> None:
        self._due = False
        if not self._closed:
            self._submit()

    def _submit(self) -> None:
        self._linked = False
        try:
            self.native.submit()
            while self._cancelled and self.native.room():
                token = self._cancelled.pop()
                if token in self._requests:
                    self.native.cancel(token)
            self.native.submit()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EBUSY):
                raise
            if not self._due:
                self._due = True
                self._loop.call_later(_RETRY_S, self._submit_now)
        self._reap()  # what needed no waiting is done

    def _reap(self) -> None:
        try:
            self._settle(self.native.reap())
        except OSError as error:  # it is no ring any more, and would say so for ever
            self._loop.remove_reader(self.native.fileno())
            self._settle([(token, -(error.errno or errno.EIO)) for token in self._requests])
            raise
        if self._cancelled:
            self._submit_soon()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _settle(self, completions: Iterable[tuple[int, int]]) -> None:
        for token, result in completions:
            request = self._requests.pop(token, None)
            if request is not None:  # None: of a cancellation
                request.settle(result)

    def cancelled(self, token: int) -> None:
        """The application does not wait for it any more."""
        self._cancelled.append(token)
        self._submit_soon()

    async def room(self, n: int = 1) -> None:
        """See Engine."""
        if n > self._most:
            raise ValueError(f"There is never room for more than {self._most} requests")
        while self.native.room() < n:
            self._submit()
            if self.native.room() < n:
                waiter = self._loop.create_future()
                self._waiters.append(waiter)
                await waiter

    async def close(self) -> None:
        """See Engine."""
        if self._closing:
            return
        self._closing = True
        for token, request in list(self._requests.items()):
            if not request.cancel():
                self.cancelled(token)
        until = self._loop.time() + _CLOSE_S
        while self._requests and self._loop.time() < until:
            self._submit()
            if self._requests:
                await asyncio.sleep(_RETRY_S)
        self.close_now()

    def close_now(self) -> None:
        """See Engine."""
        if not self._closed:
            self._closing = self._closed = True
            if not self._loop.is_closed():
                self._loop.remove_reader(self.native.fileno())
            self._settle(self.native.close())


def make_engine(ring: _native.Engine | None, entries: int, why: str = "") -> Engine:
    """Over that io_uring, or where there is none, without."""
    if ring is not None:
        return RingEngine(ring)
    from agentd_client._engine_threads import ThreadEngine

    return ThreadEngine(entries, why)


def open_engine(entries: int = 64, *, sqpoll_cpu: int | None = None, ring: bool = True) -> Engine:
    """The best there is here, in the running loop's thread. ring=False: no io_uring, whatever there is."""
    if not ring:
        return make_engine(None, entries, "it is switched off")
    try:
        return make_engine(_native.Engine(entries, sqpoll_cpu), entries)
    except OSError as error:
        return make_engine(None, entries, error.strerror or str(error))
