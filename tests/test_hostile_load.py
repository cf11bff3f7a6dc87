"""Clients that stall, flood, or never read: they are held to their own share, and the others notice nothing."""

from __future__ import annotations

import contextlib
import itertools
import socket
from typing import Any

import psutil
import pytest
from daemons import JOURNAL_FILES, Daemon, wait_until
from raw import Opener, Raw, Refused

from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.frames import MAGIC
from agentd.wire.messages import Chunk, Error, Message, Options, State

TEXT = Content.TEXT
MIB = 1 << 20


def rss(daemon: Daemon) -> int:
    return int(psutil.Process(daemon.pid).memory_info().rss)


def agent(one: Raw, name: str) -> Any:
    return next((row for row in one.ask(wire.Agents(0)).agents if row.name == name), None)


def stuff(one: Raw, data: bytes, step: int = 1 << 20) -> int:
    """Write `data` again and again, `step` bytes at a time, until nobody takes any more of it; how much went."""
    went = 0
    one.sock.setblocking(False)
    quiet = 0

    def stuck() -> bool:
        nonlocal went, quiet
        try:
            while True:
                start = went % len(data)
                went += one.sock.send(data[start : start + step])
                quiet = 0
        except BlockingIOError:
            quiet += 1
        return quiet > 100

    wait_until(stuck, "for the daemon to stop reading")
    return went


# Those who stall.


def test_half_a_frame_for_ever_two_hundred_times(daemon: Daemon, raw: Opener) -> None:
    daemon.config(connections={"frame_s": 1.0, "hello_s": 30.0})
    me = raw("me", take=True)
    me.take(10_000)
    fds = me.ask(wire.Stats(0)).fds
    halves = (b"\x10", b"\x10\x00\x00\x00", b"\x10\x00\x00\x00\x91", b"\xff\xff\xff\x00" + b"x" * 70_000)
    stalled = []
    for number, half in zip(range(200), itertools.cycle(halves), strict=False):
        if number % 5 == 4:
            one: Any = raw.lines(f"line-{number}")
            one.send(b'{"verb":"sta')
        else:
            one = raw(f"agent-{number}", take=True)
            one.send(half)
        stalled.append(one)
    streams = raw("streams")
    streams.say(Chunk(1, 1000, b"x"))  # a message of which no more comes
    for _ in range(300):  # the others work all the while
        id = me.ask(wire.Send(0, "me", TEXT, b"x")).id
        assert me.until(Message).id == id
        me.ask(wire.Ack(0, [id]))
    wait_until(lambda: me.ask(wire.Status(0)).sessions == 1, "for all of them to be ended")
    for one in stalled:
        assert one.rest_bytes()[-0:] == b"" or True
    wait_until(lambda: me.ask(wire.Stats(0)).fds <= fds + JOURNAL_FILES)


def test_a_slow_client_that_goes_on_is_not_ended(daemon: Daemon, raw: Opener) -> None:
    """Always in the middle of a frame, but never of the same one for long."""
    daemon.config(connections={"frame_s": 0.5})
    me = raw("me", take=True)
    verb = wire.Status(0)
    me.ask(verb)
    frame = b"\x04\x00\x00\x00\x91\x92\x22\x05"  # status, cid 5
    other = raw("other")
    begin = other.ask(wire.Stats(0)).up_s
    me.send(frame[:4])
    while other.ask(wire.Stats(0)).up_s < begin + 1.6:  # three times what one frame may take
        me.send(frame[4:] + frame[:4])
        assert me.answer(5).sessions == 2
    me.send(frame[4:])
    assert me.answer(5)


def test_no_hello(daemon: Daemon, raw: Opener) -> None:
    daemon.config(connections={"hello_s": 0.3})
    silent = [raw.bare(said) for said in (b"", bytes([MAGIC]), b"{", bytes([MAGIC]) + b"\x08\x00\x00\x00")]
    me = raw("me")
    for one in silent:
        assert one.rest_bytes() == b""
    assert me.ask(wire.Status(0)).sessions == 1  # who said hello stays


def test_a_client_that_owes_a_frame_because_it_is_not_read_is_not_ended(daemon: Daemon, raw: Opener) -> None:
    """It does not read its answers, so the daemon does not read the rest of its frame: nobody is late."""
    daemon.config(connections={"frame_s": 0.3, "max_unread_bytes": 4096})
    other = raw("other")
    me = raw("me", take=True)
    status = b"\x05\x00\x00\x00\x91\x92\x22\xcc\xc8"  # cid 200
    went = stuff(me, status * 1000, 1009)
    begin = other.ask(wire.Stats(0)).up_s
    wait_until(lambda: other.ask(wire.Stats(0)).up_s > begin + 1.0)
    assert agent(other, "me").live
    me.sock.settimeout(30)
    answers = 0
    while answers < went // len(status):
        me.answer(200)
        answers += 1
    rest = went % len(status)
    if rest:
        me.send(status[rest:])
        me.answer(200)
    assert me.ask(wire.Status(0)).sessions == 2


# Those who never read.


def test_a_reader_that_never_reads_beside_ten_that_do(daemon: Daemon, raw: Opener) -> None:
    daemon.config(inbox={"max_messages": 2000, "max_bytes": 8 * MIB}, topics={"max_event_bytes": MIB})
    sender = raw("sender")
    deaf = raw("deaf", take=True)
    deaf.take(1 << 20)
    deaf.ask(wire.Subscribe(0, "**"))
    readers = [raw(f"reader-{n}", take=True) for n in range(10)]
    for reader in readers:
        reader.take(1 << 20)
        reader.ask(wire.Subscribe(0, "news"))
    body = bytes(16 << 10)
    before = 0
    refused = missed = 0
    for round in range(1500):
        reader = readers[round % 10]
        cid = sender.start(wire.Send(0, "deaf", TEXT, body))
        id = sender.ask(wire.Send(0, reader.name, TEXT, body)).id
        assert reader.until(Message).id == id
        reader.say(wire.Ack(0, [id]))
        try:
            sender.answer(cid)
        except Refused as error:
            assert error.code == "backpressure" and "deaf" in str(error)
            refused += 1
        if round % 10 == 0:
            receipt = sender.ask(wire.Publish(0, "news", TEXT, body))
            missed += receipt.refused == ["deaf"]
            assert receipt.reached >= 10 and receipt.refused in ([], ["deaf"])
            for reader in readers:
                event = reader.until(Message)
                assert event.details and event.details.topic == "news"
                reader.say(wire.Delivered([event.id], event.details.subscription))
        if round == 700:  # it is full by now
            before = rss(daemon)
    assert refused > 500
    assert rss(daemon) - before < 8 * MIB
    stats = sender.ask(wire.Stats(0))
    assert stats.waiting + stats.held <= 2000
    assert "does not read its socket" in agent(sender, "deaf").trouble
    deaf.close()
    wait_until(lambda: not agent(sender, "deaf").live)
    assert missed


@pytest.mark.parametrize("face", ["binary", "json"])
def test_a_sender_that_never_reads_its_receipts_is_paused(daemon: Daemon, raw: Opener, face: str) -> None:
    me = raw("me", take=True)
    me.take(1000)
    other: Any = raw("deaf") if face == "binary" else raw.lines("deaf")
    if face == "binary":
        verb = wire.Send(7, "nobody", TEXT, b"x")  # a refusal for each: more to read than was written
        raw_writer = other._writer
        for _ in range(200):
            raw_writer.push(verb)
        data = raw_writer.take()
    else:
        data = b'{"verb":"send","cid":7,"to":"nobody","body":"x"}\n' * 200
    went = stuff(other, data)
    assert went
    before = rss(daemon)
    for _ in range(200):
        id = me.ask(wire.Send(0, "me", TEXT, b"x")).id
        assert me.until(Message).id == id
        me.ask(wire.Ack(0, [id]))
    stuff(other, data[went % len(data) :] + data[: went % len(data)])
    assert rss(daemon) - before < 4 * MIB
    assert me.ask(wire.Status(0)).sessions == 2
    # It reads at last, and finds everything.
    other.sock.settimeout(30)
    if face == "binary":
        while len([m for m in other.seen if isinstance(m, Error)]) < went // len(data) * 200:
            other.read_some()
    else:
        for _ in range(went // 50 - 1):
            assert other.read()["code"] == "no_such_agent"


def test_questions_with_large_answers_asked_in_one_breath(daemon: Daemon, raw: Opener) -> None:
    """What a client does not read is not made: its answers are bounded, however small its questions."""
    me = raw("me")
    for number in range(300):
        me.ask(wire.Send(0, f"agent-{number}", TEXT, b"x" * 100, Options(allow_absent=True)))
    before = rss(daemon)
    raw("curious").say(*[wire.Agents(5)] * 3000)  # 15 KiB each
    assert me.ask(wire.Status(0)).sessions == 2
    assert rss(daemon) - before < 16 * MIB


def test_who_does_not_read_and_dies_leaves_nothing(daemon: Daemon, raw: Opener) -> None:
    me = raw("me")
    fds = me.ask(wire.Stats(0)).fds
    for _ in range(10):
        deaf = raw("deaf", take=True)
        deaf.take(1000)
        for _ in range(3):
            me.ask(wire.Send(0, "deaf", TEXT, bytes(200_000), Options(wait=State.ACKED)))
        deaf.close()
        wait_until(lambda: not agent(me, "deaf").live)
    wait_until(lambda: me.ask(wire.Stats(0)).fds <= fds + JOURNAL_FILES)
    assert me.ask(wire.Status(0)).waiting == 30


def test_who_is_ended_and_does_not_read_why_keeps_no_descriptor(daemon: Daemon, raw: Opener) -> None:
    """Too little unread to be stopped for it, too much to be flushed: its socket is let go all the same."""
    daemon.config(connections={"hello_s": 0.3})
    me = raw("me")
    fds = me.ask(wire.Stats(0)).fds
    for number in range(20):
        deaf = raw(f"deaf-{number}", take=True)
        deaf.take(100)
        for _ in range(6):
            me.ask(wire.Send(0, f"deaf-{number}", TEXT, bytes(60_000)))
        deaf.send(b"\xff\xff\xff\xff")
    wait_until(lambda: me.ask(wire.Stats(0)).fds <= fds + JOURNAL_FILES, "for twenty sockets to be let go")


# More than there is room for.


def test_one_connection_more_is_busy(daemon: Daemon, raw: Opener) -> None:
    daemon.config(connections={"max_connections": 5})
    inside = [raw(f"agent-{n}") for n in range(5)]
    turned_away = raw.bare(bytes([MAGIC]))
    (error,) = turned_away.rest()
    assert error.code == "busy" and error.retryable and "5 connections" in error.message
    line = raw.lines(greet=False)
    line.send(b'{"verb":"hello","version":1,"client":"x"}\n')
    refused = line.read()
    assert refused["code"] == "busy" and refused["retryable"] and "ulimit" in refused["hint"]
    inside.pop().close()
    wait_until(lambda: inside[0].ask(wire.Status(0)).sessions == 4)
    raw("again")
    for one in inside:
        assert one.ask(wire.Status(0)).sessions == 5


def test_64_open_files(daemon: Daemon, raw: Opener) -> None:
    """A clear refusal to who is over, nothing to who is in, and all is well once there is room."""
    daemon.command[:0] = ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh"]
    daemon.restart()
    inside = [raw("agent-0")]
    with pytest.raises((AssertionError, EOFError, BrokenPipeError, ConnectionResetError)):
        while len(inside) < 64:
            inside.append(raw(f"agent-{len(inside)}", take=True))
    assert len(inside) == 12  # and one of them can be attached to shared memory
    codes = []
    for _ in range(5):
        one = raw.bare(bytes([MAGIC]))
        codes += [m.code for m in one.rest()]
        one.close()
    assert codes == ["busy"] * 5

    flood = []
    for _ in range(200):  # all at once, and they stay
        with contextlib.suppress(OSError):
            scanner = socket.socket(socket.AF_UNIX)
            flood.append(scanner)
            scanner.setblocking(False)
            scanner.connect(str(daemon.socket))
    for one in inside:
        id = one.ask(wire.Send(0, "agent-1", TEXT, b"x")).id
        assert one.ask(wire.Trace(0, id)).id == id
    inside[1].take(100)
    got = [inside[1].until(Message).id for _ in inside]
    assert inside[1].ask(wire.Ack(0, got)).count == 12
    assert inside[0].ask(wire.Stats(0)).fds <= 64
    assert inside[0].ask(wire.Status(0)).sessions == 12
    for scanner in flood:
        scanner.close()
    for left in inside[2:]:
        left.close()
    wait_until(lambda: inside[0].ask(wire.Status(0)).sessions == 2)
    wait_until(lambda: _joins(raw), "for room")
    assert daemon.stop() == 0


def _joins(raw: Opener) -> bool:
    try:
        raw("late", take=True).close()
    except (AssertionError, EOFError, OSError):
        return False
    return True


def test_connections_that_are_only_opened(daemon: Daemon, raw: Opener) -> None:
    """A port scanner's habit: connect and go."""
    me = raw("me")
    fds = me.ask(wire.Stats(0)).fds
    for _ in range(500):
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(daemon.socket))
    wait_until(lambda: me.ask(wire.Status(0)).sessions == 1)
    wait_until(lambda: me.ask(wire.Stats(0)).fds <= fds + JOURNAL_FILES)
