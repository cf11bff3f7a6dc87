"""A receiver of the blocking face. That client hears of agentd only inside its calls, so while agentd is away this one
looks for it between two waits: else who only receives would stay away after a restart."""

from __future__ import annotations

from _thread import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Final

from agentd.wire.errors import AgentdError
from agentd_client._receiver import Receiver, ThreadMessage

if TYPE_CHECKING:
    from agentd_client._reading import Reading
    from agentd_client.blocking import Client

#: So long a look for agentd may take, and so long it waits for mail between two of them.
_LOOK_S: Final = 0.05
_SLICE_S: Final = 0.2


class BlockingReceiver(Receiver):
    """`receive` costs some tens of nanoseconds more than the native one; the others are the native ones."""

    def __init__(self, reading: Reading, client: Client) -> None:
        super().__init__(reading)
        self._client = client
        self._thread = get_ident()
        self._take = self.receive
        self.receive = self._receive
        reading.interrupts = True

    def _receive(self, timeout: float | None = None) -> ThreadMessage | None:
        reading, direct = self._reading, self._reading.direct
        until = None if timeout is None else monotonic() + timeout
        if not direct.away:
            message = self._take(timeout)
            if message is not None or not direct.away:
                return message
        while True:
            if direct.away:
                self._look_for_agentd()
            left = None if until is None else max(0.0, until - monotonic())
            if direct.away:
                left = _SLICE_S if left is None else min(left, _SLICE_S)
            message = self._take(left)
            if message is not None or reading.mailbox.shut or (until is not None and monotonic() >= until):
                return message

    def _look_for_agentd(self) -> None:
        if get_ident() != self._thread:
            return  # the client belongs to the other thread, whose calls do it
        try:
            self._client.drive(self._reading.direct.come_back(monotonic() + _LOOK_S))
        except AgentdError:
            pass

    def close(self) -> None:
        """Give the lane back to inbox()."""
        self._reading.interrupts = False
        super().close()
