"""What doctor looks at on the machine, one function a check. checks_daemon.py has those about the daemon's own word."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from agentd.cli import show
from agentd.cli.patient import ERROR, NOTICE, OK, WARNING, Finding, Patient
from agentd.host.machine import UNLIMITED, why_no_io_uring
from agentd.host.process import connections_for, files_for
from agentd.wire.errors import AgentdError
from agentd.wire.messages import Priority
from agentd.wire.paths import MAX_SOCKET_PATH_BYTES, is_shared_place

_MIN_FREE_BYTES: Final = 64 << 20
_LOW_PART: Final = 0.05
_MIN_FREE_FILES: Final = 1000
#: What one direct pair of each fast lane locks into memory, with room for a few.
_LOCKED_BYTES: Final = 8 << 20
_GOOD_CLOCKS: Final = ("tsc", "arch_sys_counter", "kvm-clock", "riscv_clocksource", "hyperv_clocksource_tsc_page")


def directories(patient: Patient) -> Iterator[Finding]:
    """Ours, and nobody else's."""
    for variable, path in patient.directories.items():
        yield _directory(patient, variable, path)


def _directory(patient: Patient, variable: str, path: Path) -> Finding:
    name = "directories"
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return Finding(name, OK, f"{path} is not there yet: the daemon makes it")
    except OSError as error:
        return Finding(name, ERROR, f"{path} can't be looked at: {error.strerror}", f"Name another in {variable}.")
    if not stat.S_ISDIR(found.st_mode):
        return Finding(name, ERROR, f"{path} is no directory", f"Remove it, or name another in {variable}.")
    if found.st_uid != patient.uid:
        return Finding(
            name,
            ERROR,
            f"{path} belongs to uid {found.st_uid}, not to uid {patient.uid}",
            f"Name a directory of yours in {variable}.",
        )
    if found.st_mode & 0o077:

        def close_up() -> str:
            path.chmod(0o700)
            return f"chmod 700 {path}"

        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        return Finding(name, ERROR, f"{path} has mode {mode}: others can reach into it", f"chmod 700 {path}", close_up)
    if not os.access(path, os.W_OK | os.X_OK):
        return Finding(name, ERROR, f"{path} can't be written", f"Mend its mode, or name another in {variable}.")
    return Finding(name, OK, f"{path} is yours alone")


def socket(patient: Patient) -> Iterator[Finding]:
    """Where clients look for the daemon."""
    name, path = "socket", patient.socket
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        yield Finding(
            name,
            ERROR,
            f"{path} is longer than the {MAX_SOCKET_PATH_BYTES} bytes that a socket's path may have",
            "Set AGENTD_RUNTIME_DIR to a shorter directory.",
        )
        return
    if is_shared_place(str(patient.runtime_dir), patient.uid):
        yield Finding(
            name,
            WARNING,
            f"There is no XDG_RUNTIME_DIR, so the sockets lie in {patient.runtime_dir}, which others could take first",
            "Log in through a session that sets XDG_RUNTIME_DIR, or set AGENTD_RUNTIME_DIR.",
        )
    parent = path.parent
    try:
        found = os.lstat(parent)
    except OSError:
        return
    if parent != patient.runtime_dir and (found.st_uid not in (patient.uid, 0) or found.st_mode & 0o022):
        yield Finding(
            name,
            WARNING,
            f"{parent} belongs to uid {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}: "
            f"somebody else could put another socket in the place of {path}",
            "Set AGENTD_SOCKET to a place in a directory that only you can write.",
        )
    try:
        place = os.lstat(path)
    except OSError:
        return
    if not stat.S_ISSOCK(place.st_mode):
        yield Finding(name, ERROR, f"{path} is there and is no socket", f"Remove {path}, or unset AGENTD_SOCKET.")


def configuration(patient: Patient) -> Iterator[Finding]:
    """Whether a daemon would start with it."""
    from agentd.host.config import KEYS, load_config, unheard
    from agentd.wire.paths import config_path

    name = "configuration"
    path = Path(config_path(patient.environ))
    try:
        _, origins = load_config(path, patient.environ, required=bool(patient.environ.get("AGENTD_CONFIG")))
    except AgentdError as error:
        yield Finding(name, ERROR, error.message, error.hint or "`agentctl config check` tells more.")
        return
    for variable, near in unheard(patient.environ):
        remedy = f"Did you mean {near}?" if near else "`agentctl config show` lists the settings."
        yield Finding(name, WARNING, f"{variable} in the environment is no setting: agentd passes over it", remedy)
    where = str(path) if path.exists() else "defaults"
    yield Finding(name, OK, f"{where}: {len(origins)} of {len(KEYS)} settings are set")


def open_files(patient: Patient) -> Iterator[Finding]:
    """Room for the connections that the configuration allows."""
    from agentd.host.config import load_config
    from agentd.wire.paths import config_path

    name = "open files"
    try:
        config, _ = load_config(Path(config_path(patient.environ)), patient.environ, required=False)
    except AgentdError:
        return  # said by `configuration`
    configured = config.connections.max_connections
    wanted = files_for(configured)
    soft, hard = patient.machine.open_files
    if hard != UNLIMITED and hard < wanted:
        connections, attached = connections_for(hard, configured)
        yield Finding(
            name,
            WARNING if connections < configured else NOTICE,
            f"The hard limit of {hard} open files allows {connections} connections, {configured} are configured; "
            f"{attached} of them can be attached to shared memory, the others are relayed",
            f"LimitNOFILE={wanted} in the service, or a lower connections.max_connections.",
        )
    else:
        shown = "no limit" if hard == UNLIMITED else f"{soft} now, up to {hard}"
        yield Finding(name, OK, f"{shown}; {wanted} are wanted")


def locked_memory(patient: Patient) -> Iterator[Finding]:
    """For lanes that must not fault a page."""
    _, hard = patient.machine.locked_bytes
    if hard != UNLIMITED and hard < _LOCKED_BYTES:
        yield Finding(
            "locked memory",
            NOTICE,
            f"{show.size(hard)} may be locked: direct lanes will have to do without for more than a few pairs",
            f"LimitMEMLOCK={_LOCKED_BYTES} in the service, or a line in /etc/security/limits.d.",
        )
    else:
        yield Finding("locked memory", OK, "no limit" if hard == UNLIMITED else f"up to {show.size(hard)}")


def io_uring(patient: Patient) -> Iterator[Finding]:
    """Whether the HIGH lane and the journal may use it; without, they have another way."""
    refused, switch = patient.machine.io_uring_errno, patient.machine.io_uring_switch
    why = why_no_io_uring(refused, switch)
    if not why:
        yield _io_uring_of_daemon(patient)
        return
    if "seccomp" in why:
        remedy = "Let the seccomp profile of the container or service allow io_uring_setup, _enter, _register."
    elif refused == errno.ENOSYS:
        remedy = "Linux 5.1 and later have it."
    elif refused == errno.EPERM:
        remedy = "As root: sysctl kernel.io_uring_disabled=0"
    else:
        remedy = "Let more memory be locked: LimitMEMLOCK= in the service, or a line in /etc/security/limits.d."
    yield Finding("io_uring", NOTICE, f"can't be used: {why}; agentd does without, a little slower", remedy)


def _io_uring_of_daemon(patient: Patient) -> Finding:
    """Where we may: the daemon may live in a sandbox of its own, or be told to have its senders do without."""
    lanes = [] if patient.status is None else patient.status.lanes
    said = next((lane.reason for lane in lanes if lane.lane is Priority.HIGH), "")
    if "without io_uring" not in said:
        return Finding("io_uring", OK, "can be used")
    return Finding(
        "io_uring",
        NOTICE,
        f"can be used here, yet agentd says of its lane high: {said}",
        "See high.io_uring in the configuration, and the sandbox that the daemon runs in.",
    )


def kernel(patient: Patient) -> Iterator[Finding]:
    """What agentd is built on."""
    missing = set(patient.machine.missing)
    needed = missing - {"SO_PEERPIDFD"}
    if needed:
        yield Finding("kernel", ERROR, f"It lacks {', '.join(sorted(needed))}", "Linux 5.4 and later have them.")
    elif missing:
        yield Finding(
            "kernel",
            NOTICE,
            "It lacks SO_PEERPIDFD: a process is then known by its number",
            "Linux 6.5 and later have it.",
        )
    else:
        yield Finding("kernel", OK, f"Linux {os.uname().release} has all that agentd uses")


def cores(patient: Patient) -> Iterator[Finding]:
    """Where the threads of the CRITICAL lane can be pinned."""
    found = patient.machine.topology
    realtime = ", as SCHED_FIFO" if patient.machine.realtime else ", at the usual priority (LimitRTPRIO=1 allows more)"
    if len(found.allowed) == 1:
        yield Finding(
            "cores", NOTICE, "One core: nobody can spin while somebody else works", "Direct lanes then sleep at once."
        )
    elif found.kind == "uniform":
        yield Finding(
            "cores", OK, f"{len(found.allowed)}, all alike ({found.source}): any will do for a pinned thread{realtime}"
        )
    elif not found.performance:
        yield Finding(
            "cores",
            NOTICE,
            f"None of the fast cores may be used here, only {_list(found.allowed)}",
            "Let the container or the service (AllowedCPUs=, taskset) use a fast core.",
        )
    else:
        yield Finding(
            "cores", OK, f"fast ones by {found.source}: {_list(found.performance)} of {_list(found.allowed)}{realtime}"
        )


def _list(cpus: tuple[int, ...]) -> str:
    return ",".join(map(str, cpus))


def clock(patient: Patient) -> Iterator[Finding]:
    """Reading the time is done for every message."""
    source = patient.machine.clock_source
    if source and source not in _GOOD_CLOCKS:
        yield Finding(
            "clock",
            WARNING,
            f"The kernel tells the time by {source}: each reading is a system call of a microsecond or more",
            "See `dmesg | grep -i clocksource` for why tsc was given up; in a virtual machine, its host's settings.",
        )
    else:
        yield Finding("clock", OK, source or "unknown")


def disk(patient: Patient) -> Iterator[Finding]:
    """Room for what outlives the daemon."""
    for path, found in patient.machine.disks.items():
        free = f"{show.size(found.free_bytes)} free"
        if found.read_only:
            yield Finding("disk", ERROR, f"{path} lies on a read-only file system", "Name another in AGENTD_STATE_DIR.")
        elif found.free_bytes < _MIN_FREE_BYTES or found.free_files < _MIN_FREE_FILES:
            files = "" if found.free_files >= _MIN_FREE_FILES else f", {found.free_files} files"
            yield Finding("disk", ERROR, f"{path}: {free}{files}", "Make room: kept mail could not be written down.")
        elif found.free_bytes < found.total_bytes * _LOW_PART:
            yield Finding("disk", WARNING, f"{path}: {free} of {show.size(found.total_bytes)}", "Make room.")
        else:
            yield Finding("disk", OK, f"{path}: {free}")


MACHINE_CHECKS: Final[tuple[Callable[[Patient], Iterator[Finding]], ...]] = (
    directories,
    socket,
    configuration,
    open_files,
    locked_memory,
    io_uring,
    kernel,
    cores,
    clock,
    disk,
)
