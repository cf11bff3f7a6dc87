"""Large bodies: as large as the limit says and no larger, in order, and in nobody's way."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from daemons import wait_until
from raw import Opener, Raw

from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.frames import CHUNK_BYTES
from agentd.wire.messages import Chunk, Message, Options, Receipt, State

TEXT, BYTES = Content.TEXT, Content.BYTES
MIB = 1 << 20
LIMIT = 16 * MIB


def body_of(size: int) -> bytes:
    """Bytes of which no two pieces are alike."""
    pieces = (hashlib.sha256(n.to_bytes(8, "little")).digest() * 128 for n in range(size // 4096 + 1))
    return b"".join(pieces)[:size]


LARGE = body_of(LIMIT)


def agent(one: Raw, name: str) -> Any:
    return next((row for row in one.ask(wire.Agents(0)).agents if row.name == name), None)


def in_one_frame(one: Raw, verb: Any) -> Any:
    """Send without chunks, and read the answer."""
    verb.cid = one.number()
    one.frame(verb)
    return one.answer(verb.cid)


@pytest.mark.parametrize("how", ["chunks", "one frame"])
def test_exactly_the_limit_passes_and_one_byte_more_does_not(raw: Opener, how: str) -> None:
    me, other = raw("me"), raw("other", take=True)
    other.take(10)
    ask = Raw.ask if how == "chunks" else in_one_frame
    sent = ask(me, wire.Send(0, "other", BYTES, LARGE))
    got = other.until(Message)
    assert got.id == sent.id and got.body == LARGE

    over = wire.Send(0, "other", BYTES, LARGE + b"!")
    if how == "chunks":
        error = me.refusal(over)
    else:
        over.cid = me.number()
        me.frame(over)
        error = me.error(over.cid)
    assert error.code == "too_large" and str(LIMIT + 1) in error.message and "max_body_bytes" in error.hint
    assert me.ask(wire.Trace(0, sent.id)).size_bytes == LIMIT  # the session goes on
    other.ask(wire.Ack(0, [sent.id]))
    assert other.ask(wire.Status(0)).waiting == 0


def test_the_json_face_gets_it_too(raw: Opener) -> None:
    line = raw.lines("line", take=True)
    line.ask({"verb": "receive", "credit": 5})
    text = "é" * (LIMIT // 2)
    raw("me").ask(wire.Send(0, "line", TEXT, text.encode()))
    assert line.until("message")["body"] == text
    other = raw("other", take=True)
    other.take(5)
    assert line.ask({"verb": "send", "to": "other", "body": text})["verb"] == "accepted"
    assert other.until(Message).body == text.encode()
    assert line.ask({"verb": "send", "to": "other", "body": text + "x"})["code"] == "too_large"


def test_messages_of_others_pass_between_the_chunks(raw: Opener) -> None:
    """A large message on its way in holds nobody up, on its own connection neither."""
    slow, me, other = raw("slow"), raw("me"), raw("other", take=True)
    other.take(100)
    encoded = msgspec.msgpack.encode(wire.Send(77, "other", BYTES, LARGE))
    pieces = [encoded[at : at + CHUNK_BYTES] for at in range(0, len(encoded), CHUNK_BYTES)]
    for number, piece in enumerate(pieces[:-1]):
        slow.frame(Chunk(1, len(encoded), piece))
        if number % 32 == 0:
            by_itself = slow.ask(wire.Send(0, "other", TEXT, b"mine")).id
            by_others = me.ask(wire.Send(0, "other", TEXT, b"theirs")).id
            assert [other.until(Message).id for _ in range(2)] == [by_itself, by_others]
    assert me.ask(wire.Status(0)).waiting == 0  # a part of a message is none
    slow.frame(Chunk(1, len(encoded), pieces[-1]))
    id = slow.answer(77).id
    got = other.until(Message)
    assert (got.id, got.body) == (id, LARGE)


def test_several_large_ones_at_once(raw: Opener) -> None:
    me, other = raw("me"), raw("other", take=True)
    other.take(10)
    bodies = [body_of(MIB + n) for n in range(4)]
    encoded = [msgspec.msgpack.encode(wire.Send(n + 70, "other", BYTES, body)) for n, body in enumerate(bodies)]
    for at in range(0, len(encoded[-1]), CHUNK_BYTES):
        me.frame(*[Chunk(n, len(e), e[at : at + CHUNK_BYTES]) for n, e in enumerate(encoded) if at < len(e)])
    assert sorted(other.until(Message).body for _ in bodies) == sorted(bodies)
    assert {me.answer(n + 70).count for n in range(4)} == {1}


def test_on_the_way_out_small_answers_pass_and_order_holds(raw: Opener) -> None:
    """The receiver reads slowly: what it is told meanwhile comes between the pieces, later mail comes behind them."""
    me, slow = raw("me", take=True), raw("slow", take=True)
    me.take(10)
    waiting = slow.start(wire.Send(0, "me", TEXT, b"?", Options(wait=State.DELIVERED)))
    question = me.until(Message)
    assert slow.answer(waiting).id == question.id
    slow.take(10)
    slow.ask(wire.Status(0))
    large = me.ask(wire.Send(0, "slow", BYTES, LARGE)).id
    small = me.ask(wire.Send(0, "slow", TEXT, b"small")).id
    slow.read_some()  # the first of it is here
    me.say(wire.Delivered([question.id]))
    me.ask(wire.Status(0))  # and now the daemon has something short to say
    assert slow.until(Receipt).state is State.DELIVERED
    assert not [m for m in slow.seen if isinstance(m, Message)]  # the large one was still on its way
    first, second = slow.until(Message), slow.until(Message)
    assert (first.id, second.id) == (large, small)
    assert first.body == LARGE and second.body == b"small"


def test_a_receiver_that_dies_in_the_middle_of_a_large_message(raw: Opener) -> None:
    me, other = raw("me"), raw("other", take=True)
    other.take(1)
    id = me.ask(wire.Send(0, "other", BYTES, LARGE)).id
    other.read_some()
    other.close()
    again = raw("other", take=True)
    again.take(1)
    got = again.until(Message)
    assert (got.id, got.attempt, got.body) == (id, 1, LARGE)


def test_a_sender_that_dies_in_the_middle_of_a_large_message(raw: Opener) -> None:
    me, other = raw("me"), raw("other", take=True)
    other.take(1)
    encoded = msgspec.msgpack.encode(wire.Send(5, "other", BYTES, LARGE))
    me.frame(Chunk(1, len(encoded), encoded[:CHUNK_BYTES]))
    me.ask(wire.Status(0))
    me.close()
    assert other.so_far(Message) == []
    assert other.ask(wire.Stats(0)).accepted == 0
    raw("me").ask(wire.Send(0, "other", BYTES, LARGE))
    assert other.until(Message).body == LARGE


def rss_bytes(client: Raw) -> int:
    """The daemon's."""
    size: int = client.ask(wire.Stats(0)).rss_bytes
    return size


def test_large_bodies_leave_the_daemon_when_they_are_done(raw: Opener) -> None:
    """And their memory leaves it: the allocator alone would keep several times the largest."""
    me, other = raw("me"), raw("other", take=True)
    other.take(100)

    before = rss_bytes(me)
    for _ in range(8):
        id = me.ask(wire.Send(0, "other", BYTES, LARGE)).id
        assert other.until(Message).body == LARGE
        other.ask(wire.Ack(0, [id]))
    assert agent(me, "other").bytes == 0
    wait_until(lambda: rss_bytes(me) < before + LIMIT + MIB, "for the memory of large messages to be given back")


def test_the_memory_of_a_long_inbox_goes_back_too(raw: Opener) -> None:
    me, other = raw("me"), raw("other", take=True)

    before = rss_bytes(me)
    ids = [me.ask(wire.Send(0, "other", BYTES, body_of(32768))).id for _ in range(1500)]
    assert rss_bytes(me) > before + 2 * LIMIT  # or this shows nothing
    other.take(2000)
    for _ in ids:
        other.until(Message)
    other.ask(wire.Ack(0, ids))
    wait_until(lambda: rss_bytes(me) < before + LIMIT + MIB, "for the memory of the inbox to be given back")
