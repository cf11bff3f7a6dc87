"""Plain messages taken several at a time: whatever is said in whatever pieces, it is as if each had been taken alone,
the general way."""

from __future__ import annotations

from typing import Any

import hub_invariants
from fakes import FakeSession, World
from hypothesis import given
from hypothesis import strategies as st

from agentd.wire.bodies import Content
from agentd.wire.errors import AgentdError
from agentd.wire.messages import Accepted, Message, Options, Send

LIMITS: dict[str, float] = {
    "max_body_bytes": 2000,
    "inbox__max_messages": 7,
    "inbox__max_bytes": 6000,
    "max_total_bytes": 12_000,
    "max_held": 5,
    "messages_burst": 20,
}
#: One that takes, one whose credit ends soon, one whose takers take turns, an absent one, the sender itself, nobody.
NAMES = ["taker", "slow", "both", "absent", "sender", "nobody"]

sends = st.builds(
    lambda to, size, cid, options: (to, bytes(size), cid, options),
    st.sampled_from(NAMES[:1] * 12 + NAMES),
    st.sampled_from([0, 0, 0, 700, 1500, 2001]),
    st.sampled_from([1, 1, 1, 1, 0, 3]),  # how far its number is from that of the one before; 0: no answer is wanted
    st.sampled_from([None] * 8 + [Options(ttl=5.0)]),
)


class Played:
    """What became of the same sends."""

    def __init__(self, said: list[tuple[str, bytes, int, Options | None]]) -> None:
        self.world = World(**LIMITS)
        self.sessions = [
            self.world.join("taker", credit=100),
            self.world.join("slow", credit=2),
            self.world.join("both", share=True, credit=3),
            self.world.join("both", share=True, credit=3),
            self.world.join("sender", credit=2),
        ]
        self.sender = self.sessions[-1]
        self.world.leave(self.world.join("absent"))
        self.refused: list[tuple[int, str]] = []
        cid = 100
        self.verbs = []
        for to, body, step, options in said:
            cid += step
            self.verbs.append(Send(cid if step else 0, to, Content.BYTES, body, options))

    def one_by_one(self) -> None:
        """Each by itself, by the way that knows all options."""
        for verb in self.verbs:
            self._refusable(Send(verb.cid, verb.to, verb.content, verb.body, verb.options or Options()))

    def together(self, most: list[int]) -> None:
        """As a session does it, so many at a time."""
        at = turn = 0
        while at < len(self.verbs):
            now, router = self.world.now, self.world.hub.router
            done = router.send_some(self.sender, self.verbs, at, most[turn % len(most)], now)
            assert done <= most[turn % len(most)]
            turn += 1
            if not done:
                self._refusable(self.verbs[at])
            at += done or 1

    def _refusable(self, verb: Send) -> None:
        try:
            self.world.hub.router.send(self.sender, verb, self.world.now)
        except AgentdError as error:
            self.refused.append((verb.cid, error.message))

    def outcome(self) -> dict[str, Any]:
        """All that anybody could tell."""
        hub = self.world.hub
        hub_invariants.check(hub, self.world.now, 0)
        accepted = [
            (answer.cid + n, answer.id + n, answer.at, answer.note)
            for answer in self.sender.told(Accepted)
            for n in range(answer.count)
        ]
        return {
            "accepted": accepted,
            "refused": self.refused,
            "mail": [session.told(Message) for session in self.sessions],
            "credit": [session.credit for session in self.sessions],
            "held": [sorted(session.held) for session in self.sessions],
            "waiting": {agent.name: list(agent.waiting) for agent in hub.agents.by_name.values()},
            "inboxes": {agent.name: (agent.count, agent.bytes) for agent in hub.agents.by_name.values()},
            "trails": {id: entry.trail for id, entry in hub.receipts.entries.items()},
            "counted": (hub.receipts.counts.accepted, hub.receipts.counts.accepted_bytes),
            "tally": (self.sender.tally.sent, self.sender.tally.bytes),
            "all": hub.inboxes.bytes,
            "next": hub.receipts.next_id,
        }


@given(st.lists(sends, max_size=40), st.lists(st.integers(1, 32), min_size=1, max_size=5))
def test_together_is_as_one_by_one(said: list[Any], most: list[int]) -> None:
    alone, together = Played(said), Played(said)
    alone.one_by_one()
    together.together(most)
    assert together.outcome() == alone.outcome()


def test_many_to_one_agent_are_one_piece() -> None:
    world = World()
    sender, taker = world.join("sender"), world.join("taker", credit=100)
    verbs = [Send(cid, "taker", Content.BYTES, b"x") for cid in range(1, 21)]
    assert world.hub.router.send_some(sender, verbs, 0, 32, world.now) == 20
    assert [(answer.cid, answer.count) for answer in sender.told(Accepted)] == [(1, 20)]
    assert len(taker.mail()) == 20


def test_a_name_that_was_taken_turns_by_is_not_served_by_one_alone() -> None:
    world = World()
    sender = world.join("sender")
    takers: list[FakeSession] = [world.join("both", share=True, credit=100) for _ in range(2)]
    verbs = [Send(cid, "both", Content.BYTES, b"x") for cid in range(1, 21)]
    at = 0
    while at < len(verbs):
        at += world.hub.router.send_some(sender, verbs, at, 32, world.now)
    assert [len(taker.mail()) for taker in takers] == [10, 10]
