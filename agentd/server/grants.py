"""The grants socket: where sessions are introduced to each other, because only here descriptors travel.

One connection a session, for its life. Its first packet is the token that the session got on its main connection: once,
for a few seconds, from the same process.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from typing import TYPE_CHECKING, Any, Final

from agentd.server.reaper import peer_of
from agentd.wire import grants
from agentd.wire.errors import AgentdError

if TYPE_CHECKING:
    from agentd.server.direct import Direct
    from agentd.server.served import ServedSession

log = logging.getLogger(__name__)

_MAX_A_TURN: Final = 16
#: Descriptors are closed, and never inherited.
_FLAGS: Final = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
#: Connections that have not shown their token yet.
_MAX_STRANGERS: Final = 64


class GrantsDoor:
    """Listens there."""

    def __init__(self, direct: Direct, sock: socket.socket) -> None:
        self._direct = direct
        self._socket = sock
        self._strangers: set[GrantsConnection] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on."""
        self._loop = loop
        loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_MAX_A_TURN):
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            sock.setblocking(False)
            if peer_of(sock).uid != os.getuid() or len(self._strangers) >= _MAX_STRANGERS:
                sock.close()
                continue
            assert self._loop is not None
            connection = GrantsConnection(self._direct, sock, self._loop, self._strangers)
            self._strangers.add(connection)

    def close(self) -> None:
        """No more. Sessions that are attached stay so."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop = None
        for stranger in list(self._strangers):
            stranger.close()
        self._socket.close()


class GrantsConnection:
    """One session's."""

    def __init__(
        self,
        direct: Direct,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        strangers: set[GrantsConnection],
    ) -> None:
        self._direct = direct
        self._socket = sock
        self._loop = loop
        self._strangers = strangers
        self._session: ServedSession | None = None
        self.pid = peer_of(sock).pid
        self._late: asyncio.TimerHandle | None = loop.call_later(direct.limits.token_s, self.close)
        loop.add_reader(sock.fileno(), self._read)

    def _read(self) -> None:
        for _ in range(_MAX_A_TURN):
            fds: list[int] = []
            try:
                data, fds, flags, _ = socket.recv_fds(self._socket, grants.MAX_PACKET_BYTES, grants.MAX_FDS, _FLAGS)
            except BlockingIOError:
                return
            except OSError:
                data, flags = b"", 0
            try:
                if not data:
                    self.close()
                    return
                if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
                    raise ValueError("a packet or its descriptors are too many")
                self._take(data, fds)
            except (ValueError, AgentdError) as error:
                log.warning("pid %d on the grants socket: %s", self.pid, error)
                self.close()
                return
            finally:
                for fd in fds:  # whoever keeps one has made it its own
                    os.close(fd)

    def _take(self, data: bytes, fds: list[int]) -> None:
        if self._session is None:
            self._strangers.discard(self)
            session = self._direct.redeem(data, self.pid)
            if session is None:
                raise ValueError("no such token, or too late")
            assert self._late is not None
            self._late.cancel()
            self._session = session
            self._direct.attached(session, self)
            return
        packet: Any = grants.decode_client(data)
        self._direct.heard(self._session, packet, fds)

    def say(self, packet: grants.DaemonPacket, *fds: int) -> bool:
        """Send a packet; False where the client does not read: it is ended then, its socket holds hundreds."""
        try:
            socket.send_fds(self._socket, [grants.encode(packet)], list(fds), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno != errno.EPIPE:  # who has just left is no news
                log.warning("pid %d on the grants socket: %s", self.pid, error.strerror)
            self._loop.call_soon(self.close)
            return False
        return True

    def refuse(self, cid: int, error: AgentdError) -> None:
        """No pair, and why: a long reason, the receiver's own perhaps, is cut to what the client can read."""
        most = grants.MAX_TEXT
        self.say(grants.Refused(cid, error.code, error.message[:most], error.hint[:most], error.retry_after))

    def close(self) -> None:
        """The session is attached no more; what pairs it has go on."""
        self._strangers.discard(self)
        if self._late is not None:
            self._late.cancel()
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        with contextlib.suppress(OSError):
            self._socket.close()
        if self._session is not None:
            self._direct.detached(self._session, self)
