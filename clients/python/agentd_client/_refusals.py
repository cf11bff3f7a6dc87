"""What an errno of a pair means to who sends."""

from __future__ import annotations

import errno
from typing import Final

from agentd.wire.errors import AgentdError, Backpressure, LimitReached, NotPermitted, ReceiverGone, TooLarge
from agentd.wire.messages import Priority

#: What bounds a body.
_SETTING: Final = {
    Priority.CRITICAL: "Priority high takes larger ones; direct.critical_bytes, eight times that,",
    Priority.HIGH: "high.pool_bytes",
}
#: What rides in no ring.
_MAX_INLINE: Final = 64 << 10
#: Until there may be room again, or a delivery can be seen.
RETRY_S: Final = 0.001


class Refuser:
    """What an errno means to somebody who sends through a channel. It has no reference to that."""

    def __init__(self, agent: str, priority: Priority, pool_bytes: int) -> None:
        self._agent = agent
        self._lane = priority.value
        self._pool_bytes = pool_bytes
        self._setting = _SETTING[priority]
        self.gone = ""  # why the channel is over

    def __call__(self, error: int, size: int) -> None:
        """As the native channel calls it."""
        raise self._refusal(error, size)

    def _refusal(self, error: int, size: int) -> AgentdError:
        agent = self._agent
        match error:
            case errno.EAGAIN:
                full = f"{agent}'s ring is full: it does not take its {self._lane} messages"
                if size > _MAX_INLINE:
                    full = (
                        f"The pool to {agent} has no room for {size} more bytes: it takes none, or keeps what it took"
                    )
                hint = "Nothing was sent; send waits for room until its timeout."
                return Backpressure(full, hint, retry_after=RETRY_S)
            case errno.EMSGSIZE:
                return self._too_large(size)
            case errno.ENOSPC | errno.ENOMEM:
                hint = "Nothing was sent; priority normal takes it."
                return LimitReached(f"No memory for a body of {size} bytes", hint)
            case errno.EBUSY:
                return Backpressure(f"{agent} is paused", "Wait until it is resumed.", retry_after=0.1)
            case errno.ESTALE:
                return NotPermitted(
                    "A child process can't use its parent's channels",
                    "Connect anew in the child: two writers break a ring.",
                )
            case errno.EPROTO:
                return ReceiverGone(f"{agent} has broken its end of the channel", "Open another channel.")
            case _ if self.gone:
                return ReceiverGone(f"The channel to {agent} is over: {self.gone}", "Open another channel.")
            case _:
                return ReceiverGone(f"{agent}'s session is gone", "Open another channel, if it is live again.")

    def _too_large(self, size: int) -> TooLarge:
        if self._lane == Priority.HIGH.value and not self._pool_bytes:
            return TooLarge(
                f"A body of {size} bytes needs a pool, and this channel to {self._agent} has none",
                "high.pool_bytes is 0, or all pools together had high.max_pool_bytes when it was opened.",
            )
        return TooLarge(
            f"A body of {size} bytes is over what a record of the {self._lane} lane takes",
            f"{self._setting} sets it.",
        )
