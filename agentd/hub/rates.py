"""Rates: how fast an agent may speak. A token bucket an agent, and one for each topic that it publishes on.

Every message, request, reply and event costs one, also one that is refused: a refusal is no less work. What settles or
looks costs nothing.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from agentd.host.config import RateLimits
from agentd.wire.errors import RateLimited

if TYPE_CHECKING:
    from agentd.hub.session import Session

#: Whoever is over its rate goes on when there is room for what the rate gives in this time. Long enough that it is no
#: wake-up for each message, short enough that it is no flood each time: at 20 ms the others' p99 was twice as long.
_PACE_S: Final = 0.002
_SHORTEST_S: Final = 0.001
#: How long trouble that is over is still shown.
LATELY_S: Final = 60.0


class Lately:
    """How often something happened that people should hear of, and when last. Begun anew after a quiet minute, so that
    trouble that is over is not shown for ever."""

    __slots__ = ("at", "count")

    def __init__(self) -> None:
        self.count = 0
        self.at = -inf

    def note(self, now: float) -> None:
        """It happened again."""
        self.count = self.seen(now) + 1
        self.at = now

    def seen(self, now: float) -> int:
        """How often; 0 when the last time is too long ago to matter."""
        return self.count if now - self.at <= LATELY_S else 0


class Bucket:
    """Room for `burst` at once, filled again at `rate` a second. A rate of 0 is no limit.

    Invariant: never more room than `burst`. Below 0 it owes for what was done all the same.
    """

    __slots__ = ("at", "burst", "rate", "room")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst if rate else inf
        self.room = self.burst
        self.at = now  # when it was last filled

    def fill(self, now: float) -> None:
        """What came in since the last time. plain.py does the rest by itself."""
        room = self.room + (now - self.at) * self.rate
        self.room = room if room < self.burst else self.burst
        self.at = now

    def has_room(self, now: float) -> bool:
        """Whether there is room for one."""
        self.fill(now)
        return self.room >= 1.0

    def spend(self) -> None:
        """Take room, whether there is any or not."""
        self.room -= 1.0

    def wait_s(self) -> float:
        """From the last filling until going on is worth it."""
        wanted = min(self.burst, max(1.0, self.rate * _PACE_S))
        return max(_SHORTEST_S, (wanted - self.room) / self.rate)


class TopicBuckets:
    """One agent's buckets by topic. Past `max_topics` those that are full again make room; where there are none, all
    further topics share one bucket, so that changing the topic is no way around the rate."""

    __slots__ = ("_limits", "_others", "_swept", "by_topic")

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits
        self._others: Bucket | None = None
        self._swept = -inf
        self.by_topic: dict[str, Bucket] = {}

    def of(self, topic: str, now: float) -> Bucket:
        """The bucket that an event on this topic is taken from."""
        bucket = self.by_topic.get(topic)
        if bucket is not None:
            return bucket
        if len(self.by_topic) >= self._limits.max_topics:
            self._sweep(now)
            if len(self.by_topic) >= self._limits.max_topics:
                if self._others is None:
                    self._others = self._fresh(now)
                return self._others
        bucket = self.by_topic[topic] = self._fresh(now)
        return bucket

    def _fresh(self, now: float) -> Bucket:
        return Bucket(self._limits.events_per_s, self._limits.events_burst, now)

    def _sweep(self, now: float) -> None:
        """Forget those that are full: a fresh one would be the same. Not more often than it can help."""
        if now - self._swept < 1.0:
            return
        self._swept = now
        for topic, bucket in list(self.by_topic.items()):
            bucket.fill(now)
            if bucket.room >= bucket.burst:
                del self.by_topic[topic]


class Rates:
    """Makes buckets, takes from them, and refuses by name whoever is over."""

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits
        self.limited = 0  # how often anybody was, since start

    def statistics(self) -> dict[str, int]:
        """How much there is of what, now."""
        return {"limited": self.limited}

    def bucket(self, now: float) -> Bucket:
        """A fresh agent's."""
        return Bucket(self._limits.messages_per_s, self._limits.messages_burst, now)

    def take(self, session: Session, now: float) -> None:
        """Room for one more of this session's agent, or RateLimited."""
        bucket = session.bucket
        bucket.fill(now)
        if bucket.room < 1.0:
            self.over(session, now)
        bucket.room -= 1.0

    def take_for_event(self, session: Session, topic: str, now: float) -> None:
        """Room for one more of this agent, and on this topic, or RateLimited and neither is taken."""
        agent = session.agent
        if agent.topic_buckets is None:
            agent.topic_buckets = TopicBuckets(self._limits)
        on_topic = agent.topic_buckets.of(topic, now)
        if not on_topic.has_room(now) and not session.gone:
            what = f"{agent.name} publishes more than {on_topic.rate:g} events a second on {topic}"
            raise self._refusal(session, on_topic, what, "rate.events_per_s", now)
        self.take(session, now)
        on_topic.spend()

    def over(self, session: Session, now: float) -> None:
        """There is no room: RateLimited. A process that is gone would not hear of it: what it said is done, and its
        agent owes for it."""
        if not session.gone:
            what = f"{session.name} sends more than {session.bucket.rate:g} messages a second"
            raise self._refusal(session, session.bucket, what, "rate.messages_per_s", now)

    def _refusal(self, session: Session, bucket: Bucket, what: str, key: str, now: float) -> RateLimited:
        session.agent.limited.note(now)
        self.limited += 1
        return RateLimited(
            f"{what}, after a burst of {bucket.burst:g}",
            f"agentd reads on from this connection when there is room again; {key} sets the limit.",
            retry_after=bucket.wait_s(),
        )
