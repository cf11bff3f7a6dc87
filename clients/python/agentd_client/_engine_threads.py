"""The engine where io_uring is refused: doorbells by write(2), waiting by the event loop, files by a few threads."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import stat
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from agentd_client._engine import ReadableBuffer, Request, Step, WriteableBuffer

T = TypeVar("T")

_THREADS: Final = 4
_KINDS: Final = ("nop", "read", "write", "fsync", "poll", "cancel", "doorbell")
_MAX_ENTRIES: Final = 4096
_NOWAIT: Final = os.RWF_NOWAIT


class _Step:
    """One request; `waiter` is what it waits for in the loop, if anything."""

    __slots__ = ("act", "buffer", "events", "fd", "kind", "link", "offset", "request", "waiter")

    def __init__(self, kind: str, fd: int, request: Request, link: bool) -> None:
        self.kind, self.fd, self.request, self.link = kind, fd, request, link
        self.buffer = memoryview(b"")
        self.offset = self.events = 0
        self.act: Callable[[], None] | None = None
        self.waiter: asyncio.Future[None] | None = None


class ThreadEngine:
    """See _engine.Engine."""

    kind = "threads"
    native = None

    def __init__(self, entries: int, why: str) -> None:
        if not 0 < entries <= _MAX_ENTRIES:
            raise ValueError(f"entries must be between 1 and {_MAX_ENTRIES}, not {entries}")
        self.why = why
        self._loop = asyncio.get_running_loop()
        self._entries, self._most = entries, 2 * entries
        self._steps: dict[int, _Step] = {}
        self._token = 0
        self._chain: list[_Step] = []
        self._chains: list[list[_Step]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._due = self._closed = False
        self._pool: ThreadPoolExecutor | None = None
        self._submitted: Counter[str] = Counter()
        self._completed: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def read(
        self, fd: int, buffer: WriteableBuffer, offset: int = -1, *, link: bool = False, punt: bool = False
    ) -> Request:
        """See Engine."""
        view = memoryview(buffer)
        if view.readonly:
            raise BufferError("Object is not writable.")
        return self._queue("read", fd, link, view, offset)

    def write(
        self, fd: int, buffer: ReadableBuffer, offset: int = -1, *, link: bool = False, punt: bool = False
    ) -> Request:
        """See Engine."""
        return self._queue("write", fd, link, memoryview(buffer), offset)

    def write_chain(self, *steps: Step) -> Request:
        """See Engine."""
        if not self.has_room(len(steps)):
            raise BlockingIOError(errno.EAGAIN, "No room for a chain")
        *before, last = steps
        for fd, buffer, offset, punt in before:
            self.write(fd, buffer, offset, link=True, punt=punt).add_done_callback(_heard)
        fd, buffer, offset, punt = last
        return self.write(fd, buffer, offset, punt=punt)

    def fsync(self, fd: int, data_only: bool = True, *, link: bool = False) -> Request:
        """See Engine."""
        return self._queue("fsync", fd, link, act=lambda: (os.fdatasync if data_only else os.fsync)(fd))

    def poll(self, fd: int, events: int, *, link: bool = False) -> Request:
        """See Engine."""
        return self._queue("poll", fd, link, events=events)

    def _queue(
        self,
        kind: str,
        fd: int,
        link: bool,
        buffer: memoryview | None = None,
        offset: int = 0,
        events: int = 0,
        act: Callable[[], None] | None = None,
    ) -> Request:
        if self._closed:
            raise ValueError("The engine is closed")
        if fd < 0 or offset < -1:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if self._most - len(self._steps) < 1 + link:
            raise BlockingIOError(errno.EAGAIN, "No room for another request")
        request = Request(loop=self._loop)
        step = _Step(kind, fd, request, link)
        if buffer is not None:
            step.buffer = buffer.cast("B")
        step.offset, step.events, step.act = offset, events, act
        self._token += 1
        request.engine, request.token = self, self._token
        self._steps[self._token] = step
        self._chain.append(step)
        if not link:
            self._chains.append(self._chain)
            self._chain = []
        if not self._due:
            self._due = True
            self._loop.call_soon(self._start)
        return request

    def _start(self) -> None:
        self._due = False
        if self._chain:  # it ends with the submission
            self._chains.append(self._chain)
            self._chain = []
        chains, self._chains = self._chains, []
        for chain in chains:
            if len(chain) == 1 and self._at_once(chain[0]):
                continue
            task = self._loop.create_task(self._run(chain))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _at_once(self, step: _Step) -> bool:
        """Whether it was a doorbell, and is rung: a thread would cost more than it takes."""
        if step.kind != "write" or step.offset >= 0 or len(step.buffer) > select.PIPE_BUF or step.request.done():
            return False
        try:
            if not _waits(step.fd) or not _events(step.fd, select.POLLOUT):
                return False
            result = os.write(step.fd, step.buffer)
        except OSError as error:
            result = -(error.errno or errno.EIO)
        self._submitted["write"] += 1
        self._tell(step, result)
        return True

    async def _run(self, chain: list[_Step]) -> None:
        broken = False
        for step in chain:
            self._submitted[step.kind] += 1
            if broken or step.request.done():
                result = -errno.ECANCELED
            else:
                result = await self._do(step)
            short = step.kind in ("read", "write") and result < len(step.buffer)
            broken = broken or result < 0 or short
            self._tell(step, result)

    def _tell(self, step: _Step, result: int) -> None:
        del self._steps[step.request.token]
        step.buffer.release()
        self._completed[step.kind] += 1
        self._failed[step.kind] += result < 0
        step.request.settle(result)
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def _do(self, step: _Step) -> int:
        try:
            if step.kind == "poll":
                return await self._ready(step, step.events)
            if step.act is not None:
                await self._in_thread(step.act)
                return 0
            if step.offset >= 0:
                return await self._in_thread(self._transfer, step, step.offset, 0)
            return await self._stream(step)
        except asyncio.CancelledError:
            if not step.request.cancelled():
                raise
            return -errno.ECANCELED
        except OSError as error:
            return -(error.errno or errno.EIO)

    @staticmethod
    def _transfer(step: _Step, offset: int, flags: int) -> int:
        if step.kind == "read":
            return os.preadv(step.fd, [step.buffer], offset, flags)
        return os.pwritev(step.fd, [step.buffer], offset, flags)

    async def _stream(self, step: _Step) -> int:
        """At the file's own position, or it has none: wait until it need not wait, and never hold a thread for that."""
        while True:
            await self._ready(step, select.POLLIN if step.kind == "read" else select.POLLOUT)
            try:
                return self._transfer(step, -1, _NOWAIT)
            except BlockingIOError:
                if not _waits(step.fd):  # a file that is not in memory
                    break
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                break
        if step.kind == "write" and _waits(step.fd) and len(step.buffer) <= select.PIPE_BUF:
            return os.write(step.fd, step.buffer)  # there is room for that
        return await self._in_thread(os.readv if step.kind == "read" else os.writev, step.fd, [step.buffer])

    async def _ready(self, step: _Step, events: int) -> int:
        while not (found := _events(step.fd, events)):
            await self._wait(step, events)
        return found

    async def _wait(self, step: _Step, events: int) -> None:
        fd = os.dup(step.fd)  # the application may watch its own in the same loop
        step.waiter = waiter = self._loop.create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        try:
            self._loop.add_reader(fd, wake)
            if events & select.POLLOUT:
                self._loop.add_writer(fd, wake)
            if not events & (select.POLLIN | select.POLLPRI | select.POLLRDHUP):
                self._loop.remove_reader(fd)
            await waiter
        finally:
            step.waiter = None
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
            os.close(fd)

    def _in_thread(self, call: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, "agentd-engine")
        return self._loop.run_in_executor(self._pool, call, *args)

    def cancelled(self, token: int) -> None:
        """The application does not wait for it any more. What a thread does can't be stopped."""
        step = self._steps.get(token)
        if step is not None and step.waiter is not None:
            step.waiter.cancel()

    def counts(self) -> dict[str, Any]:
        """See Engine."""
        queued = len(self._chain) + sum(map(len, self._chains))
        counters = {"submitted": self._submitted, "completed": self._completed, "failed": self._failed}
        counts: dict[str, Any] = {name: {kind: counter[kind] for kind in _KINDS} for name, counter in counters.items()}
        more = {"unexpected": 0, "lost": 0, "enters": 0, "in_flight": len(self._steps) - queued, "queued": queued}
        return {**counts, **more}

    async def room(self, n: int = 1) -> None:
        """See Engine."""
        if n > self._entries:
            raise ValueError(f"There is never room for more than {self._entries} requests")
        while self._most - len(self._steps) < n:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def has_room(self, n: int) -> bool:
        """See Engine."""
        return self._most - len(self._steps) >= n

    def hurry(self) -> None:
        """See Engine. What threads do is settled by the loop alone."""

    async def close(self) -> None:
        """See Engine."""
        self.close_now()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def close_now(self) -> None:
        """See Engine. What a thread is at ends when it ends."""
        if self._closed:
            return
        self._closed = True
        for step in list(self._steps.values()):
            if not step.request.cancel() and step.waiter is not None:
                step.waiter.cancel()
        self._start()
        if self._pool is not None:
            self._pool.shutdown(wait=False)


def _heard(request: asyncio.Future[int]) -> None:
    """Its error is its successor's too."""
    if not request.cancelled():
        request.exception()


def _waits(fd: int) -> bool:
    """Whether epoll can watch it: all but files on a disk."""
    kind = stat.S_IFMT(os.fstat(fd).st_mode)
    return kind not in (stat.S_IFREG, stat.S_IFBLK, stat.S_IFDIR)


def _events(fd: int, events: int) -> int:
    poll = select.poll()
    poll.register(fd, events)
    found = poll.poll(0)
    if found and found[0][1] & select.POLLNVAL:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return found[0][1] if found else 0
