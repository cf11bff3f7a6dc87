"""A session that is served: verbs come to it, from wherever, and each goes to its handler.

What carries them is the part that derives from it: a socket (session.py), or a list in the tests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Final

from agentd.hub.session import Session
from agentd.server.handlers import BEFORE_HELLO
from agentd.wire import ndjson
from agentd.wire.errors import AgentdError, BadRequest, RateLimited
from agentd.wire.messages import Bye, Hello, Send

if TYPE_CHECKING:
    from agentd.server.server import Server

log = logging.getLogger(__name__)

#: So long may one client's verbs hold up all others, looked at after so many of them. With 0.5 ms and 32 the others
#: beside a flood waited three times as long, and the flood itself was a third slower: its taker had to wait as well.
#: With 32 alone they wait a quarter longer, and a pipeline is 4 % faster: runs of messages (send_some) are longer.
_SLICE_S: Final = 0.00005
_LOOK_EVERY: Final = 16
#: What a client's slices brought about is sent together, unless that takes so long. A write a slice costs a fifth more.
_TURN_S: Final = 0.005
#: Of its mail so much is handed to one client at a time, charged as in the inboxes: about half a millisecond.
_AT_ONCE_BYTES: Final = 128 * 1024
#: Who is over its rate again so soon is not told again: it waits.
_CALM_S: Final = 1.0

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
        self.look = False  # it is full, or its latest verb was no small one: look before the next
        self._set_aside: list[Any] = []  # verbs that wait: for the answers to those before them, or for room in a rate
        self._held_up_s = 0.0  # its agent is over its rate: so long until there is room
        self._held_up_at = -inf  # when that was last so
        self._until_room: asyncio.TimerHandle | None = None
        self._turn_began: float | None = None  # slices of its were done whose outcome has not been sent
        self._has_more = False  # of its mail waits, and it will be handed some soon

    # What a carrier brings.

    @property
    def pidfd(self) -> int | None:
        """Its process, while it is served."""
        return None

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

    def stop_reading(self) -> None:
        """Take nothing more in for now."""
        raise NotImplementedError

    def read_on(self) -> None:
        """Take in again what comes."""
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

    @property
    def at_once_bytes(self) -> float:
        """See Session."""
        return _AT_ONCE_BYTES

    def more_waits(self) -> None:
        """The rest of its mail: when the others had their turn."""
        if not self._has_more:
            self._has_more = True
            self.server.loop.call_soon(self.hand_more)

    def hand_more(self) -> None:
        """Of what waits for it."""
        self._has_more = False
        if not self.closed and (takers := self.all_takers()):
            for taker in takers:
                self.server.hub.inboxes.pump(taker.agent)
            self.server.flush(self.server.now())

    # Verbs.

    @property
    def held_up(self) -> bool:
        """Whether it is us who do not go on: what it said waits for room."""
        return bool(self._set_aside) or self._until_room is not None

    def take_in(self, verbs: list[Any]) -> None:
        """What the client says, behind all it said before."""
        if self.held_up:
            self._set_aside += verbs
        else:
            self._do(verbs)

    def _do(self, verbs: Sequence[Any]) -> None:
        """Handle verbs, but no more at a time than there is room for the answers: a few bytes can ask for megabytes.
        Who is over its rate is not read until there is room; what was read waits, in order."""
        server = self.server
        now = server.now()
        others = len(server.dirty)  # what somebody else's turn, in the middle of which this slice comes, has to send
        self._set_aside = self.handle(verbs, now)
        if self._in_the_middle(now):
            server.measures.turn_took(now, len(verbs) - len(self._set_aside))
            server.loop.call_soon(self.go_on)
            return
        if self._end_turn() or not server.open_turns:
            server.flush(now)
        else:
            server.flush(now, others)
        self.full = False
        server.measures.turn_took(now, len(verbs) - len(self._set_aside))
        if self.closed:
            return
        if self._held_up_s:
            self.stop_reading()
            self._until_room = server.loop.call_later(self._held_up_s, self._has_room)
            self._held_up_s = 0.0
        elif self._set_aside:
            self.stop_reading()
            if not self.stalled:
                server.loop.call_soon(self.go_on)

    def _in_the_middle(self, now: float) -> bool:
        """Whether it can go on after the others' slices, without what it has done so far being sent."""
        if not self._set_aside or self.full or self._held_up_s or self.closed or self.stalled:
            return False
        if self._turn_began is None:
            self._turn_began = now
            self.server.open_turns += 1
            self.stop_reading()
            return True
        return now - self._turn_began < _TURN_S

    def _end_turn(self) -> bool:
        """Whether there was one: then what it brought about is to be sent."""
        if self._turn_began is None:
            return False
        self._turn_began = None
        self.server.open_turns -= 1
        return True

    def _has_room(self) -> None:
        self._until_room = None
        self.go_on()

    def go_on(self) -> None:
        """Do what was set aside, and then read again; unless something is still in the way."""
        if self._set_aside and self._may_go_on():
            self._do(self._set_aside)
        elif self._end_turn():
            self.server.flush(self.server.now())
        if not self._set_aside and self._may_go_on():
            self.read_on()

    def _may_go_on(self) -> bool:
        return not self.closed and not self.stalled and self._until_room is None

    def do_the_rest(self) -> None:
        """Nothing more will come: do what was said, whatever it waits for."""
        self.wait_no_more()
        while self._set_aside and not self.closed:
            self._do(self._set_aside)

    def wait_no_more(self) -> None:
        """It is over, or what was waited for is not needed any more."""
        self._end_turn()
        if self._until_room is not None:
            self._until_room.cancel()
            self._until_room = None

    def handle(self, verbs: Sequence[Any], now: float) -> list[Any]:
        """Do what the client says, in its order; what is left to do once it has been sent the answers so far."""
        at, end = 0, len(verbs)
        looks = _LOOK_EVERY
        while at < end:
            verb = verbs[at]
            done = 0
            try:
                if type(verb) is Send and self.joined:
                    done = self.server.hub.router.send_some(self, verbs, at, looks, now)
                if not done:
                    handler = self.handlers.get(type(verb))
                    if handler is None:
                        raise self._unexpected(verb)
                    handler(self, verb, now)
            except RateLimited as error:
                return [*self._hold_up(verb, error, now), *verbs[at + 1 :]]
            except AgentdError as error:
                self._refuse(verb, error, now)
                looks = 1  # a refusal can cost more than what it refuses
                if not self.greeted:
                    self.close("no hello")
            except Exception:
                log.exception("a defect in handling %s of %s", type(verb).__name__, self.provenance)
                self.close("internal error", error=AgentdError("agentd failed to handle this; its log says why"))
            if self.closed:
                break  # what was said behind its end is not done: nobody would undo it
            at += done or 1
            if self.look:
                self.look = False
                if self.full:
                    return list(verbs[at:])
                looks = 1
            looks -= done or 1
            if looks <= 0:
                looks = _LOOK_EVERY
                if self.server.clock() - now > _SLICE_S:
                    return list(verbs[at:])
        return []

    def _refuse(self, verb: Any, error: AgentdError, now: float) -> None:
        hub = self.server.hub
        hub.receipts.counts.refused += 1
        if self.joined:
            self.tally.refused += 1
        self.refuse(getattr(verb, "cid", 0), error)
        hub.facts.refused(self, type(verb), error, now)

    def _hold_up(self, verb: Any, error: RateLimited, now: float) -> list[Any]:
        """No more of it until there is room. It is told once, by the refusal of this verb; while it stays over its rate
        nothing more is refused, and the verb waits as those behind it do."""
        assert error.retry_after is not None
        again = now - self._held_up_at <= max(_CALM_S, 2 * error.retry_after)
        self._held_up_s = error.retry_after
        self._held_up_at = now
        if again:
            return [verb]
        self._refuse(verb, error, now)
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
