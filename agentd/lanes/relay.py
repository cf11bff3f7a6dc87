"""The daemon's own end of a pair: what the unattached send to an attached agent goes into its ring through here.

A full ring is backpressure to the caller: nothing is kept here but what is needed to say what became of a message.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from agentd._native import Channel, message_id
from agentd.hub.hub import Hub
from agentd.hub.receipts import ACKED, DELIVERED, EXPIRED, Entry
from agentd.wire import choice
from agentd.wire.bodies import Content
from agentd.wire.errors import Absent, AgentdError, Backpressure, LimitReached
from agentd.wire.messages import Priority
from agentd.wire.records import ASKED, CODES, DIED, STOP, VERDICT_BYTES, encode_details, verdict_text
from agentd.wire.records import EXPIRED as TOO_LATE

_RETRY_S: Final = 0.01


class Relay:
    """Into one session's ring of one lane."""

    def __init__(
        self,
        hub: Hub,
        channel: Channel,
        agent: str,
        lane: Priority,
        verdict_bytes: int,
        ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self._hub = hub
        self._channel = channel
        self._agent = agent
        self._lane = lane
        self._max_out = verdict_bytes // (2 * VERDICT_BYTES)  # the other half is for replies
        self.out: dict[int, Entry] = {}  # by position: those whose end is not known
        self._ended = ended  # whether its process has
        self.over = False
        self._room = 0  # for the body that was tried last

    def carry(self, entry: Entry, deadline: float | None) -> None:
        """Write the message, or refuse it by name. The entry gets the id that its receiver knows it by."""
        if len(self.out) >= self._max_out:
            raise self._full(f"{len(self.out)} relayed messages wait for {self._agent} to finish them")
        message = entry.message
        details = encode_details(message.details, message.sender, message.provenance)
        at_ns = 0 if deadline is None else int(deadline * 1e9)
        self._room = self._channel.max_body_bytes - len(details) - (8 if at_ns else 0)
        position = self._channel.ask(message.body, CODES[message.content], ASKED, details, at_ns)
        message.id = message_id(self._channel.number, position)
        self.out[position] = entry

    def stop(self, by: str, provenance: str, reason: str) -> None:
        """Ask it to stop. AgentdError where there is no room even for that."""
        self._channel.ask(reason.encode(), CODES[Content.TEXT], STOP, encode_details(None, by, provenance), 0)

    def refuse(self, error: int, size: int) -> None:
        """Called by the channel: what the errno means for the caller."""
        raise self._refusal(error, size)

    def _refusal(self, error: int, size: int) -> AgentdError:
        if error == errno.EAGAIN and self._channel.lent and size > self._channel.max_inline_bytes:
            return self._full(f"{self._agent} keeps so many large bodies that {size} bytes have no room beside them")
        if error == errno.EAGAIN:
            return self._full(f"{self._agent}'s ring is full: it does not take its {self._lane.value} messages")
        if error == errno.EMSGSIZE:
            return choice.refusal("direct_large", size_bytes=size, to=self._agent, limit_bytes=self._room)
        if error == errno.EBUSY:
            return Backpressure(f"{self._agent} is paused", retry_after=_RETRY_S)
        if error in (errno.ENOSPC, errno.ENOMEM):
            return LimitReached(f"No memory for a body of {size} bytes", "Nothing was sent; priority normal takes it.")
        return Absent(f"{self._agent} has left", "CRITICAL and HIGH reach live agents only.")

    def _full(self, what: str) -> Backpressure:
        return Backpressure(what, "agentd keeps nothing for a direct lane: send again.", retry_after=_RETRY_S)

    def look(self, now: float) -> bool:
        """What became of those that are out; whether it has to be asked again whether they were delivered."""
        receipts = self._hub.receipts
        channel = self._channel
        undelivered = False
        for position, entry in self.out.items():
            if entry.state is not DELIVERED:
                if channel.is_delivered(position):
                    receipts.delivered(entry, now, self._agent)
                else:
                    undelivered = True
        for position, state, _content, payload in channel.verdicts():
            ended = self.out.pop(position, None)
            if ended is not None:
                self._end(ended, state, verdict_text(payload), now)
        if self.out:
            channel.arm()
        return undelivered

    def _end(self, entry: Entry, state: int, reason: str, now: float) -> None:
        receipts = self._hub.receipts
        if state == TOO_LATE:
            receipts.end(entry, EXPIRED, now, self._agent, "it came too late")
            return
        if entry.state is not DELIVERED:
            receipts.delivered(entry, now, self._agent)
        if state == DIED:
            self._hub.dead.add(entry, now, self._agent, reason or "rejected", store=False)
        else:
            receipts.end(entry, ACKED, now, self._agent)

    def tidy(self) -> bool:
        """Give back the memory of large bodies; False where some of it is still in use."""
        channel = self._channel
        if self.over:
            return True
        if not channel.lent:
            channel.trim(0)
        return not channel.touched_bytes

    @property
    def certain(self) -> bool:
        """Whether the receiver surely reads no more: then what it has not taken is dead."""
        return self._channel.left or self._ended()

    def end(self, now: float, why: str) -> None:
        """The receiver is gone: what it had not taken is dead if it reads no more, what it had is unknown."""
        if self.over:
            return
        self.over = True
        never = self.certain
        self.look(now)
        for entry in self.out.values():
            if entry.state is DELIVERED:
                self._hub.receipts.lose(entry, now, self._agent, f"{why}; whether it was done is unknown")
            elif never:
                self._hub.dead.add(entry, now, self._agent, why, store=False)
            else:
                self._hub.receipts.lose(entry, now, self._agent, f"{why}; whether it is read is unknown")
        self.out.clear()
        self._channel.grown = None
        self._channel.close()
