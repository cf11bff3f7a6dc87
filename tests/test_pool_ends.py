"""Ends of a pair with a pool: closed under a buffer, forked, hostile, killed, and without memory."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import shims
from pools import BLOCKS_AT, INLINE, PAGE, POOL, RING, RING_AT, Ends, Refused, bell, blocks_of


@pytest.fixture
def ends() -> Iterator[Ends]:
    one = Ends()
    yield one
    one.close()


# Ends.


def test_closing_the_channel_under_a_buffer(ends: Ends) -> None:
    blocks = [ends.channel.allocate(PAGE) for _ in range(2)]
    buffers = [block.buffer for block in blocks]
    ends.channel.send(blocks[0])
    ends.channel.close()
    for buffer in buffers:
        buffer[:] = b"x" * PAGE
    with pytest.raises(BufferError):
        memoryview(blocks[0])
    with pytest.raises(Refused, match="ESHUTDOWN"):
        memoryview(blocks[1])
    with pytest.raises(Refused, match="ESHUTDOWN"):
        ends.channel.allocate(1)
    assert (ends.channel.lent, ends.channel.trim(0), ends.channel.touched_bytes) == (0, 0, 0)
    blocks[1].abandon()
    assert ends.take().body == b"x" * PAGE
    del buffer, buffers, blocks


def test_what_is_held_is_read_after_both_have_left(ends: Ends) -> None:
    body = os.urandom(INLINE + 1)
    for _ in range(3):
        ends.channel.send(body)
    ends.channel.close()
    first, second, third = ends.mailbox.drain(9)
    view = second.view()
    array = memoryview(view)[1:]
    ends.mailbox.remove(ends.incoming)
    ends.incoming.close()
    del second, third
    assert first.body == body
    view.release()
    assert array == body[1:]  # the last that keeps the memory
    assert ends.incoming.held == 1
    del array, view
    assert ends.incoming.held == 0


def test_closing_while_others_copy() -> None:
    """The copy lets other threads run: one of them closes."""
    body = bytes(32 << 20)
    for _ in range(5):
        ends = Ends(pool=len(body))

        def send(ends: Ends = ends) -> None:
            try:
                ends.channel.send(body)
            except Refused as refused:
                assert refused.args[0] == "ESHUTDOWN"

        thread = threading.Thread(target=send)
        thread.start()
        while not ends.channel.touched_bytes and thread.is_alive():
            pass
        ends.channel.close()
        thread.join()
        ends.close()


def test_two_threads_send_and_read() -> None:
    """Bodies that are copied without the interpreter's lock, from several threads at once."""
    ends = Ends(pool=32 << 20)
    bodies = [bytes([i]) * ((1 << 20) + i) for i in range(4)]
    threads = [threading.Thread(target=ends.channel.send, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = ends.mailbox.drain(9)
    read: list[bytes] = []
    threads = [threading.Thread(target=lambda record=record: read.append(record.body)) for record in taken * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read) == sorted(bodies * 2)
    assert (ends.incoming.held, ends.channel.lent) == (0, 0)
    ends.close()


def test_a_child_has_nothing_of_it(ends: Ends) -> None:
    ends.channel.send(bytes(INLINE + 1))
    record = ends.take()
    view = record.view()
    block = ends.channel.allocate(PAGE)
    child = os.fork()
    if child == 0:
        try:
            with pytest.raises(RuntimeError, match="child"):
                _ = record.body
            with pytest.raises(RuntimeError, match="child"):
                memoryview(view)
            with pytest.raises(RuntimeError, match="child"):
                memoryview(block)
            with pytest.raises(Refused, match="ESTALE"):
                ends.channel.send(block)
            assert (ends.channel.lent, ends.channel.trim(0)) == (0, 0)
            view.release()
            del record, view, block
            ends.incoming.close()
            ends.channel.close()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (ends.channel.lent, ends.incoming.held) == (1, 1)
    assert record.body == bytes(INLINE + 1)


# Hostile and dead ends.


def forge(ends: Ends, reference: bytes, flags: int = 16) -> None:
    """A record as somebody writes it who may write anything."""
    record = struct.pack("<BBHIQ", 0, flags, 0, 0, 0) + reference
    os.pwrite(ends.fd, struct.pack("<II", len(record), 1) + record, RING_AT)


@pytest.mark.parametrize(
    "reference",
    [
        b"",
        bytes(31),
        bytes(32),
        bytes(33),
        struct.pack("<IIQQQ", 256, 0, 1, BLOCKS_AT, 1),
        struct.pack("<IIQQQ", 0, 1, 1, BLOCKS_AT, 1),
        struct.pack("<IIQQQ", 0, 0, 0, BLOCKS_AT, 1),
        struct.pack("<IIQQQ", 0, 0, 1, BLOCKS_AT - 1, 1),
        struct.pack("<IIQQQ", 0, 0, 1, BLOCKS_AT, POOL + 1),
        struct.pack("<IIQQQ", 0, 0, 1, BLOCKS_AT + POOL, 0),
        struct.pack("<IIQQQ", 0, 0, 1, BLOCKS_AT + 1, POOL),
        struct.pack("<IIQQQ", 0, 0, 1, 2**64 - 1, 2),
        struct.pack("<IIQQQ", 0, 0, 1, BLOCKS_AT, 2**64 - BLOCKS_AT),
    ],
    ids=lambda reference: reference.hex()[:64] or "none",
)
def test_a_reference_that_leads_elsewhere_ends_the_pair(ends: Ends, reference: bytes) -> None:
    forge(ends, reference)
    assert ends.take() is None
    assert ends.over == [ends.incoming]


def test_a_pair_without_a_pool_has_no_block() -> None:
    ends = Ends(pool=0)
    forge(ends, struct.pack("<IIQQQ", 0, 0, 1, RING_AT + RING, 0))
    assert ends.take() is None
    assert ends.over == [ends.incoming]
    ends.close()


def test_a_reference_into_holes_reads_zeros(ends: Ends) -> None:
    forge(ends, struct.pack("<IIQQQ", 255, 0, 99, BLOCKS_AT + 5, POOL - 5))
    assert ends.take().body == bytes(POOL - 5)
    with mmap.mmap(ends.fd, 0) as memory:  # and it came back by its own name
        assert struct.unpack_from("<Q", memory, BLOCKS_AT - PAGE + 255 * 8) == (99,)


def test_a_receiver_that_gives_back_what_it_has_not_harms_itself_alone(ends: Ends) -> None:
    ends.channel.send(b"a" * POOL)
    record = ends.take()
    words = b"".join(struct.pack("<Q", value) for value in (1, 2, 3, 2**64 - 1) * 64)
    os.pwrite(ends.fd, words, BLOCKS_AT - PAGE)
    assert ends.channel.lent == 0
    ends.channel.send(b"b" * POOL)
    assert record.body == b"b" * POOL
    assert ends.take().size == POOL
    for number in range(200):
        assert ends.channel.lent == 0
        os.pwrite(ends.fd, os.urandom(2048), BLOCKS_AT - PAGE)
        body = bytes([number]) * (INLINE + number)
        ends.channel.send(body)
        assert ends.mailbox.drain(2)[-1].body == body


RECEIVER = """
import os, sys
from agentd import _native
memory, bell, *shape = map(int, sys.argv[1:])
incoming = _native.Incoming(memory, *shape, bell)
class Taken(_native.Record):
    __slots__ = ()
mailbox = _native.Mailbox(Taken, print, print, 0)
mailbox.add(incoming)
record = mailbox.take()
with record.view() as data:
    print("reading", flush=True)
    sys.stdin.read()
"""

SENDER = """
import os, sys
from agentd import _native
memory, bell, *shape = map(int, sys.argv[1:])
channel = _native.Channel(memory, *shape, bell, None, print)
block = channel.allocate(4096)
block.buffer[:] = b"x" * 4096
channel.send(bytes(shape[-1] // 2))
channel.send(block)
channel.allocate(4096).buffer[:1] = b"y"
print("sent", flush=True)
sys.stdin.read()
"""


def other_end(ends: Ends, program: str) -> subprocess.Popen[bytes]:
    rung = bell()
    words = [str(word) for word in (ends.fd, rung, *ends.shape)]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(ends.fd, rung),
    )
    os.close(rung)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_receiver_is_killed_with_views_held(ends: Ends) -> None:
    ends.channel.send(bytes(POOL))
    kill(other_end(ends, RECEIVER))
    assert ends.channel.lent == 1
    ends.channel.end()
    with pytest.raises(Refused, match="ESHUTDOWN"):
        ends.channel.send(bytes(POOL))
    fd = os.dup(ends.fd)
    before = blocks_of(fd)
    ends.channel.close()
    assert blocks_of(fd) == before  # it is the memfd's: it goes with the last that has it
    os.close(fd)


def test_a_sender_is_killed_with_blocks_out(ends: Ends) -> None:
    kill(other_end(ends, SENDER))
    ends.incoming.end()
    first, second = ends.mailbox.drain(9)
    assert first.body == bytes(POOL // 2)
    with second.view() as data:
        assert data == b"x" * 4096
    assert ends.incoming.held == 1
    assert ends.take() is None
    ends.mailbox.sweep()
    assert ends.over == [ends.incoming]
    ends.incoming.close()
    assert second.body == b"x" * 4096


# Where there is no memory.

STARVED = """
import errno, os, sys
from pathlib import Path
from agentd import _native

def refuse(error, size):
    raise OSError(error, "refused", size)

shape = (2, 7, 1 << 20, 8192, 1 << 20)
memory = _native.create_pair(*shape, False)
channel = _native.Channel(memory, *shape, os.eventfd(0), None, refuse)
flag = Path(os.environ["FAULT_FLAG"])
flag.touch()
for size in (100_000, 1 << 20):
    try:
        channel.send(bytes(size))
    except OSError as error:
        print(errno.errorcode[error.errno], error.filename, channel.lent)
block = channel.allocate(100)
try:
    memoryview(block)
except OSError as error:
    print(errno.errorcode[error.errno], error.filename)
block.abandon()
flag.unlink()
channel.send(bytes(1 << 20))
print(channel.lent)
"""


def test_no_memory_is_a_named_refusal(tmp_path: Path) -> None:
    preload = f"{os.environ.get('LD_PRELOAD', '')} {shims.build(tmp_path)}".strip()
    done = subprocess.run(
        [sys.executable, "-P", "-c", STARVED],
        env={**os.environ, "LD_PRELOAD": preload, "FAULT_FLAG": str(tmp_path / "fail"), "FAULT": "populate"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["ENOSPC 100000 0", "ENOSPC 1048576 0", "ENOSPC 100", "1"]
