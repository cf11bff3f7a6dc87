"""The thread of an attached client: it reads the grants socket and sees the ends of processes, so that pairs come and
go also while the client's own thread is busy. It sleeps unless something of that happens."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from agentd.wire import grants
from agentd.wire.errors import BadRequest

if TYPE_CHECKING:
    from agentd_client._introductions import Introductions

log = logging.getLogger("agentd_client")

_ANSWER_S: Final = 5.0


class Watcher:
    """Calls `heard`, `peer_gone` and `detached` in its own thread."""

    def __init__(self, direct: Introductions) -> None:
        self._direct = direct
        self._socket: socket.socket | None = None
        self._poll = select.poll()
        self._processes: dict[int, Any] = {}  # pidfd to the pair whose other end that is
        self._todo: deque[Callable[[], None]] = deque()
        self._timed: list[tuple[float, Callable[[], None]]] = []
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._bell, select.POLLIN)
        self._over = False
        self._bell_lock = threading.Lock()  # or it may be closed between a look and a write
        self._thread = threading.Thread(target=self._run, name="agentd-direct", daemon=True)
        self._thread.start()

    # Called from any thread.

    def soon(self, action: Callable[[], None]) -> None:
        """Do that in the watcher's thread; nothing, once that has ended."""
        self._todo.append(action)
        self._ring()

    def _ring(self) -> None:
        with self._bell_lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def connect(self, path: str, token: bytes) -> None:
        """Attach, or attach again."""
        self.soon(lambda: self._connect(path, token))

    def say(self, packet: grants.ClientPacket, *fds: int) -> bool:
        """Send a packet; False where nobody hears it."""
        sock = self._socket
        if sock is None:
            return False
        try:
            socket.send_fds(sock, [grants.encode(packet)], list(fds), socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """The end of the thread."""
        if self._over:
            return
        self._over = True
        self._ring()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def forget(self, pidfd: int) -> None:
        """It does not matter any more: closed in the watcher's thread, which else would watch whatever comes to have
        its number."""

        def close() -> None:
            self.unwatch(pidfd)
            os.close(pidfd)

        if pidfd >= 0:
            self.soon(close)

    # In the thread.

    def watch(self, pidfd: int, pair: Any) -> None:
        """Hear of the end of that process."""
        if pidfd >= 0:
            self._processes[pidfd] = pair
            self._poll.register(pidfd, select.POLLIN)

    def unwatch(self, pidfd: int) -> None:
        """It does not matter any more."""
        if self._processes.pop(pidfd, None) is not None:
            self._poll.unregister(pidfd)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do that after so long."""
        self._timed.append((monotonic() + seconds, action))

    def _run(self) -> None:
        while not self._over:
            for fd, _ in self._poll.poll(self._patience_ms()):
                if fd == self._bell:
                    self._do()
                elif fd in self._processes and _has_ended(fd):
                    pair = self._processes[fd]
                    self.unwatch(fd)
                    self._direct.peer_gone(pair)
                elif self._socket is not None and fd == self._socket.fileno():
                    self._read(self._socket)
        with self._bell_lock:
            bell, self._bell = self._bell, -1
            os.close(bell)
        self._work()
        self._disconnect()

    def _patience_ms(self) -> float | None:
        """Until the next of what is to be done later; does what is due."""
        if not self._timed:
            return None
        now = monotonic()
        due = [action for when, action in self._timed if when <= now]
        self._timed = [timed for timed in self._timed if timed[0] > now]
        for action in due:
            action()
        return 1000 * max(0.0, min(timed[0] for timed in self._timed) - now) if self._timed else None

    def _do(self) -> None:
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            pass
        self._work()

    def _work(self) -> None:
        while self._todo:
            action = self._todo.popleft()
            try:
                action()
            except Exception:  # a defect, but pairs must go on coming and going
                log.exception("a defect in the thread of the direct lanes")

    def _connect(self, path: str, token: bytes) -> None:
        self._disconnect()
        sock: socket.socket | None = None
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.settimeout(_ANSWER_S)
            sock.connect(path)
            sock.send(token, socket.MSG_NOSIGNAL)
        except OSError as error:
            if sock is not None:
                sock.close()
            self._direct.detached(f"{path}: {error.strerror or error}")
            return
        self._socket = sock
        self._poll.register(sock, select.POLLIN)

    def disconnect(self, why: str) -> None:
        """Be attached no more."""
        self._disconnect()
        self._direct.detached(why)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._poll.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _read(self, sock: socket.socket) -> None:
        fds: list[int] = []
        try:
            data, fds, _, _ = socket.recv_fds(
                sock, grants.MAX_PACKET_BYTES, grants.MAX_FDS, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
            )
            packet = grants.decode_daemon(data) if data else None
        except BlockingIOError:
            return
        except (OSError, BadRequest):
            packet = None
        if packet is None:
            for fd in fds:
                os.close(fd)
            self.disconnect("agentd has closed the grants socket")
            return
        self._direct.heard(packet, fds)


def _has_ended(pidfd: int) -> bool:
    """Asked again: in one round of events the descriptor may have become another process's."""
    again = select.poll()
    again.register(pidfd, select.POLLIN)
    return bool(again.poll(0))
