"""A message that inbox() and receive() took from shared memory, with the verbs of the asyncio face."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from agentd.wire import records
from agentd_client._link import drive
from agentd_client._pairs import DirectRecord
from agentd_client.message import failure
from agentd_client.receipt import Receipt

if TYPE_CHECKING:
    from typing import Unpack

    from agentd_client._options import FilePath, PostOptions, Progress


class DirectMessage(DirectRecord):
    """`async with message:` acks on a clean exit and nacks on an exception; there is no second delivery."""

    __slots__ = ()

    async def save(
        self,
        path: FilePath,
        *,
        replace: bool = False,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Have the file that it offers sent, and written to `path`, or into that directory under its own name; where it
        lies then, whole. FileExistsError where another would be lost, unless it may be replaced. What fails or is
        cancelled leaves nothing there, and its sender hears why. It does not ack."""
        from agentd_client._saving import save

        return await drive(save(self, path, replace, timeout, progress, in_loop=True).steps())

    async def ack(self) -> None:
        """Done with it."""
        self.finish(records.ACKED)

    async def nack(self, reason: str = "", after: float = 0.0) -> None:
        """Could not do it. It does not come back: on this lane that is its end."""
        self.refuse_delay(after)
        self.finish(records.DIED, reason or "nacked")

    async def reject(self, reason: str = "") -> None:
        """Never."""
        self.finish(records.DIED, reason or "rejected")

    async def give_back(self) -> None:
        """Not wanted after all: its end, on this lane."""
        self.finish(records.DIED, "given back by its receiver")

    def working(self) -> None:
        """Nothing waits for that on this lane."""

    async def reply(self, body: object, timeout: float | None = None, **options: Unpack[PostOptions]) -> Receipt:
        """Answer, and ack. Where nobody waits for it the reply is a message of its own, through agentd."""
        if self.wants_reply and not self.settled:  # after an ack nobody waits any more
            self.answer(body)
            receipt: Receipt = self.receipt_of_answer()
            return receipt
        given: Any = {**options, "re": self.number, "hops": self.hops + 1}
        receipt = await drive(self.client.verbs.send(self.sender, body, timeout, given))
        self.finish(records.ACKED)
        return receipt

    async def __aenter__(self) -> DirectMessage:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish(records.ACKED)
        elif issubclass(kind, Exception):
            self.finish(records.DIED, failure(error))
        else:
            self.finish(records.DIED, "its receiver was cancelled")
