"""The socket on disk: made in place of a dead daemon's, never of a live one's, and removed only if it is still ours."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from agentd.wire.errors import Busy, NotPermitted

#: Connections the kernel queues while the loop is busy.
BACKLOG = 128


def bind_socket(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A listening socket at `path`, 0600. The caller holds the directory's lock."""
    _check_place(path, kind)
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    making = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        making.unlink(missing_ok=True)
        sock.bind(os.fsencode(making))
        making.chmod(0o600)
        sock.listen(BACKLOG)
        making.rename(path)  # in one step: nobody ever finds a socket that does not listen
    except OSError as error:
        sock.close()
        making.unlink(missing_ok=True)
        raise NotPermitted(f"No socket can be made at {path}: {error.strerror}", "Name another directory.") from None
    return sock


def _check_place(path: Path, kind: int) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise NotPermitted(f"{path} is there and is no socket", "Remove it, or name another in AGENTD_SOCKET.")
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fsencode(path))
        except ConnectionRefusedError:
            return  # a dead daemon's
        except OSError:
            pass
    raise Busy(f"Somebody listens on {path}", "Stop that daemon first, or name another socket in AGENTD_SOCKET.")


def inode_of(path: Path) -> tuple[int, int] | None:
    """What stands at `path` now."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def remove_socket(path: Path, inode: tuple[int, int] | None) -> None:
    """Remove the socket unless another has taken its place."""
    if inode is not None and inode_of(path) == inode:
        path.unlink(missing_ok=True)
