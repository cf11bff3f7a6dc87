"""A message that the blocking face took from shared memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentd.wire import records
from agentd_client._receiver import ThreadMessage
from agentd_client.receipt import Receipt

if TYPE_CHECKING:
    from typing import Unpack

    from agentd_client._options import PostOptions


class DirectMessage(ThreadMessage):
    """As one in a thread, with a reply that can go through agentd where nobody waits for it."""

    __slots__ = ()

    def give_back(self) -> None:
        """Not wanted after all: its end, on this lane."""
        self.finish(records.DIED, "given back by its receiver")

    def reply(  # type: ignore[override]
        self, body: object, timeout: float | None = None, **options: Unpack[PostOptions]
    ) -> Receipt:
        """Answer, and ack."""
        receipt: Receipt
        if self.wants_reply and not self.settled:
            self.answer(body)
            receipt = self.receipt_of_answer()
            return receipt
        given: Any = {**options, "re": self.number, "hops": self.hops + 1}
        receipt = self.client.drive(self.client.verbs.send(self.sender, body, timeout, given))
        self.finish(records.ACKED)
        return receipt
