"""What a conversation has to do with shared memory, and with being asked to stop. Nothing of it is imported or made
until it is needed."""

from __future__ import annotations

from _thread import allocate_lock
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from agentd.wire.errors import AgentdError, LaneUnavailable, LimitReached, Unreachable
from agentd_client._calls import Calls
from agentd_client.receipt import Call

if TYPE_CHECKING:
    from agentd_client._direct import Direct
    from agentd_client._outbox import Outbox


class Attaching(Calls):
    """A part of Conversation."""

    out: Outbox
    closed: AgentdError | None
    _face: Any

    def __init__(self, hurry: Callable[[], None]) -> None:
        super().__init__(hurry)
        self._making = allocate_lock()
        self.direct: Direct | None = None  # once shared memory is of use
        self.may_attach = True  # False where what is connected to is no daemon
        self.on_stop: Callable[[str, str], None] | None = None  # may raise, to end what waits
        self.stopping_by = ""  # who asked this agent to stop, and why
        self.eager = False  # shared memory pays off from the first message on that could use it
        self.record: Any = None  # what messages from shared memory are made of: the face says
        self.io: Any = None  # the face's: watch(fd, action), unwatch(fd), soon(action)

    def check(self) -> None:
        """Raise when the conversation is over."""
        raise NotImplementedError

    def unreachable(self, outcome: str = "") -> Unreachable:
        """Why nothing can be said right now."""
        raise NotImplementedError

    def go_direct(self) -> Direct:
        """This client's part in the direct lanes, made when first needed. LimitReached where nothing is left for it."""
        if self.direct is None:
            self.check()
            if not self.may_attach:
                raise LaneUnavailable("Here is no shared memory between agents", "Messages are relayed.")
            try:
                self._make_direct()
            except OSError as error:  # also of an import: a module is a file
                raise LimitReached(
                    f"No shared memory for this client: {error.strerror}",
                    "Close some of this process's files, or raise its limit (ulimit -n); messages are relayed.",
                ) from None
        return cast("Direct", self.direct)

    def _make_direct(self) -> None:
        from agentd_client._direct import Direct

        record = self.record()
        with self._making:  # an invitation and a receiver's thread may want it at once
            if self.direct is None:
                self.direct = Direct(cast(Any, self), self._face, record)

    def invited(self) -> None:
        """Somebody wants to send here from ring to ring."""
        try:
            self.go_direct().invited()
        except LimitReached:
            pass  # who has invited us does not wait for ever: it is relayed to our socket

    def ask(self, kind: type[Any], then: Callable[[Call], None], *fields: Any) -> None:
        """Say a verb; `then` gets the call once it is answered."""
        call = Call(self.next_cid())
        call.when_settled(lambda: then(call))
        if not self.out.connected:
            call.error = self.unreachable()
            call.settle()
            return
        self.out.say(kind(call.cid, *fields))
        self.open(call)

    def stop(self, by: str, reason: str) -> None:
        """Somebody asks this agent to end its work."""
        self.stopping_by = f"{by}: {reason}" if reason else by
        self._face.stopping.set()
        if self.on_stop is not None:
            self.on_stop(by, reason)
