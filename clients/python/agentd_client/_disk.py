"""Files as a transfer reads and writes them: at once, where the caller may wait; or by the kernel and other threads,
for who has a loop. Both have one interface, so that a transfer is written once, in steps."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from agentd_client.receipt import Call

if TYPE_CHECKING:
    from asyncio import Future

    from agentd_client._engine import Engine


class Wake:
    """What a transfer waits for: whatever may let it go on."""

    def __init__(self) -> None:
        self._call = Call(0)

    def renew(self) -> Call:
        """To be taken before a look at whether there is something to do, and waited for after it."""
        if self._call.settled:
            self._call = Call(0)
        return self._call

    def ring(self) -> None:
        """There may be."""
        if not self._call.settled:
            self._call.settle()


class Job:
    """One step under way; `done` once it has ended."""

    __slots__ = ("_error", "_result", "done")

    def __init__(self) -> None:
        self.done = False
        self._result: Any = None
        self._error: BaseException | None = None

    def end(self, result: Any, error: BaseException | None = None) -> None:
        """So it ended."""
        self._result, self._error, self.done = result, error, True

    def outcome(self) -> Any:
        """Its result, or its error raised."""
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._result


class Disk(Protocol):
    """What both have. A descriptor stays open until `last`."""

    @property
    def depth(self) -> int:
        """How many steps under way at a time pay off."""

    def read(self, fd: int, buffer: memoryview, offset: int) -> Job:
        """preadv(2)."""

    def write(self, fd: int, buffer: memoryview, offset: int) -> Job:
        """pwritev(2)."""

    def do(self, action: Callable[[], Any]) -> Job:
        """Something with names, which may take as long as a disk takes."""

    def last(self, action: Callable[[], object]) -> None:
        """Do that once nothing is under way any more. Nobody waits for it."""


class BlockingDisk:
    """At once."""

    depth: Final = 1

    def read(self, fd: int, buffer: memoryview, offset: int) -> Job:
        """See Disk."""
        return self.do(lambda: os.preadv(fd, [buffer], offset))

    def write(self, fd: int, buffer: memoryview, offset: int) -> Job:
        """See Disk."""
        return self.do(lambda: os.pwritev(fd, [buffer], offset))

    def do(self, action: Callable[[], Any]) -> Job:
        """See Disk."""
        job = Job()
        try:
            job.end(action())
        except OSError as error:
            job.end(None, error)
        return job

    def last(self, action: Callable[[], object]) -> None:
        """See Disk."""
        action()


class LoopDisk:
    """While the loop goes on: by its io_uring, else by its threads. What is under way is never cancelled: it ends by
    itself, and only then its descriptor is closed, which would else be somebody else's by the time it is used."""

    depth: Final = 4

    def __init__(self, engine: Engine, wake: Wake) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._engine = engine if engine.native is not None else None
        self._wake = wake
        self._under_way = 0
        self._last: list[Callable[[], object]] = []

    def read(self, fd: int, buffer: memoryview, offset: int) -> Job:
        """See Disk."""
        if self._engine is not None:
            try:
                return self._begin(self._engine.read(fd, buffer, offset, punt=True))
            except BlockingIOError:  # no room for another request
                pass
        return self._begin(self._loop.run_in_executor(None, os.preadv, fd, [buffer], offset))

    def write(self, fd: int, buffer: memoryview, offset: int) -> Job:
        """See Disk."""
        if self._engine is not None:
            try:
                return self._begin(self._engine.write(fd, buffer, offset, punt=True))
            except BlockingIOError:
                pass
        return self._begin(self._loop.run_in_executor(None, os.pwritev, fd, [buffer], offset))

    def do(self, action: Callable[[], Any]) -> Job:
        """See Disk."""
        return self._begin(self._loop.run_in_executor(None, action))

    def last(self, action: Callable[[], object]) -> None:
        """See Disk."""
        if self._under_way:
            self._last.append(action)
            return
        try:
            self._loop.run_in_executor(None, action)
        except RuntimeError:  # there is no loop any more
            action()

    def _begin(self, future: Future[Any]) -> Job:
        job = Job()
        self._under_way += 1

        def ended(future: Future[Any]) -> None:
            self._under_way -= 1
            if future.cancelled():
                job.end(None, OSError(errno.ECANCELED, os.strerror(errno.ECANCELED)))
            elif (error := future.exception()) is not None:
                job.end(None, error)
            else:
                job.end(future.result())
            self._wake.ring()
            if not self._under_way:
                actions, self._last = self._last, []
                for action in actions:
                    self.last(action)

        future.add_done_callback(ended)
        return job
