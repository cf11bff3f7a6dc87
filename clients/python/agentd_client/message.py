"""A message as the application sees it. Each face adds the verbs that answer it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Struct

from agentd.wire import messages as wire
from agentd.wire.bodies import Content, decode_body
from agentd.wire.errors import BadRequest
from agentd.wire.messages import Priority
from agentd.wire.names import id_text

if TYPE_CHECKING:
    from agentd_client._mail import Window
    from agentd_client._options import FilePath
    from agentd_client._saving import File


class Received(Struct, eq=False):
    """Who sent what, and how often it was tried before."""

    wire: wire.Message  # as it came, for tools: its id is the number
    client: Any  # the face that answers it
    window: Window | None = None  # the inbox() that waits for it to be settled
    settled: bool = False  # acked, given back, ...: it is no longer ours
    decoded: Any = UNSET

    @property
    def id(self) -> str:
        """Its 13 letters."""
        return id_text(self.wire.id)

    @property
    def sender(self) -> str:
        """The agent that sent it."""
        return self.wire.sender

    @property
    def provenance(self) -> str:
        """What the kernel says of the sender."""
        return self.wire.provenance

    @property
    def body(self) -> bytes:
        """The bytes."""
        return self.wire.body

    @property
    def size(self) -> int:
        """How many bytes the body has."""
        return len(self.wire.body)

    def view(self) -> memoryview:
        """The body to read, for `with`: as for messages from shared memory, which are not copied for it."""
        return memoryview(self.wire.body)

    @property
    def content(self) -> Content:
        """What the bytes are."""
        return self.wire.content

    @property
    def value(self) -> Any:
        """The body as it was sent: bytes, str or what JSON holds. BadBody if the sender lied about it."""
        value = self.decoded
        if value is UNSET:
            value = self.decoded = decode_body(self.wire.content, self.wire.body)
        return value

    @property
    def priority(self) -> Priority:
        """How soon the sender wanted it here."""
        return self.wire.lane

    @property
    def lane(self) -> Priority:
        """How it travelled."""
        return self.wire.lane

    @property
    def attempt(self) -> int:
        """1 the first time, more when an earlier receiver failed or died."""
        return self.wire.attempt

    @property
    def sent_at(self) -> float:
        """When agentd accepted it, in seconds since 1970."""
        return self.wire.sent_at

    @property
    def topic(self) -> str | None:
        """What it was published on; None for one that was sent."""
        details = self.wire.details
        return None if details is None else details.topic

    @property
    def event(self) -> str | None:
        """In a durable subscription: the id that the publisher of the event knows it by; this copy has its own."""
        details = self.wire.details
        return None if details is None or details.event is None else id_text(details.event)

    @property
    def headers(self) -> dict[str, str]:
        """The sender's own."""
        details = self.wire.details
        return (details.headers or {}) if details is not None else {}

    @property
    def re(self) -> str | None:
        """The id of the message that this one is about."""
        details = self.wire.details
        return None if details is None or details.re is None else id_text(details.re)

    @property
    def thread(self) -> str | None:
        """The id of the first message of the exchange."""
        details = self.wire.details
        return None if details is None or details.thread is None else id_text(details.thread)

    @property
    def hops(self) -> int:
        """How often what led to this was passed on."""
        details = self.wire.details
        return 0 if details is None else details.hops

    @property
    def wants_reply(self) -> bool:
        """Whether somebody waits for a reply right now."""
        details = self.wire.details
        return details is not None and details.reply_by is not None

    @property
    def file(self) -> File | None:
        """The file that is offered with it, to be saved; they come through shared memory alone."""
        return None

    def save(self, path: FilePath, **options: Any) -> Any:
        """See the messages that offer a file."""
        raise BadRequest(f"Message {self.id} offers no file", "Its body is what it has: message.body.")

    @property
    def expires_at(self) -> float | None:
        """When it is of no more use, in seconds since 1970."""
        details = self.wire.details
        return None if details is None else details.expires_at

    def __repr__(self) -> str:
        about = f" on {self.topic}" if self.topic else ""
        return f"<{type(self).__name__} {self.id} from {self.sender}{about}: {len(self.body)} bytes {self.content}>"


def failure(error: BaseException | None) -> str:
    """The reason of a nack: what was raised, in a line or two."""
    return f"{type(error).__name__}: {error}"[:500].encode("utf-8", "replace").decode()
