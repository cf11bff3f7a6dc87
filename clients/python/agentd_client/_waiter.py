"""What a coroutine awaits until somebody settles it: a call and asyncio's future in one.

A doorbell settles it at once, which saves a turn of the loop: that costs as much as all else on the way to the
application, and more in a process that has slept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentd_client._conversation import Conversation
    from agentd_client._mail import Mail


class Waiter(asyncio.Future[None]):
    """Used as a Call in Mail's list of those who wait."""

    settled = False
    _resume: tuple[Callable[[Waiter], object], Context] | None = None

    def wake(self) -> None:
        """Have the coroutine go on in the loop's next turn."""
        if not self.done():
            self.set_result(None)

    def settle(self) -> None:
        """The same, and what it waits for is there."""
        self.settled = True
        self.wake()

    def settle_at_once(self) -> None:
        """As settle(), but it has gone on when this returns. Only where no task runs."""
        self.settled = True
        if self._resume is None or self.done():
            self.wake()
            return
        resume, context = self._resume
        self.remove_done_callback(resume)
        self.set_result(None)
        context.run(resume, self)

    async def until(self, deadline: float | None) -> None:
        """Wait, at most until then."""
        timer = None
        if deadline is not None:
            timer = asyncio.get_running_loop().call_later(deadline - monotonic(), self.wake)
        try:
            await self
        finally:
            if timer is not None:
                timer.cancel()

    def add_done_callback(self, resume: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Called by the task that awaits this."""
        if context is not None:
            self._resume = resume, context
        super().add_done_callback(resume, context=context)


async def wait(mail: Mail, call: Any) -> None:
    """What drive() does with the wait of an inbox(): its last steps are between the doorbell and the application."""
    if call is not None:
        try:
            await call
        finally:
            if mail.waiters:
                mail.waited(call)


async def receive(conversation: Conversation[Any, Any]) -> Any:
    """Verbs.receive() without a time, likewise."""
    conversation.check_taking()
    mail = conversation.mail
    mail.receiving += 1
    conversation.say_grant()
    message = None
    try:
        while (message := mail.next()) is None:
            await wait(mail, mail.enlist(False))
            if conversation.closed is not None or not conversation.taking:
                conversation.check_taking()
        return message
    finally:
        mail.receiving -= 1
        if message is None:
            mail.shrunk()
        else:
            mail.served()
