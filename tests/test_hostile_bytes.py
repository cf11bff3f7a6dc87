"""Bytes that are not the protocol end their own connection, with a reason, and nobody else's."""

from __future__ import annotations

import base64
import json
import os
import random
import socket
import sys
from collections.abc import Iterator

import msgspec
import pytest
from daemons import JOURNAL_FILES, Daemon, wait_until
from raw import Opener, Raw

from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.frames import MAGIC, MAX_STREAMS, FrameReader
from agentd.wire.messages import Bye, Chunk, DaemonMessage, Error, Message, Welcome

HELLO = msgspec.msgpack.encode([wire.Hello(1, "x")])
JSON_HELLO = b'{"verb":"hello","version":1,"client":"x"}\n'
MAX_BODY = 16 << 20


def framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "little") + payload


def opened(*payloads: bytes) -> bytes:
    """A connection that begins well, and goes on with these frames."""
    return bytes([MAGIC]) + framed(HELLO) + b"".join(map(framed, payloads))


def packed(*verbs: object) -> bytes:
    return msgspec.msgpack.encode(list(verbs))


@pytest.fixture
def bystander(raw: Opener) -> Iterator[Raw]:
    """Somebody who does nothing wrong, and must not notice anything."""
    one = raw("bystander", take=True)
    one.take(1000)
    yield one
    id = one.ask(wire.Send(0, "bystander", Content.TEXT, b"to myself")).id
    assert one.until(Message).id == id
    assert one.ask(wire.Ack(0, [id])).count == 1
    status = one.ask(wire.Status(0))
    assert (status.waiting, status.held, status.dead) == (0, 0, 0)
    assert not [m for m in one.seen if isinstance(m, Bye | Error)]


def test_every_first_byte(daemon: Daemon, raw: Opener, bystander: Raw) -> None:
    for byte in range(256):
        if byte == MAGIC:
            continue  # what can follow it has its own test
        one = raw.bare(bytes([byte]) * 2 + b"\n")
        if chr(byte).isascii() and chr(byte).isalpha():  # a line of text, after which another may come
            assert one.receive().startswith(b"!bad_request "), byte
            one.close()
            continue
        error = json.loads(one.rest_bytes())
        assert error["verb"] == "error" and error["code"] == "bad_request", byte
        if byte != ord("{"):
            assert f"not with 0x{byte:02x}" in error["message"]
        one.close()


#: What follows a hello, the code it is refused with, and a part of the reason.
BROKEN = [
    (b"\xff\xff\xff\xff", "too_large", "4294967295 bytes"),
    (framed(b""), "bad_request", "no list of messages"),
    (framed(b"\xc1"), "bad_request", "no list of messages"),
    (framed(b"\x91"), "bad_request", "no list of messages"),
    (framed(packed() + b"junk"), "bad_request", "trailing"),
    (framed(b"\x91\x92\x63\x01"), "bad_request", "no list of messages"),  # no such tag
    (framed(packed([60, 1, "daemon", [], "boot", 1])), "bad_request", "no list"),  # the daemon's own word
    (framed(packed([2, 1, "name", "yes"])), "bad_request", "Expected `bool`"),
    (framed(packed([2, -1])), "bad_request", "Expected `int` >= 0"),
    (framed(packed([2, 1 << 63])), "bad_request", "Expected `int` <= 9223372036854775807"),
    (framed(b"\x91\x93\x02\x01\xa3\xff\xfe\xfd"), "bad_request", "not UTF-8"),
    (framed(b"\x91\x93\x02\x01\xa3\xed\xa0\x80"), "bad_request", "not UTF-8"),  # a lone surrogate
    (framed(b"\x91\x93\x02\x01\xd4\x01\x00"), "bad_request", "got `ext`"),
    (framed(b"\x91\x94\x02\x01\xa1x\xdd\xff\xff\xff\xff"), "bad_request", "no list of messages"),  # 2^32-1 items
    (framed(b"\xdd\xff\xff\xff\xff"), "bad_request", "no list of messages"),
    (framed(b"\x91\x94\x02\x01\xdb\xff\xff\xff\xffx\xc3"), "bad_request", "no list of messages"),
    (framed(b"\x91" * 100_000), "bad_request", "no list of messages"),
    (
        framed(b"\x91\x95\x01\x01\xa1x\x90" + b"\x91" * 100_000 + b"\xc0"),
        "bad_request",
        "",
    ),  # deep, in what is skipped
    (framed(packed([20, 1, 1 << 21])), "bad_request", "<= 1048576"),
    (framed(packed([10, 1, "x", "text", b"", ["normal", None, -1.0]])), "bad_request", ">= 0.0"),
    (framed(packed([10, 1, "x", "text", b"", ["normal", None, float("nan")]])), "bad_request", "float"),
    (framed(packed([10, 1, "x", "text", b"", ["normal", None, float("inf")]])), "bad_request", "<= 31622400.0"),
    (framed(packed([10, 1, "x", "text", b"", ["urgent"]])), "bad_request", "Invalid enum value"),
    (framed(packed([10, 1, "x", "image", b""])), "bad_request", "Invalid enum value"),
    (framed(packed([11, 1, "x", "text", b"", float("nan")])), "bad_request", "float"),
    (framed(packed([11, 1, "x", "text", b"", 0.0])), "bad_request", "> 0.0"),
    (framed(packed([23, 1, 1, "", float("nan")])), "bad_request", "float"),
    (framed(packed(Chunk(1, 10, b"12345"), Chunk(1, 10, b"123456"))), "bad_request", "do not add up"),
    (framed(packed(Chunk(1, 10, b""))), "bad_request", "do not add up"),
    (framed(packed(Chunk(1, 0, b""))), "bad_request", "do not add up"),
    (framed(packed(Chunk(1, 3, b"\xc1\xc1\xc1"))), "bad_request", "are no message"),
    (framed(packed(Chunk(1, 17 << 20, b"x"))), "too_large", ""),
    (framed(packed(Chunk(1, 1 << 62, b"x"))), "too_large", ""),
    (framed(packed(*(Chunk(n, 1000, b"x") for n in range(MAX_STREAMS + 1)))), "too_large", str(MAX_STREAMS)),
    (framed(packed(Chunk(1, 9 << 20, b"x"), Chunk(2, 9 << 20, b"x"))), "too_large", ""),
    (framed(packed(Chunk(1, -1, b"x"))), "bad_request", ">= 0"),
]


def test_a_broken_frame_ends_its_connection_with_a_reason(daemon: Daemon, raw: Opener, bystander: Raw) -> None:
    for said, code, expected in BROKEN:
        one = raw.bare(opened())
        one.send(said)
        *_, error = one.rest()
        assert isinstance(error, Error) and (error.cid, error.code) == (0, code), (said[:80], error)
        assert expected in error.message, (said[:80], error)
        one.close()
    wait_until(lambda: bystander.ask(wire.Status(0)).sessions == 1)


def test_noise(daemon: Daemon, raw: Opener, bystander: Raw) -> None:
    """Random bytes, and good conversations with a few bytes turned."""
    noise = random.Random(1)
    good = opened(
        packed(wire.Join(1, "victim", take=True)),
        packed(wire.Receive(2, 5), wire.Subscribe(3, "a.*")),
        packed(wire.Send(4, "victim", Content.JSON, b"{}"), wire.Publish(5, "a.b", Content.TEXT, b"x")),
        packed(wire.Agents(6), wire.Inbox(7, "victim"), wire.Dead(8), wire.Stats(9), wire.Leave(10)),
    )
    lines = JSON_HELLO + b"".join(
        json.dumps(verb).encode() + b"\n"
        for verb in (
            {"verb": "join", "cid": 1, "name": "victim", "take": True, "replace": True},
            {"verb": "receive", "cid": 2, "credit": 5},
            {"verb": "send", "cid": 3, "to": "victim", "body": {"a": [1, "é", None]}, "options": {"ttl": 1}},
            {"verb": "ack", "cid": 4, "ids": ["abcdefghijklm"]},
            {"verb": "leave", "cid": 5},
        )
    )
    for round in range(180):
        data = bytearray((bytes([MAGIC]) + noise.randbytes(200), good, lines)[round % 3])
        for _ in range(noise.randrange(1, 4)):
            data[noise.randrange(1, len(data))] = noise.randrange(256)
        one = raw.bare()
        try:
            one.send(bytes(data))
            one.sock.shutdown(1)
        except OSError:  # it had enough already
            pass
        one.rest_bytes()
        one.close()
    for victim in [a for a in bystander.ask(wire.Agents(0)).agents if a.name != "bystander"]:
        assert not victim.live
        cleaner = raw(victim.name, take=True)
        cleaner.take(100)
        cleaner.ask(wire.Ack(0, [m.id for m in cleaner.so_far(Message)]))
        cleaner.close()


def test_a_byte_at_a_time(raw: Opener, bystander: Raw) -> None:
    """Slow, but right, on either face."""
    for said in (
        opened(packed(wire.Join(1, "slow")), packed(wire.Send(2, "bystander", Content.TEXT, b"hi"))),
        JSON_HELLO + b'{"verb":"join","cid":1,"name":"slow"}\n{"verb":"send","to":"bystander","body":"hi"}\n',
    ):
        one = raw.bare()
        for place in range(len(said)):
            one.send(said[place : place + 1])
        got = bystander.until(Message)
        assert (got.sender, got.body) == ("slow", b"hi")
        bystander.ask(wire.Ack(0, [got.id]))


def test_lines_that_are_no_message_are_answered_and_the_next_is_read(raw: Opener, bystander: Raw) -> None:
    one = raw.lines("lines", take=True)
    for line in (
        b"not json",
        b"[]",
        b"null",
        b'"text"',
        b"{",
        b"{}",
        b'{"verb":"fly"}',
        b'{"verb":{"a":1}}',
        b'{"verb":"chunk","stream":1,"size_bytes":1,"data":"eA=="}',
        b'{"verb":"welcome","version":1,"daemon":"x","capabilities":[],"boot":"","max_body_bytes":1}',
        b'{"verb":"send","to":"bystander"}',
        b'{"verb":"send","to":"bystander","body":"x","colour":"red"}',
        b'{"verb":"send","to":"bystander","body":"x","options":[1]}',
        b'{"verb":"send","to":"bystander","body":"x","options":{"ttl":-1}}',
        b'{"verb":"send","to":"bystander","body":"x","options":{"ttl":NaN}}',
        b'{"verb":"send","to":"bystander","body":"x","options":{"ttl":1e999}}',
        b'{"verb":"send","to":"bystander","body":"x","options":{"headers":{"a":1}}}',
        b'{"verb":"send","to":"bystander","body":"\xff"}',
        b'{"verb":"send","to":"bystander","body":"\\ud800"}',
        b'{"verb":"send","to":"bystander","content":"bytes","body":"!"}',
        b'{"verb":"send","to":"bystander","content":["text"],"body":"x"}',
        b'{"verb":"send","to":"bystander","body":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"verb":"send","to":7,"body":"x"}',
        b'{"verb":"send","to":"by\\u0000stander","body":"x"}',
        b'{"verb":"ack","ids":[1]}',
        b'{"verb":"ack","ids":"abcdefghijklm"}',
        b'{"verb":"ack","ids":["ABCDEFGHIJKLM"]}',
        b'{"verb":"trace","id":"zzzzzzzzzzzzz"}',
        b'{"verb":"receive","credit":1e9}',
        b'{"verb":"unsubscribe","subscription":' + b"9" * 30 + b"}",
        b'{"verb":"unsubscribe","subscription":' + b"9" * 5000 + b"}",
        b'{"verb":"status","cid":-1}',
        b'{"verb":"status","cid":true}',
    ):
        one.send(line + b"\n")
        answer = one.read()
        assert answer["verb"] == "error", (line[:80], answer)
        assert answer["message"] and len(answer["message"]) < 500
        assert "Traceback" not in answer["message"]
    one.send(b'\n  \r\n{"verb":"status","cid":41}\n')
    assert one.read()["cid"] == 41
    one.send(b'{"verb":"send","cid":42,"nonsense":1}\n')
    assert one.read()["cid"] == 42  # the call that was wrong is named where it can be


def test_a_line_without_end(raw: Opener) -> None:
    one = raw.bare(JSON_HELLO)
    piece = b"x" * (1 << 20)
    try:
        for _ in range(18):
            one.send(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass
    answers = [json.loads(line) for line in one.rest_bytes().splitlines()]
    assert answers[0]["verb"] == "welcome"
    assert answers[-1]["code"] == "too_large" if len(answers) > 1 else True  # it may be lost in the reset


@pytest.fixture
def deep_stack() -> Iterator[None]:
    """The daemon's limit is its own; the test's reader must not meet its own first."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("deep_stack")
def test_a_body_that_json_cannot_show_reaches_the_json_face_as_bytes(raw: Opener, bystander: Raw) -> None:
    """Nobody suffers for it, its sender least of all. At some depth JSON can be read, but not written again."""
    line = raw.lines("line", take=True)
    line.say({"verb": "receive", "credit": 1000})
    lies = [b"9" * 5000, b"1e999", b"", b"{", b'"\\ud800"', b"\xff"]
    deep = [b"[" * depth + b"]" * depth for depth in (1, 500, *range(920, 1001), 100_000)]
    for body in lies + deep:
        sent = bystander.ask(wire.Send(0, "line", Content.JSON, body))
        got = line.until("message")
        shown = base64.b64decode(got["body"]) if got["content"] == "bytes" else json.dumps(got["body"]).encode()
        assert shown == body
        line.ask({"verb": "ack", "ids": [got["id"]]})
        assert bystander.ask(wire.Trace(0, sent.id)).state.value == "acked"

    line.say({"verb": "request", "cid": 77, "to": "bystander", "body": "?", "timeout": 60})
    question = bystander.until(Message)
    bystander.ask(wire.Reply(0, question.id, Content.JSON, b"{"))
    answer = line.until("answer")
    assert answer["cid"] == 77 and answer["message"]["content"] == "bytes"
    assert base64.b64decode(answer["message"]["body"]) == b"{"
    line.ask({"verb": "ack", "ids": [answer["message"]["id"]]})


def test_another_version_is_a_sentence(raw: Opener, bystander: Raw) -> None:
    for version in (0, 2, 1 << 40, -1):
        one = raw(greet=False)
        one.send(bytes([MAGIC]))
        one.say(wire.Hello(version, "future-client"))
        (error,) = one.rest()
        assert error.code == "version_mismatch"
        assert f"future-client speaks protocol version {version}" in error.message and "speaks 1" in error.message
        assert error.hint
    line = raw.lines(greet=False)
    line.say({"verb": "hello", "version": 2, "client": "nc"})
    assert line.read()["code"] == "version_mismatch"
    assert line.read() is None


def test_a_frame_of_nothing_and_many_frames_at_once(raw: Opener, bystander: Raw) -> None:
    one = raw.bare(opened(packed(), packed(), packed(wire.Status(1)), packed(), packed(wire.Status(2))))
    assert isinstance(one.until(Welcome), Welcome)
    assert [one.answer(1).cid, one.answer(2).cid] == [1, 2]


def test_fds_passed_along_do_not_stay(daemon: Daemon, raw: Opener, bystander: Raw) -> None:
    """Descriptors in ancillary data are not asked for: the kernel lets go of them."""
    fds = bystander.ask(wire.Stats(0)).fds
    one = raw.bare()
    read, write = os.pipe()
    socket.send_fds(one.sock, [opened(packed(wire.Status(1)))], [read] * 50)
    one.answer(1)
    os.close(read)
    assert bystander.ask(wire.Stats(0)).fds <= fds + 2 + JOURNAL_FILES  # the connection and its process
    with pytest.raises(BrokenPipeError):
        os.write(write, b"x")
    os.close(write)


def test_what_the_daemon_sends_is_what_the_wire_says(raw: Opener, bystander: Raw) -> None:
    """Each byte of a whole conversation, read by the strict reader."""
    one = raw.bare(opened(packed(wire.Join(1, "strict")), packed(wire.Agents(2), wire.Leave(3))))
    reader: FrameReader[DaemonMessage] = FrameReader(DaemonMessage, MAX_BODY)
    kinds = [type(m).__name__ for m in reader.feed(one.rest_bytes())]
    assert kinds == ["Welcome", "Joined", "AgentsView", "Done"]
    assert not reader.unfinished
