"""What one side of a conversation will say next: verbs as they come, and what is gathered until the next write."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentd.wire.errors import AgentdError, BadRequest
from agentd.wire.frames import MAGIC, FrameWriter
from agentd.wire.messages import Ack, Delivered

if TYPE_CHECKING:
    from agentd_client._feeds import Feed
    from agentd_client._mail import Mail


class Outbox:
    """Without a connection it keeps what is said for the next one, except `delivered`: that died with the last."""

    __slots__ = (
        "_greeting",
        "_wake",
        "_writer",
        "acks",
        "connected",
        "delivered",
        "delivering",
        "dirty",
        "gathered",
        "push",
    )

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.connected = False
        self.dirty = False  # `wake` was called and nothing taken since
        self.acks: list[int] = []
        self.delivered: dict[int, None] = {}  # an ack in the same write says it too, and takes its id out again
        self.delivering: list[Feed] = []
        self.gathered = 0  # about how many bytes the posts and acks since the last take will have
        self._greeting = b""
        self._writer = FrameWriter()
        self.push: Callable[[Any], None] = self._writer.push

    def touch(self) -> None:
        """There is something to take."""
        if not self.dirty:
            self.dirty = True
            self._wake()

    def say(self, verb: Any) -> None:
        """Push a verb, behind what was gathered before it; BadRequest for one that can't be encoded."""
        if self.delivered or self.acks or self.delivering:
            self._say_gathered()
        try:
            self.push(verb)
        except (UnicodeEncodeError, TypeError) as error:
            raise BadRequest(f"{type(verb).__name__} can't be sent: {error}") from None
        if not self.dirty:
            self.touch()

    def _say_gathered(self) -> None:
        if not self.connected:
            return
        push = self._writer.push
        if self.delivered:
            push(Delivered(list(self.delivered)))
            self.delivered.clear()
        for feed in self.delivering:
            push(Delivered(feed.delivered, feed.number))
            feed.delivered = []
        self.delivering.clear()
        if self.acks:
            push(Ack(0, self.acks))
            self.acks = []

    def greet(self, verbs: list[Any]) -> None:
        """A connection is there; these come before all else, in one frame with it if nothing was said before."""
        self.connected = True
        writer = FrameWriter() if self._writer.pending else self._writer
        for verb in verbs:
            writer.push(verb)
        self._greeting = bytes((MAGIC,)) + (b"" if writer is self._writer else writer.take())
        self.touch()

    @property
    def more(self) -> bool:
        """Whether `take` would give more right now: the next piece of a large message."""
        return self.connected and self._writer.pending

    @property
    def unsaid(self) -> bool:
        """Whether anything was said that is not taken yet."""
        return bool(self.acks or self.delivered or self.delivering or self._greeting or self._writer.pending)

    def take(self, mail: Mail | None) -> bytes:
        """What to write next; empty when there is nothing, or no connection."""
        self.dirty = False
        self.gathered = 0
        if not self.connected:
            return b""
        if self.delivered or self.acks or self.delivering:
            self._say_gathered()
        if mail is not None and (grant := mail.grant()) is not None:
            self._writer.push(grant)
        taken = self._writer.take()
        if self._greeting:
            taken = self._greeting + taken
            self._greeting = b""
        return taken

    def lost(self) -> None:
        """The connection is gone, with all that was said on it. Acks not yet said are still true."""
        self.connected = False
        self.dirty = False
        self._greeting = b""
        self.delivered.clear()
        self.delivering.clear()
        self._writer = FrameWriter()
        self.push = self._writer.push

    def close(self, error: AgentdError) -> None:
        """Nothing can be said any more. What was said can still be taken."""

        def refuse(_verb: Any) -> None:
            raise error.with_traceback(None)

        self.push = refuse
