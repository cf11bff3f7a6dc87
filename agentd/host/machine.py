"""What this machine gives a daemon, asked of it: limits, kernel, clock, disk. `agentctl doctor` judges it."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from agentd._native import io_uring_errno
from agentd.host.topology import Topology, clock_source, read_topology

_SO_PEERPIDFD: Final = 77
_F_ADD_SEALS: Final = 1033
_F_SEAL_SHRINK: Final = 0x0002
UNLIMITED: Final = resource.RLIM_INFINITY


class Disk(NamedTuple):
    """The file system that a directory lies on."""

    free_bytes: int
    total_bytes: int
    free_files: int
    read_only: bool


class Machine(NamedTuple):
    """All that was asked."""

    open_files: tuple[int, int]  # soft, hard
    locked_bytes: tuple[int, int]
    io_uring_errno: int
    io_uring_switch: str  # kernel.io_uring_disabled
    missing: tuple[str, ...]  # what the kernel lacks of what agentd uses
    topology: Topology
    realtime: bool  # whether a thread may run as SCHED_FIFO
    clock_source: str
    disks: dict[str, Disk]


def examine(environ: Mapping[str, str], directories: tuple[Path, ...]) -> Machine:
    """Look at everything once."""
    return Machine(
        resource.getrlimit(resource.RLIMIT_NOFILE),
        resource.getrlimit(resource.RLIMIT_MEMLOCK),
        io_uring_errno(),
        _io_uring_switch(),
        tuple(_missing()),
        read_topology(environ),
        os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_RTPRIO)[0] > 0,
        clock_source(environ),
        {str(directory): disk for directory in directories if (disk := disk_of(directory)) is not None},
    )


def why_no_io_uring(refused: int, switch: str) -> str:
    """In words, empty where nothing is refused. Kernels that have the switch, since 6.6, have io_uring."""
    if refused == errno.ENOSYS:
        return "a sandbox hides it (seccomp)" if switch else "this kernel has none"
    if refused and switch not in ("", "0"):
        return f"kernel.io_uring_disabled is {switch}"
    if refused == errno.EPERM:
        return "a sandbox forbids it (seccomp)"
    if refused == errno.ENOMEM:
        return "too little memory may be locked (RLIMIT_MEMLOCK)"
    return os.strerror(refused) if refused else ""


def why_no_io_uring_here() -> str:
    """Tried, not looked up."""
    return why_no_io_uring(io_uring_errno(), _io_uring_switch())


def _io_uring_switch() -> str:
    return _text("/proc/sys/kernel/io_uring_disabled")


def disk_of(directory: Path) -> Disk | None:
    """The file system of a directory that is there, or of where it would be made."""
    while not directory.exists():
        if directory == directory.parent:
            return None
        directory = directory.parent
    try:
        found = os.statvfs(directory)
    except OSError:
        return None
    size = found.f_frsize
    return Disk(found.f_bavail * size, found.f_blocks * size, found.f_favail, bool(found.f_flag & os.ST_RDONLY))


def _missing() -> list[str]:
    found = []
    for name, works in (("pidfd", _pidfd), ("sealed memfd", _memfd), ("eventfd", _eventfd), ("SO_PEERPIDFD", _peer)):
        try:
            works()
        except (OSError, AttributeError):
            found.append(name)
    return found


def _pidfd() -> None:
    os.close(os.pidfd_open(os.getpid()))


def _memfd() -> None:
    fd = os.memfd_create("agentd-probe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        fcntl.fcntl(fd, _F_ADD_SEALS, _F_SEAL_SHRINK)
    finally:
        os.close(fd)


def _eventfd() -> None:
    os.close(os.eventfd(0, os.EFD_CLOEXEC))


def _peer() -> None:
    one, other = socket.socketpair()
    with one, other:
        os.close(one.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
