"""The daemon's own facts, as events on agentd:* topics: who came and went, what became of each message. Never a body.

Nobody listening is the usual case and costs one test a change. A fact is an event like any other to its subscribers
(bounded, `Lagged` past that), but it is not remembered and nothing is said about it in turn.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agentd.hub.agents import Agent
from agentd.hub.receipts import (
    ACCEPTED,
    ACKED,
    DEAD,
    DELIVERED,
    EXPIRED,
    OVERHEAD_BYTES,
    STORED,
    UNKNOWN,
    Entry,
    Receipts,
    Retention,
)
from agentd.hub.session import Session
from agentd.hub.topics import Topics
from agentd.wire.bodies import Content
from agentd.wire.errors import AgentdError
from agentd.wire.messages import Details, Message, State
from agentd.wire.names import DAEMON, OWN_TOPICS, id_text
from agentd.wire.ndjson import verb_of

_JSON: Final = Content.JSON
_encode = msgspec.json.Encoder().encode

#: The topic of each state that a message to an agent reaches. `accepted` is not among them: its sender was told.
_TOPICS: Final = {state: OWN_TOPICS + state.value for state in (STORED, DELIVERED, ACKED, DEAD, EXPIRED, UNKNOWN)}
JOINED: Final = OWN_TOPICS + "joined"
LEFT: Final = OWN_TOPICS + "left"
REFUSED: Final = OWN_TOPICS + "refused"


class Facts:
    """Says on the daemon's own topics what happens, while somebody listens there."""

    def __init__(self, topics: Topics, receipts: Receipts) -> None:
        self._topics = topics
        self._receipts = receipts
        self._self = Agent(DAEMON, 0.0, Retention(), unnamed=True)  # who publishes; no agent may bear the name
        topics.changed = self._look

    def _look(self) -> None:
        """Subscriptions came or went: is anybody interested in what becomes of messages?"""
        listening = any(self._topics.matching(topic) for topic in _TOPICS.values())
        self._receipts.tap = self._moved if listening else None

    def _moved(self, state: State, entry: Entry, now: float, who: str, note: str) -> None:
        """A message reached a state."""
        message = entry.message
        if entry.is_event:  # an event's publisher was told how many it reached
            return
        self._say(
            _TOPICS[state],
            now,
            {
                "id": id_text(message.id),
                "sender": message.sender,
                "to": entry.to,
                "lane": message.lane.value,
                "state": state.value,
                "attempt": message.attempt,
                "size_bytes": entry.body_bytes,
                "who": who,
                "reason": note,
            },
        )

    def joined(self, session: Session, now: float) -> None:
        """A session speaks as an agent from now on."""
        if self._topics.matching(JOINED):
            self._say(JOINED, now, _about(session))

    def left(self, session: Session, now: float, why: str) -> None:
        """It is over."""
        if self._topics.matching(LEFT):
            self._say(LEFT, now, {**_about(session), "reason": why})

    def refused(self, session: Session, verb: type[msgspec.Struct], error: AgentdError, now: float) -> None:
        """What somebody asked for was refused."""
        if self._topics.matching(REFUSED):
            refusal = {"verb": verb_of(verb), "code": error.code, "reason": error.message}
            self._say(REFUSED, now, {**_about(session), **refusal})

    def _say(self, topic: str, now: float, fact: dict[str, Any]) -> None:
        receipts = self._receipts
        at = now + receipts.wall_offset
        body = _encode({**fact, "at": at})
        message = Message(receipts.next_id, DAEMON, DAEMON, _JSON, body, at, details=Details(topic=topic))
        receipts.next_id += 1
        self._topics.announce(Entry(message, self._self, len(body) + OVERHEAD_BYTES, ACCEPTED, ()))


def _about(session: Session) -> dict[str, Any]:
    name = session.name if session.joined else ""
    return {"agent": name, "pid": session.pid, "command": session.command, "takes": session.takes}
