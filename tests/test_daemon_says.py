"""What agentd says of itself on stderr, and what it never says: the bodies of messages."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

from daemons import Daemon, wait_until
from raw import Opener, Refused

from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.messages import Message, Options, Priority, Receipt, State

MARKER = "xyzzy-nobody-may-log-this"
BODY = MARKER.encode()


def test_the_banner(daemon: Daemon, raw: Opener) -> None:
    said = daemon.stderr
    assert re.search(rf"INFO: agentd \d+\.\d+\.\d+, pid {daemon.pid}, socket {daemon.socket}\n", said)
    persistence = re.search(r"INFO: Persistence: (.*)\n", said)
    assert persistence and "power cuts" in persistence[1] and str(daemon.state_dir) in persistence[1]
    lanes = dict(re.findall(r"INFO: lane (\w+): (.*)\n", said))
    assert list(lanes) == [priority.value for priority in Priority]
    assert lanes["normal"] == "the Unix socket"
    status = raw("me").ask(wire.Status(0))
    assert status.persistence == persistence[1]  # people who look later read the same
    for lane in status.lanes:
        assert lane.reason in lanes[lane.lane.value]
        assert lane.open != lanes[lane.lane.value].startswith("unavailable, ")


def test_a_line_has_a_time_and_a_level(daemon: Daemon) -> None:
    assert daemon.stop() == 0
    for line in daemon.stderr.splitlines():
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} agentd (INFO|WARNING): .+", line)
    assert daemon.stderr.splitlines()[-1].endswith("stopped")


def test_fewer_open_files_than_connections_are_said(daemon: Daemon) -> None:
    daemon.command[:0] = ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh"]
    daemon.restart()
    assert re.search(r"WARNING: the limit of open files allows \d+ connections, 4096 are configured", daemon.stderr)


def test_priorities_for_the_journal_and_only_for_it(daemon: Daemon) -> None:
    daemon.stop()
    found = daemon.log.stat()  # stderr of the daemon is this file
    daemon.env["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino + 1}"
    daemon.start()
    daemon.stop()
    assert "<6>" not in daemon.stderr
    before = len(daemon.stderr)
    daemon.env["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
    daemon.start()
    with Opener(daemon.socket).bare(b"?"):
        wait_until(lambda: "<4>" in daemon.stderr, "for the warning of a bad first byte")
    daemon.stop()
    lines = daemon.stderr[before:].splitlines()
    assert all(re.match(r"<[2-7]>\S", line) for line in lines)
    assert "<6>stopped" in lines


def test_bodies_are_never_logged(daemon: Daemon, raw: Opener) -> None:
    """Every verb that carries a body, every way it can end, and what is not even a message, at level debug."""
    daemon.config(
        log={"level": "debug"},
        message={"max_attempts": 1, "max_body_bytes": 4096},
        inbox={"max_messages": 3},
        shutdown={"drain_s": 0.0},
    )
    me, other = raw("me", take=True), raw("other", take=True)
    text = Content.TEXT

    def send(to: str = "other", **options: object) -> wire.Send:
        return wire.Send(0, to, text, BODY, Options(**options) if options else None)  # type: ignore[arg-type]

    other.take(100)
    done = [me.ask(send()).id for _ in range(3)]
    other.ask(wire.Ack(0, done[:1]))
    other.say(wire.Delivered([done[1]]))
    other.ask(wire.Nack(0, done[1], "no"))  # its one attempt: a dead letter
    other.ask(wire.Reject(0, done[2], "no"))
    me.ask(wire.Requeue(0, [done[1]]))
    me.ask(wire.Drop(0, [done[2]]))
    me.ask(wire.Inbox(0, "other"))
    me.ask(wire.Dead(0))
    me.ask(wire.Trace(0, done[0]))
    cid = me.start(wire.Request(0, "other", text, BODY, 30.0))
    question = next(m for m in iter(lambda: other.until(Message), None) if m.details and m.details.reply_by)
    other.ask(wire.Reply(0, question.id, text, BODY))
    assert me.answer(cid).message.body == BODY
    other.ask(wire.Subscribe(0, "**"))
    me.ask(wire.Publish(0, "some:topic", text, BODY))
    me.ask(send("absent", allow_absent=True, ttl=0.001, wait=State.ACKED))
    assert me.until(Receipt).state is State.EXPIRED

    refused = [
        send("nobody"),
        send("a/b"),
        send(priority=Priority.BATCH),
        send(durable=True, priority=Priority.CRITICAL),
        send(wait=State.STORED),
        send(hops=99),
        send(headers={"h": "x" * 20000}),
        wire.Send(0, "other", text, BODY * 1000),
        wire.Request(0, "nobody", text, BODY, 1.0),
        wire.Publish(0, "not a topic", text, BODY),
        wire.Reply(0, 12345, text, BODY),
    ]
    for verb in refused:
        me.refusal(verb)
    for _ in range(4):
        try:
            me.ask(send("absent", allow_absent=True))
        except Refused as full:
            assert full.code == "backpressure"

    for garbage in (
        b"\xa9" + len(BODY).to_bytes(4, "little") + BODY,  # no list
        b"\xa9\x19\x00\x00\x00\x91" + BODY,
        b"\xa9\xff\xff\xff\xff" + BODY,
        BODY,
        b'{"verb":"send","body":"' + BODY + b'"}\n',
        b"{" + BODY + b"\n",
        b'{"verb":"hello","version":1,"client":"x"}\n{"verb":"join","cid":1,"name":"json"}\n'
        b'{"verb":"send","cid":2,"to":"other","content":"bytes","body":"' + BODY + b'"}\n'
        b'{"verb":"send","cid":3,"to":"other","body":"' + BODY + b'","nonsense":1}\n',
    ):
        broken = raw.bare(garbage)
        broken.sock.shutdown(1)
        while broken.receive():
            pass
    wrong = raw("wrong")
    frame = b"\x91\x95\x0a\x01\xa5other\xa4text\xa5" + BODY[:5]  # a body that is text and not bytes
    wrong.send(len(frame).to_bytes(4, "little") + frame)
    wrong.rest()

    other.close()
    wait_until(lambda: not next(a for a in me.ask(wire.Agents(0)).agents if a.name == "other").live)
    daemon.restart()
    assert daemon.stop() == 0
    assert MARKER not in daemon.stderr
    assert "xyzzy" not in daemon.stderr
    assert "WARNING" in daemon.stderr  # it did say that something was wrong


def test_it_says_why_it_stops_and_what_it_kept(daemon: Daemon, raw: Opener) -> None:
    raw("me").ask(wire.Send(0, "later", Content.TEXT, b"x", Options(allow_absent=True)))
    daemon.restart()
    assert "stopping: new work is refused" in daemon.stderr
    assert "kept 2 names, 1 messages, 0 dead letters" in daemon.stderr
    assert "took over 2 names, 1 messages, 0 dead letters" in daemon.stderr


def test_an_idle_daemon_does_not_wake_up(daemon: Daemon, raw: Opener) -> None:
    """A hundred agents that have nothing to say cost nothing."""
    daemon.config(connections={"hello_s": 0.5, "frame_s": 0.5})
    for number in range(50):
        raw(f"agent-{number}", take=True).take(10)
        raw.lines(f"line-{number}", take=True).ask({"verb": "receive", "credit": 10})

    def switches() -> int:
        with open(f"/proc/{daemon.pid}/status") as status:
            return sum(int(n) for n in re.findall(r"^voluntary_ctxt_switches:\s+(\d+)$", status.read(), re.M))

    last, since = switches(), time.monotonic()

    def quiet_for_a_while() -> bool:
        nonlocal last, since
        now = switches()
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 3.0

    wait_until(quiet_for_a_while, "for three seconds without a wake-up")


def test_it_outlives_its_terminal(daemon: Daemon) -> None:
    """SIGHUP is an orderly stop too, SIGINT as well: nothing that was accepted is lost with a terminal."""
    for number in (signal.SIGINT, signal.SIGHUP):
        os.kill(daemon.pid, number)
        assert daemon.process is not None
        assert daemon.process.wait(30) == 0
        daemon.process = None
        assert not daemon.socket.exists()
        daemon.start()


def test_stderr_that_nobody_reads_does_not_stop_it(daemon: Daemon, raw: Opener) -> None:
    """A pipe whose reader is gone: what can't be said is not said."""
    daemon.stop()
    daemon.socket.unlink(missing_ok=True)
    process = subprocess.Popen(
        daemon.command, env=daemon.env, cwd=daemon.directory, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    try:
        wait_until(daemon.socket.exists)
        for _ in range(3):
            raw.bare(b"?").rest_bytes()
        assert raw("me").ask(wire.Status(0)).pid == process.pid
    finally:
        process.terminate()
        assert process.wait(30) == 0
