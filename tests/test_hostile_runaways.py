"""An agent that sends as fast as it can, beside ten that don't: it alone is held up, and it alone is named."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from daemons import Daemon, wait_until
from raw import Opener, Raw

from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.frames import FrameWriter
from agentd.wire.messages import Message

TEXT = Content.TEXT
RATE, BURST = 2000, 5000


@pytest.fixture(autouse=True)
def limits(daemon: Daemon) -> None:
    """A burst that a test can use up."""
    daemon.config(rate={"messages_per_s": RATE, "messages_burst": BURST})


def agents(one: Raw) -> list[wire.AgentView]:
    found = one.ask(wire.Agents(0)).agents
    assert isinstance(found, list)
    return found


@contextlib.contextmanager
def thread(work: Any) -> Iterator[None]:
    """`work(stopped)` in a thread of its own, until the block is left."""
    stopped = threading.Event()
    running = threading.Thread(target=work, args=(stopped,), daemon=True)
    running.start()
    try:
        yield
    finally:
        stopped.set()
        running.join(30)
        assert not running.is_alive()


def flood(one: Any, data: bytes) -> Any:
    """Write `data` again and again, as fast as it is read."""

    def work(stopped: threading.Event) -> None:
        one.sock.settimeout(0.1)
        sent = 0
        while not stopped.is_set():
            with contextlib.suppress(TimeoutError):
                sent = (sent + one.sock.send(data[sent:])) % len(data)

    return work


def drain(one: Raw) -> Any:
    """Take and ack all that comes."""

    def work(stopped: threading.Event) -> None:
        one.take(5000)
        one.sock.settimeout(0.1)
        while not stopped.is_set():
            with contextlib.suppress(TimeoutError):
                one.read_some()
            ids = [message.id for message in one.seen if isinstance(message, Message)]
            one.seen.clear()
            if ids:
                one.say(wire.Ack(0, ids), wire.Receive(0, len(ids)))

    return work


def sends(face: str) -> bytes:
    """A hundred messages to the sink, no answers wanted."""
    if face == "json":
        return b'{"verb":"send","to":"sink","body":"x"}\n' * 100
    writer = FrameWriter()
    for _ in range(100):
        writer.push(wire.Send(0, "sink", TEXT, b"x"))
    return writer.take()


@pytest.mark.parametrize("face", ["binary", "json"])
def test_a_runaway_beside_ten_quiet_ones(daemon: Daemon, raw: Opener, face: str) -> None:
    ten = [raw(f"quiet-{number}", take=True) for number in range(10)]
    for one in ten:
        one.take(100_000)
    runaway = raw("runaway") if face == "binary" else raw.lines("runaway")
    sink = raw("sink", take=True)
    rounds = 0
    with thread(drain(sink)), thread(flood(runaway, sends(face))):
        wait_until(lambda: any(row.limited for row in agents(ten[0])), "for the runaway to be over its rate")
        while rounds < 30:
            for one, other in zip(ten, [*ten[1:], ten[0]], strict=True):
                id = one.ask(wire.Send(0, other.name, TEXT, b"x")).id  # raises when it is refused
                assert other.until(Message).id == id
                assert other.ask(wire.Ack(0, [id])).count == 1
            rounds += 1
        rows = agents(ten[0])
        stats = ten[0].ask(wire.Stats(0))
    assert rows[0].name == "runaway" and rows[0].trouble.startswith("over its rate")
    assert [row.name for row in rows if row.trouble or row.limited] == ["runaway"]
    assert stats.limited >= 2  # it was held up again and again
    assert 1 <= stats.refused <= 5  # and told once, or again where this machine stood still for a second
    assert BURST < stats.accepted - rounds * 10 <= BURST + RATE * stats.up_s + 1


def test_what_a_process_wrote_before_it_ended_is_done_though_it_is_over_its_rate(daemon: Daemon, raw: Opener) -> None:
    me = raw("me")
    count = BURST + 300
    program = f"""
import socket
one = socket.socket(socket.AF_UNIX)
one.connect({str(daemon.socket)!r})
said = '{{"verb":"hello","version":1,"client":"x"}}\\n{{"verb":"join","cid":1,"name":"brief"}}\\n'
said += '{{"verb":"send","to":"brief","body":"x"}}\\n' * {count}
one.sendall(said.encode())
"""
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, timeout=60)
    wait_until(lambda: [row for row in agents(me) if row.name == "brief" and row.waiting >= count - 1])
    (row,) = [row for row in agents(me) if row.name == "brief"]
    assert row.waiting in (count, count - 1)  # the one that was refused before it ended, if it was


def test_what_was_written_before_a_socket_was_closed_is_done_though_its_writer_is_over_its_rate(
    daemon: Daemon, raw: Opener
) -> None:
    """The refusal finds nobody; what is behind it in the socket counts all the same, and its process lives on."""
    me = raw("me")
    count = BURST + 300
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(str(daemon.socket))
        said = '{"verb":"hello","version":1,"client":"x"}\n{"verb":"join","cid":1,"name":"brief"}\n'
        one.sendall((said + '{"verb":"send","to":"brief","body":"x"}\n' * count).encode())
    wait_until(lambda: [row for row in agents(me) if row.name == "brief" and row.waiting >= count - 1])
    (row,) = [row for row in agents(me) if row.name == "brief"]
    assert row.waiting in (count, count - 1)


def test_many_sessions_of_one_agent_are_one_agent(daemon: Daemon, raw: Opener) -> None:
    quiet = raw("quiet", take=True)
    quiet.take(100_000)
    children = [raw("family") for _ in range(4)]
    sink = raw("sink", take=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(thread(drain(sink)))
        for child in children:
            stack.enter_context(thread(flood(child, sends("binary"))))
        wait_until(lambda: any(row.limited > 50 for row in agents(quiet)))
        for _ in range(30):
            id = quiet.ask(wire.Send(0, "quiet", TEXT, b"x")).id
            assert quiet.until(Message).id == id
        stats = quiet.ask(wire.Stats(0))
    assert stats.accepted - 30 <= BURST + RATE * stats.up_s + 4
    assert stats.refused <= len(children)
