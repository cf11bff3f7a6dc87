"""After agentd came back: pairs that go on without it, and are believed when both their ends present the same one."""

from __future__ import annotations

import fcntl
import logging
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from agentd.hub.session import Session
from agentd.wire import grants
from agentd.wire.errors import AgentdError

if TYPE_CHECKING:
    from agentd.server.direct import Direct
    from agentd.server.served import ServedSession

log = logging.getLogger(__name__)

_SEALS: Final = 0x0001 | 0x0002 | 0x0004  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW
_F_GET_SEALS: Final = 1034


class Evidence(NamedTuple):
    """What one end showed."""

    session: ServedSession
    packet: grants.Present
    memory: tuple[int, int, int]  # device, inode, size


class Presented:
    """Those of which one end has come so far."""

    def __init__(self, direct: Direct) -> None:
        self._direct = direct
        self.by_number: dict[int, Evidence] = {}

    def take(self, session: ServedSession, packet: grants.Present, fd: int) -> None:
        """One end presents its pair."""
        number = packet.number
        known = self._direct.server.hub.pairs.by_number.get(number)
        if known is not None and session in (known.sender, known.receiver):
            return  # only its grants socket was lost, and the daemon lived on
        memory = _identity(fd)
        if memory is None or packet.lane not in grants.PRIORITIES:
            self._deny(session, number, "its memory is no pair's")
            return
        mine = Evidence(session, packet, memory)
        other = self.by_number.pop(number, None)
        if other is not None and (other.session is session or other.session.closed):
            other = None
        if other is None:
            if len(self.by_number) >= self._direct.limits.max_pairs:
                self._deny(session, number, "too many pairs are presented")
                return
            self.by_number[number] = mine
            self._direct.server.loop.call_later(self._direct.limits.return_s, self._alone, number, mine)
            return
        sender, receiver = (mine, other) if packet.sends else (other, mine)
        why = self._difference(sender, receiver)
        if not why:
            try:
                self._direct.believe(sender.session, receiver.session, sender.packet)
            except AgentdError as error:
                why = error.message
        if why:
            log.warning("pair %d is not believed: %s", number, why)
            self._deny(mine.session, number, why)
            self._deny(other.session, number, why)

    def session_gone(self, session: Session) -> None:
        """What it showed is worth nothing: it comes back as another one, or not at all."""
        for number in [number for number, kept in self.by_number.items() if kept.session is session]:
            del self.by_number[number]

    def _difference(self, sender: Evidence, receiver: Evidence) -> str:
        """What the two ends do not agree on; empty when they do."""
        ours, theirs = sender.packet, receiver.packet
        if ours.sends == theirs.sends or not ours.sends:
            return "two ends of one kind"
        if sender.memory != receiver.memory:
            return "not the same memory"
        if _shape(ours) != _shape(theirs):
            return "not the same lane or sizes"
        if theirs.peer != sender.session.name or ours.peer != receiver.session.name:
            return "not these two agents"
        if not receiver.session.takes:
            return f"{receiver.session.name}'s mail is taken by another session"
        if ours.number in self._direct.server.hub.pairs.by_number:
            return "its number belongs to another pair by now"
        return ""

    def _alone(self, number: int, evidence: Evidence) -> None:
        """The other end has not come."""
        if self.by_number.get(number) is evidence:
            del self.by_number[number]
            self._deny(evidence.session, number, "the other end has not come back")

    def _deny(self, session: ServedSession, number: int, why: str) -> None:
        end = self._direct.end_of(session)
        if end is not None:
            end.connection.say(grants.Closed(number, why))


def _shape(packet: grants.Present) -> tuple[int, int, int, int]:
    return packet.lane, packet.ring_bytes, packet.verdict_bytes, packet.pool_bytes


def _identity(fd: int) -> tuple[int, int, int] | None:
    """Which memory that is; None unless it is sealed as a pair's is."""
    try:
        if fcntl.fcntl(fd, _F_GET_SEALS) & _SEALS != _SEALS:
            return None
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size
