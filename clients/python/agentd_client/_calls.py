"""What was said to the daemon and waits for its answer, by its number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from agentd.wire.errors import AgentdError
from agentd.wire.messages import Accepted, Receipt, State
from agentd_client._posts import Posts
from agentd_client.receipt import Call, Posted, Submitted

_ACCEPTED: Final = State.ACCEPTED

C = TypeVar("C", bound=Call)


class Calls:
    """A part of Conversation."""

    def __init__(self, hurry: Callable[[], None]) -> None:
        self._hurry = hurry
        self._cid = 0
        self._open: dict[int, Call] = {}
        self._woken: list[Any] = []  # whose wait is over with what is being read
        self.posts = Posts()

    def next_cid(self) -> int:
        """The client's own number for its next call."""
        self._cid += 1
        return self._cid

    def open(self, call: C) -> C:
        """The answer to this one's cid will settle it. One that is alone need not wait for others to travel with."""
        self._open[call.cid] = call
        if len(self._open) == 1:
            self._hurry()
        return call

    def forget(self, call: Call) -> None:
        """Nobody waits for this one any more; its answer will be ignored."""
        self._open.pop(call.cid, None)

    # Answers.

    def _accepted(self, accepted: Accepted) -> None:
        pop = self._open.pop
        posts = self.posts
        for cid in range(accepted.cid, accepted.cid + accepted.count):
            call = pop(cid, None)
            if call is None:
                continue
            call.answer = accepted
            if isinstance(call, Posted) and call.waits_for is _ACCEPTED:
                posts.unanswered -= 1
                posts.unanswered_bytes -= call.size_bytes
                call.settled = True
                if call.waiters is not None:
                    call.settle()
            elif isinstance(call, Submitted) and not call.reaches(_ACCEPTED):
                self._open[cid] = call
            else:
                self._woken.append(call)
        posts.check_idle()

    def _receipt(self, receipt: Receipt) -> None:
        call = self._open.get(receipt.cid)
        if isinstance(call, Submitted):
            call.answer = receipt
            if call.reaches(receipt.state):
                del self._open[receipt.cid]
                self._end(call)

    def _end(self, call: Call) -> None:
        call.settle()
        if isinstance(call, Posted):
            self.posts.ended(call)

    def _settle_all(self, error: AgentdError) -> None:
        calls, self._open = self._open, {}
        for call in calls.values():
            if call.error is None:
                call.lost = True
                if not isinstance(call, Submitted):
                    call.error = error
            self._end(call)

    def wake_later(self, call: Any) -> None:
        """Its wait is over. It goes on once all is known that came with what it waited for."""
        self._woken.append(call)

    def _wake(self, *, at_once: bool) -> None:
        woken, self._woken = self._woken, []
        if at_once and len(woken) == 1:
            woken[0].settle_at_once()
        else:
            for call in woken:
                call.settle()
