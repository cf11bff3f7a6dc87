"""Dead letters: messages that were given up, with reason and body, until somebody requeues or drops them."""

from __future__ import annotations

from agentd.host.config import DeadLimits
from agentd.hub.agents import Agent
from agentd.hub.receipts import DEAD, Entry, Receipts


class DeadLetters:
    """Kept by the agent they were addressed to. Bounded: the oldest is dropped, and counted on its agent."""

    def __init__(self, limits: DeadLimits, receipts: Receipts) -> None:
        self._limits = limits
        self._receipts = receipts

    def add(self, entry: Entry, now: float, who: str, reason: str, *, store: bool = True) -> None:
        """The message is dead. Without `store` (nobody could want it requeued) only its trace is kept."""
        self._receipts.end(entry, DEAD, now, who, reason)
        agent = entry.agent
        if agent.unnamed or not store:
            self._let_go(entry, now)
            return
        self._receipts.journal.died(entry)
        agent.dead[entry.message.id] = entry
        agent.dead_bytes += entry.size_bytes
        while len(agent.dead) > self._limits.max_messages or agent.dead_bytes > self._limits.max_bytes:
            oldest = next(iter(agent.dead.values()))
            agent.dead_dropped += 1
            self.drop(oldest, now)

    def take_out(self, entry: Entry) -> None:
        """Out of the dead letters, to be requeued or dropped."""
        del entry.agent.dead[entry.message.id]
        entry.agent.dead_bytes -= entry.size_bytes

    def drop(self, entry: Entry, now: float) -> None:
        """Give it up for good; its trace stays for a while."""
        self.take_out(entry)
        entry.agent.seen = now
        self._let_go(entry, now)

    def _let_go(self, entry: Entry, now: float) -> None:
        self._receipts.journal.ended(entry)
        entry.message.body = b""
        self._receipts.retain(entry.agent.ended, [entry], now)

    def reason(self, entry: Entry) -> str:
        """Why it died."""
        return next((note for state, _, _, note in reversed(entry.trail) if state is DEAD), "")

    def listed(self, agents: list[Agent]) -> list[Entry]:
        """All dead letters of these agents, newest first; also of those that died in one turn, at the same time."""
        found = [entry for agent in agents for entry in reversed(agent.dead.values())]
        return sorted(found, key=lambda entry: entry.trail[-1][1], reverse=True)
