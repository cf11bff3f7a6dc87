"""status, agents, stats, lanes, dead and version, through a real daemon."""

from __future__ import annotations

import re

import pytest
from commands import Agentctl
from daemons import Daemon


def make_dead(agentctl: Agentctl, to: str, body: str, reason: str) -> str:
    id = str(agentctl("send", to, body, "--allow-absent", "--json", name="planner", status=0).json["id"])
    agentctl("recv", "--hold", "1m", name=to, status=0)
    agentctl("reject", id, "--reason", reason, name=to, status=0)
    return id


@pytest.mark.parametrize("args", [[], ["status"]])
def test_status(agentctl: Agentctl, daemon: Daemon, args: list[str]) -> None:
    out = agentctl(*args, status=0).out
    assert out.startswith("agentd ")
    for word in (f"pid {daemon.pid}", str(daemon.socket), "lanes", "normal", "0 waiting, 0 held, 0 dead"):
        assert word in out
    view = agentctl(*args, "--json", status=0).json
    assert (view["pid"], view["socket"], view["draining"]) == (daemon.pid, str(daemon.socket), False)
    assert "cid" not in view and view["persistence"]


def test_status_begins_with_what_is_in_trouble(agentctl: Agentctl) -> None:
    make_dead(agentctl, "builder", "hi", "hopeless")
    assert agentctl("status", status=0).out.startswith("1 dead letter")


def test_lanes(agentctl: Agentctl) -> None:
    rows = agentctl("lanes", "--json", status=0).json["lanes"]
    assert [row["lane"] for row in rows if row["open"]] == ["critical", "high", "normal", "low"]
    assert all(row["reason"] for row in rows if not row["open"])
    lines = agentctl("lanes", status=0).out.splitlines()
    states = {line.split()[0]: line.split()[1] for line in lines[1:6]}
    assert list(states.values()) == ["closed"] + ["open"] * 4  # what is closed comes first
    assert states["normal"] == states["critical"] == "open"


def test_agents_those_in_trouble_first(agentctl: Agentctl) -> None:
    assert "anonymous" in agentctl("agents", status=0).out or "No agents" in agentctl("agents", status=0).out
    agentctl("send", "absent", "hi", "--allow-absent", name="zoe", status=0)
    make_dead(agentctl, "worried", "hi", "hopeless")
    lines = agentctl("agents", status=0).out.splitlines()
    assert lines[1].startswith("worried") and lines[1].endswith("1 dead letter")
    rows = {row["name"]: row for row in agentctl("agents", "--json", status=0).json["agents"]}
    assert (rows["absent"]["waiting"], rows["absent"]["live"]) == (1, False)
    assert next(iter(rows)) == "worried"
    assert agentctl("agents", "list", "--json", status=0).json["agents"]


def test_agents_forget(agentctl: Agentctl) -> None:
    agentctl("send", "mistyped", "hi", "--allow-absent", name="planner", status=0)
    assert agentctl("agents", "forget", "mistyped", "--json").status != 0  # it has mail
    agentctl("recv", name="mistyped", status=0)
    assert agentctl("agents", "forget", "mistyped", "--json", status=0).json == {"forgotten": "mistyped"}
    assert "mistyped" not in agentctl("agents").out
    assert agentctl("agents", "forget", "mistyped", "--json", status=66).error["code"] == "no_such_agent"


def test_stats(agentctl: Agentctl) -> None:
    make_dead(agentctl, "builder", "hi", "hopeless")
    view = agentctl("stats", "--json", status=0).json
    assert (view["accepted"], view["dead"], view["acked"]) == (1, 1, 0)
    out = agentctl("stats", status=0).out
    assert re.match(r"dead +1\n", out)
    assert re.search(r"^accepted +1$", out, re.MULTILINE)


class TestDead:
    """Dead letters."""

    @pytest.fixture
    def ids(self, agentctl: Agentctl) -> list[str]:
        return [make_dead(agentctl, "builder", "old", "too hard"), make_dead(agentctl, "tester", "new", "no tests")]

    @pytest.mark.parametrize("args", [[], ["list"]])
    def test_list(self, agentctl: Agentctl, ids: list[str], args: list[str]) -> None:
        lines = agentctl("dead", *args, status=0).out.splitlines()
        assert lines[1].startswith(ids[1]) and lines[1].endswith("no tests")
        assert lines[2].startswith(ids[0]) and "builder" in lines[2]
        view = agentctl("dead", *args, "--json", status=0).json
        assert view["total"] == 2 and [one["id"] for one in view["letters"]] == ids[::-1]

    def test_list_of_one_agent(self, agentctl: Agentctl, ids: list[str]) -> None:
        assert [one["id"] for one in agentctl("dead", "list", "tester", "--json", status=0).json["letters"]] == ids[1:]
        assert agentctl("dead", "list", "nobody", status=66).out == ""

    def test_show(self, agentctl: Agentctl, ids: list[str]) -> None:
        out = agentctl("dead", "show", ids[0], status=0).out
        assert out.startswith("reason") and "too hard" in out and "old" in out
        assert agentctl("dead", "show", ids[0], "--json", status=0).json["reason"] == "too hard"

    def test_show_tells_every_attempt_over_restarts(self, daemon: Daemon, agentctl: Agentctl) -> None:
        sent = agentctl("send", "builder", "x", "--allow-absent", "--json", name="planner", status=0)
        id = sent.json["id"]
        reasons = [f"attempt number {number}" for number in range(1, 6)]
        for number, reason in enumerate(reasons):
            agentctl("recv", "--hold", "1h", name="builder", status=0)
            agentctl("nack", id, "--reason", reason, name="builder", status=0)
            if number in (1, 3, 4):
                daemon.kill() if number != 3 else daemon.stop()
                daemon.start()
        shown = agentctl("dead", "show", id, "--json", status=0).json
        assert shown["attempts"] == 5 and shown["reason"].endswith(reasons[-1])
        steps = shown["transitions"]
        assert [step["who"] for step in steps if step["state"] == "delivered"] == ["builder"] * 5
        told = [step["note"] for step in steps if step["who"] == "builder" and step.get("note")]
        assert [note.partition(": ")[2] or note for note in told] == reasons
        assert [step["at"] for step in steps] == sorted(step["at"] for step in steps)
        out = agentctl("dead", "show", id, status=0).out
        assert all(reason in out for reason in reasons) and "builder" in out
        agentctl("dead", "requeue", id, name="builder", status=0)
        daemon.kill()
        daemon.start()
        again = agentctl("recv", "--json", name="builder", status=0).json
        assert (again["id"], again["attempt"]) == (id, 1)
        traced = agentctl("trace", id, "--json", status=0).json["transitions"]
        assert traced[-1]["state"] == "acked"
        assert "dead" in [step["state"] for step in traced]

    def test_show_what_is_not_dead(self, agentctl: Agentctl) -> None:
        id = agentctl("send", "x", "hi", "--allow-absent", "--json", name="me", status=0).json["id"]
        assert agentctl("dead", "show", id, "--json", status=66).error["code"] == "no_such_message"

    def test_requeue(self, agentctl: Agentctl, ids: list[str]) -> None:
        shown = agentctl("dead", "requeue", ids[0], "--json", status=0).json
        assert shown == {"requeued": 1, "ids": [ids[0]]}
        again = agentctl("recv", "--json", name="builder", status=0).json
        assert (again["id"], again["body"], again["attempt"]) == (ids[0], "old", 1)

    def test_requeue_all(self, agentctl: Agentctl, ids: list[str]) -> None:
        assert "2 dead letters" in agentctl("dead", "requeue", "--all", status=0).out
        assert agentctl("dead", status=0).out == "No dead letters.\n"
        assert agentctl("dead", "requeue", "--all", "--json", status=0).json == {"requeued": 0, "ids": []}

    def test_drop(self, agentctl: Agentctl, ids: list[str]) -> None:
        assert agentctl("dead", "drop", *ids, "--json", status=0).json == {"dropped": 2, "ids": ids}
        assert agentctl("dead", "--json", status=0).json == {"total": 0, "letters": []}

    def test_usage(self, agentctl: Agentctl) -> None:
        agentctl("dead", "requeue", status=2)
        agentctl("dead", "requeue", "--all", "abcd", status=2)
        agentctl("dead", "drop", status=2)
        agentctl("dead", "bury", status=2)


def test_version(agentctl: Agentctl, daemon: Daemon) -> None:
    view = agentctl("version", "--json", status=0).json
    assert view["protocol"] == 1 and view["daemon"]
    assert view["daemon"] in agentctl("version", status=0).out
    daemon.stop()
    assert agentctl("version", "--json", status=0).json["daemon"] is None
