"""Records that are claimed now and committed later: by the kernel, at the end of a copy, or by the sender where that
failed. None is seen before what it speaks of, and all in the order in which they were claimed."""

from __future__ import annotations

import mmap
import os
import random
import select
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd import _native
from agentd.wire import grants

RING_BYTES, VERDICT_BYTES, POOL_BYTES = 1 << 12, 1 << 10, 1 << 20
REFUSED = _native.io_uring_errno()
needs_ring = pytest.mark.skipif(bool(REFUSED), reason=f"no io_uring here: {os.strerror(REFUSED)}")


class Taken(_native.Record):
    """What a mailbox makes."""

    __slots__ = ()


def refuse(error: int, _: int) -> None:
    raise OSError(error, os.strerror(error))


class Ends:
    """A pair and both its ends, in one process or two."""

    def __init__(self) -> None:
        self.shape = (grants.HIGH, 7, RING_BYTES, VERDICT_BYTES, POOL_BYTES)
        self.fd = _native.create_pair(*self.shape, False)
        self.size = os.fstat(self.fd).st_size
        self.memory = mmap.mmap(self.fd, self.size)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.channel: Any = None
        self.mailbox: Any = None

    def send(self) -> _native.Channel:
        made = _native.Channel(self.fd, *self.shape, os.dup(self.bell), lambda body: (0, body), refuse)
        self.channel = made
        return made

    def receive(self) -> _native.Mailbox:
        verdicts = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        over: list[Any] = []
        made = _native.Mailbox(Taken, over.append, over.append, 0)
        made.add(_native.Incoming(self.fd, *self.shape, verdicts))
        self.mailbox = made
        return made

    def block(self, i: int, size: int) -> int:
        """The offset of the block `i` of the pool."""
        return self.size - (i + 1) * size

    def close(self) -> None:
        if self.channel:
            self.channel.close()
        if self.mailbox:
            self.mailbox.close()
        self.memory.close()
        os.close(self.bell)
        os.close(self.fd)


@pytest.fixture
def ends() -> Iterator[Ends]:
    one = Ends()
    one.send()
    one.receive()
    yield one
    one.close()


def claim(ends: Ends, body: bytes) -> tuple[int, int, int]:
    claimed: tuple[int, int, int] = ends.channel.claim_later(body, 0, 0, b"", 0)
    return claimed


def taken(ends: Ends) -> list[bytes]:
    return [record.body for record in ends.mailbox.drain(1000)]


def rung(ends: Ends) -> int:
    try:
        return os.eventfd_read(ends.bell)
    except BlockingIOError:
        return 0


def test_unseen_with_all_behind_it(ends: Ends) -> None:
    position, offset, value = claim(ends, b"late")
    other = ends.channel.send(b"behind it")
    assert (value, ends.memory[offset], ends.channel.later, ends.channel.sent) == (1, 0, 1, 2)
    assert other > position
    assert taken(ends) == [] and not ends.channel.is_delivered(position)
    assert ends.mailbox.arm()
    assert ends.channel.commit_now(position)
    assert rung(ends) == 1
    assert taken(ends) == [b"late", b"behind it"]
    assert ends.channel.is_delivered(position) and ends.channel.later == 0


def test_the_byte_is_all_that_it_takes(ends: Ends) -> None:
    for i in range(300):  # past the end of the ring, so padding too
        claimed = claim(ends, b"%03d" % i * (i % 50))
        assert taken(ends) == []
        os.pwrite(ends.fd, bytes([claimed[2]]), claimed[1])
        assert ends.channel.later == 0
        assert taken(ends) == [b"%03d" % i * (i % 50)]
        assert not ends.channel.commit_now(claimed[0])  # too late, and no harm
        assert taken(ends) == []
    assert not ends.channel.commit_now(12345)


def test_committing_wakes_who_was_left_asleep(ends: Ends) -> None:
    position, offset, value = claim(ends, b"late")
    assert ends.mailbox.arm()
    os.pwrite(ends.fd, bytes([value]), offset)  # a chain whose doorbell could not ring
    assert not ends.channel.commit_now(position)
    assert rung(ends) == 1


def test_no_more_than_it_can_keep_in_mind(ends: Ends) -> None:
    claimed = [claim(ends, b"") for _ in range(64)]
    with pytest.raises(BlockingIOError):
        claim(ends, b"")
    os.pwrite(ends.fd, bytes([claimed[40][2]]), claimed[40][1])  # which nobody says
    claimed.append(claim(ends, b""))
    assert ends.channel.later == 64
    for position, _, _ in claimed:
        ends.channel.commit_now(position)
    assert ends.channel.later == 0 and len(taken(ends)) == 65
    with pytest.raises(ValueError, match="no such"):
        ends.channel.claim_later(b"", 9, 0, b"", 0)
    with pytest.raises(OSError, match="too long"):
        claim(ends, b"x" * RING_BYTES)
    assert ends.channel.later == 0


def test_once_it_is_closed(ends: Ends) -> None:
    position, _, _ = claim(ends, b"late")
    ends.channel.send(b"lost with it")
    assert ends.channel.doorbell_fd >= 0
    ends.channel.close()
    assert (ends.channel.doorbell_fd, ends.channel.commit_now(position)) == (-1, False)
    assert taken(ends) == []
    assert not ends.channel.is_delivered(position)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["later", "send", "byte", "now", "take"]), st.integers(0, 400)), max_size=80))
def test_any_order(steps: list[tuple[str, int]]) -> None:
    ends = Ends()
    ends.send()
    ends.receive()
    sent: list[bytes] = []
    open_ones: dict[int, tuple[int, int, int]] = {}  # by their place in `sent`
    got: list[bytes] = []
    for step, n in [*steps, *(("now", i) for i in range(80)), ("take", 0)]:
        body = b"%d:" % len(sent) + b"x" * n
        try:
            if step == "later":
                open_ones[len(sent)] = claim(ends, body)
                sent.append(body)
            elif step == "send":
                ends.channel.send(body)
                sent.append(body)
            elif open_ones and step in ("byte", "now"):
                position, offset, value = open_ones.pop(list(open_ones)[n % len(open_ones)])
                if step == "byte":
                    os.pwrite(ends.fd, bytes([value]), offset)
                else:
                    assert ends.channel.commit_now(position)
            elif step == "take":
                got += taken(ends)
                assert got == sent[: min(open_ones, default=len(sent))]
        except BlockingIOError:
            assert step in ("later", "send")
        assert ends.channel.later == len(open_ones)
    assert got == sent
    ends.close()


def queue_chain(engine: _native.Engine, ends: Ends, body: bytes, block: int, claimed: tuple[int, int, int]) -> None:
    """As the client does: the body, the record, the doorbell."""
    engine.write(ends.fd, body, block, True, len(body) > 65536)
    engine.write(ends.fd, bytes([claimed[2]]), claimed[1], True)
    engine.doorbell(ends.bell)


@needs_ring
@pytest.mark.parametrize("size", [5000, 100_000])
def test_a_chain_of_the_kernel(ends: Ends, size: int) -> None:
    engine = _native.Engine(64)
    expected, i = 0, 0
    while expected < 200:
        told = 0
        for _ in range(3):
            queue_chain(engine, ends, b"%08d" % i * (size // 8), ends.block(i % 3, size), claim(ends, b"%08d" % i))
            i += 1
        ends.channel.send(b"between")
        assert engine.submit() == 9
        while expected < i:
            if ends.mailbox.arm():
                assert select.select([ends.bell], [], [], 20)[0]
            ends.mailbox.disarm()
            rung(ends)
            for body in taken(ends):
                if body == b"between":
                    assert expected == i
                    continue
                at = ends.block(expected % 3, size)
                assert ends.memory[at : at + size] == body * (size // 8)
                assert body == b"%08d" % expected
                expected += 1
        while told < 6:  # which also keeps the bodies as long as the kernel reads them
            told += len(engine.reap())
    assert ends.channel.later == 0
    counts = engine.counts()
    assert counts["submitted"]["doorbell"] == i and counts["failed"]["doorbell"] == counts["unexpected"] == 0
    engine.close()


@needs_ring
def test_a_chain_that_breaks(ends: Ends) -> None:
    engine = _native.Engine(8)
    position, offset, value = claim(ends, b"late")
    full = os.open("/dev/full", os.O_WRONLY)
    engine.write(full, b"a body", 0, True)
    engine.write(ends.fd, bytes([value]), offset, True)
    engine.doorbell(ends.bell)
    engine.submit()
    results: list[int] = []
    while len(results) < 2:
        results += [result for _, result in engine.reap()]
    assert sorted(results) == [-125, -28]
    assert taken(ends) == [] and rung(ends) == 0 and ends.channel.later == 1
    assert ends.mailbox.arm()
    assert ends.channel.commit_now(position)
    assert rung(ends) == 1 and taken(ends) == [b"late"]
    os.close(full)
    engine.close()


def _send_for_ever(ends: Ends, size: int) -> None:
    """Large bodies by chains, and small ones between, until somebody ends this."""
    channel = ends.send()
    engine = _native.Engine(8)
    i = 0
    while True:
        try:
            claimed = claim(ends, b"%08d" % i)
            channel.send(b"-")
        except BlockingIOError:
            continue
        queue_chain(engine, ends, b"%08d" % i * (size // 8), ends.block(i % 2, size), claimed)
        engine.submit()
        told = 0
        while told < 2:
            told += len(engine.reap())
        while not channel.is_delivered(claimed[0]):  # the block is used again
            time.sleep(0)
        i += 1


@needs_ring
def test_a_sender_that_is_killed_in_the_middle() -> None:
    size, seen = 1 << 18, 0
    for turn in range(40):
        ends = Ends()
        mailbox = ends.receive()
        child = os.fork()
        if child == 0:
            try:
                _send_for_ever(ends, size)
            finally:
                os._exit(1)
        assert select.select([ends.bell], [], [], 20)[0]
        until = time.monotonic() + random.Random(turn).random() * 0.004
        expected, killed = 0, False
        while True:
            if not killed and time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                killed = True
            last_look = killed
            for record in mailbox.drain(10):
                if record.body == b"-":
                    continue
                at = ends.block(expected % 2, size)
                assert record.body == b"%08d" % expected
                # The sender waits for this before it uses the block again, or it is dead.
                assert ends.memory[at : at + 8] == ends.memory[at + size - 8 : at + size] == record.body
                expected += 1
            if last_look:
                break
        seen += expected
        ends.close()
    assert seen > 0
