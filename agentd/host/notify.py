"""What the service manager is told: READY=1, STATUS=, WATCHDOG=1, STOPPING=1, as datagrams to $NOTIFY_SOCKET
(sd_notify(3))."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """The way to the service manager. Telling it something never waits and never fails: it is not our life."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def __bool__(self) -> bool:
        """Whether anybody listens."""
        return self._socket is not None

    def tell(self, *assignments: str) -> None:
        """Send `READY=1` and their like, together."""
        if self._socket is None or self._address is None:
            return
        try:
            self._socket.sendto("\n".join(assignments).encode(), self._address)
        except BlockingIOError:
            pass  # it is behind with its reading; the next word will tell it
        except OSError as error:
            log.warning("the service manager does not listen any more: %s", error.strerror)
            self.close()

    def close(self) -> None:
        """No more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _address(path: str) -> bytes | None:
    """A path, or a name in the abstract namespace, which is written with an @."""
    if path.startswith("@"):
        return b"\0" + os.fsencode(path[1:])
    return os.fsencode(path) if path.startswith("/") else None


def watchdog_s(environ: Mapping[str, str], pid: int) -> float | None:
    """How often the service manager wants to hear of us, in seconds; None when it does not."""
    usec, whose = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (whose and whose != str(pid)):
        return None
    return int(usec) / 1e6
