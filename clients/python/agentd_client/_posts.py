"""The books of post(): what is unanswered, and what failed and was not read."""

from __future__ import annotations

from typing import Final

from agentd.wire.errors import Backpressure, Undelivered
from agentd.wire.messages import State
from agentd_client.receipt import Call, Posted, Steps

MAX_UNANSWERED: Final = 65_536
MAX_UNANSWERED_BYTES: Final = 64 * 1024 * 1024
#: Failed posts that are kept for the report when leaving; of more than that only the number is.
MAX_FAILED: Final = 1000
_NAMED: Final = 5
_BAD_ENDS: Final = (State.DEAD, State.EXPIRED, State.UNKNOWN)


class Posts:
    """Bounded on both sides: a sender that outruns the daemon is refused, one that never looks is told the number."""

    __slots__ = ("_failed", "_failed_more", "_idle", "unanswered", "unanswered_bytes")

    def __init__(self) -> None:
        self.unanswered = 0
        self.unanswered_bytes = 0
        self._idle: Call | None = None
        self._failed: list[Posted] = []
        self._failed_more = 0

    def refuse(self) -> None:
        """There is no room for one more."""
        raise Backpressure(
            f"{self.unanswered} posts of {self.unanswered_bytes} bytes are not answered yet",
            "Await some of their tickets, or use send.",
            retry_after=0.01,
        )

    def ended(self, post: Posted) -> None:
        """An answer other than Accepted, or none any more."""
        self.unanswered -= 1
        self.unanswered_bytes -= post.size_bytes
        if post.lost or post.error is not None or post.answer.state in _BAD_ENDS:
            if len(self._failed) >= MAX_FAILED:
                self._failed = [known for known in self._failed if not known.read]
            if len(self._failed) < MAX_FAILED:
                self._failed.append(post)
            else:
                self._failed_more += 1
        self.check_idle()

    def check_idle(self) -> None:
        """Wake whoever waits for the last answer."""
        if self._idle is not None and not self.unanswered:
            self._idle.settle()
            self._idle = None

    def wait_idle(self, deadline: float | None) -> Steps[None]:
        """Until every post is answered, or the time is over."""
        if self.unanswered:
            self._idle = Call(0)
            yield self._idle, deadline
            self._idle = None

    def unread(self) -> Undelivered | None:
        """What to raise for the failures that nobody saw."""
        failed = [post for post in self._failed if not post.read]
        count = len(failed) + self._failed_more
        if not count:
            return None
        reasons = []
        for post in failed[:_NAMED]:
            post.read = True
            reasons.append(f"to {post.to}: {_reason(post)}")
        more = f"; and {count - len(reasons)} more" if count > len(reasons) else ""
        plural = "s" if count > 1 else ""
        return Undelivered(
            f"{count} post{plural} failed and nobody read the ticket{plural}: {'; '.join(reasons)}{more}",
            "Await the tickets of post() to handle each failure where it happens.",
        )


def _reason(post: Posted) -> str:
    if post.error is not None:
        return post.error.message
    receipt = post.known()
    return f"{receipt.state}, {receipt.note}" if receipt.note else str(receipt.state)
