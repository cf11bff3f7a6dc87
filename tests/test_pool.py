"""Large bodies by way of a pair's pool, through the binding: none is lost, lent twice, or read when it was given back.

The allocator alone has its tests in native/tests/test_pool.c.
"""

from __future__ import annotations

import gc
import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from pools import BLOCKS_AT, INLINE, PAGE, POOL, POOLED, RING, RING_AT, Ends, Refused, blocks_of

from agentd import _native
from agentd.wire import records


@pytest.fixture
def ends() -> Iterator[Ends]:
    one = Ends()
    yield one
    one.close()


# Sending and reading.


@pytest.mark.parametrize("size", [0, 1, INLINE, INLINE + 1, INLINE + PAGE, POOL])
def test_a_body_of_any_size_arrives(ends: Ends, size: int) -> None:
    body = os.urandom(size)
    ends.channel.send(body)
    pooled = size > INLINE
    assert ends.channel.lent == pooled
    record = ends.take()
    assert (record.size, ends.incoming.held) == (size, pooled)
    assert record.body == body
    assert record.body is record.body
    assert (ends.incoming.held, ends.incoming.held_since_ns, ends.channel.lent) == (0, 0, 0)
    ends.channel.send(body)
    assert ends.mailbox.receive_bytes(0) == body
    ends.channel.send(body)
    assert ends.mailbox.drain_bytes(3) == [body]
    assert (ends.incoming.held, ends.channel.lent) == (0, 0)


def test_what_a_record_has_beside_its_body(ends: Ends) -> None:
    body = os.urandom(INLINE * 2)
    late = _native.boottime_ns() + 10**12
    position = ends.channel.ask(body, 1, records.ASKED, b"details", late)
    record = ends.take()
    assert (record.position, record.content_code, record.details_bytes, record.deadline_ns) == (
        position,
        1,
        b"details",
        late,
    )
    assert record.flags & records.ASKED
    assert record.body == body
    # Details that leave a small body no room in the ring's largest record.
    ends.channel.ask(body[:INLINE], 0, 0, bytes(0xFFFF), 0)
    record = ends.take()
    assert (record.body, len(record.details_bytes)) == (body[:INLINE], 0xFFFF)
    ends.channel.send("ü" * INLINE)
    assert ends.take().body == ("ü" * INLINE).encode()
    with pytest.raises(ValueError, match="no such content, flags"):
        ends.channel.ask(b"", 0, 16, b"", 0)  # nobody forges a reference


def test_sizes(ends: Ends) -> None:
    assert (ends.channel.max_inline_bytes, ends.channel.max_body_bytes) == (INLINE, POOL)
    with pytest.raises(Refused, match=f"EMSGSIZE.*{POOL + 1}"):
        ends.channel.send(bytes(POOL + 1))
    plain = Ends(pool=0)
    assert plain.channel.max_inline_bytes == plain.channel.max_body_bytes == RING // 8 - 24
    plain.channel.send(bytes(RING // 8 - 24))
    with pytest.raises(Refused, match="EMSGSIZE"):
        plain.channel.send(bytes(RING // 8 - 23))
    with pytest.raises(Refused, match="EMSGSIZE"):
        plain.channel.allocate(1)
    assert (plain.channel.trim(0), plain.channel.lent, plain.channel.touched_bytes) == (0, 0, 0)
    plain.close()


def test_a_starved_pool_refuses_until_something_comes_back(ends: Ends) -> None:
    body = bytes(POOL // 2)
    ends.channel.send(body)
    ends.channel.send(body)
    with pytest.raises(Refused, match="EAGAIN"):
        ends.channel.send(body)
    first, second = ends.mailbox.drain(9)
    with pytest.raises(Refused, match="EAGAIN"):  # taken is not read
        ends.channel.send(body)
    del second
    ends.channel.send(body)
    assert first.body == body
    ends.channel.send(body)
    assert ends.channel.lent == 2


def test_a_full_ring_costs_no_block() -> None:
    ends = Ends(ring=4096)
    with pytest.raises(Refused, match="EAGAIN"):
        for _ in range(1000):
            ends.channel.send(bytes(200))
    assert ends.channel.lent == 0
    with pytest.raises(Refused, match="EAGAIN"):
        while True:
            ends.channel.send(b"")
    for _ in range(3):
        with pytest.raises(Refused, match="EAGAIN"):
            ends.channel.send(bytes(PAGE))
    assert not any(record.size == PAGE for record in ends.mailbox.drain(5000))
    assert ends.channel.lent == 0
    ends.channel.send(bytes(POOL))
    ends.close()


def test_one_that_comes_too_late_gives_its_block_back(ends: Ends) -> None:
    ends.channel.ask(bytes(POOL), 0, records.ASKED, b"", 1)
    assert ends.channel.lent == 1
    assert ends.take() is None
    assert (ends.channel.lent, ends.incoming.held) == (0, 0)
    assert [state for _, state, _, _ in ends.channel.verdicts()] == [records.EXPIRED]


# Views.


def test_a_view_is_the_memory_itself(ends: Ends) -> None:
    body = os.urandom(INLINE * 2)
    ends.channel.send(body)
    record = ends.take()
    with record.view() as data:
        assert data == body
        assert data.readonly
        os.pwrite(ends.fd, b"!!", BLOCKS_AT)
        assert data[:3] == b"!!" + body[2:3]
        os.pwrite(ends.fd, body[:2], BLOCKS_AT)
    with pytest.raises(ValueError, match="released"):
        bytes(data)
    assert ends.incoming.held == 1  # it is not finished, and may be looked at again
    view = record.view()
    assert (len(view), bytes(memoryview(view))) == (len(body), body)
    record.settled = True
    assert ends.incoming.held == 1
    view.release()
    view.release()
    assert (ends.incoming.held, ends.channel.lent) == (0, 0)
    with pytest.raises(ValueError, match="given back"):
        _ = record.body
    with pytest.raises(ValueError, match="given back"):
        record.view()
    with pytest.raises(ValueError, match="released"):
        memoryview(view)
    assert record.size == len(body)


def test_a_view_of_what_came_in_the_ring(ends: Ends) -> None:
    ends.channel.send(b"small")
    record = ends.take()
    with record.view() as data:
        assert (data, data.readonly) == (b"small", True)
    record.settled = True
    assert record.body == b"small"


def test_what_is_finished_and_was_never_looked_at_can_still_be_read(ends: Ends) -> None:
    body = os.urandom(INLINE + 1)
    ends.channel.send(body)
    record = ends.take()
    record.settled = True
    assert record.body == body


def test_a_copy_outlives_the_block_and_a_view_the_copy(ends: Ends) -> None:
    body = os.urandom(INLINE + 1)
    ends.channel.send(body)
    record = ends.take()
    with record.view() as data:
        assert record.body == body
        assert ends.incoming.held == 1
        assert data == body
    assert ends.incoming.held == 0


def test_slices_and_arrays_keep_it(ends: Ends) -> None:
    body = os.urandom(INLINE + 1)
    ends.channel.send(body)
    record = ends.take()
    with record.view() as data:
        part = data[5:9]
    del record
    assert (part, ends.channel.lent) == (body[5:9], 1)
    del data, part
    assert ends.channel.lent == 0


def test_a_view_that_was_forgotten_in_a_cycle(ends: Ends) -> None:
    ends.channel.send(bytes(POOL))
    view = ends.take().view()
    circle = [view.__enter__()]
    circle.append(circle)
    del view, circle
    gc.collect()
    assert ends.channel.lent == 0


def test_numpy_reads_and_fills_it_in_place(ends: Ends) -> None:
    numpy = pytest.importorskip("numpy")
    with ends.channel.allocate(INLINE * 2) as block:
        array = numpy.frombuffer(block, dtype="<u8")
        array[:] = numpy.arange(len(array))
        ends.channel.send(block)
    with ends.take().view() as data:
        assert numpy.frombuffer(data, dtype="<u8").sum() == len(array) * (len(array) - 1) // 2


def test_the_oldest_is_known(ends: Ends) -> None:
    for _ in range(3):
        ends.channel.send(bytes(INLINE + 1))
    before = _native.monotonic_ns()
    first, second, third = (ends.take() for _ in range(3))
    oldest = ends.incoming.held_since_ns
    assert before <= oldest <= _native.monotonic_ns()
    del second
    assert (ends.incoming.held, ends.incoming.held_since_ns) == (2, oldest)
    del first
    assert oldest <= ends.incoming.held_since_ns
    del third
    assert (ends.incoming.held, ends.incoming.held_since_ns) == (0, 0)


# Blocks.


def test_a_block_is_filled_in_place(ends: Ends) -> None:
    body = os.urandom(INLINE + 5)
    with ends.channel.allocate(len(body) + 7) as block:
        assert (block.size, len(block), block.offset) == (len(body) + 7, len(body) + 7, BLOCKS_AT)
        block.buffer[: len(body)] = body
        position = ends.channel.send_block(block, 1, records.ASKED, b"d", 0, len(body))
    with pytest.raises(BufferError, match="sent or given up"):
        memoryview(block)
    with pytest.raises(ValueError, match="sent or given up"):
        ends.channel.send(block)
    with pytest.raises(ValueError, match="it comes back"):
        block.abandon()
    record = ends.take()
    assert (record.position, record.content_code, record.details_bytes, record.body) == (position, 1, b"d", body)


def test_one_that_is_not_sent_is_free_again(ends: Ends) -> None:
    for _ in range(1000):
        with ends.channel.allocate(POOL):
            pass
        block = ends.channel.allocate(POOL)
        block.abandon()
        block.abandon()
        del block
        ends.channel.allocate(POOL)
    with ends.channel.allocate(POOL) as block:
        buffer = block.buffer
        block.abandon()
        with pytest.raises(Refused, match="EAGAIN"):  # somebody may still write there
            ends.channel.allocate(1)
        buffer.release()
        ends.channel.allocate(1)


def test_a_block_belongs_to_its_channel(ends: Ends) -> None:
    other = Ends()
    block = other.channel.allocate(PAGE)
    with pytest.raises(ValueError, match="another channel's"):
        ends.channel.send(block)
    with pytest.raises(TypeError, match="a Block, not bytes"):
        ends.channel.send_block(b"", 0, 0, b"", 0)  # type: ignore[arg-type]
    for wrong in (-1, PAGE + 1):
        with pytest.raises(ValueError, match="bytes of a block"):
            other.channel.send_block(block, 0, 0, b"", 0, wrong)
    with pytest.raises(ValueError, match="no such content"):
        other.channel.send_block(block, 3, 0, b"", 0)
    with pytest.raises(ValueError, match="negative"):
        other.channel.allocate(-1)
    other.channel.send(block)
    other.close()


def test_a_block_whose_record_is_written_later(ends: Ends) -> None:
    """As by an engine: the kernel writes the body into the memfd, then somebody commits the record."""
    block = ends.channel.allocate(INLINE * 2)
    assert ends.channel.touched_bytes == INLINE * 2
    os.pwrite(ends.fd, b"kernel", block.offset)
    reference = block.reference(6)
    assert struct.unpack("<IIQQQ", reference) == (block.slot, 0, block.generation, block.offset, 6)
    with pytest.raises(ValueError, match="sent or given up"):
        block.reference()
    assert ends.channel.lent == 1
    record = struct.pack("<BBHIQ", 0, 16, 0, 0, 0) + reference
    os.pwrite(ends.fd, struct.pack("<II", len(record), 1) + record, RING_AT)
    assert ends.take().body == b"kernel"
    assert ends.channel.lent == 0
    again = ends.channel.allocate(POOL)
    block.abandon()  # long since another's
    with pytest.raises(Refused, match="EAGAIN"):
        ends.channel.allocate(1)
    again.reference()
    again.abandon()  # its copy failed
    ends.channel.allocate(POOL)


def test_a_record_that_is_committed_later_has_its_block(ends: Ends) -> None:
    block = ends.channel.allocate(INLINE * 2)
    os.pwrite(ends.fd, b"by the kernel", block.offset)
    position, offset, value = ends.channel.claim_later(block.reference(13), 1, POOLED | records.ASKED, b"d", 0)
    assert (ends.take(), ends.channel.lent, ends.channel.later) == (None, 1, 1)
    os.pwrite(ends.fd, bytes([value]), offset)
    record = ends.take()
    assert (record.position, record.content_code, record.details_bytes) == (position, 1, b"d")
    assert record.body == b"by the kernel"
    assert (ends.channel.lent, ends.channel.later) == (0, 0)
    for body in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError, match="no such content, flags"):
            ends.channel.claim_later(body, 0, POOLED, b"", 0)


def test_the_largest_go_their_own_way(ends: Ends) -> None:
    calls: list[Any] = []

    def large(*args: Any) -> int:
        calls.append(args)
        return 99

    ends.channel.large = large
    ends.channel.async_bytes = 2 * INLINE
    body = bytes(2 * INLINE)
    assert ends.channel.send(body) == 99
    assert ends.channel.ask(body, 1, records.ASKED, b"d", 77) == 99
    assert calls == [(body, 0, 0, b"", 0), (body, 1, records.ASKED | 2, b"d", 77)]
    assert calls[0][0] is body
    for small in (body[1:], b""):
        ends.channel.send(small)
    ends.channel.ask(bytearray(body), 0, 0, b"", 0)  # type: ignore[arg-type]  # its owner may change it
    sizes = [record.size for record in ends.mailbox.drain(9)]
    ends.channel.large = None
    ends.channel.send(bytes(2 * INLINE))
    assert len(calls) == 2
    ends.channel.large = large
    ends.channel.async_bytes = 0
    ends.channel.send(bytes(INLINE))
    assert len(calls) == 2
    sizes += [record.size for record in ends.mailbox.drain(9)]
    assert sizes == [2 * INLINE - 1, 0, 2 * INLINE, 2 * INLINE, INLINE]


def test_memory_is_given_back(ends: Ends) -> None:
    empty = blocks_of(ends.fd)
    body = bytes(POOL)
    ends.channel.send(body)
    assert (blocks_of(ends.fd), ends.channel.touched_bytes) == (empty + POOL, POOL)
    assert ends.channel.trim(0) == 0  # the receiver has it
    assert ends.take().body == body
    assert ends.channel.trim(10 * PAGE) == POOL - 10 * PAGE
    assert (blocks_of(ends.fd), ends.channel.touched_bytes) == (empty + 10 * PAGE, 10 * PAGE)
    ends.channel.send(os.urandom(POOL))
    ends.take()
    assert ends.channel.trim(0) == POOL
    assert blocks_of(ends.fd) == empty
