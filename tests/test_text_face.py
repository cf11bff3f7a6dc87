"""The text face through the real socket: what a shell says in lines, and what it is answered."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from commands import Agentctl
from daemons import PATIENCE_S, Daemon, wait_until
from hypothesis import given
from hypothesis import strategies as st

from agentd.wire.errors import AgentdError
from agentd.wire.escapes import escaped, unescaped
from agentd.wire.text import MAX_WAITING, TextFace


class Shell:
    """A connection that says lines and reads lines."""

    def __init__(self, daemon: Daemon, *lines: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(str(daemon.socket))
        self._file = self._socket.makefile("rb")
        self.say(*lines)

    def say(self, *lines: str) -> None:
        self._socket.sendall("".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape"))

    def hear(self) -> str:
        line = self._file.readline()
        assert line.endswith(b"\n"), line
        return line[:-1].decode()

    def ask(self, line: str) -> str:
        self.say(line)
        return self.hear()

    def finish(self) -> list[str]:
        """No more to say; what else comes until the daemon ends the connection."""
        self._socket.shutdown(socket.SHUT_WR)
        return [line[:-1].decode() for line in self._file]

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture
def shell(daemon: Daemon) -> Iterator[Callable[..., Shell]]:
    shells: list[Shell] = []

    def start(*lines: str) -> Shell:
        shells.append(Shell(daemon, *lines))
        return shells[-1]

    yield start
    for one in shells:
        one.close()


def test_send_receive_and_ack(shell: Callable[..., Shell], agentctl: Agentctl) -> None:
    planner, builder = shell("AS planner"), shell("AS builder")
    assert (planner.hear(), builder.hear()) == ("planner", "builder")
    assert builder.ask("RECV") == ""
    id, state = planner.ask("SEND builder compile it").split()
    assert state == "accepted"
    assert builder.ask("RECV") == f"{id} planner compile it"
    assert planner.ask("SEND builder second").endswith(" accepted")
    assert builder.ask(f"ACK {id[:4]}") == "1"
    assert agentctl("trace", id, "--json", status=0).json["state"] == "acked"
    assert builder.ask(f"ACK {id}") == "0"


def test_a_body_comes_as_it_was_sent(shell: Callable[..., Shell], agentctl: Agentctl) -> None:
    planner, builder = shell("AS planner"), shell("AS builder")
    planner.hear(), builder.hear()
    planner.ask(r"SEND builder two\nlines \\ and \xff")
    shown = builder.ask("RECV")
    assert shown.endswith(r" planner two\nlines \\ and \xff")
    builder.ask(f"ACK {shown.split()[0]}")
    agentctl("send", "builder", "-", input=b"\x00\n!", name="planner", status=0)
    assert builder.ask("RECV").endswith(r" planner \x00\n!")


def test_receive_waits_as_long_as_it_says(shell: Callable[..., Shell]) -> None:
    planner, builder = shell("AS planner"), shell("AS builder")
    planner.hear(), builder.hear()
    assert builder.ask("RECV 0.05") == ""
    builder.say("RECV 60", "AGENTS")
    planner.ask("SEND builder now")
    assert builder.hear().endswith(" planner now")
    assert "builder" in builder.hear().split()


def test_what_was_not_acked_comes_back(shell: Callable[..., Shell]) -> None:
    shell("AS planner", "SEND --allow-absent builder once").finish()
    first = shell("AS builder", "RECV").finish()[-1]
    again = shell("AS builder", "RECV").finish()[-1]
    assert first == again
    assert first.endswith(" planner once")
    id = first.split()[0]
    assert shell("AS builder", f"ACK {id}").finish()[-1] == "1"  # from another connection, too
    assert shell("AS builder", "RECV").finish()[-1] == ""


def test_nack_and_reject(shell: Callable[..., Shell], agentctl: Agentctl) -> None:
    builder = shell("AS builder")
    builder.hear()
    agentctl("send", "builder", "x", name="planner", status=0)
    id = builder.ask("RECV").split()[0]
    assert builder.ask(f"NACK {id} not now") == "1"
    assert builder.ask("RECV").split()[0] == id
    assert builder.ask(f"REJECT {id} never that") == "1"
    assert "never that" in agentctl("dead", status=0).out


def test_request_and_reply(shell: Callable[..., Shell]) -> None:
    asker, answerer = shell("AS asker"), shell("AS answerer")
    asker.hear(), answerer.hear()
    answerer.ask("RECV")  # from here on it takes its mail
    asker.say("REQUEST answerer how many?")
    id = answerer.ask("RECV 60").split()[0]
    assert answerer.ask(f"REPLY {id} !seven").endswith((" accepted", " stored"))
    assert asker.hear() == "!!seven"
    assert asker.ask("REQUEST nobody x").startswith("!no_responder ")


def test_publish_and_subscribe(shell: Callable[..., Shell]) -> None:
    listener, speaker = shell(), shell("AS speaker")
    speaker.hear()
    assert listener.ask("SUB task:*").isdigit()
    assert speaker.ask("PUB task:done 7") == "1"
    assert listener.hear() == "task:done speaker 7"
    assert speaker.ask("PUB other x") == "0"


def test_refusals_are_a_line_and_end_nothing(shell: Callable[..., Shell]) -> None:
    one = shell()
    assert one.ask("SEND nobody x").startswith("!no_such_agent ")
    assert one.ask("GET phase").startswith("!bad_request ")
    assert "key/value" in one.ask("SET phase x")
    assert one.ask("NONSENSE").startswith("!bad_request ")
    assert one.ask("RECV").startswith("!bad_request ")
    assert one.ask("ACK zzzz").startswith("!no_such_message ")
    assert "SEND" in one.ask("HELP").split()


def test_a_name_that_somebody_takes(shell: Callable[..., Shell], agentctl: Agentctl) -> None:
    first, second = shell("AS builder"), shell("AS builder")
    first.hear(), second.hear()
    assert first.ask("RECV") == ""
    assert second.ask("RECV").startswith("!name_in_use ")
    assert second.ask("SEND builder to myself").endswith(" accepted")  # sending as it is free
    first.close()
    wait_until(lambda: second.ask("RECV").endswith(" to myself"))


def test_a_wrong_name_can_be_mended(shell: Callable[..., Shell]) -> None:
    one = shell()
    assert one.ask("AS not a name").startswith("!bad_name ")
    assert one.ask("AS right") == "right"
    assert one.ask("AS other").startswith("!bad_request ")


def test_http_is_told_that_it_is_wrong_here(shell: Callable[..., Shell]) -> None:
    assert shell("GET / HTTP/1.1", "Host: x", "").finish()[0].startswith("!bad_request HTTP")


def test_many_lines_at_once_are_answered_in_order(shell: Callable[..., Shell]) -> None:
    count = 5 * MAX_WAITING
    one = shell("AS planner", *(f"SEND --allow-absent builder {n}" for n in range(count)), "AGENTS")
    lines = one.finish()
    assert lines[0] == "planner"
    assert all(line.endswith((" accepted", " stored")) for line in lines[1:-1])
    assert len(lines) == count + 2
    taken = shell("AS builder", *["RECV"] * 3).finish()
    assert [line.split()[-1] for line in taken[1:]] == ["0", "1", "2"]


def test_lines_behind_one_that_waits_are_not_piled_up(shell: Callable[..., Shell], daemon: Daemon) -> None:
    one = shell("AS builder", "RECV 600")
    one.hear()
    one._socket.settimeout(0.3)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 64 << 20:
            sent += one._socket.send(b"HELP\n" * 1000)
    assert sent < 4 << 20


@pytest.mark.skipif(shutil.which("nc") is None, reason="nc is not installed here (Debian: netcat-openbsd)")
def test_with_nc(daemon: Daemon) -> None:
    said = "AS planner\nSEND --allow-absent builder hi\n"
    done = subprocess.run(
        ["nc", "-N", "-U", str(daemon.socket)], input=said, text=True, capture_output=True, timeout=PATIENCE_S
    )
    assert done.stdout.splitlines()[0] == "planner"
    assert done.stdout.splitlines()[1].endswith((" accepted", " stored"))


NC = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(sys.stdin.buffer.read()); s.shutdown(socket.SHUT_WR)
while data := s.recv(65536): sys.stdout.buffer.write(data)
"""


def test_from_bash(daemon: Daemon) -> None:
    """A loop that takes what is there, works, and acks; `nc -N -U` is played by a few lines of Python."""
    script = r"""
    say() { printf '%s\n' "$@" | "$PYTHON" -c "$NC" "$AGENTD_SOCKET"; }
    say 'AS planner' 'SEND --allow-absent builder a b' 'SEND builder c' > /dev/null
    while read -r id from body < <(say 'AS builder' RECV | tail -n 1) && [ -n "$id" ]; do
        echo "$from says: $body"
        say 'AS builder' "ACK $id" > /dev/null
    done
    """
    env = os.environ | {"PYTHON": sys.executable, "NC": NC, "AGENTD_SOCKET": str(daemon.socket)}
    done = subprocess.run(["bash", "-c", script], env=env, text=True, capture_output=True, timeout=PATIENCE_S)
    assert done.stdout == "planner says: a b\nplanner says: c\n", done.stderr


@given(st.binary())
def test_escapes_are_undone(body: bytes) -> None:
    line = escaped(body)
    assert b"\n" not in line and b"\r" not in line
    line.decode()
    assert unescaped(line) == body


@given(st.binary(), st.integers(1, 7))
def test_any_bytes_are_lines_or_refused(data: bytes, piece: int) -> None:
    """However they are cut, the verbs and the answers are the same."""
    outcomes: list[object] = []
    for size in (piece, max(1, len(data))):
        face, verbs = TextFace(1024), []
        try:
            for start in range(0, len(data), size):
                verbs += face.feed(data[start : start + size])
        except AgentdError as error:
            outcomes.append(error.code)
            continue
        outcomes.append((verbs, face.take(), face.waiting, face.unfinished))
    assert outcomes[0] == outcomes[1]
