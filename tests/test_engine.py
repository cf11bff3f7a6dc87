"""The engine: agentd._native.Engine itself, and the client's face of it, with an io_uring and without one."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentd import _native
from agentd_client._engine import Engine, RingEngine, open_engine

ONE = (1).to_bytes(8, sys.byteorder)
BELL = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # knows no fsync
REFUSED = _native.io_uring_errno()
needs_ring = pytest.mark.skipif(bool(REFUSED), reason=f"no io_uring here: {os.strerror(REFUSED)}")


@pytest.fixture
def native() -> Iterator[_native.Engine]:
    engine = _native.Engine(8)
    yield engine
    engine.close()


def reap(engine: _native.Engine, n: int) -> dict[int, int]:
    told: dict[int, int] = {}
    while len(told) < n:
        told.update(engine.reap())
        assert len(told) >= n or select.select([engine.fileno()], [], [], 20)[0]
    return told


@needs_ring
def test_native_requests(native: _native.Engine, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    back = bytearray(4)
    tokens = [native.write(fd, b"text", 0, True), native.read(fd, back, 0, True), native.fsync(fd, True), native.nop()]
    assert len(set(tokens)) == 4
    with pytest.raises(BufferError):
        back.append(0)  # the kernel's, until told
    assert native.submit() == 4
    told = reap(native, 4)
    assert [told[token] for token in tokens] == [4, 4, 0, 0]
    back.append(0)
    assert back == b"text\0"
    counts = native.counts()
    assert (
        counts["submitted"]
        == counts["completed"]
        == {"nop": 1, "read": 1, "write": 1, "fsync": 1, "poll": 0, "cancel": 0, "doorbell": 0}
    )
    assert (counts["unexpected"], counts["lost"], counts["in_flight"], counts["queued"]) == (0, 0, 0, 0)
    os.close(fd)


@needs_ring
def test_native_is_bounded(native: _native.Engine) -> None:
    for batch in range(2):
        assert native.room() == 8, batch
        for _ in range(8):
            native.poll(BELL, select.POLLPRI)
        with pytest.raises(BlockingIOError):
            native.nop()
        native.submit()
    assert native.room() == 0
    with pytest.raises(BlockingIOError):
        native.nop()
    assert len(native.close()) == 16
    with pytest.raises(ValueError, match="closed"):
        native.nop()
    assert native.close() == []


@needs_ring
def test_native_close_tells_of_everything(native: _native.Engine) -> None:
    reader, writer = os.pipe()
    buffers = [bytearray(8) for _ in range(3)]
    under_way = [native.read(reader, buffer, -1) for buffer in buffers]
    native.submit()
    queued = native.nop()
    told = dict(native.close())
    assert told.keys() == {*under_way, queued}
    assert set(told.values()) <= {-errno.ECANCELED, -errno.EINTR}
    for buffer in buffers:
        buffer.append(0)
    os.close(reader)
    os.close(writer)


@needs_ring
def test_native_dropped_gives_back_its_buffers() -> None:
    reader, writer = os.pipe()
    engine, buffer = _native.Engine(4), bytearray(8)
    engine.read(reader, buffer, -1)
    engine.submit()
    del engine
    gc.collect()
    buffer.append(0)
    os.close(reader)
    os.close(writer)


@needs_ring
def test_native_refuses_what_is_none(native: _native.Engine) -> None:
    with pytest.raises(OSError, match="Invalid"):
        native.read(-1, bytearray(1), 0)
    with pytest.raises((TypeError, BufferError)):
        native.read(0, memoryview(b"constant"), 0)
    with pytest.raises(OverflowError):
        native.cancel(-1)
    for entries, cpu in ((0, None), (1 << 20, None), (4, -1), (4, 100_000)):
        with pytest.raises(OSError, match="no io_uring of that size") as refused:
            _native.Engine(entries, cpu)
        assert refused.value.errno == errno.EINVAL


@needs_ring
def test_native_belongs_to_its_thread(native: _native.Engine) -> None:
    raised: list[str] = []

    def use() -> None:
        for call in (native.nop, native.submit, native.reap, native.close, native.room):
            try:
                call()
            except RuntimeError as error:
                raised.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert raised == ["An engine belongs to the thread that made it"] * 5
    native.nop()
    assert native.submit() == 1


@needs_ring
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_native_in_a_child(native: _native.Engine) -> None:
    token = native.nop()
    child = os.fork()
    if not child:
        for call in (native.nop, native.submit, native.reap):
            try:
                call()
            except RuntimeError:
                continue
            os._exit(1)
        os._exit(0 if native.close() == [] else 2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert native.submit() == 1
    assert reap(native, 1) == {token: 0}


@pytest.fixture(params=[pytest.param("io_uring", marks=needs_ring), "threads"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    one = open_engine(8, ring=request.param == "io_uring")
    assert one.kind == request.param
    yield one
    await asyncio.wait_for(one.close(), 20)
    counts = one.counts()
    assert counts["unexpected"] == counts["lost"] == counts["in_flight"] == counts["queued"] == 0


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


async def test_file(engine: Engine, file: int) -> None:
    back = bytearray(8)
    assert await engine.write(file, b"0123456789", 0) == 10
    assert await engine.write(file, b"ab", 4, punt=True) == 2
    assert await engine.read(file, back, 3) == 7
    assert back == b"3ab6789\0"
    os.lseek(file, 8, os.SEEK_SET)
    assert await engine.read(file, back) == 2
    assert await engine.fsync(file) == 0
    assert await engine.fsync(file, False) == 0


async def test_errors_are_the_systems(engine: Engine, file: int) -> None:
    with pytest.raises(OSError) as caught:
        await engine.read(1 << 20, bytearray(8), 0)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError) as caught:
        await engine.fsync(BELL)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(BufferError):
        engine.read(file, memoryview(b"constant"), 0)
    failed = engine.counts()["failed"]
    assert (failed["read"], failed["fsync"], failed["write"]) == (1, 1, 0)


async def test_doorbell(engine: Engine) -> None:
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        readable = engine.poll(bell, select.POLLIN)
        for _ in range(3):
            assert await engine.write(bell, ONE) == 8
        assert await asyncio.wait_for(readable, 20) & select.POLLIN
        back = bytearray(8)
        assert await engine.read(bell, back) == 8
        assert int.from_bytes(back, sys.byteorder) == 3
    finally:
        os.close(bell)


async def test_waits_for_what_comes_later(engine: Engine, pipe: tuple[int, int]) -> None:
    back = bytearray(8)
    reading = engine.read(pipe[0], back)
    await asyncio.sleep(0.02)
    assert not reading.done()
    os.write(pipe[1], b"late")
    assert await asyncio.wait_for(reading, 20) == 4
    assert back[:4] == b"late"


async def test_waits_in_a_sleeping_loop(engine: Engine, pipe: tuple[int, int]) -> None:
    """Nothing else wakes the loop: a completion must."""
    for _ in range(20):
        back = bytearray(8)
        reading = engine.read(pipe[0], back)
        timer = threading.Timer(0.005, os.write, (pipe[1], b"x"))
        timer.start()
        assert await asyncio.wait_for(reading, 20) == 1
        timer.join()


async def test_links(engine: Engine, file: int, tmp_path: Path) -> None:
    back = bytearray(4)
    first = engine.write(file, b"text", 0, link=True)
    second = engine.read(file, back, 0, link=True)
    third = engine.fsync(file)
    assert [await first, await second, await third] == [4, 4, 0]
    assert back == b"text"


@pytest.mark.parametrize("how", ["short", "failed"])
async def test_broken_links(engine: Engine, file: int, how: str) -> None:
    size = 8 if how == "short" else 4
    fd = file if how == "short" else 1 << 20
    first = engine.write(file, b"text", 0, link=True)
    second = engine.read(fd, bytearray(size), 0, link=True)
    third = engine.write(file, b"never", 4, link=True)
    fourth = engine.fsync(file)
    apart = engine.poll(BELL, select.POLLOUT)
    results = await asyncio.gather(first, second, third, fourth, apart, return_exceptions=True)
    assert results[0] == 4
    if how == "short":
        assert results[1] == 4
    else:
        assert isinstance(results[1], OSError)
    for result in results[2:4]:
        assert isinstance(result, OSError)
        assert result.errno == errno.ECANCELED
    assert results[4] == select.POLLOUT
    assert os.fstat(file).st_size == 4


@needs_ring
async def test_what_is_queued_in_one_turn_is_one_call() -> None:
    engine = open_engine(64)
    bells = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(64)]
    requests = [engine.write(bell, ONE) for bell in bells]
    assert engine.counts()["queued"] == 64
    assert await asyncio.gather(*requests) == [8] * 64
    assert engine.counts()["enters"] == 1
    assert [os.eventfd_read(bell) for bell in bells] == [1] * 64
    await engine.close()
    for bell in bells:
        os.close(bell)


async def test_cancel(engine: Engine, pipe: tuple[int, int]) -> None:
    back = bytearray(8)
    reading = engine.read(pipe[0], back)
    await asyncio.sleep(0.01)
    assert reading.cancel()
    assert not reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    for _ in range(1000):
        if not engine.counts()["in_flight"]:
            break
        await asyncio.sleep(0.001)
    back.append(0)
    os.write(pipe[1], b"kept")
    assert os.read(pipe[0], 8) == b"kept"


async def test_room(engine: Engine, pipe: tuple[int, int]) -> None:
    buffers = [bytearray(1) for _ in range(16)]
    reading = [engine.read(pipe[0], buffer) for buffer in buffers]
    with pytest.raises(BlockingIOError):
        engine.write(BELL, ONE)
    waiting = asyncio.ensure_future(engine.room(2))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    os.write(pipe[1], bytes(16))
    await asyncio.wait_for(waiting, 20)
    assert await asyncio.gather(*reading) == [1] * 16
    with pytest.raises(ValueError, match="never room"):
        await engine.room(9)


async def test_close_with_requests_under_way(engine: Engine, pipe: tuple[int, int]) -> None:
    buffers = [bytearray(8) for _ in range(6)]
    reading = [engine.read(pipe[0], buffer) for buffer in buffers[:3]]
    await asyncio.sleep(0.01)
    reading += [engine.read(pipe[0], buffer) for buffer in buffers[3:]]
    await asyncio.gather(engine.close(), engine.close())
    assert all(request.cancelled() for request in reading)
    for buffer in buffers:
        buffer.append(0)
    with pytest.raises(ValueError, match="closed"):
        engine.write(BELL, ONE)
    await engine.close()


@needs_ring
async def test_a_broken_ring_ends_every_request(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self) -> None:
            self.real = _native.Engine(4)

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

        def reap(self) -> list[tuple[int, int]]:
            raise OSError(errno.EPROTO, "no ring")

    monkeypatch.setattr(asyncio.get_running_loop(), "call_exception_handler", lambda context: None)
    engine = RingEngine(Broken())  # type: ignore[arg-type]
    reading = [engine.read(pipe[0], bytearray(8)) for _ in range(2)]
    for request in reading:
        with pytest.raises(OSError) as caught:
            await asyncio.wait_for(request, 20)
        assert caught.value.errno == errno.EPROTO
    await engine.close()


async def test_many_at_once(engine: Engine, file: int) -> None:
    """More than there is room for, from many tasks."""

    async def write(number: int) -> None:
        body = number.to_bytes(4, "big")
        while True:
            try:
                assert await engine.write(file, body, 4 * number) == 4
                return
            except BlockingIOError:
                await engine.room()

    await asyncio.gather(*map(write, range(500)))
    assert os.pread(file, 4000, 0) == b"".join(number.to_bytes(4, "big") for number in range(500))


# Denies io_uring_setup(2) as a container does: no_new_privs, then a filter of four instructions.
FILTERED = """
import asyncio, ctypes, errno, json, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x50000 | errno.EPERM), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
program = Program(len(steps), ctypes.addressof(code))
assert libc.prctl(38, 1, 0, 0, 0) == 0
if libc.prctl(22, 2, ctypes.byref(program), 0, 0):
    print("null"); sys.exit()
from agentd_client._engine import open_engine
async def main():
    engine = open_engine()
    fd = os.memfd_create("x"); back = bytearray(4)
    n = [await engine.write(fd, b"text", 0), await engine.read(fd, back, 0)]
    await engine.close()
    print(json.dumps([engine.kind, engine.why, n, back.decode()]))
asyncio.run(main())
"""


def test_under_a_filter() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", FILTERED], capture_output=True, text=True, timeout=60, check=True
    )
    found = json.loads(done.stdout)
    if found is None:
        pytest.skip("no seccomp filter can be installed here")
    kind, why, sizes, text = found
    assert (kind, sizes, text) == ("threads", [4, 4], "text")
    assert "forbidden" in why


@needs_ring
def test_a_thread_of_the_kernel() -> None:
    try:
        engine = _native.Engine(8, min(os.sched_getaffinity(0)))
    except OSError as error:
        pytest.skip(f"no thread of the kernel here: {error}")
    for _ in range(100):
        token = engine.nop()
        assert engine.submit() == 1
        assert reap(engine, 1) == {token: 0}
    engine.close()
