"""Topics: events to whoever subscribes now. A subscription has room for so many events on their way to it; past that
it has a gap, which its subscriber and the publisher are both told of. Nobody else is held up by it. Those that have a
name, for which events wait, are in durable.py."""

from __future__ import annotations

from collections.abc import Callable

from agentd.host.config import TopicLimits
from agentd.hub.receipts import DELIVERED, EXPIRED, Entry, Receipts
from agentd.hub.session import Session
from agentd.wire.errors import BadRequest, LimitReached
from agentd.wire.messages import Details, LaggedEvent
from agentd.wire.names import DAEMON, OWN_TOPICS, Pattern, id_text

_MAX_CACHED = 4096


class Subscription:
    """One session's wish for the events of one pattern."""

    __slots__ = ("expression", "missed", "number", "outstanding", "pattern", "session")

    def __init__(self, number: int, pattern: str, session: Session) -> None:
        self.number = number
        self.pattern = pattern
        self.expression = Pattern(pattern)
        self.session = session
        self.outstanding: dict[int, Entry] = {}  # sent, not yet taken by the subscriber's application
        self.missed = 0


class Topics:
    """The registry of subscriptions."""

    def __init__(self, limits: TopicLimits, receipts: Receipts) -> None:
        self._limits = limits
        self._receipts = receipts
        self._next_number = 1
        self.subscriptions: dict[int, Subscription] = {}
        self._matching: dict[str, tuple[Subscription, ...]] = {}  # by topic; emptied at each change
        self.changed: Callable[[], None] = _nobody_cares  # called when subscriptions came or went

    def statistics(self) -> dict[str, int]:
        """How much there is of what, now."""
        return {"subscriptions": len(self.subscriptions), "topics_cached": len(self._matching)}

    def next_number(self, session: Session) -> int:
        """Of one more subscription of the session's; LimitReached where there may be none."""
        subscribed = session.agent.subscriptions()
        if subscribed >= self._limits.max_subscriptions:
            raise LimitReached(
                f"{session.name} has {subscribed} subscriptions, the most there may be",
                "topics.max_subscriptions sets the limit.",
            )
        number = self._next_number
        self._next_number += 1
        return number

    def subscribe(self, session: Session, pattern: str, number: int) -> Subscription:
        """Events from now on."""
        subscription = Subscription(number, pattern, session)
        self.subscriptions[subscription.number] = subscription
        session.subscriptions[subscription.number] = subscription
        self._matching.clear()
        self.changed()
        return subscription

    def unsubscribe(self, session: Session, number: int, now: float) -> None:
        """No more events; those on their way are let go."""
        subscription = session.subscriptions.pop(number, None)
        if subscription is None:
            raise BadRequest(f"This session has no subscription {number}")
        del self.subscriptions[number]
        self._matching.clear()
        self.changed()
        for entry in subscription.outstanding.values():
            session.event_bytes -= entry.size_bytes
            self._settle(entry, now)

    def session_gone(self, session: Session, now: float) -> None:
        """End all its subscriptions."""
        for number in list(session.subscriptions):
            self.unsubscribe(session, number, now)

    def matching(self, topic: str) -> tuple[Subscription, ...]:
        """Whose pattern the topic matches."""
        found = self._matching.get(topic)
        if found is None:
            if len(self._matching) >= _MAX_CACHED:
                self._matching.clear()
            own = OWN_TOPICS if topic.startswith(OWN_TOPICS) else ""  # `**` is not a wish for the daemon's facts
            candidates = (s for s in self.subscriptions.values() if s.pattern.startswith(own))
            found = tuple(s for s in candidates if s.expression.matches(topic))
            self._matching[topic] = found
        return found

    def publish(self, entry: Entry, now: float, kept: list[Entry]) -> tuple[int, list[str]]:
        """Send the event to all that match; how many it reached, and the agents that had no room. `kept` are its copies
        in durable subscriptions: for the event, they have it."""
        message = entry.message
        details = message.details
        assert details is not None and details.topic is not None
        self._receipts.counts.published += 1
        for copy in kept:
            step = (DELIVERED, now, copy.agent.name, f"kept for it as {id_text(copy.message.id)}")
            entry.trail = (*entry.trail, step)
        refused = self._send(entry, details)
        reached = entry.outstanding
        if not reached and kept:
            self._end_delivered(entry, now)
        elif not reached:
            self._receipts.end(
                entry, EXPIRED, now, entry.message.sender, "nobody subscribed" if not refused else "no room"
            )
        return reached, refused

    def announce(self, entry: Entry) -> None:
        """Send one of the daemon's own events to all that match. It is in no registry, and its end is nobody's news."""
        details = entry.message.details
        assert details is not None
        self._send(entry, details)

    def _send(self, entry: Entry, details: Details) -> list[str]:
        """To every subscription that has room; the agents of those that have not, and now have a gap."""
        message = entry.message
        refused: list[str] = []
        counts = self._receipts.counts
        for subscription in self.matching(details.topic or ""):
            if (
                len(subscription.outstanding) >= self._limits.max_events
                or subscription.session.event_bytes + entry.size_bytes > self._limits.max_event_bytes
            ):
                subscription.missed += 1
                counts.missed += 1
                session = subscription.session
                if not session.event_bytes and not session.stalled:  # no `delivered` will come: tell it now
                    self._tell_missed(session)
                refused.append(subscription.session.name)
                continue
            subscription.outstanding[message.id] = entry
            subscription.session.event_bytes += entry.size_bytes
            entry.outstanding += 1
            counts.events += 1
            details.subscription = subscription.number
            subscription.session.push(message)
        details.subscription = 0
        return refused

    def delivered(self, session: Session, number: int, ids: list[int], now: float) -> None:
        """The subscriber's library handed these to its application."""
        subscription = session.subscriptions.get(number)
        if subscription is None:
            return  # ended meanwhile
        for id in ids:
            entry = subscription.outstanding.pop(id, None)
            if entry is None:
                continue
            session.event_bytes -= entry.size_bytes
            entry.trail = (*entry.trail, (DELIVERED, now, session.name, ""))
            self._settle(entry, now)
        self._tell_missed(session)

    def _tell_missed(self, session: Session) -> None:
        """Room was made, or is there: now is the time to hear of gaps."""
        for subscription in session.subscriptions.values():
            if subscription.missed:
                session.push(LaggedEvent(subscription.number, subscription.missed))
                subscription.missed = 0

    def _settle(self, entry: Entry, now: float) -> None:
        """One subscription less has yet to take it. With the last the event ends: `delivered` if anybody took it."""
        entry.outstanding -= 1
        if entry.outstanding or entry.message.sender == DAEMON:
            return
        if any(state is DELIVERED for state, _, _, _ in entry.trail):
            self._end_delivered(entry, now)
        else:
            self._receipts.end(entry, EXPIRED, now, entry.message.sender, "its subscribers are gone")

    def _end_delivered(self, entry: Entry, now: float) -> None:
        entry.state = DELIVERED
        self._receipts.counts.delivered += 1
        self._receipts.journal.passed_end([entry.message.id], DELIVERED, now)
        entry.message.body = b""
        self._receipts.retain(entry.agent.ended, [entry], now)


def _nobody_cares() -> None:
    pass
