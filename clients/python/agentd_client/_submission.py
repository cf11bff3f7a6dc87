"""What a client submits of its high channels: doorbells, together in a burst; and in asyncio the copies of large
bodies, which the kernel makes while the loop goes on. Made with the first high channel.

A copy that the kernel makes is a chain: the body into the pool, one byte that makes its record one that can be read,
the doorbell. The record has its place in the ring before, so order holds. A chain that breaks is ended by hand.

`send` takes that place, the loop's next turn queues the chains, the one after that submits them: each a third of what
would hold the loop, which in a program that has just filled a large body runs from cold caches.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

from agentd import _native
from agentd.wire import grants, records

if TYPE_CHECKING:
    import asyncio

    from agentd_client._engine import Engine, Request
    from agentd_client._introductions import Introductions
    from agentd_client._pairs import Outgoing

_LANE: Final = grants.HIGH
_ENTRIES: Final = 64
#: How long a record of a burst waits for others, where the loop turns meanwhile.
_BURST_S: Final = 0.001
#: How often agentd is told what was submitted, while something is; and pools that lie idle are given back.
_TOLD_S: Final = 1.0
#: What an idle pool keeps: so much is warm in the caches.
_WARM_BYTES: Final = 2 << 20
#: How long leaving a channel waits for the copies into it.
_COPIED_S: Final = 5.0
_LOOK_S: Final = 0.0001
_ONE: Final = (1).to_bytes(8, "little")


class Copy:
    """One under way."""

    def __init__(self, channel: Outgoing, block: _native.Block, body: bytes, place: tuple[int, int, int]) -> None:
        self.channel = channel
        self.block = block
        self.body = body
        self.position, self.kind_at, self.kind = place  # of its record, of the byte that makes it one, and that byte
        self.last: Request | None = None  # the last step that is told
        self.fd = -1  # of its own, to write into, where threads do it: they may be late


class Submission:
    """One a client."""

    def __init__(self, direct: Introductions) -> None:
        self._direct = direct
        self.engine: Engine | None = None  # the loop's, where there is one
        self.ring: _native.Engine | None = None
        self.core: int | None = None  # where a thread of the kernel takes what this submits
        self.why = ""  # there is no io_uring
        self._copies: set[Copy] = set()
        self._fresh: deque[Copy] = deque()  # of them, those that nothing was queued of
        self._grown: dict[Outgoing, int] = {}  # channels whose pools have more than they keep; what they had sent then
        self._looking = False
        self._loop: asyncio.AbstractEventLoop | None = None  # where there is one
        self._bursts = 0  # that have begun and not ended
        self._overdue: asyncio.Handle | None = None  # the look at one that lets the loop turn
        self._told = [0] * len(grants.OPERATIONS)
        self._open()
        self.doorbells = _native.Doorbells(self.ring)

    def _open(self) -> None:
        wanted = not self._direct.without_io_uring
        core = self._direct.sqpoll_core if wanted else None
        if core is not None:
            try:
                self.ring = _native.Engine(_ENTRIES, core)
                self.core = core
            except OSError as error:
                self._direct.watcher.say(grants.Lease(_LANE, False, f"core {core}: {error.strerror}"))
        if wanted and self.ring is None:
            try:
                self.ring = _native.Engine(_ENTRIES)
            except OSError as error:
                self.why = error.strerror or str(error)
        if self._direct.face.in_loop:
            from agentd_client._engine import make_engine

            self._loop = asyncio.get_running_loop()
            self.engine = make_engine(self.ring, _ENTRIES, self.why or "it is switched off")

    def serve(self, channel: Outgoing) -> None:
        """That channel rings through this, and its large bodies are copied by it."""
        channel.ring_by(self.doorbells)
        channel.grown = lambda: self._grew(channel)
        if self.engine is not None and self._direct.async_bytes:
            channel.async_bytes = self._direct.async_bytes + 1  # what has as many is copied as fast as a chain is made
            channel.large = partial(self._copy, channel)
        else:
            channel.async_bytes = 0

    @contextmanager
    def burst(self) -> Iterator[None]:
        """Records sent in here are in their rings at once; sleeping receivers are rung together."""
        self.doorbells.begin()
        self._bursts += 1
        if self._loop is not None and self._overdue is None:
            self._overdue = self._loop.call_soon(self._still_bursting)
        try:
            yield
        finally:
            self._bursts -= 1
            if self._overdue is not None and not self._bursts:
                self._overdue.cancel()
                self._overdue = None
            self.doorbells.end()
            self.used()

    def _still_bursting(self) -> None:
        """The loop has a turn within a burst: its program waits for something, perhaps for what it has sent."""
        assert self._loop is not None
        self._overdue = self._loop.call_later(_BURST_S, self._still_bursting)
        self.doorbells.flush()

    def flush(self) -> None:
        """Somebody is about to wait for a record: its receiver is rung, also in a burst."""
        if self._bursts:
            self.doorbells.flush()

    # Copies by the kernel.

    def _copy(self, channel: Outgoing, body: bytes, content: int, flags: int, details: bytes, deadline_ns: int) -> int:
        """The hook of Channel: `bytes` do not change while they are copied."""
        block = channel.allocate(len(body))
        try:
            reference = block.reference()
            place = channel.claim_later(reference, content, flags | records.POOLED, details, deadline_ns)
        except BaseException:
            block.abandon()
            raise
        copy = Copy(channel, block, body, place)
        self._copies.add(copy)
        if not self._fresh:
            assert self._loop is not None
            self._loop.call_soon(self._start_copies)
        self._fresh.append(copy)
        return copy.position

    def _start_copies(self) -> None:
        while self._fresh:  # one that can't be written ends its channel, which starts the others first
            self._start_copy(self._fresh.popleft())
            self.used()

    def _start_copy(self, copy: Copy) -> None:
        engine = self.engine
        assert engine is not None
        try:
            copy.last = self._chain(engine, copy) if self.ring else self._in_thread(engine, copy)
        except OSError:  # no room in the queue, or no descriptor
            self._copies.discard(copy)
            self._by_hand(copy)
        else:
            copy.last.add_done_callback(lambda _: self._copied(copy))

    def _chain(self, engine: Engine, copy: Copy) -> Request:
        """The body, what makes its record one, the doorbell. That is told too: until then its descriptor must be open,
        which the kernel looks up when the chain has come so far."""
        channel = copy.channel
        return engine.write_chain(
            (channel.memory_fd, copy.body, copy.block.offset, True),
            (channel.memory_fd, bytes([copy.kind]), copy.kind_at, False),
            (channel.bell_fd, _ONE, -1, False),
        )

    def _in_thread(self, engine: Engine, copy: Copy) -> Request:
        """The body; the rest is ours."""
        copy.fd = os.dup(copy.channel.memory_fd)
        try:
            return engine.write(copy.fd, copy.body, copy.block.offset, punt=True)
        except BaseException:
            os.close(copy.fd)
            raise

    def _copied(self, copy: Copy) -> None:
        """It has ended."""
        last = copy.last
        assert last is not None
        if copy.fd >= 0:
            os.close(copy.fd)
            copy.fd = -1
        if copy not in self._copies:
            return
        self._copies.discard(copy)
        error = _error(last)
        if self.ring is not None:
            if error == errno.ECANCELED:  # a step before the doorbell failed
                self._by_hand(copy)
            elif error and not copy.channel.gone:  # the doorbell did; EAGAIN: it is rung
                with suppress(OSError):
                    os.eventfd_write(copy.channel.bell_fd, 1)
        elif error or last.result() != len(copy.body):
            self._by_hand(copy)
        else:
            copy.channel.commit_now(copy.position)

    def _by_hand(self, copy: Copy) -> None:
        """Nobody else does it, now or later. Where that fails too, the channel is over: what was sent behind this would
        never be read."""
        channel, left, offset = copy.channel, memoryview(copy.body), copy.block.offset
        try:
            while left:
                written = os.pwrite(channel.memory_fd, left, offset)
                left, offset = left[written:], offset + written
        except OSError as error:
            self._direct.drop(channel, f"no room for a body of {len(copy.body)} bytes: {error.strerror}")
        else:
            channel.commit_now(copy.position)

    def finish(self, channel: Outgoing) -> None:
        """That channel is about to be closed: what was sent through it gets there."""
        channel.large = channel.grown = None
        self._start_copies()
        mine = [copy for copy in self._copies if copy.channel is channel]
        until = monotonic() + _COPIED_S
        while mine and self.ring is not None:
            assert self.engine is not None
            self.engine.hurry()
            for copy in [copy for copy in mine if copy.last is None or copy.last.done()]:
                mine.remove(copy)
                self._copied(copy)
            if mine and monotonic() >= until:  # not before a look: this process may have been stopped meanwhile
                break
            if mine:
                sleep(_LOOK_S)
        for copy in mine:
            self._copies.discard(copy)
            if self.ring is None:  # a thread may do the same: it writes the same
                self._by_hand(copy)
        self._grown.pop(channel, None)

    # Now and then.

    def used(self) -> None:
        """Something was submitted, or a pool was used."""
        if not self._looking:
            self._looking = True
            self._direct.later(_TOLD_S, self._look)

    def _look(self) -> None:
        self._looking = False
        self.tell()
        for channel, sent in list(self._grown.items()):
            self._grown[channel] = channel.sent
            if channel.sent != sent or channel.lent:
                continue
            channel.trim(_WARM_BYTES)
            if channel.touched_bytes <= _WARM_BYTES:  # else something lies there that is still to be sent
                del self._grown[channel]
        if self._grown:
            self.used()

    def _grew(self, channel: Outgoing) -> None:
        """Its pool takes more memory: it is given back when nothing is sent any more."""
        if channel.touched_bytes > _WARM_BYTES and channel not in self._grown:
            self._grown[channel] = channel.sent
            self.used()

    def tell(self) -> None:
        """Have agentd count what io_uring did."""
        if self.ring is None:
            return
        submitted = self.ring.counts()["submitted"]
        now = [submitted[kind] for kind in grants.OPERATIONS]
        fresh = [after - before for before, after in zip(self._told, now, strict=True)]
        if any(fresh) and self._direct.watcher.say(grants.Submitted(_LANE, fresh)):
            self._told = now

    def close(self) -> None:
        """The client leaves; its channels are closed."""
        try:
            self.tell()
        except (RuntimeError, ValueError):  # a child process, or it was closed
            pass
        if self.engine is not None:
            self.engine.close_now()
        elif self.ring is not None:
            self.ring.close()


def _error(request: asyncio.Future[int]) -> int:
    """Why it failed; 0 where it did not."""
    if request.cancelled():
        return errno.ECANCELED
    error = request.exception()
    return (error.errno or errno.EIO) if isinstance(error, OSError) else 0
