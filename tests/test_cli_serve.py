"""serve: a command for each message, and what its exit status makes of it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from commands import Agentctl, Running
from daemons import wait_until


def only_zombies(pid: int) -> bool:
    """Whether every child of `pid` has ended."""
    children = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
    return all(Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z" for child in children)


def serve(agentctl: Agentctl, *args: str) -> Running:
    running = agentctl.start("serve", "worker", *args)
    wait_until(lambda: "serving as worker" in running.err or running.process.poll() is not None, "for worker to serve")
    return running


def send(agentctl: Agentctl, body: str) -> str:
    return str(agentctl("send", "worker", body, "--allow-absent", "--json", name="planner", status=0).json["id"])


def state(agentctl: Agentctl, id: str) -> str:
    return str(agentctl("trace", id, "--json", status=0).json["state"])


def test_a_command_that_succeeds_acks(agentctl: Agentctl) -> None:
    running = serve(agentctl, "--", "cat")
    id = send(agentctl, "hi")
    running.until(f"acked  {id}")
    assert state(agentctl, id) == "acked"


def test_the_command_knows_what_it_works_on(agentctl: Agentctl) -> None:
    serve(agentctl, "--", "env")
    out = agentctl("request", "worker", "[1]", name="planner", status=0).out
    env = dict(line.split("=", 1) for line in out.splitlines() if line.startswith("AGENTD_"))
    assert len(env.pop("AGENTD_MESSAGE_ID")) == 13
    assert env["AGENTD_SENDER"] == "planner" and env["AGENTD_AGENT"] == "worker"
    assert env["AGENTD_ATTEMPT"] == "1" and env["AGENTD_CONTENT"] == "json"


def test_no_shell_touches_the_command(agentctl: Agentctl) -> None:
    serve(agentctl, "--", "printf", "%s|", "a b", "$HOME", "*", "--json")
    assert agentctl("request", "worker", "x", name="planner", status=0).out == "a b|$HOME|*|--json|\n"


def test_a_command_that_fails_rejects_with_its_last_words(agentctl: Agentctl) -> None:
    running = serve(agentctl, "--json", "--", "sh", "-c", "echo first >&2; echo the end >&2; echo >&2; exit 9")
    id = send(agentctl, "hi")
    running.until(id)
    told = json.loads(running.out.splitlines()[0])
    assert told.pop("took_s") >= 0
    assert told == {"id": id, "sender": "planner", "done": "rejected", "exit": 9}
    assert "first\nthe end\n" in running.err
    (letter,) = agentctl("dead", "--json", status=0).json["letters"]
    assert (letter["id"], letter["reason"]) == (id, "exit 9: the end")


def test_a_command_that_is_killed_rejects(agentctl: Agentctl) -> None:
    running = serve(agentctl, "--", "sh", "-c", "kill -SEGV $$")
    id = send(agentctl, "hi")
    running.until(f"rejected  {id}")
    assert "killed by SIGSEGV" in agentctl("dead", status=0).out


def test_exit_75_tries_again_later(agentctl: Agentctl, tmp_path: Path) -> None:
    running = serve(agentctl, "--", "sh", "-c", "[ $AGENTD_ATTEMPT -ge 2 ] || { echo busy >&2; exit 75; }")
    id = send(agentctl, "hi")
    running.until(f"nacked  {id}")
    running.until(f"acked  {id}  from planner  exit 0")
    assert "busy" in agentctl("trace", id, status=0).out


def test_a_command_that_reads_nothing_and_one_that_says_much(agentctl: Agentctl) -> None:
    serve(agentctl, "--", "sh", "-c", "head -c 300000 /dev/zero")
    out = agentctl("request", "worker", "-", input=b"x" * 300_000, name="planner", status=0).stdout
    assert out.count(b"\0") == 300_000


def test_jobs_run_beside_each_other(agentctl: Agentctl, tmp_path: Path) -> None:
    """Each job waits for the other to have begun: one at a time would never end."""
    meet = 'touch "$0/$AGENTD_MESSAGE_ID"; while [ "$(ls "$0" | wc -l)" -lt 2 ]; do sleep 0.01; done'
    (tmp_path / "meeting").mkdir()
    serve(agentctl, "--jobs", "2", "--", "sh", "-c", meet, str(tmp_path / "meeting"))
    ids = [send(agentctl, "a"), send(agentctl, "b")]
    wait_until(lambda: [state(agentctl, id) for id in ids] == ["acked", "acked"], "for both to be acked")


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
@pytest.mark.parametrize("jobs", ["1", "3"])
def test_stopping_ends_the_command_and_gives_its_message_back(
    agentctl: Agentctl, tmp_path: Path, signum: int, status: int, jobs: str
) -> None:
    running = serve(agentctl, "--jobs", jobs, "--", "sh", "-c", 'sleep 600 & echo $! > "$0/pid"; wait', str(tmp_path))
    id = send(agentctl, "hi")
    pid_file = tmp_path / "pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"), "for the command to run")
    result = running.end(signum)
    assert result.status == status, result
    assert "given back" in result.out
    pid = int(pid_file.read_text())
    wait_until(
        lambda: not os.path.exists(f"/proc/{pid}") or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]
    )
    shown = agentctl("recv", "--json", name="worker", status=0).json
    assert (shown["id"], shown["attempt"]) == (id, 1)


def test_what_a_command_leaves_behind_does_not_hold_up_the_end(agentctl: Agentctl, tmp_path: Path) -> None:
    """The command is done, but a child of its holds its output open: what it said counts once that child is ended."""
    running = serve(agentctl, "--", "sh", "-c", 'sleep 600 & touch "$0/up"', str(tmp_path))
    id = send(agentctl, "hi")
    wait_until((tmp_path / "up").exists, "for the command to run")
    wait_until(lambda: only_zombies(running.process.pid), "for the command to end")
    assert running.end(signal.SIGTERM).status == 0
    assert state(agentctl, id) == "acked"


def test_a_command_that_ignores_sigterm_is_killed(agentctl: Agentctl, tmp_path: Path) -> None:
    stubborn = 'trap "" TERM; touch "$0/up"; while :; do sleep 0.05; done'
    running = serve(agentctl, "--", "sh", "-c", stubborn, str(tmp_path))
    id = send(agentctl, "hi")
    wait_until((tmp_path / "up").exists, "for the command to run")
    assert running.end(signal.SIGTERM).status == 0
    assert agentctl("recv", "--json", name="worker", status=0).json["id"] == id


def test_jobs_end_with_their_first_process(agentctl: Agentctl, tmp_path: Path) -> None:
    running = serve(agentctl, "--jobs", "2", "--", "sh", "-c", 'touch "$0/up"; sleep 600', str(tmp_path))
    id = send(agentctl, "hi")
    wait_until((tmp_path / "up").exists, "for the command to run")
    running.process.kill()
    wait_until(lambda: agentctl("recv", name="worker").status == 0, "for the jobs to let go of the name")
    assert state(agentctl, id) == "acked"


def test_a_name_in_use_is_told_at_once(agentctl: Agentctl) -> None:
    serve(agentctl, "--", "cat")
    assert agentctl("serve", "worker", "--json", "--", "cat", status=77).error["code"] == "name_in_use"


def test_a_command_that_is_not_there_takes_nothing(agentctl: Agentctl) -> None:
    id = send(agentctl, "hi")
    refused = agentctl("serve", "worker", "--", "no-such-command", status=66)
    assert "no-such-command" in refused.err
    assert agentctl("recv", "--json", name="worker", status=0).json["id"] == id


def test_serve_needs_a_command(agentctl: Agentctl) -> None:
    agentctl("serve", "worker", status=2)
    agentctl("serve", "worker", "--jobs", "0", "--", "cat", status=2)
