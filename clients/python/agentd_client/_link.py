"""The asyncio side of a conversation: its socket, renewed when the daemon comes back, and waiting without threads."""

from __future__ import annotations

import asyncio
import os
from _thread import get_ident
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from agentd.wire.errors import AgentdError
from agentd_client._joining import no_daemon, pauses
from agentd_client._waiter import Waiter
from agentd_client.receipt import Call, Steps

if TYPE_CHECKING:
    from agentd_client._conversation import Conversation
    from agentd_client._verbs import Verbs

T = TypeVar("T")

#: An ack that nobody waits for travels with the next write, or alone after so long.
_LAZY_S: Final = 0.02
#: Kept for reading: a fresh buffer for each read would be mapped and unmapped by the allocator each time.
_READ_BYTES: Final = 64 * 1024
#: How long the socket may take to close in an orderly way.
_CLOSE_S: Final = 1.0


async def until_settled(call: Call, until: float | None) -> None:
    """Wait for a call, at most until then. Cancelled, it leaves nothing behind."""
    if call.settled:
        return
    waiter = Waiter()
    call.when_settled(waiter.wake)
    call.at_once = waiter.settle_at_once
    try:
        await waiter.until(until)
    finally:
        call.no_longer(waiter.wake)
        call.at_once = None


def _raise(error: BaseException) -> None:
    raise error


async def drive(steps: Steps[T]) -> T:
    """Go through a verb's steps. Cancelled, it closes them, and they clean up."""
    try:
        while True:
            call: Any
            call, until = next(steps)
            if isinstance(call, Waiter):
                await call.until(until)
            else:
                await until_settled(call, until)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        steps.close()


class Link(asyncio.BufferedProtocol):
    """One client's socket. What is said in one turn of the loop is one write; nothing is written while the daemon
    does not read."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._conversation: Conversation[Any, Any]
        self._verbs: Verbs
        self._loop: asyncio.AbstractEventLoop
        self._transport: asyncio.Transport | None = None
        self._fd = -1
        self._unwritten = b""  # the kernel has not taken it, and the transport has not got it yet
        self._paused = False
        self._closing = False
        self._gone: asyncio.Future[None] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._lazy: asyncio.TimerHandle | None = None
        self._turn: asyncio.Handle | None = None
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._thread = 0

    # Both are called by the conversation.

    def wake(self) -> None:
        """There is something to write: at the end of this turn, together with what else is said in it."""
        if self._transport is not None and not self._paused:
            self._turn = self._turn or self._loop.call_soon(self._end_turn)

    def lazily(self) -> None:
        """There is something to write that can wait for the next write."""
        if self._lazy is None and self._transport is not None:
            self._lazy = self._loop.call_later(_LAZY_S, self.flush)

    def watch(self, fd: int, action: Callable[[], None]) -> None:
        """Call it whenever the descriptor is readable."""
        self._loop.add_reader(fd, action)

    def unwatch(self, fd: int) -> None:
        """No more."""
        if not self._loop.is_closed():
            self._loop.remove_reader(fd)

    def soon(self, action: Callable[[], None]) -> None:
        """In the loop's thread: at once where that is ours."""
        if get_ident() == self._thread:
            action()
        else:
            self._loop.call_soon_threadsafe(action)

    def next_turn(self, action: Callable[[], None]) -> None:
        """When the loop has looked for what else there is to do."""
        self._loop.call_soon(action)

    # Coming and going.

    async def open(self, conversation: Conversation[Any, Any], verbs: Verbs) -> None:
        """Connect for the first time and join; Unreachable at once where no daemon is."""
        self._conversation = conversation
        self._verbs = verbs
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        try:
            await self._connect()
        except OSError as error:
            raise no_daemon(self._path, error) from None
        except BaseException:
            self.abort()  # or what was half made would be taken for lost, and renewed
            raise
        try:
            await drive(verbs.join())
        except BaseException:
            await self.close()
            raise

    async def _connect(self) -> None:
        await self._loop.create_unix_connection(lambda: self, self._path)

    async def _renew(self) -> None:
        for pause in pauses():
            await asyncio.sleep(pause)
            try:
                await self._connect()
                await drive(self._verbs.join())
                break
            except (OSError, AgentdError):
                if self._transport is not None:
                    self._transport.abort()
                if self._conversation.closed is not None:
                    break
        self._renewal = None
        if self._transport is None and self._conversation.closed is None:
            self._start_renewal()  # lost again since

    def _start_renewal(self) -> None:
        if self._renewal is None and not self._closing and self._conversation.closed is None:
            self._renewal = self._loop.create_task(self._renew())

    async def close(self) -> None:
        """Write what there is to write, and end the connection."""
        self._closing = True
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
            self._renewal = None
        if self._transport is not None:
            self._end_turn()
        if self._transport is not None:
            transport = self._transport
            transport.close()
            gone = self._gone
            assert gone is not None
            try:
                await asyncio.wait([gone], timeout=_CLOSE_S)
            finally:
                if not gone.done():
                    transport.abort()

    def abort(self) -> None:
        """End the connection now; for a client that can't wait."""
        self._closing = True
        if self._renewal is not None:
            self._renewal.cancel()
        if self._transport is not None:
            self._transport.abort()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        transport = cast(asyncio.Transport, transport)  # uvloop's does not derive from it
        self._transport = transport
        self._share(transport)
        self._unwritten = b""
        self._paused = False
        self._gone = self._loop.create_future()
        self._conversation.connected()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to."""
        return self._buffer

    def buffer_updated(self, count: int) -> None:
        """What the daemon says."""
        try:
            self._conversation.feed(self._buffer[:count], at_once=True)
        except (SystemExit, KeyboardInterrupt) as error:  # the application's; uvloop would take it for the socket's
            self._loop.call_soon(_raise, error)
        except AgentdError as error:
            self._conversation.lost(f"it does not speak the protocol: {error.message}")
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """The end of this connection, perhaps not of the conversation."""
        self._transport = None
        if self._lazy is not None:
            self._lazy.cancel()
            self._lazy = None
        assert self._gone is not None
        if not self._gone.done():
            self._gone.set_result(None)
        self._conversation.lost("" if error is None else str(error))
        self._start_renewal()

    def pause_writing(self) -> None:
        """The daemon does not read."""
        self._paused = True

    def resume_writing(self) -> None:
        """It reads again."""
        self._paused = False
        self.flush()

    def flush(self) -> None:
        """Write what there is to write, now and as far as the kernel takes it: a loop that posts without a pause does
        not come to where a transport writes, and the daemon would work after it, not beside it."""
        if self._lazy is not None:
            self._lazy.cancel()
            self._lazy = None
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        transport = self._transport
        if transport is None or self._paused or transport.is_closing() or transport.get_write_buffer_size():
            return
        conversation = self._conversation
        before = self._unwritten
        data = before or conversation.take()
        while data:
            try:
                data = data[self._write(data) :]
            except OSError:
                pass  # it does not read now, or is gone: the transport finds out
            if data:
                self._unwritten = data
                self._turn = self._loop.call_soon(self._end_turn)
                conversation.out.gathered = 0  # it is tried again when there is as much again
                return
            self._unwritten = b""
            if before:
                before, data = b"", conversation.take()
        if conversation.out.more:
            self._loop.call_soon(self.flush)  # the next piece of something large; others may speak between

    def _share(self, transport: asyncio.Transport) -> None:
        """Its socket is ours to write to, too, while it has nothing itself: as long as it has we are paused."""
        transport.set_write_buffer_limits(high=0)
        self._fd = transport.get_extra_info("socket").fileno()

    def _write(self, data: bytes) -> int:
        """How much of it the kernel takes."""
        return os.write(self._fd, data)

    def _end_turn(self) -> None:
        """The transport has it from here: it waits until the daemon reads."""
        self._turn = None
        self.flush()
        data, self._unwritten = self._unwritten, b""
        if data and self._transport is not None:
            self._transport.write(data)
