"""SIGTERM keeps what was accepted; SIGKILL loses what was promised to be lost, and nothing pretends otherwise."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from daemons import Daemon, wait_until
from raw import Opener, Raw

from agentd.hub.checkpoint import Checkpoint, encode
from agentd.server import checkpoints, journal
from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.messages import Bye, Message, Options, Receipt, State

ABSENT = Options(allow_absent=True)


def checkpoint_of(daemon: Daemon) -> Path:
    """What an orderly stop leaves."""
    return daemon.state_dir / journal.DIRECTORY / checkpoints.CHECKPOINT


def send(to: str, body: bytes = b"x", options: Options | None = None) -> wire.Send:
    return wire.Send(0, to, Content.TEXT, body, options)


def agent(one: Raw, name: str) -> Any:
    """The row of an agent, None for one that is not known."""
    return next((row for row in one.ask(wire.Agents(0)).agents if row.name == name), None)


def begin_to_stop(daemon: Daemon, one: Raw) -> None:
    """SIGTERM; comes back when the daemon drains."""
    os.kill(daemon.pid, signal.SIGTERM)
    wait_until(lambda: one.ask(wire.Status(0)).draining, "for the drain to begin")


def ended(daemon: Daemon) -> int:
    """The exit status of a daemon that was told to stop."""
    assert daemon.process is not None
    status = daemon.process.wait(30)
    daemon.process = None
    return status


# The drain.


def test_new_work_is_refused_while_work_in_hand_is_finished(daemon: Daemon, raw: Opener) -> None:
    me, other, third = raw("me", take=True), raw("other", take=True), raw("third")
    sent = me.ask(send("other", b"in hand"))
    asked = me.start(wire.Request(0, "other", Content.TEXT, b"well?", 30.0))
    other.take(10)
    first, second = other.until(Message), other.until(Message)
    begin_to_stop(daemon, third)

    for verb in (
        send("other"),
        send("nobody", options=ABSENT),
        wire.Request(0, "other", Content.TEXT, b"", 1.0),
        wire.Publish(0, "t", Content.TEXT, b""),
    ):
        error = third.refusal(verb)
        assert (error.code, error.retryable) == ("shutting_down", True)
        assert error.retry_after
    late = raw(greet=False)
    late.greet()
    assert late.refusal(wire.Join(0, "late", take=True)).code == "shutting_down"
    late.join("late")  # to look around is no work

    assert other.ask(wire.Ack(0, [sent.id])).count == 1
    other.ask(wire.Reply(0, second.id, Content.TEXT, b"fine"))
    answer = me.answer(asked).message
    assert answer.body == b"fine"
    me.say(wire.Ack(0, [answer.id]))
    for one in (me, other, third, late):
        assert isinstance(one.rest()[-1], Bye)
    assert ended(daemon) == 0
    assert not daemon.socket.exists()
    assert "still out" not in daemon.stderr
    daemon.start()
    with Raw(daemon.socket) as after:
        assert after.ask(wire.Status(0)).waiting == 0
    assert first.body == b"in hand"


def test_what_is_not_finished_is_kept_and_comes_again(daemon: Daemon, raw: Opener) -> None:
    """In the order in which it was sent; an attempt is gone only where the application had seen it."""
    daemon.config(shutdown={"drain_s": 0.2})
    me, other = raw("me"), raw("other", take=True)
    ids = [me.ask(send("other", body)).id for body in (b"seen", b"sent", b"waiting", b"acked")]
    other.take(2)
    assert [other.until(Message).id for _ in range(2)] == ids[:2]
    other.say(wire.Delivered(ids[:1]))
    other.ask(wire.Ack(0, [ids[3]]))
    daemon.restart()
    assert "still out after 0.2 s" in daemon.stderr
    assert isinstance(other.rest()[-1], Bye)

    again = raw("other", take=True)
    again.take(10)
    got = [again.until(Message) for _ in range(3)]
    assert [(m.body, m.attempt) for m in got] == [(b"seen", 2), (b"sent", 1), (b"waiting", 1)]
    assert [m.id for m in got] == ids[:3]
    assert {m.sender for m in got} == {"me"}
    trail = again.ask(wire.Trace(0, ids[0])).transitions
    assert [t.state for t in trail][:3] == [State.ACCEPTED, State.DELIVERED, State.ACCEPTED]
    assert "stopping" in trail[2].note and trail[-1].state is State.STORED
    assert again.ask(wire.Ack(0, ids[:3])).count == 3


def test_the_drain_is_bounded(daemon: Daemon, raw: Opener) -> None:
    """A receiver that holds a message for ever does not hold the daemon for ever; nor does one that does not read."""
    daemon.config(shutdown={"drain_s": 0.0}, journal={"segment_bytes": 8 << 20})
    me, other, deaf = raw("me"), raw("other", take=True), raw("deaf", take=True)
    other.take(1)
    me.ask(send("other"))
    other.until(Message)
    deaf.take(100)
    for _ in range(20):
        me.ask(send("deaf", bytes(1 << 20)))
    assert daemon.stop() == 0
    daemon.start()
    again = raw("deaf", take=True)
    again.take(100)
    assert [len(again.until(Message).body) for _ in range(20)] == [1 << 20] * 20


def test_a_sender_that_waits_is_told_or_sees_the_end(daemon: Daemon, raw: Opener) -> None:
    """No receipt is made up at the end: there is none, and the connection closes."""
    me = raw("me")
    cid = me.start(send("other", options=Options(allow_absent=True, wait=State.ACKED)))
    assert me.answer(cid).count == 1
    daemon.restart()
    assert [m for m in me.rest() if isinstance(m, Receipt)] == []


# What survives.


def test_names_mail_and_dead_letters_survive(daemon: Daemon, raw: Opener) -> None:
    me, other = raw("me"), raw("other", take=True)
    details = Options(allow_absent=True, headers={"h": "1"}, ttl=3600.0, hops=3)
    kept = me.ask(wire.Send(0, "later", Content.JSON, b'{"a":1}', details))
    reply = me.ask(wire.Send(0, "later", Content.BYTES, b"\xff\x00", Options(allow_absent=True, re=kept.id)))
    doomed = me.ask(send("other", b"hopeless"))
    other.take(1)
    other.until(Message)
    other.ask(wire.Reject(0, doomed.id, "can't"))
    me.ask(send("short", options=Options(allow_absent=True, ttl=0.3)))
    expired = [me.ask(send("other", options=Options(ttl=0.3)))]
    before = me.ask(wire.Status(0))
    daemon.stop()
    daemon.start()

    now = raw("now")
    after = now.ask(wire.Status(0))
    assert after.boot != before.boot
    assert after.agents == before.agents + 1
    assert {"me", "other", "later", "short"} <= {row.name for row in now.ask(wire.Agents(0)).agents}
    wait_until(lambda: now.ask(wire.Status(0)).waiting == 2, "for what was to expire")
    assert now.ask(wire.Trace(0, expired[0].id)).state is State.EXPIRED

    (letter,) = now.ask(wire.Dead(0)).letters
    assert (letter.id, letter.to, letter.reason, letter.attempts) == (doomed.id, "other", "can't", 1)
    now.ask(wire.Requeue(0, [doomed.id]))
    other = raw("other", take=True)
    other.take(5)
    assert other.until(Message).body == b"hopeless"

    later = raw("later", take=True)
    later.take(5)
    one, two = later.until(Message), later.until(Message)
    assert one.details and two.details
    assert (one.id, one.content, one.body, one.attempt) == (kept.id, Content.JSON, b'{"a":1}', 1)
    assert one.details.headers == {"h": "1"} and one.details.hops == 3
    assert one.details.expires_at and one.sent_at == pytest.approx(kept.at)
    assert (two.id, two.content, two.body) == (reply.id, Content.BYTES, b"\xff\x00")
    assert two.details.re == kept.id and two.details.thread == kept.id and two.details.hops == 4


def test_ids_never_come_again(daemon: Daemon, raw: Opener) -> None:
    before = [raw("me").ask(send("other", options=ABSENT)).id for _ in range(3)]
    daemon.restart()
    after = raw("me").ask(send("other", options=ABSENT)).id
    assert sorted({*before, after}) == [*before, after]


def test_what_is_acked_after_a_start_does_not_come_back(daemon: Daemon, raw: Opener) -> None:
    """Also not after a crash: the ack is in the journal, behind the checkpoint."""
    raw("me").ask(send("other", options=ABSENT))
    daemon.restart()
    other = raw("other", take=True)
    other.take(1)
    other.ask(wire.Ack(0, [other.until(Message).id]))
    raw("me").ask(send("third", options=ABSENT))  # once this is stored, the ack before it is
    daemon.kill()
    daemon.start()
    with Raw(daemon.socket) as after:
        assert after.ask(wire.Status(0)).waiting == 1


def _truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _unsealed(data: bytes) -> Checkpoint:
    return msgspec.msgpack.decode(data[12:], type=Checkpoint)


def _another_format(data: bytes) -> bytes:
    found = _unsealed(data)
    found.format = 99
    return encode(found)


def _a_bad_name(data: bytes) -> bytes:
    found = _unsealed(data)
    found.names[0].name = "no/name"
    return encode(found)


def _a_flipped_bit(data: bytes) -> bytes:
    return data[:-5] + bytes((data[-5] ^ 1,)) + data[-4:]


@pytest.mark.parametrize(
    "harm", [_truncated, _another_format, _a_bad_name, _a_flipped_bit, lambda _: b"", lambda _: b"\xc1" * 99]
)
def test_a_broken_checkpoint_is_set_aside_and_the_journal_read_instead(daemon: Daemon, raw: Opener, harm: Any) -> None:
    file = checkpoint_of(daemon)
    raw("me").ask(send("other", options=ABSENT))
    daemon.stop()
    broken = harm(file.read_bytes())
    file.write_bytes(broken)
    daemon.start()
    aside = file.with_suffix(".broken")
    assert aside.read_bytes() == broken
    assert "ERROR" in daemon.stderr and f"set aside as {aside}" in daemon.stderr
    other = raw("other", take=True)
    other.take(1)
    assert other.until(Message).sender == "me"


def test_lower_limits_lose_nothing_that_was_kept(daemon: Daemon, raw: Opener) -> None:
    """Fewer names than are known already, smaller inboxes than there is mail: what is there stays."""
    me = raw("me")
    for number in range(5):
        me.ask(send(f"agent-{number}", options=ABSENT))
        me.ask(send("full", options=ABSENT))
    daemon.config(agents={"max_names": 2}, inbox={"max_messages": 2})
    me = raw("me")
    assert me.ask(wire.Status(0)).waiting == 10
    assert me.refusal(send("full")).code == "backpressure"
    assert me.refusal(send("one-more", options=ABSENT)).code == "limit_reached"


# The crash.


def test_a_kill_loses_what_was_not_stored_and_nothing_pretends_otherwise(daemon: Daemon, raw: Opener) -> None:
    me, other = raw("me"), raw("other", take=True)
    kept = me.ask(send("absent", options=ABSENT))
    assert kept.state is State.STORED and "kept on disk" in kept.note
    live = me.ask(send("other"))
    assert live.state is State.ACCEPTED and live.note == ""
    assert me.ask(wire.Trace(0, kept.id)).state is State.STORED
    waiting = me.start(send("other", options=Options(wait=State.ACKED)))
    assert me.answer(waiting).count == 1
    asking = me.start(wire.Request(0, "other", Content.TEXT, b"?", 30.0))
    daemon.kill()
    for one in (me, other):
        left = one.rest()
        assert not [m for m in left if isinstance(m, Receipt | Bye)]
    assert asking
    daemon.start()
    me = raw("me")
    assert me.ask(wire.Trace(0, kept.id)).state is State.STORED
    assert me.refusal(wire.Trace(0, live.id)).code == "no_such_message"
    assert me.ask(wire.Status(0)).waiting == 1
    assert me.ask(send("absent")).id > max(kept.id, live.id)


def test_what_a_taker_leaves_behind_is_kept(daemon: Daemon, raw: Opener) -> None:
    """It was to a live agent, so in memory alone; from the moment that nobody takes it, the disk has it."""
    me, other = raw("me"), raw("other", take=True)
    ids = [me.ask(send("other")).id for _ in range(3)]
    other.take(1)
    other.until(Message)
    other.close()
    wait_until(lambda: me.ask(wire.Trace(0, ids[-1])).state is State.STORED, "for the journal")
    daemon.kill()
    daemon.start()
    other = raw("other", take=True)
    other.take(3)
    assert [other.until(Message).id for _ in ids] == ids


def test_a_stop_that_was_cut_short_leaves_the_older_file_whole(daemon: Daemon, raw: Opener) -> None:
    """What is being written has another name until it is complete."""
    raw("me").ask(send("other", options=ABSENT))
    daemon.stop()
    making = checkpoint_of(daemon).with_suffix(".tmp")
    assert checkpoint_of(daemon).exists()
    making.write_bytes(b"half a file of a stop that was cut short")
    daemon.start()
    assert raw("other").ask(wire.Status(0)).waiting == 1
    assert daemon.stop() == 0
    assert not making.exists()
