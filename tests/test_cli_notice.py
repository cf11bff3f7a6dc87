"""`agentctl inbox --notice`: what a hook prints. Each message once, else nothing, and exit 0 always."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from commands import Agentctl
from daemons import PATIENCE_S, Daemon

#: The same call on the quick way, and on two that go through click.
WAYS = [["--notice", "--as", "builder"], ["--notice", "--as", "builder", "--timeout", "9s"], ["builder", "--notice"]]


def send(agentctl: Agentctl, *bodies: str, by: str = "planner", to: str = "builder") -> None:
    for body in bodies:
        agentctl("send", to, body, "--allow-absent", name=by, status=0)


def notice(agentctl: Agentctl, *args: str, name: str | None = None) -> str:
    """What it says. A busy machine may make it too late, which loses nothing: then the next call says it."""
    for _ in range(20):
        done = agentctl("inbox", *(args or WAYS[0]), name=name, status=0)
        assert done.err == ""
        if done.out:
            return done.out
    return ""


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_one_line_names_how_many_from_whom_and_what_to_do(agentctl: Agentctl, way: list[str]) -> None:
    send(agentctl, "one")
    take = "Take the next one: agentctl recv --hold 10m --as builder\n"
    assert notice(agentctl, *way) == f"agentd: 1 new message for builder, from planner. {take}"
    send(agentctl, "two", "three")
    send(agentctl, "four", by="tester")
    expected = f"agentd: 3 new messages for builder, 2 from planner, 1 from tester; 4 wait in all. {take}"
    assert notice(agentctl, *way) == expected
    assert agentctl("inbox", *way, status=0).out == ""


def test_the_command_that_it_names_takes_the_message(agentctl: Agentctl) -> None:
    send(agentctl, "compile it")
    command = notice(agentctl).rpartition(": ")[2].split()
    assert command[0] == "agentctl"
    assert "compile it" in agentctl(*command[1:], status=0).out


def test_the_name_comes_from_the_environment_too(agentctl: Agentctl) -> None:
    send(agentctl, "one", to="tester")
    assert notice(agentctl, "--notice", name="tester").endswith("agentctl recv --hold 10m\n")
    send(agentctl, "two")
    assert "for builder" in notice(agentctl, "--notice", "--as=builder", name="tester")


def test_hooks_that_run_at_once_announce_each_message_once(agentctl: Agentctl) -> None:
    bodies = [f"message {number}" for number in range(8)]
    said: list[str] = []
    with ThreadPoolExecutor(6) as pool:
        for body in bodies:
            send(agentctl, body)
            said += pool.map(lambda _: agentctl("inbox", *WAYS[0], status=0).out, range(6))
    said.append(notice(agentctl, *WAYS[1]))
    assert sum(int(line.split()[1]) for line in said if line) == len(bodies)


def test_json(agentctl: Agentctl) -> None:
    send(agentctl, "one")
    view = agentctl("inbox", "--notice", "--timeout", "9s", "--json", name="builder", status=0).json
    assert view["senders"] == [{"sender": "planner", "count": 1, "lane": "normal"}]
    assert (view["name"], view["fresh"], view["waiting"]) == ("builder", 1, 1)
    assert agentctl("inbox", "--notice", "--json", name="builder", status=0).out == ""


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_nothing_to_say(agentctl: Agentctl, daemon: Daemon, way: list[str]) -> None:
    def silent(**env: str) -> None:
        done = agentctl("inbox", *way, env=env, status=0)
        assert (done.out, done.err) == ("", "")

    silent()  # nobody of that name
    silent(AGENTD_SOCKET="/nowhere")
    silent(AGENTD_SOCKET="/" + "x" * 200)
    silent(AGENTD_CONFIG="/nowhere", AGENTD_INBOX_MAX_MESSAGES="many")
    silent(AGENTD_SOCKET=str(daemon.directory))
    daemon.stop()
    silent()
    daemon.start()


@pytest.mark.parametrize("name", ["", "../x", "-x"])
def test_a_name_that_is_none(agentctl: Agentctl, name: str) -> None:
    done = agentctl("inbox", "--notice", env={"AGENTD_AGENT": name}, status=0)
    assert (done.out, done.err) == ("", "")


def test_a_daemon_that_hangs_holds_up_nobody_and_loses_nothing(agentctl: Agentctl, daemon: Daemon) -> None:
    send(agentctl, "one")
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        for way in (WAYS[0], ["--notice", "--json"]):
            assert agentctl("inbox", *way, name="builder", status=0).out == ""
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert "1 new message" in notice(agentctl)  # the daemon read the calls that nobody waits for any more, too


def test_it_survives_a_restart(agentctl: Agentctl, daemon: Daemon) -> None:
    send(agentctl, "one")
    assert notice(agentctl)
    send(agentctl, "two")
    daemon.restart()
    assert "1 new message for builder, from planner; 2 wait in all" in notice(agentctl)


def test_a_closed_stdout_says_nothing_to_nobody(agentctl: Agentctl) -> None:
    send(agentctl, "one")
    code = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [sys.executable, "-c", code, "-m", "agentd.cli", "inbox", *WAYS[0]]
    done = subprocess.run(command, env=agentctl.env, stderr=subprocess.PIPE, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "1 new message" in notice(agentctl)


def test_the_quick_way_is_quick(agentctl: Agentctl) -> None:
    send(agentctl, "one")
    code = "import os, sys; os._exit = lambda status: sys.exit(status); from agentd.cli.start import main\n"
    code += "try:\n main()\nfinally:\n print(sorted({'click', 'msgspec', 'json', 'typing'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code, "inbox", *WAYS[0]], env=agentctl.env, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done
