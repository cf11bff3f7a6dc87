"""The programs in examples/, as a reader would run them, against a real daemon."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import AGENTCTL, Agentctl
from daemons import PATIENCE_S, Daemon, wait_until

EXAMPLES = Path(__file__).parent.parent / "examples"
MAX_LINES = 120

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(daemon: Daemon, tmp_path: Path) -> Iterator[Start]:
    """Starts programs, and ends what is left of them."""
    running: list[subprocess.Popen[str]] = []

    def begin(*command: str) -> subprocess.Popen[str]:
        # `agentctl` is the one under test, also where it is not on PATH.
        agentctl = tmp_path / "agentctl"
        agentctl.write_text(f'#!/bin/sh\nexec {" ".join(AGENTCTL)} "$@"\n')
        agentctl.chmod(0o755)
        env = daemon.env | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        running.append(
            subprocess.Popen(
                command,
                env=env,
                cwd=tmp_path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return running[-1]

    yield begin
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def python(start: Start, name: str, *words: str) -> subprocess.Popen[str]:
    return start(sys.executable, str(EXAMPLES / name), *words)


def output(process: subprocess.Popen[str], status: int = 0) -> str:
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == status, out + err
    return out


def test_supervisor(start: Start, agentctl: Agentctl) -> None:
    out = output(python(start, "supervisor.py"))
    assert "worker-1: stopped" in out and "worker-2: stopped" in out
    assert "is done" not in out.split("worker-1: stopped")[0]  # it was stopped in the middle
    assert "supervisor: 4 jobs wait for the next start" in out  # and nothing was lost


def test_worker_pool(start: Start) -> None:
    out = output(python(start, "worker_pool.py"))
    assert "foreman: 10 done, 2 dead" in out
    assert out.count("nobody knows how to do") == 2
    assert out.splitlines()[-1] == "foreman: all 12 are done"
    assert len({line.split(":")[0] for line in out.splitlines() if line.startswith("worker")}) > 1


def test_progress_board(start: Start) -> None:
    out = output(python(start, "progress_board.py"))
    for task in ("compile", "test", "document"):
        assert any(line.startswith(task) and line.endswith("100 %") for line in out.splitlines())


def test_request_service(start: Start, agentctl: Agentctl, daemon: Daemon) -> None:
    service = python(start, "request_service.py", "serve", "calculator")
    assert service.stdout is not None and service.stdout.readline() == "calculator: ready\n"

    def ask(question: str, to: str = "calculator") -> subprocess.Popen[str]:
        return python(start, "request_service.py", "ask", to, question)

    assert output(ask("6 * (3 + 4)")) == "42\n"
    output(ask("open('x')"), status=1)
    output(ask("1 / 0"), status=1)
    output(ask("1", to="nobody"), status=75)
    daemon.restart()
    wait_until(lambda: "calculator" in agentctl("agents").out, "for the service to come back")
    wait_until(lambda: ask("1 + 1").wait(PATIENCE_S) == 0)
    service.send_signal(signal.SIGINT)
    output(service, status=130)


def test_chat(start: Start, agentctl: Agentctl) -> None:
    alice = start("bash", str(EXAMPLES / "chat.sh"), "alice", "bob")
    assert alice.stdin is not None and alice.stdout is not None
    alice.stdin.write("are you there?\n")  # bob is not in yet: it waits for him
    alice.stdin.flush()
    wait_until(lambda: agentctl("inbox", "--json", name="bob").json.get("total") == 1)
    bob = start("bash", str(EXAMPLES / "chat.sh"), "bob", "alice")
    assert bob.stdin is not None and bob.stdout is not None
    assert bob.stdout.readline() == "alice: are you there?\n"
    bob.stdin.write('{"yes": "I am"}\n')
    bob.stdin.flush()
    assert alice.stdout.readline() == 'bob: {"yes": "I am"}\n'
    alice.stdin.close()  # Ctrl-D
    bob.stdin.close()
    assert (alice.wait(PATIENCE_S), bob.wait(PATIENCE_S)) == (0, 0)

    def somebody() -> bool:
        return any(row["live"] for row in agentctl("agents", "--json").json["agents"])

    wait_until(lambda: not somebody(), "for both to be gone, and what listened for them")


@pytest.mark.parametrize("name", ["supervisor.py", "worker_pool.py", "progress_board.py"])
def test_without_a_daemon(start: Start, daemon: Daemon, name: str) -> None:
    daemon.stop()
    process = python(start, name)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "agentctl daemon start" in err and "Traceback" not in err
    daemon.start()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.*")), ids=lambda path: path.name)
def test_each_says_what_it_is_and_is_short(path: Path) -> None:
    text = path.read_text()
    if path.name != "demo.py":
        assert len(text.splitlines()) <= MAX_LINES
        assert f"examples/{path.name}" in text  # how to run it
    if path.suffix == ".py":
        assert ast.get_docstring(ast.parse(text))
