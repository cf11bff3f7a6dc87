"""A client's crash is a normal event: what it had promised holds, what it held comes back, who waits for it is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from crowds import Crowd
from daemons import Daemon, wait_until
from raw import Opener, Raw

from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.messages import Message, Options, Receipt, State

Start = Callable[..., Crowd]
RECEIVE = '{"verb":"receive","cid":2,"credit":%d}'


@pytest.fixture
def start(daemon: Daemon) -> Iterator[Start]:
    """Starts processes with connections; ended with the test."""
    crowds: list[Crowd] = []

    def one(name: str, *lines: str) -> Crowd:
        crowds.append(Crowd(daemon.socket, 1, name, *lines))
        return crowds[-1].ready()

    try:
        yield one
    finally:
        for crowd in crowds:
            crowd.close()


def send(to: str, body: bytes = b"x", options: Options | None = None) -> wire.Send:
    return wire.Send(0, to, Content.TEXT, body, options)


def row(one: Raw, name: str) -> Any:
    """An agent as the others see it."""
    return next((row for row in one.ask(wire.Agents(0)).agents if row.name == name), None)


def gone(one: Raw, name: str) -> None:
    """Wait until the daemon has seen its end. crowd.py numbers the agents of one process from 0."""
    wait_until(lambda: not row(one, name).live, f"for {name} to be seen gone")


def test_the_mail_of_a_killed_sender_is_delivered(start: Start, raw: Opener) -> None:
    other = raw("other", take=True)
    sends = [json.dumps({"verb": "send", "cid": cid, "to": "other", "body": f"message {cid}"}) for cid in range(2, 22)]
    sender = start("sender", *sends[:1])
    sender.kill()
    many = start("many", *sends)
    many.kill()
    gone(other, "sender0")
    gone(other, "many0")
    other.take(100)
    got = [other.until(Message) for _ in range(21)]
    assert [m.body.decode() for m in got] == ["message 2", *(f"message {cid}" for cid in range(2, 22))]
    assert got[0].sender == "sender0" and f"pid {sender.pid}" in got[0].provenance
    assert "crowd.py" in got[0].provenance


def test_what_was_written_before_an_orderly_exit_arrives(daemon: Daemon, raw: Opener) -> None:
    """A shell's `nc -U`: it writes, and is gone before the daemon has looked."""
    other = raw("other", take=True)
    other.take(1000)
    lines = ['{"verb":"hello","version":1,"client":"nc"}', '{"verb":"join"}']
    lines += ['{"verb":"send","to":"other","body":"x"}'] * 100
    script = f"""
import os, socket
s = socket.socket(socket.AF_UNIX)
s.connect({str(daemon.socket)!r})
s.sendall({"".join(line + chr(10) for line in lines).encode()!r})
os._exit(0)
"""
    for _ in range(5):
        subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True)
        for _ in range(100):
            assert other.until(Message).body == b"x"


def test_what_a_killed_receiver_held_comes_back_in_order(start: Start, raw: Opener) -> None:
    """Seen mail with an attempt gone, unseen mail without, both before what came later."""
    me = raw("me")
    receiver = start("r", RECEIVE % 4)
    ids = [me.ask(send("r0", str(n).encode())).id for n in range(6)]
    me.say(send("r0"))
    receiver.kill()
    gone(me, "r0")
    assert row(me, "r0").held == 0 and row(me, "r0").waiting == 7

    second = raw("r0", take=True)
    second.take(3)
    got = [second.until(Message) for _ in range(3)]
    assert [(m.id, m.attempt) for m in got] == [(id, 1) for id in ids[:3]]  # it had not said that it saw them
    second.say(wire.Delivered([ids[0], ids[2]]))
    second.ask(wire.Ack(0, [ids[1]]))
    second.close()
    gone(me, "r0")
    third = raw("r0", take=True)
    third.take(100)
    got = [third.until(Message) for _ in range(6)]
    assert [m.id for m in got[:5]] == [ids[0], ids[2], *ids[3:]]
    assert [m.attempt for m in got[:5]] == [2, 2, 1, 1, 1]
    trail = me.ask(wire.Trace(0, ids[0])).transitions
    states = [t.state for t in trail if t.state is not State.STORED]
    assert states[:2] == [State.ACCEPTED, State.DELIVERED] and any("gone" in t.note for t in trail)


def test_a_process_whose_child_keeps_the_socket_open_is_seen_to_die(start: Start, raw: Opener) -> None:
    me = raw("me")
    parent = start("parent", "fork", RECEIVE % 1)
    waiting = me.start(send("parent0", options=Options(wait=State.ACKED)))
    id = me.answer(waiting).id
    assert row(me, "parent0").held == 1
    parent.kill()
    gone(me, "parent0")
    assert parent.child is not None
    os.kill(parent.child, 0)  # the child lives, and has the socket
    assert row(me, "parent0").waiting == 1
    again = raw("parent0", take=True)
    again.take(1)
    assert again.until(Message).id == id


def test_a_responder_that_dies_with_the_request_is_told_of_at_once(start: Start, raw: Opener) -> None:
    me = raw("me")
    responder = start("r", RECEIVE % 1)
    held = me.start(wire.Request(0, "r0", Content.TEXT, b"?", 3600.0))
    unsent = me.start(wire.Request(0, "r0", Content.TEXT, b"?", 3600.0))  # in its inbox, past its credit
    wait_until(lambda: row(me, "r0").held == 1)
    responder.kill()
    for cid in (held, unsent):
        error = me.error(cid)
        assert error.code == "no_responder" and "r0 will not reply" in error.message
    assert me.refusal(wire.Request(0, "r0", Content.TEXT, b"?", 3600.0)).code == "no_responder"
    assert row(me, "r0").waiting == row(me, "r0").held == row(me, "r0").dead == 0  # nobody does what nobody waits for


def test_a_responder_that_has_seen_the_request_and_dies(start: Start, raw: Opener) -> None:
    me, responder = raw("me"), raw("r", take=True)
    responder.take(1)
    asked = me.start(wire.Request(0, "r", Content.TEXT, b"?", 3600.0))
    responder.say(wire.Delivered([responder.until(Message).id]))
    responder.close()
    assert me.error(asked).code == "no_responder"


def test_an_asker_that_dies_leaves_nothing_to_do(start: Start, raw: Opener) -> None:
    responder = raw("r", take=True)
    asker = start("asker", '{"verb":"request","cid":2,"to":"r","body":"?","timeout":3600}')
    assert row(responder, "r").waiting == 1
    asker.kill()
    wait_until(lambda: row(responder, "r").waiting == 0, "for the request to be withdrawn")

    named = raw("named", take=True)
    asked = named.start(wire.Request(0, "r", Content.TEXT, b"?", 3600.0))
    responder.take(1)
    request = responder.until(Message)
    assert asked
    named.close()
    gone(responder, "named")
    responder.ask(wire.Reply(0, request.id, Content.TEXT, b"too late"))
    again = raw("named", take=True)
    again.take(1)
    late = again.until(Message)
    assert late.body == b"too late" and late.details and late.details.re == request.id


def test_nothing_says_delivered_of_a_stopped_receiver(start: Start, raw: Opener) -> None:
    """Bytes in a socket buffer are not delivered."""
    me = raw("me")
    receiver = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _RECEIVER, str(raw.path)], stdout=subprocess.PIPE, text=True
    )
    assert receiver.stdout is not None
    try:
        assert receiver.stdout.readline() == "ready\n"
        os.kill(receiver.pid, signal.SIGSTOP)
        ids = [me.ask(send("receiver", options=Options(wait=State.DELIVERED))).id for _ in range(3)]
        wait_until(lambda: row(me, "receiver").held == 3)
        assert me.so_far(Receipt) == []
        assert row(me, "receiver").live  # stopped is not dead
        assert {me.ask(wire.Trace(0, id)).state for id in ids} == {State.ACCEPTED}
        assert me.ask(wire.Stats(0)).delivered == 0
        os.kill(receiver.pid, signal.SIGCONT)
        receipts = [me.until(Receipt) for _ in ids]
        assert [(r.id, r.state) for r in receipts] == [(id, State.DELIVERED) for id in ids]
    finally:
        receiver.kill()
        receiver.wait()
        receiver.stdout.close()
    wait_until(lambda: row(me, "receiver").waiting == 3)
    assert {me.ask(wire.Trace(0, id)).attempt for id in ids} == {2}


_RECEIVER = """
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
lines = s.makefile("rb")
def say(**verb): s.sendall(json.dumps(verb).encode() + b"\\n"); return verb
say(verb="hello", version=1, client="x"); lines.readline()
say(verb="join", cid=1, name="receiver", take=True); lines.readline()
say(verb="receive", cid=2, credit=10); lines.readline()
print("ready", flush=True)
for line in lines:
    say(verb="delivered", ids=[json.loads(line)["id"]])
"""


def test_a_message_that_kills_its_receivers_ends_as_a_dead_letter(start: Start, raw: Opener) -> None:
    me = raw("me")
    calm = me.ask(send("poor0", b"calm", Options(allow_absent=True)))
    poison = me.ask(send("poor0", b"poison", Options(wait=State.ACKED)))
    first = raw("poor0", take=True)
    first.take(1)
    first.ask(wire.Ack(0, [first.until(Message).id]))
    first.close()
    gone(me, "poor0")
    for attempt in range(1, 6):
        victim = raw("poor0", take=True)
        victim.take(1)
        got = victim.until(Message)
        assert (got.id, got.attempt) == (poison.id, attempt)
        victim.say(wire.Delivered([got.id]))
        victim.close()
        gone(me, "poor0")
    ended = me.until(Receipt)
    assert (ended.id, ended.state) == (poison.id, State.DEAD)
    (letter,) = me.ask(wire.Dead(0, "poor0")).letters
    assert (letter.id, letter.attempts, letter.sender) == (poison.id, 5, "me")
    assert "attempt 5 of 5" in letter.reason and "gone" in letter.reason
    assert row(me, "poor0").trouble == "1 dead letter"
    after = raw("poor0", take=True)
    after.take(10)
    assert after.so_far(Message) == []
    assert me.ask(wire.Trace(0, calm.id)).state is State.ACKED


def test_the_last_word_of_a_dying_process_counts(raw: Opener) -> None:
    me = raw("me")
    id = me.ask(send("r", options=Options(allow_absent=True))).id
    receiver = raw("r", take=True)
    receiver.take(1)
    receiver.until(Message)
    receiver.say(wire.Ack(0, [id]))
    receiver.close()
    gone(me, "r")
    assert me.ask(wire.Trace(0, id)).state is State.ACKED


def test_a_killed_taker_frees_its_name_at_once(start: Start, raw: Opener) -> None:
    taker = start("name")
    me = raw()
    refused = raw(greet=False)
    refused.greet()
    error = refused.refusal(wire.Join(0, "name0", take=True))
    assert error.code == "name_in_use" and f"pid {taker.pid} (crowd.py)" in error.message
    taker.kill()
    gone(me, "name0")
    refused.join("name0", take=True)
