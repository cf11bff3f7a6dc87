"""agentctl from disk to disk: send TO @FILE --priority high, recv --save DIR."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from commands import Agentctl, Running
from daemons import wait_until
from filing import MIB, content, digest, file

from agentd.cli import complete
from agentd.cli.completion import table

#: What a send that waits for nothing may say: the receiver acks at about that time.
REACHED = ("delivered", "acked")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Where files are saved."""
    directory = tmp_path / "inbox"
    directory.mkdir()
    return directory


def saver(agentctl: Agentctl, *options: str, name: str = "builder") -> Running:
    """`agentctl recv --save inbox`, when files can be sent to it."""
    running = agentctl.start("recv", "--wait", "30s", "--save", "inbox", *options, name=name)

    def reads() -> bool:
        assert running.process.poll() is None, running.err
        asked = ("send", name, "x", "--priority", "high", "--route", "direct", "--dry-run")
        return agentctl(*asked, name="planner").status == 0

    wait_until(reads, "for builder to read shared memory")
    return running


def test_a_file_goes_from_disk_to_disk(agentctl: Agentctl, tmp_path: Path, inbox: Path) -> None:
    data = content(9 * MIB + 1)
    file(tmp_path, "build.log", data)
    taking = saver(agentctl, "--json")
    sent = agentctl("send", "builder", "@build.log", "--priority", "high", "--json", name="planner", status=0)
    assert sent.json["state"] in REACHED
    assert (sent.json["route"], sent.json["file"]) == ("direct", "build.log")
    taken = taking.result()
    assert taken.status == 0 and not taken.err
    assert taken.json["file"] == {
        "name": "build.log",
        "size_bytes": len(data),
        "digest": digest(data),
        "path": str(inbox / "build.log"),
    }
    assert (taken.json["sender"], taken.json["id"]) == ("planner", sent.json["id"])
    assert (inbox / "build.log").read_bytes() == data


def test_what_is_there_stays_and_messages_are_printed(agentctl: Agentctl, tmp_path: Path, inbox: Path) -> None:
    file(tmp_path, "a", b"new")
    file(inbox, "a", b"old")
    taking = saver(agentctl, "--count", "3")
    agentctl("send", "builder", "@a", "--priority", "high", "--wait", "acked", name="planner", status=0)
    agentctl("send", "builder", "hello", name="planner", status=0)
    out = agentctl("send", "builder", "@a", "--priority", "high", name="planner", status=0).out
    assert any(state in out for state in REACHED) and "file a" in out
    taken = taking.result()
    assert taken.status == 0, taken.err
    assert f"saved {inbox}/a.1" in taken.out and f"saved {inbox}/a.2" in taken.out and "hello" in taken.out
    assert sorted(os.listdir(inbox)) == ["a", "a.1", "a.2"] and (inbox / "a").read_bytes() == b"old"


def test_a_terminal_sees_a_bar_and_nobody_else(agentctl: Agentctl, tmp_path: Path, inbox: Path) -> None:
    file(tmp_path, "a", content(9 * MIB))
    taking = saver(agentctl)
    shown = agentctl.on_terminal("send", "builder", "@a", "--priority", "high", name="planner")
    assert "a to builder" in shown.out and "100%" in shown.out
    assert any(state in shown.out for state in REACHED)
    assert not taking.result().err


def test_who_reads_no_shared_memory_is_named(agentctl: Agentctl, tmp_path: Path) -> None:
    file(tmp_path, "a", b"x")
    agentctl.start("recv", "--wait", "30s", name="builder")
    wait_until(lambda: any(one["live"] for one in agentctl("agents", "--json").json["agents"]))
    refused = agentctl("send", "builder", "@a", "--priority", "high", "--json", name="planner", status=69)
    assert refused.error["code"] == "lane_unavailable" and "--save" in refused.error["hint"]
    agentctl("send", "builder", "@a", "--priority", "high", "--bytes", name="planner", status=0)  # a body is relayed


def test_what_can_not_be_sent_is_refused_by_name(agentctl: Agentctl, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    file(tmp_path, "a", b"x")
    high = ("--priority", "high", "--json")
    assert agentctl("send", "b", "@nowhere", *high, name="planner", status=66).error["code"] == "no_such_file"
    assert agentctl("send", "b", "@fifo", *high, name="planner", status=65).error["code"] == "bad_request"
    assert agentctl("send", "b", "@a", *high, name="planner", status=66).error["code"] == "no_such_agent"
    for option in (["--key", "k"], ["--header", "a=b"], ["--allow-absent"], ["--durable"], ["--route", "relayed"]):
        assert option[0] in agentctl("send", "b", "@a", *high, *option, name="planner", status=2).error["message"]
    agentctl("recv", "--save", "nowhere", name="builder", status=2)
    agentctl("recv", "--save", ".", "--hold", "1m", name="builder", status=2)


def test_interrupted_it_ends_at_both_ends(agentctl: Agentctl, tmp_path: Path, inbox: Path) -> None:
    with (tmp_path / "large").open("wb") as large:
        large.truncate(64 << 30)
    taking = saver(agentctl, "--json")
    sending = agentctl.start("send", "builder", "@large", "--priority", "high", name="planner")
    io = Path(f"/proc/{taking.process.pid}/io")
    wait_until(lambda: int(io.read_text().split("wchar: ")[1].split()[0]) > 16 * MIB)
    assert sending.end(signal.SIGINT).status == 130
    taken = taking.result()
    assert (taken.status, taken.error["code"]) == (75, "file_incomplete")
    assert os.listdir(inbox) == []


def test_one_that_does_not_come_is_not_the_last(agentctl: Agentctl, tmp_path: Path, inbox: Path) -> None:
    with (tmp_path / "large").open("wb") as large:
        large.truncate(64 << 30)
    file(tmp_path, "small", b"small")
    taking = saver(agentctl, "--follow")
    sending = agentctl.start("send", "builder", "@large", "--priority", "high", name="planner")
    io = Path(f"/proc/{taking.process.pid}/io")
    wait_until(lambda: int(io.read_text().split("wchar: ")[1].split()[0]) > 16 * MIB)
    sending.end(signal.SIGKILL)
    agentctl("send", "builder", "@small", "--priority", "high", "--wait", "acked", name="planner", status=0)
    ended = taking.end(signal.SIGINT)
    assert "planner was gone before large was whole" in ended.err and "small" in ended.out
    assert os.listdir(inbox) == ["small"]


def test_names_behind_an_at_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("build.log", "build.txt", ".hidden"):
        file(tmp_path, name, b"")
    (tmp_path / "logs").mkdir()
    file(tmp_path / "logs", "today", b"")
    shell = complete.read(table())

    def offers(word: str) -> list[str] | None:
        found = complete.complete(shell, ["send", "builder", word])
        return None if found is None else [choice for choice, _ in found]

    assert offers("@bu") == ["@build.log", "@build.txt"]
    assert offers("@lo") == ["@logs/", "@logs/today"]
    assert offers(f"@{tmp_path}/logs/") == [f"@{tmp_path}/logs/today"]
    assert offers("@") == ["@build.log", "@build.txt", "@logs/"]
    assert offers("@nowhere/") == [] and offers("bu") == []
    assert complete.complete(shell, ["recv", "--save", ""]) is None
