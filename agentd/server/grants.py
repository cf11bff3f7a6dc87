"""The grants socket, where a session will ask for a direct lane. This version has none, and says so at once: the socket
unit has the socket from the beginning, and whoever connects to it must not be left waiting."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Final

from agentd.wire.errors import LaneUnavailable

_MAX_A_TURN: Final = 16


class GrantsDoor:
    """Tells each caller why not, in one packet: an error as the JSON face writes it."""

    def __init__(self, sock: socket.socket, reason: str) -> None:
        self._socket = sock
        error = LaneUnavailable(f"No direct lane: {reason}", "Send with priority normal.")
        said = {"code": error.code, "message": error.message, "hint": error.hint}
        self._answer = json.dumps({"error": said}).encode()
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on."""
        self._loop = loop
        loop.add_reader(self._socket.fileno(), self._turn_away)

    def _turn_away(self) -> None:
        for _ in range(_MAX_A_TURN):
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return
            with caller:
                caller.setblocking(False)
                with contextlib.suppress(OSError):
                    caller.send(self._answer, socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """Let go of our descriptor; the service manager listens on."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
