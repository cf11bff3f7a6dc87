"""How much all inboxes may hold, and the refusal of what has no room: to its sender alone, naming whose mail is too
much."""

from __future__ import annotations

from agentd.host.config import InboxLimits
from agentd.hub.agents import Agent
from agentd.hub.receipts import Entry
from agentd.wire.errors import Backpressure

#: A sender that was refused for want of room should try again after so long: soon where somebody takes the mail.
_RETRY_LIVE_S = 0.02
_RETRY_ABSENT_S = 5.0


class Room:
    """The bounds, and what is used of them."""

    def __init__(self, limits: InboxLimits) -> None:
        self.max_messages = limits.max_messages
        self.max_bytes = limits.max_bytes
        self.max_total_bytes = limits.max_total_bytes
        self.bytes = 0  # of all inboxes

    def statistics(self) -> dict[str, int]:
        """How much there is of what, now."""
        return {"bytes": self.bytes}

    def check_room(self, agent: Agent, size_bytes: int, now: float) -> None:
        """Backpressure to this sender alone, if the message has no room."""
        if not self.has_room(agent, size_bytes):
            raise self.no_room(agent, size_bytes, now)

    def has_room(self, agent: Agent, size_bytes: int) -> bool:
        """Whether a message of that size has."""
        return (
            agent.count < self.max_messages
            and agent.bytes + size_bytes <= self.max_bytes
            and self.bytes + size_bytes <= self.max_total_bytes
        )

    def no_room(self, agent: Agent, size_bytes: int, now: float) -> Backpressure:
        """The refusal of a message that has no room, naming whose mail is too much."""
        agent.refused.note(now)
        whose, hint = f"{agent.name}'s inbox is", "It takes too slowly; `agentctl agents` shows who holds what."
        if agent.count < self.max_messages and agent.bytes + size_bytes <= self.max_bytes:
            whose, hint = (
                "All inboxes together are",
                "inbox.max_total_bytes bounds them; `agentctl agents` shows whose is large.",
            )
        elif not agent.live:
            hint = f"Nobody takes it now: {agent.name} is absent."
        return Backpressure(
            f"{whose} full: {agent.count} messages, {agent.bytes} bytes for {agent.name}",
            hint,
            retry_after=_RETRY_LIVE_S if agent.live else _RETRY_ABSENT_S,
        )

    def check_room_for_answer(self, agent: Agent, size_bytes: int, now: float) -> None:
        """Backpressure to the responder when the asker's inbox has its bytes full. An answer is waited for: it may be
        one message more than the inbox holds."""
        if agent.bytes + size_bytes > self.max_bytes or self.bytes + size_bytes > self.max_total_bytes:
            raise self.no_room(agent, size_bytes, now)

    def check_all_room(self, entries: list[Entry], now: float) -> None:
        """Backpressure unless every one of them has room."""
        for agent in {entry.agent for entry in entries}:
            sizes = [entry.size_bytes for entry in entries if entry.agent is agent]
            self.check_room(agent, sum(sizes), now)
            if agent.count + len(sizes) > self.max_messages:
                raise self.no_room(agent, sum(sizes), now)
