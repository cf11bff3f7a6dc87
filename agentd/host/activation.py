"""Sockets that the service manager has opened for us (sd_listen_fds(3)): it listens before we run and after we end."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final, NamedTuple

from agentd.wire.errors import ConfigError

_FIRST_FD: Final = 3
_MAX_FDS: Final = 16
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class Inherited(NamedTuple):
    """What was passed to us. One .socket unit has one name for all of its sockets, so they are told apart by type."""

    main: socket.socket | None = None  # a stream
    grants: socket.socket | None = None  # of whole packets

    def close(self) -> None:
        """Let go of them; the service manager keeps its own."""
        for sock in self:
            if sock is not None:
                sock.close()


def inherited_sockets(environ: MutableMapping[str, str], pid: int) -> Inherited:
    """The sockets that are meant for this process. Takes them out of `environ`, so that no child believes they are its.
    ConfigError for one that agentd has no use for: better to fail at start than to be deaf there."""
    given = {name: environ.pop(name, "") for name in _VARIABLES}
    if given["LISTEN_PID"] != str(pid) or not given["LISTEN_FDS"].isdigit():
        return Inherited()
    count = int(given["LISTEN_FDS"])
    if count > _MAX_FDS:
        raise ConfigError(f"{count} sockets were passed to agentd; it takes two", "See agentd.socket.")
    found: dict[str, socket.socket] = {}
    for fd in range(_FIRST_FD, _FIRST_FD + count):
        os.set_inheritable(fd, False)
        role, sock = _recognized(fd)
        if role in found:
            raise ConfigError(f"Two {role} sockets were passed to agentd", "See agentd.socket.")
        found[role] = sock
    return Inherited(**found)


def _recognized(fd: int) -> tuple[str, socket.socket]:
    hint = "agentd.socket has one ListenStream= and one ListenSequentialPacket=."
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        raise ConfigError(f"Descriptor {fd}, which was passed to agentd, is no socket", hint) from None
    kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    role = {socket.SOCK_STREAM: "main", socket.SOCK_SEQPACKET: "grants"}.get(socket.SocketKind(kind))
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family != socket.AF_UNIX or role is None or not listens:
        raise ConfigError(f"Descriptor {fd}, which was passed to agentd, is no listening Unix socket of its kind", hint)
    sock.setblocking(False)
    return role, sock


def check_same_place(sock: socket.socket, path: Path) -> None:
    """Clients look for the daemon at `path`: ConfigError when the socket that was passed is another."""
    name = os.fsdecode(sock.getsockname())
    if os.path.realpath(name) != os.path.realpath(path):
        raise ConfigError(
            f"The service manager listens at {name}, agentd's clients look at {path}",
            "Make ListenStream= of agentd.socket and AGENTD_RUNTIME_DIR or AGENTD_SOCKET name the same place.",
        )
