"""Tokens: by one of them the grants socket knows which session a connection is. Good once, for a few seconds, from the
session's own process."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from agentd.hub.session import Session
from agentd.wire.grants import TOKEN_BYTES

if TYPE_CHECKING:
    from agentd.server.served import ServedSession


class Tokens:
    """Those that were given out and not shown yet; one a session, the latest."""

    def __init__(self, good_s: float) -> None:
        self._good_s = good_s
        self._given: dict[bytes, tuple[ServedSession, float]] = {}

    def __len__(self) -> int:
        return len(self._given)

    def issue(self, session: ServedSession, now: float) -> bytes:
        """A fresh one."""
        self._given = {
            token: given for token, given in self._given.items() if given[0] is not session and given[1] > now
        }
        token = secrets.token_bytes(TOKEN_BYTES)
        self._given[token] = (session, now + self._good_s)
        return token

    def redeem(self, token: bytes, pid: int, now: float) -> ServedSession | None:
        """Whose that is, if it is still good and comes from the same process."""
        session, until = self._given.pop(token, (None, 0.0))
        if session is None or until < now or session.pid != pid or session.closed:
            return None
        return session

    def session_gone(self, session: Session) -> None:
        """Its token is void."""
        self._given = {token: given for token, given in self._given.items() if given[0] is not session}
