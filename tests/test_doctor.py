"""Every trouble that doctor knows is staged here, or through the real command in test_cli_doctor.py, and found."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentd.cli import checks, checks_daemon
from agentd.cli.doctor import diagnose
from agentd.cli.patient import ERROR, NOTICE, OK, WARNING, Finding, Patient
from agentd.host.arguments import VERSION
from agentd.host.machine import Disk, Machine
from agentd.host.topology import Topology
from agentd.wire.errors import Unreachable
from agentd.wire.messages import AgentView, DiskView, LaneView, Priority, StatusView

GIB = 1 << 30


@pytest.fixture
def well(tmp_path: Path) -> Patient:
    """Nothing is wrong with this one."""
    run, state = tmp_path / "run", tmp_path / "state"
    for path in (run, state):
        path.mkdir(mode=0o700)
    machine = Machine(
        open_files=(1024, 1 << 16),
        locked_bytes=(64 << 20, 64 << 20),
        io_uring_errno=0,
        io_uring_switch="0",
        missing=(),
        topology=Topology((0, 1), (0, 1), (0, 1), "uniform", "test"),
        realtime=True,
        clock_source="tsc",
        disks={str(state): Disk(10 * GIB, 20 * GIB, 1_000_000, False)},
    )
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    status = StatusView(0, VERSION, os.getpid(), "boot", 5.0, "sock", "kept so", 1, 1, 1, 0, 0, 0, False, [])
    return Patient(environ, os.getuid(), run, state, run / "agentd.sock", machine, status)


def worst(patient: Patient) -> list[Finding]:
    return [finding for finding in diagnose(patient) if finding.severity in (ERROR, WARNING)]


def test_who_is_well_is_told_so(well: Patient) -> None:
    assert worst(well) == []
    assert {finding.check for finding in diagnose(well) if finding.severity == OK} >= {"daemon", "disk", "clock"}


def agent(**fields: Any) -> AgentView:
    usual: dict[str, Any] = {"name": "builder", "live": True, "pid": None, "command": None, "waiting": 0, "held": 0}
    usual |= {"dead": 0, "bytes": 0, "oldest_s": None, "seen_s": 0.0}
    return AgentView(**{**usual, **fields})


def on_machine(**fields: Any) -> Callable[[Patient], Patient]:
    return lambda patient: patient._replace(machine=patient.machine._replace(**fields))


def with_status(**fields: Any) -> Callable[[Patient], Patient]:
    def change(patient: Patient) -> Patient:
        assert patient.status is not None
        for name, value in fields.items():
            setattr(patient.status, name, value)
        return patient

    return change


def with_disk(**fields: Any) -> Callable[[Patient], Patient]:
    def change(patient: Patient) -> Patient:
        disks = {path: disk._replace(**fields) for path, disk in patient.machine.disks.items()}
        return patient._replace(machine=patient.machine._replace(disks=disks))

    return change


def with_mode(patient: Patient) -> Patient:
    patient.runtime_dir.chmod(0o755)
    return patient


def with_file_for_directory(patient: Patient) -> Patient:
    patient.state_dir.rmdir()
    patient.state_dir.touch()
    return patient


def with_foreign_parent(patient: Patient) -> Patient:
    other = patient.runtime_dir.parent / "open"
    other.mkdir()
    other.chmod(0o777)
    return patient._replace(socket=other / "agentd.sock")


def with_file_for_socket(patient: Patient) -> Patient:
    patient.socket.touch()
    return patient


def with_configuration(text: str) -> Callable[[Patient], Patient]:
    def change(patient: Patient) -> Patient:
        path = patient.runtime_dir.parent / "config" / "agentd" / "config.toml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        return patient

    return change


def with_environ(**more: str) -> Callable[[Patient], Patient]:
    return lambda patient: patient._replace(environ={**patient.environ, **more})


HIGH_WITHOUT = LaneView(Priority.HIGH, True, "shared memory without io_uring: high.io_uring is false, 0 pairs")
DOWN = Unreachable("No agentd answers")

#: The check, how bad, a word of what it must say, and what makes it so.
TROUBLES: list[tuple[str, str, str, Callable[[Patient], Patient]]] = [
    ("directories", ERROR, "0755", with_mode),
    ("directories", ERROR, "no directory", with_file_for_directory),
    ("directories", ERROR, "belongs to uid", lambda patient: patient._replace(uid=patient.uid + 1)),
    ("socket", ERROR, "longer than", lambda patient: patient._replace(socket=Path("/" + "x" * 120))),
    ("socket", WARNING, "could put another", with_foreign_parent),
    ("socket", ERROR, "is no socket", with_file_for_socket),
    (
        "socket",
        WARNING,
        "XDG_RUNTIME_DIR",
        lambda patient: patient._replace(runtime_dir=Path(f"/tmp/agentd-{patient.uid}")),
    ),
    ("configuration", ERROR, "max_mesages", with_configuration("[inbox]\nmax_mesages = 1\n")),
    ("configuration", WARNING, "AGENTD_INBOX_MAX_MESAGES", with_environ(AGENTD_INBOX_MAX_MESAGES="1")),
    ("open files", NOTICE, "1472 of them can be attached", on_machine(open_files=(1024, 20_000))),
    ("open files", WARNING, "128", on_machine(open_files=(64, 128))),
    ("locked memory", NOTICE, "64.0 KiB", on_machine(locked_bytes=(65536, 65536))),
    ("io_uring", NOTICE, "disabled is 2", on_machine(io_uring_errno=errno.EPERM, io_uring_switch="2")),
    ("io_uring", NOTICE, "seccomp", on_machine(io_uring_errno=errno.EPERM)),
    ("io_uring", NOTICE, "hides it (seccomp)", on_machine(io_uring_errno=errno.ENOSYS)),
    ("io_uring", NOTICE, "RLIMIT_MEMLOCK", on_machine(io_uring_errno=errno.ENOMEM)),
    ("io_uring", NOTICE, "high.io_uring is false", with_status(lanes=[HIGH_WITHOUT])),
    ("io_uring", NOTICE, "kernel has none", on_machine(io_uring_errno=errno.ENOSYS, io_uring_switch="")),
    ("kernel", ERROR, "pidfd", on_machine(missing=("pidfd",))),
    ("kernel", NOTICE, "SO_PEERPIDFD", on_machine(missing=("SO_PEERPIDFD",))),
    ("cores", NOTICE, "One core", on_machine(topology=Topology((0,), (0,), (0,), "uniform", "test"))),
    ("cores", NOTICE, "fast cores", on_machine(topology=Topology((0, 1, 2), (1, 2), (), "hybrid", "test"))),
    ("clock", WARNING, "hpet", on_machine(clock_source="hpet")),
    ("disk", ERROR, "10.0 MiB", with_disk(free_bytes=10 << 20)),
    ("disk", ERROR, "3 files", with_disk(free_files=3)),
    ("disk", WARNING, "of 10000", with_disk(free_bytes=GIB, total_bytes=10_000 * GIB)),
    ("disk", ERROR, "read-only", with_disk(read_only=True)),
    ("daemon", WARNING, "stopping", with_status(draining=True)),
    ("daemon", ERROR, "does not run", lambda patient: patient._replace(status=None, silence=DOWN)),
    ("version", WARNING, "9.9", with_status(daemon="9.9")),
    ("agents", WARNING, "inbox full", lambda p: p._replace(agents=(agent(trouble="inbox full"),))),
    ("agents", WARNING, "over its rate", lambda p: p._replace(agents=(agent(trouble="over its rate", limited=3),))),
    (
        "unread mail",
        NOTICE,
        "2 messages",
        lambda p: p._replace(agents=(agent(live=False, waiting=2, oldest_s=90_000.0),)),
    ),
    ("unread mail", WARNING, "builder", lambda p: p._replace(agents=(agent(live=False, waiting=1, oldest_s=1e6),))),
    (
        "unread mail",
        WARNING,
        "sub:ci is a subscription that nobody reads",
        lambda p: p._replace(agents=(agent(name="sub:ci", live=False, waiting=1, oldest_s=1e6),)),
    ),
    ("journal", WARNING, "builder", with_status(disk=DiskView(600, 1000, 10 * GIB, 0, "", "builder", 3))),
    ("journal", ERROR, "max_bytes", with_status(disk=DiskView(600, 1000, 10 * GIB, 0, "max_bytes", None, 0))),
    ("persistence", NOTICE, "kept so", lambda patient: patient),
    ("service", NOTICE, "No systemd", lambda patient: patient),
]


@pytest.mark.parametrize(
    ("check", "severity", "word", "staged"), TROUBLES, ids=[f"{row[0]}: {row[2]}" for row in TROUBLES]
)
def test_a_trouble_is_found_with_its_remedy(
    well: Patient, check: str, severity: str, word: str, staged: Callable[[Patient], Patient]
) -> None:
    if check not in ("persistence", "service"):
        assert not [finding for finding in diagnose(well) if finding.check == check and word in finding.what]
    found = [finding for finding in diagnose(staged(well)) if finding.check == check and word in finding.what]
    assert {finding.severity for finding in found} == {severity}
    assert found[0].remedy


def test_every_check_has_a_trouble() -> None:
    """Those that need a real daemon or a real systemd are staged in test_cli_doctor.py."""
    staged = {row[0] for row in TROUBLES} | {"stale files", "connections"}
    names = {function.__name__ for function in (*checks.MACHINE_CHECKS, *checks_daemon.DAEMON_CHECKS)}
    spoken = {"crowds": "connections", "promises": "persistence"}
    assert {spoken.get(name, name.replace("_", " ")).replace("io uring", "io_uring") for name in names} == staged


def test_it_is_told_where_a_fix_is_safe(well: Patient) -> None:
    (finding,) = [one for one in diagnose(with_mode(well)) if one.check == "directories" and one.fix is not None]
    assert finding.fix is not None
    assert "chmod 700" in finding.fix()
    assert worst(well) == []
