"""Many connections that say nothing, or never come to an end: bounded in number and in sum, and nobody else notices."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from daemons import JOURNAL_FILES, Daemon, wait_until
from raw import Opener, Raw

from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.frames import MAGIC, FrameReader
from agentd.wire.messages import Chunk, DaemonMessage, Message
from agentd.wire.ndjson import LineReader

TEXT = Content.TEXT
KIB = 1 << 10
MIB = 1 << 20


def stats(one: Raw) -> wire.StatsView:
    found = one.ask(wire.Stats(0))
    assert isinstance(found, wire.StatsView)
    return found


def exchange(ones: list[Raw]) -> None:
    """Each sends to the next, which takes and acks it."""
    for one, other in zip(ones, [*ones[1:], ones[0]], strict=True):
        id = one.ask(wire.Send(0, other.name, TEXT, b"x")).id
        assert other.until(Message).id == id
        assert other.ask(wire.Ack(0, [id])).count == 1


class Dawdler:
    """A connection that says a byte at a time."""

    def __init__(self, one: Any, said: bytes) -> None:
        self.one = one
        self._left = iter(said)

    def say_a_byte(self) -> None:
        """The next one, as long as anybody listens."""
        try:
            self.one.send(bytes([next(self._left)]))
        except (BrokenPipeError, ConnectionResetError, StopIteration):
            pass


def dawdlers(raw: Opener, count: int) -> list[Dawdler]:
    """All sorts: no word, no hello, half a frame, a line without an end, a message of which one chunk comes."""
    long = b"x" * 10_000
    made = []
    for number in range(count):
        match number % 7:
            case 0:
                made.append(Dawdler(raw.bare(), b""))
            case 1:
                made.append(Dawdler(raw.bare(), bytes([MAGIC, 0x40, 0, 0, 0]) + long))
            case 2:
                made.append(Dawdler(raw.bare(), b'{"verb":"hello","client":"' + long))
            case 3:
                made.append(Dawdler(raw(f"slow-{number}", take=True), b"\x00\x20\x00\x00\x91" + long))
            case 4:
                made.append(Dawdler(raw.lines(f"slow-{number}", take=True), b'{"verb":"send","body":"' + long))
            case 5:
                streaming = raw(f"slow-{number}")
                streaming.say(Chunk(1, 100_000, b"x" * 1000))
                made.append(Dawdler(streaming, b""))
            case _:
                made.append(Dawdler(raw(f"slow-{number}"), b"\xff\xff\x00\x00"))
    return made


def test_two_hundred_that_say_a_byte_at_a_time(daemon: Daemon, raw: Opener) -> None:
    daemon.config(connections={"frame_s": 1.0, "hello_s": 1.0})
    ten = [raw(f"quiet-{number}", take=True) for number in range(10)]
    for one in ten:
        one.take(100_000)
    fds = stats(ten[0]).fds
    slow = dawdlers(raw, 200)
    rounds = 0
    while stats(ten[0]).sessions > 10 or rounds < 20:
        for dawdler in slow:
            dawdler.say_a_byte()
        exchange(ten)
        raw(f"passing-{rounds % 5}").close()  # and who comes now gets in
        rounds += 1
    for dawdler in slow:
        assert dawdler.one.rest_bytes() is not None  # its end has come
    wait_until(lambda: stats(ten[0]).fds <= fds + JOURNAL_FILES, "for all descriptors to be let go")
    assert stats(ten[0]).refused == 0
    exchange(ten)


def test_half_open_connections_are_bounded_and_the_oldest_makes_room(daemon: Daemon, raw: Opener) -> None:
    daemon.config(connections={"max_half_open": 20, "hello_s": 600.0})
    me = raw("me")
    fds = stats(me).fds
    said = (b"", b"{", bytes([MAGIC]))
    silent = [raw.bare(part) for _, part in zip(range(101), itertools.cycle(said), strict=False)]
    raw("late", take=True)
    wait_until(lambda: stats(me).sessions <= 2 + 20)
    assert stats(me).turned_away >= 101 - 20 - 1
    told = [one.rest_bytes() for one in silent[:60]]
    assert told[0] == b""  # nobody knows which face it speaks
    assert _error(told[2], binary=True).code == _error(told[1], binary=False).code == "busy"
    assert "20 may" in _error(told[1], binary=False).message and "max_half_open" in _error(told[1], binary=False).hint
    silent[99].send(bytes([MAGIC]))  # not too late for one of the newest
    silent[99].say(wire.Hello(wire.VERSION, "late"))
    silent[99].until(wire.Welcome)
    for one in silent:
        one.close()
    wait_until(lambda: stats(me).sessions == 2)
    wait_until(lambda: stats(me).fds <= fds + 2 + JOURNAL_FILES)
    assert daemon.stderr.count("turned away") <= 2


def _error(said: bytes, *, binary: bool) -> wire.Error:
    reader: Any = FrameReader(DaemonMessage, MIB) if binary else LineReader(MIB)
    (error,) = reader.feed(said)
    assert isinstance(error, wire.Error)
    return error


@pytest.mark.parametrize("face", ["binary", "json"])
def test_unfinished_frames_are_bounded_in_sum_and_who_holds_most_is_ended(
    daemon: Daemon, raw: Opener, face: str
) -> None:
    daemon.config(connections={"max_unfinished_bytes": 4 * MIB, "frame_s": 600.0})
    me = raw("me", take=True)
    me.take(100)
    largest = _owing(raw, face, "largest", 2 * MIB)
    others = [_owing(raw, face, f"other-{number}", 256 * KIB) for number in range(9)]
    assert stats(me).turned_away == 1
    (error,) = _rest(largest)
    code, message = (error.code, error.message) if face == "binary" else (error["code"], error["message"])
    assert code == "busy" and "Unfinished frames have" in message
    id = me.ask(wire.Send(0, "me", TEXT, b"x" * MIB)).id  # and whoever finishes what it begins is in nobody's way
    assert me.until(Message).id == id
    me.ask(wire.Ack(0, [id]))
    for one in others:
        one.close()
    wait_until(lambda: stats(me).sessions == 1)
    for _ in range(5):
        _owing(raw, face, "again", 700 * KIB)
    wait_until(lambda: stats(me).sessions == 6)
    assert stats(me).turned_away == 1  # what the others held is free


def _owing(raw: Opener, face: str, name: str, size_bytes: int) -> Any:
    """A connection that has said so much of something that goes on."""
    if face == "binary":
        one: Any = raw(None)
        if name == "largest":
            for _ in range(size_bytes // (32 * KIB)):
                one.say(Chunk(1, 8 * MIB, b"x" * (32 * KIB)))
        else:
            one.send((8 * MIB).to_bytes(4, "little") + b"\x91" + b"x" * size_bytes)
    else:
        one = raw.lines(None)
        one.send(b'{"verb":"send","to":"me","body":"' + b"x" * size_bytes)
    return one


def _rest(one: Any) -> list[Any]:
    if isinstance(one, Raw):
        return one.rest()
    found = []
    while (said := one.read()) is not None:
        found.append(said)
    return found


def test_byte_by_byte_costs_no_more_than_what_was_said() -> None:
    """Each piece that is kept costs more than a byte: many are put together."""
    frames: Any = FrameReader(DaemonMessage, MIB)
    lines = LineReader(MIB)
    for byte in b"\x00\x00\x04\x00" + b"x" * 20_000:
        assert frames.feed(bytes([byte])) == lines.feed(b"x") == []
    assert frames.unfinished_bytes == lines.unfinished_bytes == 20_004
    assert max(len(frames._pieces), len(lines._pieces)) <= 1025
