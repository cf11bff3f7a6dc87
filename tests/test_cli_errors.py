"""What goes wrong is said in two lines, or as one JSON object, with the exit status of its kind."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from commands import Agentctl
from daemons import Daemon, wait_until

#: Each verb that talks to the daemon.
VERBS = [
    ("send", "x", "hi"),
    ("recv",),
    ("inbox",),
    ("ack", "k7qa"),
    ("nack", "k7qa"),
    ("reject", "k7qa"),
    ("reply", "k7qa", "hi"),
    ("request", "x", "hi"),
    ("serve", "x", "--", "cat"),
    ("publish", "a:b", "hi"),
    ("subscribe", "a:*"),
    ("trace", "k7qa"),
    ("agents",),
    ("agents", "forget", "x"),
    (),
    ("status",),
    ("stats",),
    ("lanes",),
    ("dead",),
    ("dead", "show", "k7qa"),
    ("dead", "requeue", "k7qa"),
    ("dead", "drop", "k7qa"),
]


def with_json(args: tuple[str, ...]) -> list[str]:
    return [*args[:1], "--json", *args[1:]]


def test_without_a_daemon_each_verb_says_so_and_how_to_start_one(agentctl: Agentctl, daemon: Daemon) -> None:
    daemon.stop()
    for args in VERBS:
        refused = agentctl(*args, name="me", status=69)
        assert refused.out == ""
        assert len(refused.err.splitlines()) == 2, refused.err
        assert str(daemon.socket) in refused.err and "`agentctl daemon start`" in refused.err
        error = agentctl(*with_json(args), name="me", status=69).error
        assert error["code"] == "unreachable" and error["retryable"]


def test_a_stale_socket_is_called_stale(agentctl: Agentctl, daemon: Daemon) -> None:
    daemon.kill()
    assert "stale" in agentctl("status", status=69).err


def test_another_socket(agentctl: Agentctl, daemon: Daemon) -> None:
    assert "nowhere.sock" in agentctl("status", "--socket", "/nowhere.sock", status=69).err
    agentctl("--socket", str(daemon.socket), "status", env={"AGENTD_RUNTIME_DIR": "/nowhere"}, status=0)
    assert "shorter" in agentctl("status", "--socket", "/" + "x" * 200, status=78).err


def test_what_is_no_daemon(agentctl: Agentctl, daemon: Daemon) -> None:
    daemon.stop()
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(daemon.socket))
        mute.listen()
        assert agentctl("status", "--timeout", "100ms", "--json").error["code"] in ("timeout", "unreachable")


@pytest.mark.parametrize(
    "args",
    [
        ("send",),
        ("send", "x"),
        ("send", "x", "hi", "--priority", "urgent"),
        ("send", "x", "hi", "--ttl", "soon"),
        ("send", "x", "hi", "--header", "novalue"),
        ("send", "x", "hi", "--no-such-option"),
        ("recv", "--count", "0"),
        ("serve", "x"),
        ("no-such-verb",),
        ("statsu",),
        ("--no-such-option",),
    ],
)
def test_usage(agentctl: Agentctl, args: tuple[str, ...]) -> None:
    refused = agentctl(*args, name="me", status=2)
    assert refused.out == "" and len(refused.err.splitlines()) == 2, refused.err
    error = agentctl("--json", *args, name="me", status=2).error
    assert error["code"] == "usage" and error["message"] and error["hint"]


def test_a_verb_that_was_probably_meant(agentctl: Agentctl) -> None:
    assert "'status'" in agentctl("statuss", status=2).err


@pytest.mark.parametrize("name", ["no/name", "anonymous.7", "x" * 256, "\u00fc"])
def test_what_is_no_name(agentctl: Agentctl, name: str) -> None:
    assert agentctl("send", "x", "hi", "--as", name, "--json", status=65).error["code"] == "bad_name"
    assert agentctl("send", name, "hi", "--json", name="me").error["code"] in ("bad_name", "no_such_agent")


def test_a_full_inbox_is_backpressure(agentctl: Agentctl, daemon: Daemon) -> None:
    daemon.config(inbox={"max_messages": 1})
    agentctl("send", "x", "hi", "--allow-absent", name="me", status=0)
    error = agentctl("send", "x", "hi", "--json", "--timeout", "100ms", name="me", status=75).error
    assert error["code"] == "backpressure" and error["retryable"]


def test_common_options_may_come_first(agentctl: Agentctl) -> None:
    assert agentctl("--json", status=0).json["pid"]
    assert agentctl("--json", "--as", "me", "send", "x", "hi", "--allow-absent", status=0).json["note"] is not None
    assert agentctl("--as", "x", "recv", "--json", status=0).json["sender"] == "me"


DEFECT = """
import sys
from agentd.cli import care, main
care.guide.callback = lambda call: {}[1]
sys.argv[1:] = {args!r}
main.main()
"""


@pytest.mark.parametrize("args", [["guide"], ["guide", "--json"]])
def test_a_defect_is_one_line_and_how_to_see_more(agentctl: Agentctl, args: list[str]) -> None:
    code = DEFECT.replace("{args!r}", repr(args))
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=agentctl.env, capture_output=True, text=True)
    assert done.returncode == 70
    assert "KeyError" in done.stdout + done.stderr and "AGENTD_DEBUG=1" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert (done.stderr == "") == ("--json" in args)
    done = subprocess.run(run, env={**agentctl.env, "AGENTD_DEBUG": "1"}, capture_output=True, text=True)
    assert done.returncode == 70 and "Traceback" in done.stderr


def test_colours_only_for_people(agentctl: Agentctl) -> None:
    agentctl("send", "x", "hi", "--allow-absent", name="me", status=0)
    assert "\x1b[" not in agentctl("agents", status=0).out
    assert "\x1b[" in agentctl.on_terminal("agents", env={"TERM": "xterm", "NO_COLOR": ""}).out
    assert "\x1b[" not in agentctl.on_terminal("agents", env={"TERM": "xterm", "NO_COLOR": "1"}).out
    assert "\x1b[" not in agentctl.on_terminal("agents", env={"TERM": "dumb"}).out


def test_a_daemon_that_goes_away_ends_a_wait_with_a_word(agentctl: Agentctl, daemon: Daemon) -> None:
    """A restart is ridden out: what waits goes on waiting, and gets its message from the new daemon."""
    waiting = agentctl.start("recv", "--wait", "1m", name="builder")
    wait_until(lambda: "builder" in agentctl("agents").out, "for builder to join")
    daemon.restart()
    agentctl("send", "builder", "hi", "--allow-absent", name="me", status=0)
    result = waiting.result()
    assert result.status == 0 and result.out.endswith("hi\n"), result
