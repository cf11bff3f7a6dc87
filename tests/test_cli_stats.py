"""`agentctl stats` and `lanes`: figures by lane and agent, also of a daemon that does not answer."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from commands import Agentctl
from daemons import Daemon, wait_until

from agentd.host.counters import name_of


def exchange(agentctl: Agentctl, count: int = 3) -> None:
    for _ in range(count):
        agentctl("send", "builder", "12345", "--allow-absent", name="planner", status=0)
        agentctl("recv", name="builder", status=0)


def test_by_lane_and_by_agent(agentctl: Agentctl) -> None:
    exchange(agentctl)
    agentctl("send", "builder", "waits", name="planner", status=0)
    agentctl("send", "nobody", "x", name="planner", status=66)
    wait_until(lambda: agentctl("stats", "--json", status=0).json["refused"] == 1)  # the snapshot is a moment old
    view = agentctl("stats", "--agents", "--json", status=0).json
    (lane,) = view["lanes"]
    assert (lane["name"], lane["sent"], lane["delivered"], lane["acked"], lane["depth"]) == ("normal", 4, 3, 3, 1)
    assert lane["bytes"] == 20
    assert lane["oldest_s"] >= 0
    rows = {row["name"]: row for row in view["agents"]}
    planner, builder = rows["planner"], rows["builder"]
    assert (planner["sent"], planner["bytes"], planner["refused"], planner["delivered"]) == (4, 20, 1, 0)
    assert (builder["sent"], builder["delivered"], builder["acked"], builder["depth"]) == (0, 3, 3, 1)
    latency = builder["latency"]
    assert latency["count"] == 3
    assert 0 < latency["p50_s"] <= latency["p90_s"] <= latency["p99_s"] <= latency["p999_s"] <= latency["longest_s"]


def test_dead_expired_and_refused_are_somebodys(agentctl: Agentctl) -> None:
    id = agentctl("send", "builder", "x", "--allow-absent", "--json", name="planner", status=0).json["id"]
    agentctl("reject", id, "--reason", "no", name="builder", status=0)
    agentctl("send", "builder", "x", "--ttl", "50ms", name="planner", status=0)
    wait_until(lambda: agentctl("stats", "--json", status=0).json["expired"] == 1)
    (row,) = agentctl("stats", "--agent", "builder", "--json", status=0).json["agents"]
    assert (row["dead"], row["expired"]) == (1, 1)


def test_text(agentctl: Agentctl) -> None:
    exchange(agentctl, 1)
    out = agentctl("stats", status=0).out
    assert out.startswith("dead")  # trouble first
    assert "\nnormal " in out
    assert "builder" not in out
    rows = agentctl("stats", "--agents", status=0).out
    assert "\nbuilder " in rows and "\nplanner " in rows
    one = agentctl("stats", "--agent", "builder", status=0).out.splitlines()
    assert len(one) == 2 and one[1].startswith("builder")


def test_unknown_agent(agentctl: Agentctl) -> None:
    assert "--agents" in agentctl("stats", "--agent", "nobody", "--json", status=66).error["hint"]


def test_every_registry_says_how_much_it_has(agentctl: Agentctl) -> None:
    exchange(agentctl, 1)
    registries = agentctl("stats", "--json", status=0).json["registries"]
    assert registries["agents"]["named"] == 2
    assert registries["receipts"]["messages"] == 1
    assert set(registries) >= {"inboxes", "requests", "topics", "deadlines", "rates", "server", "crowding"}


def test_a_stopped_daemon_is_read_all_the_same_and_that_is_said(agentctl: Agentctl, daemon: Daemon) -> None:
    exchange(agentctl)
    wait_until(lambda: agentctl("stats", "--json", status=0).json["acked"] == 3)
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        found = agentctl("stats", status=0).out
        assert str(daemon.pid) in found.splitlines()[0] and "ago" in found.splitlines()[0]
        assert agentctl("stats", "--json", status=0).json["acked"] == 3
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


def test_a_killed_daemon_is_gone_and_that_is_said(agentctl: Agentctl, daemon: Daemon) -> None:
    exchange(agentctl, 1)
    wait_until(lambda: agentctl("stats", "--json", status=0).json["acked"] == 1)
    pid = daemon.pid
    daemon.kill()
    error = agentctl("stats", "--json", status=69).error
    assert "gone" in error["message"] and str(pid) in error["message"]
    daemon.start()
    assert agentctl("stats", "--json", status=0).json["acked"] == 0


def test_an_orderly_stop_leaves_no_segment(agentctl: Agentctl, daemon: Daemon) -> None:
    exchange(agentctl, 1)
    segment = Path("/dev/shm") / name_of(daemon.runtime_dir, os.getuid())
    wait_until(segment.exists)
    daemon.stop()
    assert not segment.exists()
    agentctl("stats", status=69)
    daemon.start()


def test_another_socket_is_asked_itself(agentctl: Agentctl, daemon: Daemon) -> None:
    exchange(agentctl, 1)
    assert agentctl("stats", "--socket", str(daemon.socket), "--json", status=0).json["acked"] == 1


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_watch(agentctl: Agentctl, form: list[str]) -> None:
    watching = agentctl.start("stats", "--watch", "100ms", *form)
    wait_until(lambda: watching.out.count("acked") >= 4, "for two rounds")
    exchange(agentctl, 1)
    if form:
        wait_until(lambda: any(json.loads(line)["acked"] == 1 for line in watching.out.splitlines()[:-1]))
    assert watching.end().status == 130


def test_lanes_show_what_was_measured_beside_the_aim(agentctl: Agentctl) -> None:
    rows = {row["lane"]: row for row in agentctl("lanes", "--json", status=0).json["lanes"]}
    assert (rows["normal"]["aim_s"], rows["normal"]["aim_of"]) == (1e-5, "own_time")
    assert rows["normal"]["latency"].get("count", 0) == 0
    assert rows["critical"]["latency"].get("count", 0) == 0
    exchange(agentctl)
    normal = {row["lane"]: row for row in agentctl("lanes", "--json", status=0).json["lanes"]}["normal"]
    assert normal["latency"]["count"] == 3
    assert normal["own_time"]["count"] >= 12
    assert normal["own_time"]["p50_s"] > 0


def test_a_missed_aim_is_marked(agentctl: Agentctl, daemon: Daemon) -> None:
    daemon.config(aims={"normal_us": 0.001})
    exchange(agentctl, 1)
    (line,) = [line for line in agentctl("lanes", status=0).out.splitlines() if line.startswith("normal")]
    assert "µs!" in line or "ms!" in line
    daemon.config(aims={"normal_us": 1e9})
    exchange(agentctl, 1)
    assert "!" not in agentctl("lanes", status=0).out
