"""Requests that wait for a reply: who asks, until when, and how each ends. Every request ends exactly once: by an
Answer, or by an Error that says why none will come."""

from __future__ import annotations

from collections.abc import Callable

from agentd.hub.deadlines import Deadlines
from agentd.hub.receipts import DELIVERED, Entry
from agentd.hub.session import Session
from agentd.wire.errors import AgentdError, NoResponder, Rejected, Timeout
from agentd.wire.messages import Answer
from agentd.wire.names import id_text

Withdraw = Callable[[Entry, float, str], None]


class Requests:
    """The open requests: each is in `requests` of the agent asked and in `asking` of the session that asks."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self.opened = 0
        self.withdraw: Withdraw  # Inboxes.withdraw; set by the hub, since the two need each other

    def open(self, entry: Entry, session: Session, cid: int, until: float) -> None:
        """`session` waits until `until` for the reply to `entry`."""
        entry.asker = (session, cid)
        entry.asking_until = self._deadlines.add(until, lambda now: self._time_out(entry, now))
        entry.agent.requests[entry.message.id] = entry
        session.asking[cid] = entry
        self.opened += 1

    def statistics(self) -> dict[str, int]:
        """How much there is of what, now."""
        return {"open": self.opened}

    def close(self, entry: Entry) -> tuple[Session, int]:
        """Nobody waits for this one any more; who did."""
        assert entry.asker is not None and entry.asking_until is not None
        session, cid = entry.asker
        entry.asker = None
        entry.asking_until.cancel()
        entry.asking_until = None
        del entry.agent.requests[entry.message.id]
        del session.asking[cid]
        self.opened -= 1
        return session, cid

    def answer(self, entry: Entry, reply: Entry) -> None:
        """Hand the reply to whoever asked. It is held there until the asker's library acks it."""
        session, cid = self.close(entry)
        reply.holder = session
        session.held[reply.message.id] = reply
        session.push(Answer(cid, reply.message))

    def _refuse(self, entry: Entry, error: AgentdError) -> None:
        session, cid = self.close(entry)
        session.refuse(cid, error)

    def end_dead(self, entry: Entry, reason: str, *, rejected: bool) -> None:
        """The request is dead: rejected by its responder, or the responder is gone with it."""
        if rejected:
            self._refuse(entry, Rejected(f"{entry.to} rejected the request: {reason}"))
        else:
            self._refuse(
                entry, NoResponder(f"{entry.to} will not reply: {reason}", "`agentctl agents` shows who is live.")
            )

    def end_without_reply(self, entry: Entry, reason: str) -> None:
        """The request ended and no reply came."""
        self._refuse(entry, NoResponder(f"No reply from {entry.to}: {reason}"))

    def _time_out(self, entry: Entry, now: float) -> None:
        taken = entry.state is DELIVERED
        how = "has it, and may still reply to your inbox" if taken else "had not taken it"
        waited = entry.trail[0][1]
        self._refuse(
            entry,
            Timeout(
                f"No reply from {entry.to} in {now - waited:.3g} s: it {how}",
                f"`agentctl trace {id_text(entry.message.id)}` shows where it stands.",
            ),
        )
        self.withdraw(entry, now, "the asker stopped waiting")

    def session_gone(self, session: Session, now: float) -> None:
        """An asker is gone: what nobody has taken yet need not be done."""
        for entry in list(session.asking.values()):
            self.close(entry)
            self.withdraw(entry, now, "the asker is gone")
