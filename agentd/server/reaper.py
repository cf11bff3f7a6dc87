"""Death, seen at once: a pidfd for the process behind each connection.

The end of the socket alone is not enough: a child that inherited the descriptor keeps it open after its parent died.
The pidfd names the process itself, so a pid used again is never mistaken for it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import Callable
from typing import NamedTuple

#: Not in the socket module of CPython 3.11; Linux 6.5.
_SO_PEERPIDFD = getattr(socket, "SO_PEERPIDFD", 77)


class Peer(NamedTuple):
    """Who is at the other end, as the kernel knows it: at the time of connect."""

    pid: int
    uid: int


def peer_of(sock: socket.socket) -> Peer:
    """The process at the other end of a Unix socket."""
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return Peer(pid, uid)


def last_words(sock: socket.socket) -> bytes:
    """What a process that has ended wrote before, and nobody has read. A child of it may go on writing: that is not
    waited for."""
    fd = sock.fileno()
    try:
        waiting = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
        return os.read(fd, waiting) if waiting else b""
    except OSError:
        return b""


class Reaper:
    """Watches processes, one pidfd a connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def watch(self, sock: socket.socket, pid: int, gone: Callable[[], None]) -> int | None:
        """Call `gone` once the process behind `sock` has ended; the pidfd to `unwatch`, None where there is none (the
        end of the socket still tells)."""
        try:
            pidfd = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
            os.set_inheritable(pidfd, False)
        except OSError:
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                return None
        self._loop.add_reader(pidfd, gone)
        return pidfd

    def unwatch(self, pidfd: int) -> None:
        """Let the process be."""
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
