"""Sessions that somebody wants to send to before they read a direct lane: they are asked to attach, and those who wait
for it are answered, one way or the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from agentd.hub.session import Session
from agentd.wire import grants
from agentd.wire.errors import LimitReached
from agentd.wire.messages import Invitation, Priority

if TYPE_CHECKING:
    from agentd.server.direct import Direct
    from agentd.server.served import ServedSession

_MAX_WAITING: Final = 64
#: How long an invited agent has to attach.
_INVITED_S: Final = 5.0

Waiting = tuple["ServedSession", grants.Open]


class Invitations:
    """By the session that is to attach, and the lane that it is to read."""

    def __init__(self, direct: Direct) -> None:
        self._direct = direct
        self._waiting: dict[tuple[Session, Priority], list[Waiting]] = {}
        self._until: dict[tuple[Session, Priority], asyncio.TimerHandle] = {}  # when it is too late

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def invite(self, session: ServedSession, lane: Priority) -> None:
        """Ask it, unless it was asked and has not answered."""
        if (session, lane) not in self._waiting:
            self._waiting[session, lane] = []
            session.push(Invitation(lane))
            loop = self._direct.server.loop
            self._until[session, lane] = loop.call_later(_INVITED_S, self._not_come, session, lane)

    def wait(self, session: ServedSession, lane: Priority, sender: ServedSession, packet: grants.Open) -> None:
        """Ask it, and grant this one its pair once it reads."""
        self.invite(session, lane)
        waiting = self._waiting[session, lane]
        if len(waiting) >= _MAX_WAITING:
            raise LimitReached(f"{len(waiting)} wait for {session.name} to attach", "Try again in a moment.")
        waiting.append((sender, packet))

    def come(self, session: Session, lane: Priority) -> list[Waiting]:
        """It reads that lane now: those who have waited for it. They wait no longer."""
        timer = self._until.pop((session, lane), None)
        if timer is not None:
            timer.cancel()
        return self._waiting.pop((session, lane), [])

    def refuse(self, session: Session, why: str) -> None:
        """It does not attach, on no lane."""
        for lane in grants.LANES:
            self._refuse(session, lane, why)

    def _refuse(self, session: Session, lane: Priority, why: str) -> None:
        for sender, packet in self.come(session, lane):
            self._direct.refuse(sender, packet.cid, f"No channel to {packet.to}: {why}")

    def _not_come(self, session: ServedSession, lane: Priority) -> None:
        if (session, lane) in self._waiting:
            session.can_attach = False
        self._refuse(session, lane, f"it has not attached within {_INVITED_S:g} s")
