"""agentd._native.Doorbells: what a burst of a sender's channels costs, and that nobody who sleeps is forgotten."""

from __future__ import annotations

import gc
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd import _native
from agentd.wire import grants

RING_BYTES, VERDICT_BYTES = 1 << 17, 1 << 10
REFUSED = _native.io_uring_errno()
needs_ring = pytest.mark.skipif(bool(REFUSED), reason=f"no io_uring here: {os.strerror(REFUSED)}")


class Taken(_native.Record):
    """What a mailbox makes."""

    __slots__ = ()


def refuse(error: int, _: int) -> None:
    raise OSError(error, os.strerror(error))


class Receiver:
    """A receiver, and the one channel that leads to it."""

    def __init__(self, doorbells: _native.Doorbells | None = None, ring_bytes: int = RING_BYTES) -> None:
        shape = (grants.HIGH, 7, ring_bytes, VERDICT_BYTES, 0)
        fd = _native.create_pair(*shape, False)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        verdicts = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.channel = _native.Channel(fd, *shape, os.dup(self.bell), lambda body: (0, body), refuse)
        self.incoming = _native.Incoming(fd, *shape, verdicts)
        os.close(fd)
        over: list[Any] = []
        self.mailbox = _native.Mailbox(Taken, over.append, over.append, 0)
        self.mailbox.add(self.incoming)
        self.channel.ring_by(doorbells)

    @property
    def rung(self) -> int:
        """How often, since last asked."""
        try:
            return os.eventfd_read(self.bell)
        except BlockingIOError:
            return 0

    def sleep(self) -> None:
        """As one that may be rung."""
        assert self.mailbox.arm()

    def take(self) -> list[bytes]:
        """What is there. Awake again."""
        self.mailbox.disarm()
        return [record.body for record in self.mailbox.drain(10_000)]

    def close(self) -> None:
        """Both ends."""
        self.channel.close()
        self.mailbox.close()
        os.close(self.bell)


@pytest.fixture
def receivers() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(*args: Any) -> Receiver:
        made.append(Receiver(*args))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(params=["engine", "write"])
def doorbells(request: pytest.FixtureRequest) -> Iterator[_native.Doorbells]:
    if request.param == "engine" and REFUSED:
        pytest.skip("no io_uring here")
    engine = _native.Engine(64) if request.param == "engine" else None
    yield _native.Doorbells(engine)
    if engine:
        assert engine.counts()["failed"]["doorbell"] == engine.counts()["unexpected"] == 0
        engine.close()


def rang(doorbells: _native.Doorbells) -> int:
    counts = doorbells.counts()
    return int(counts["by_write"] + counts["by_engine"])


def test_outside_a_burst_each_sleeper_is_rung_at_once(
    doorbells: _native.Doorbells, receivers: Callable[..., Receiver]
) -> None:
    one = receivers(doorbells)
    one.channel.send(b"awake")
    assert one.rung == 0
    assert one.take() == [b"awake"]
    one.sleep()
    one.channel.send(b"1")
    assert one.rung == 1
    one.channel.send(b"2")  # it was told
    assert one.rung == 0
    assert one.take() == [b"1", b"2"]
    assert doorbells.counts() == {
        "by_write": 1,
        "by_engine": 0,
        "submissions": 0,
        "bursts": 0,
        "flushes": {"records": 0, "time": 0, "end": 0, "full": 0, "asked": 0},
    }


@needs_ring
def test_a_burst_costs_a_sleeper_one_submission(receivers: Callable[..., Receiver]) -> None:
    engine = _native.Engine(64)
    doorbells = _native.Doorbells(engine)
    one = receivers(doorbells)
    one.sleep()
    doorbells.begin()
    for i in range(1000):
        one.channel.send(b"%d" % i)
    doorbells.end()
    counts, rings = doorbells.counts(), engine.counts()
    assert (counts["by_engine"], counts["by_write"], counts["submissions"], counts["bursts"]) == (1, 0, 1, 1)
    assert (rings["enters"], rings["submitted"]["doorbell"], rings["failed"]["doorbell"]) == (1, 1, 0)
    assert one.rung == 1
    assert engine.reap() == [] and not select.select([engine.fileno()], [], [], 0)[0]
    assert len(one.take()) == 1000
    engine.close()


@needs_ring
def test_many_sleepers_share_one_submission(receivers: Callable[..., Receiver]) -> None:
    engine = _native.Engine(64)
    doorbells = _native.Doorbells(engine)
    many = [receivers(doorbells) for _ in range(32)]
    for one in many[1:]:
        one.sleep()
    doorbells.begin()
    for one in many:
        one.channel.send(b"x")
        assert one.rung == 0
    doorbells.end()
    assert [one.rung for one in many] == [0] + [1] * 31
    assert (engine.counts()["enters"], engine.counts()["submitted"]["doorbell"]) == (1, 31)
    assert doorbells.counts()["flushes"] == {"records": 0, "time": 0, "end": 1, "full": 0, "asked": 0}
    engine.close()


def test_an_awake_receiver_may_take_what_is_not_flushed(
    doorbells: _native.Doorbells, receivers: Callable[..., Receiver]
) -> None:
    one = receivers(doorbells)
    doorbells.begin()
    one.channel.send(b"x")
    assert one.take() == [b"x"]
    doorbells.end()
    assert rang(doorbells) == 0


def test_a_flush_after_so_many_records_of_all(doorbells: _native.Doorbells, receivers: Callable[..., Receiver]) -> None:
    one, other = receivers(doorbells), receivers(doorbells)
    doorbells.begin()
    one.sleep()
    other.sleep()
    for i in range(64):
        assert one.rung == other.rung == 0
        (other if i % 3 else one).channel.send(b"x")
        if doorbells.counts()["flushes"]["time"]:
            pytest.skip("the machine was too slow for a burst of 64 records in 1 ms")
    assert one.rung == other.rung == 1
    assert doorbells.counts()["flushes"]["records"] == 1
    doorbells.end()
    assert doorbells.counts()["flushes"]["end"] == 0  # nothing was left


def test_a_flush_after_a_while(doorbells: _native.Doorbells, receivers: Callable[..., Receiver]) -> None:
    one = receivers(doorbells)
    one.sleep()
    doorbells.begin()
    one.channel.send(b"first")
    assert one.rung == 0
    until = time.time_ns() + 1_000_000
    while time.time_ns() <= until:
        pass
    one.channel.send(b"second")
    assert one.rung == 1
    assert doorbells.counts()["flushes"]["time"] == 1
    doorbells.end()


def test_bursts_in_bursts_are_one(doorbells: _native.Doorbells, receivers: Callable[..., Receiver]) -> None:
    one = receivers(doorbells)
    one.sleep()
    doorbells.begin()
    doorbells.begin()
    one.channel.send(b"x")
    doorbells.end()
    assert one.rung == 0
    doorbells.end()
    assert one.rung == 1
    assert doorbells.counts()["bursts"] == 1
    with pytest.raises(ValueError, match="no burst"):
        doorbells.end()


def test_a_full_ring_is_announced(doorbells: _native.Doorbells, receivers: Callable[..., Receiver]) -> None:
    one = receivers(doorbells, 1 << 10)
    one.sleep()
    doorbells.begin()
    with pytest.raises(BlockingIOError):
        for _ in range(60):
            one.channel.send(b"x" * 64)
    assert one.rung == 1
    assert one.take()
    one.channel.send(b"there is room")
    doorbells.end()


def test_a_channel_that_closes_in_a_burst_is_published(
    doorbells: _native.Doorbells, receivers: Callable[..., Receiver]
) -> None:
    for which in ((0,), (1,), (2,), (0, 2), (2, 1, 0)):
        three = [receivers(doorbells) for _ in range(3)]
        for one in three:
            one.sleep()
        doorbells.begin()
        for one in three:
            one.channel.send(b"x")
        for i in which:
            three[i].channel.close()
            assert three[i].rung == 1 and three[i].take() == [b"x"]
        late = receivers(doorbells)
        late.sleep()
        late.channel.send(b"late")
        doorbells.end()
        assert late.rung == 1
        assert [one.rung for one in three] == [0 if i in which else 1 for i in range(3)]


def test_a_channel_that_is_forgotten_in_a_burst(doorbells: _native.Doorbells) -> None:
    one = Receiver(doorbells)
    one.sleep()
    doorbells.begin()
    one.channel.send(b"x")
    del one.channel
    gc.collect()
    assert one.rung == 1
    doorbells.end()
    assert one.take() == [b"x"]
    one.mailbox.close()
    os.close(one.bell)


def test_doorbells_are_changed_in_a_burst(doorbells: _native.Doorbells, receivers: Callable[..., Receiver]) -> None:
    one = receivers(doorbells)
    one.sleep()
    doorbells.begin()
    one.channel.send(b"x")
    one.channel.ring_by(None)
    assert one.rung == 1
    one.take()
    one.sleep()
    one.channel.send(b"y")
    assert one.rung == 1
    one.channel.ring_by(_native.Doorbells(None))
    doorbells.end()
    assert rang(doorbells) == 0
    with pytest.raises(TypeError, match="Doorbells"):
        one.channel.ring_by("bells")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Engine"):
        _native.Doorbells("engine")  # type: ignore[arg-type]


@needs_ring
def test_without_room_or_engine_each_is_rung_by_write(receivers: Callable[..., Receiver]) -> None:
    engine = _native.Engine(1)
    doorbells = _native.Doorbells(engine)
    three = [receivers(doorbells) for _ in range(3)]

    def burst() -> list[int]:
        for one in three:
            one.take()
            one.sleep()
        doorbells.begin()
        for one in three:
            one.channel.send(b"x")
        doorbells.end()
        return [one.rung for one in three]

    assert burst() == [1, 1, 1]
    counts = doorbells.counts()
    assert (counts["by_engine"], counts["by_write"]) == (1, 2)
    engine.close()
    assert burst() == [1, 1, 1]
    assert doorbells.counts()["by_write"] == 5


@needs_ring
def test_a_doorbell_is_no_part_of_somebody_elses_chain(receivers: Callable[..., Receiver]) -> None:
    engine = _native.Engine(8)
    doorbells = _native.Doorbells(engine)
    one = receivers(doorbells)
    fd = os.memfd_create("x")
    for link, by_engine in ((True, 0), (False, 1)):
        one.take()
        one.sleep()
        engine.write(fd, b"text", 0, link)
        doorbells.begin()
        one.channel.send(b"x")
        doorbells.end()
        assert one.rung == 1
        assert doorbells.counts()["by_engine"] == by_engine
        assert engine.counts()["queued"] == (1 if link else 0)
    os.close(fd)
    engine.close()


@needs_ring
def test_the_end_of_a_chain_rings(receivers: Callable[..., Receiver]) -> None:
    engine = _native.Engine(8)
    one = receivers()
    fd = os.memfd_create("x")
    for target, count, failed in ((fd, 1, 0), (one.bell, 0, 1)):
        engine.write(target, b"text", 0, True)  # four bytes ring no eventfd
        engine.doorbell(one.bell)
        engine.submit()
        while not engine.reap():
            select.select([engine.fileno()], [], [], 20)
        while engine.counts()["failed"]["doorbell"] < failed:
            assert engine.reap() == []
        while count and not select.select([one.bell], [], [], 20)[0]:
            pass
        assert one.rung == count
    assert engine.counts()["submitted"]["doorbell"] == 2
    with pytest.raises(OSError, match="Invalid"):
        engine.doorbell(-1)
    os.close(fd)
    engine.close()


def in_a_thread(act: Callable[[], object]) -> BaseException | None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None


@needs_ring
def test_they_belong_to_the_engines_thread(receivers: Callable[..., Receiver]) -> None:
    engine = _native.Engine(8)
    doorbells = _native.Doorbells(engine)
    one = receivers(doorbells)
    doorbells.begin()
    for act in (doorbells.begin, doorbells.end, lambda: one.channel.send(b"x")):
        error = in_a_thread(act)
        assert isinstance(error, RuntimeError) and "belongs to the thread" in str(error)
    assert one.channel.sent == 0
    one.sleep()
    one.channel.send(b"x")
    assert in_a_thread(one.channel.close) is None
    assert one.rung == 1
    doorbells.end()
    engine.close()


def test_a_child_has_none(doorbells: _native.Doorbells, receivers: Callable[..., Receiver]) -> None:
    one = receivers(doorbells)
    one.sleep()
    doorbells.begin()
    one.channel.send(b"x")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            try:
                doorbells.end()
            except RuntimeError as error:
                code = 0 if "child" in str(error) else 2
            one.channel.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert one.rung == 0
    doorbells.end()
    assert one.rung == 1


@needs_ring
def test_with_a_thread_of_the_kernel(receivers: Callable[..., Receiver]) -> None:
    try:
        engine = _native.Engine(64, min(os.sched_getaffinity(0)))
    except OSError as error:
        pytest.skip(f"no thread of the kernel here: {error}")
    doorbells = _native.Doorbells(engine, sqpoll_burst=4)
    many = [receivers(doorbells) for _ in range(8)]

    def burst(n: int) -> None:
        for one in many[:n]:
            one.take()
            one.sleep()
        doorbells.begin()
        for one in many[:n]:
            one.channel.send(b"x")
        doorbells.end()
        for one in many[:n]:
            assert select.select([one.bell], [], [], 20)[0]
            assert one.rung == 1

    for _ in range(3):
        burst(8)  # which wakes it
        burst(1)  # it may be awake still
        assert engine.counts()["submitted"]["doorbell"] == doorbells.counts()["by_engine"]
        assert doorbells.counts()["by_engine"] >= 8
        time.sleep(0.05)  # it may fall asleep; both ways are right
    counts = doorbells.counts()
    assert counts["by_engine"] + counts["by_write"] == 27
    for one in many:  # closed as soon as they were rung: no descriptor may be another's by then
        one.channel.close()
    engine.close()


@needs_ring
@settings(max_examples=60, deadline=None)
@given(
    st.booleans(),
    st.lists(
        st.tuples(st.sampled_from(["send", "begin", "end", "close", "sleep", "change"]), st.integers(0, 3)), max_size=60
    ),
)
def test_nobody_sleeps_over_a_record(with_engine: bool, steps: list[tuple[str, int]]) -> None:
    engine = _native.Engine(2) if with_engine else None
    doorbells = _native.Doorbells(engine)
    many = [Receiver(doorbells) for _ in range(4)]
    unread, asleep, depth = [0] * 4, [False] * 4, 0
    closed = [False] * 4
    for step, i in [*steps, ("end", 0)]:
        one = many[i]
        if step == "send" and not closed[i]:
            one.channel.send(b"x")
            unread[i] += 1
        elif step == "begin":
            doorbells.begin()
            depth += 1
        elif step == "end":
            for _ in range(depth):
                doorbells.end()
            depth = 0
        elif step == "close":
            one.channel.close()
            closed[i] = True
        elif step == "change" and not closed[i]:
            one.channel.ring_by(doorbells if depth else None)
        elif step == "sleep":
            one.mailbox.disarm()
            asleep[i] = one.mailbox.arm()
            assert asleep[i] == (unread[i] == 0)
            one.rung  # noqa: B018
        if depth == 0:
            for one, n, sleeps in zip(many, unread, asleep, strict=True):
                if sleeps and n:
                    assert select.select([one.bell], [], [], 0)[0]
    for one in many:
        one.close()
    if engine:
        assert engine.counts()["failed"]["doorbell"] == 0
        engine.close()
