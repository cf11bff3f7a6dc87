"""A session that is served: verbs come to it, from wherever, and each goes to its handler.

What carries them is the part that derives from it: a socket (session.py), or a list in the tests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from agentd.hub.session import Session
from agentd.server.handlers import BEFORE_HELLO
from agentd.wire import ndjson
from agentd.wire.errors import AgentdError, BadRequest
from agentd.wire.messages import Bye, Hello

if TYPE_CHECKING:
    from agentd.server.server import Server

log = logging.getLogger(__name__)

#: So long may one client's verbs take in one turn, looked at after so many of them.
_TURN_S: Final = 0.005
_LOOK_EVERY: Final = 64

Handler = Callable[["ServedSession", Any, float], None]


class ServedSession(Session):
    """This is where anything that goes wrong in one session ends: a named refusal is answered, anything else is logged
    once and closes this session only."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.handlers: dict[type, Handler] = BEFORE_HELLO
        self.dirty = False
        self.closed = False
        self.greeted = False
        self.full = False  # so much waits to be sent to it that it must be sent before more is done for it

    # What a carrier brings.

    @property
    def unsent(self) -> bool:
        """Whether something that it was told is still on its way."""
        raise NotImplementedError

    def send_pending(self) -> None:
        """Send what it was told; the server calls it at the end of the turn."""
        raise NotImplementedError

    def close(self, why: str, *, error: AgentdError | None = None) -> None:
        """End the session, telling the client why if it can still be told."""
        raise NotImplementedError

    # What they share.

    def hello_said(self) -> None:
        """The client is a client."""
        self.greeted = True

    def say_goodbye(self, reason: str) -> None:
        """End the session in an orderly way."""
        if self.greeted and not self.closed:
            self.push(Bye(reason))
        self.close(reason)

    def handle(self, verbs: Sequence[Any], now: float) -> list[Any]:
        """Do what the client says, in its order; what is left to do once it has been sent the answers so far."""
        rest = iter(verbs)
        looks = _LOOK_EVERY
        for verb in rest:
            try:
                handler = self.handlers.get(type(verb))
                if handler is None:
                    raise self._unexpected(verb)
                handler(self, verb, now)
            except AgentdError as error:
                self.server.hub.receipts.counts.refused += 1
                cid = getattr(verb, "cid", 0)
                self.refuse(cid, error)
                looks = 1  # a refusal can cost more than what it refuses
                if not self.greeted:
                    self.close("no hello")
            except Exception:
                log.exception("a defect in handling %s of %s", type(verb).__name__, self.provenance)
                self.close("internal error", error=AgentdError("agentd failed to handle this; its log says why"))
            if self.closed:
                break  # what was said behind its end is not done: nobody would undo it
            if self.full:
                return list(rest)
            looks -= 1
            if not looks:
                looks = _LOOK_EVERY
                if self.server.clock() - now > _TURN_S:
                    return list(rest)
        return []

    def _unexpected(self, verb: Any) -> BadRequest:
        if not self.greeted:
            return BadRequest("The first message is hello", 'Such as {"verb":"hello","version":1,"client":"nc"}.')
        if isinstance(verb, Hello):
            return BadRequest("hello was said already")
        name = ndjson.verb_of(type(verb))
        if self.joined:
            return BadRequest(f"{name} is not for a session that has joined")
        return BadRequest(f"{name} needs an agent", 'Join first: {"verb":"join","cid":1,"name":"me"}.')

    def run_begun(self) -> None:
        """Something will have to be sent at the end of this turn."""
        if not self.dirty and not self.closed:
            self.dirty = True
            self.server.dirty.append(self)
