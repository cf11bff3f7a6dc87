"""`agentctl doctor` on real troubles of a real daemon, with --fix, --json and exit codes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import AGENTCTL, Agentctl
from daemons import Daemon, wait_until

from agentd.host.counters import name_of


def findings(agentctl: Agentctl, *args: str, status: int | None = None, **env: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = agentctl("doctor", "--json", *args, env=env, status=status).json["findings"]
    return rows


def of(rows: list[dict[str, Any]], check: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["check"] == check]


def test_a_healthy_daemon(agentctl: Agentctl) -> None:
    done = agentctl("doctor", status=0)
    assert "error" not in done.out and "warning" not in done.out
    assert done.out.splitlines()[-1].startswith("ok")  # what is in trouble comes first
    view = agentctl("doctor", "--json", status=0).json
    assert view["ok"] and view["fixed"] == []


def test_without_a_daemon(agentctl: Agentctl, daemon: Daemon) -> None:
    daemon.stop()
    out = agentctl("doctor", status=1).out.splitlines()
    assert out[0].startswith("error") and "agentctl daemon start" in out[1]
    daemon.start()


def test_a_killed_daemons_files_are_found_and_removed(agentctl: Agentctl, daemon: Daemon) -> None:
    agentctl("send", "builder", "x", "--allow-absent", status=0)
    segment = Path("/dev/shm") / name_of(daemon.runtime_dir, os.getuid())
    wait_until(segment.exists)
    daemon.kill()
    (daemon.state_dir / "kept.tmp").touch()
    stale = of(findings(agentctl, status=1), "stale files")
    for path in (daemon.socket, segment, daemon.state_dir / "kept.tmp"):
        assert any(str(path) in row["what"] and row["fixable"] and row["severity"] == "warning" for row in stale), path
    assert agentctl("doctor", "--fix", "--json", status=1).json["fixed"]  # the daemon is still down
    for path in (daemon.socket, segment, daemon.state_dir / "kept.tmp"):
        assert not path.exists()
    daemon.start()
    assert agentctl("doctor", "--fix", status=0)
    assert daemon.socket.exists()


def test_somebody_elses_socket_is_never_removed(agentctl: Agentctl, daemon: Daemon, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other.sock"))
        other.listen()
        agentctl("doctor", "--fix", env={"AGENTD_SOCKET": str(tmp_path / "other.sock")}, status=1)
        assert (tmp_path / "other.sock").exists()
    env = {"AGENTD_SOCKET": str(daemon.socket), "AGENTD_RUNTIME_DIR": str(tmp_path / "elsewhere")}
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        agentctl("doctor", "--fix", env=env, status=1)
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert daemon.socket.exists()


def test_a_stopped_daemon_is_named(agentctl: Agentctl, daemon: Daemon) -> None:
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        (row,) = of(findings(agentctl, status=1), "daemon")
        assert "stopped" in row["what"] and row["remedy"] == f"kill -CONT {daemon.pid}"
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


def test_a_stopped_agent_is_named(agentctl: Agentctl, daemon: Daemon) -> None:
    running = agentctl.start("recv", "--follow", name="sleeper")
    wait_until(lambda: any(row["name"] == "sleeper" and row["live"] for row in agents(agentctl)))
    os.kill(running.process.pid, signal.SIGSTOP)
    try:
        (row,) = [row for row in of(findings(agentctl, status=1), "agents") if "sleeper" in row["what"]]
        assert "stopped" in row["what"] and str(running.process.pid) in row["remedy"]
    finally:
        os.kill(running.process.pid, signal.SIGCONT)
    running.end()


def agents(agentctl: Agentctl) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = agentctl("agents", "--json", status=0).json["agents"]
    return rows


def test_dead_letters_are_somebodys(agentctl: Agentctl) -> None:
    id = agentctl("send", "builder", "x", "--allow-absent", "--json", name="me", status=0).json["id"]
    agentctl("reject", id, "--reason", "no", name="builder", status=0)
    (row,) = of(findings(agentctl, status=1), "agents")
    assert "1 dead letter" in row["what"] and "dead list builder" in row["remedy"]


def test_connections_that_were_turned_away(agentctl: Agentctl, daemon: Daemon) -> None:
    daemon.config(connections={"max_half_open": 2})
    half = []
    for _ in range(4):
        half.append(socket.socket(socket.AF_UNIX))
        half[-1].connect(str(daemon.socket))
    wait_until(lambda: of(findings(agentctl), "connections"))
    for one in half:
        one.close()


def test_limits_of_open_files(agentctl: Agentctl, daemon: Daemon) -> None:
    done = subprocess.run(
        ["prlimit", "--nofile=64:64", *AGENTCTL, "doctor"],
        env=agentctl.env,
        cwd=agentctl.directory,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "open files" in done.stdout


def test_sysfs_of_another_machine(agentctl: Agentctl, tmp_path: Path) -> None:
    source = tmp_path / "sys/devices/system/clocksource/clocksource0/current_clocksource"
    source.parent.mkdir(parents=True)
    source.write_text("acpi_pm\n")
    (row,) = of(findings(agentctl, status=1, AGENTD_SYSFS=str(tmp_path / "sys")), "clock")
    assert "acpi_pm" in row["what"]


def test_a_broken_configuration(agentctl: Agentctl, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[inbox]\nmax_messages = 'many'\n")
    (row,) = of(findings(agentctl, status=1, AGENTD_CONFIG=str(path)), "configuration")
    assert str(path) in row["what"] and row["severity"] == "error"


def test_modes_are_mended_on_wish(agentctl: Agentctl, daemon: Daemon) -> None:
    daemon.state_dir.chmod(0o755)
    assert of(findings(agentctl, status=1), "directories")[0]["fixable"]
    assert f"chmod 700 {daemon.state_dir}" in agentctl("doctor", "--fix", status=0).out
    assert daemon.state_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("state", ["failed", "active"])
def test_what_systemd_says(agentctl: Agentctl, daemon: Daemon, tmp_path: Path, state: str) -> None:
    programs, units = tmp_path / "programs", tmp_path / "config/systemd/user"
    (tmp_path / "xdg/systemd").mkdir(parents=True)
    (tmp_path / "xdg/systemd/private").touch()
    programs.mkdir()
    units.mkdir(parents=True)
    env = {
        "XDG_RUNTIME_DIR": str(tmp_path / "xdg"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    script = f'#!/bin/sh\ncase "$*" in *show*) echo 1 ;; *is-active*) echo {state} ;; esac\n'
    (programs / "systemctl").write_text(script)
    (programs / "systemctl").chmod(0o755)
    (row,) = of(agentctl("doctor", "--json", env=env).json["findings"], "service")
    assert row["remedy"] == "agentctl daemon install"
    (units / "agentd.service").touch()
    (row,) = of(agentctl("doctor", "--json", env=env, status=1).json["findings"], "service")
    assert row["severity"] == ("error" if state == "failed" else "warning")
    assert ("has failed" if state == "failed" else str(daemon.pid)) in row["what"]
