"""A subscription, as the blocking face reads it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentd_client._feeds import Feed
    from agentd_client.blocking import Client, Message


class Subscription:
    """The events of a subscription. A gap raises errors.Lagged at its place; the next step goes on behind it. Of a
    durable one, leaving `with` settles the last event: it is done, after an exception it comes again."""

    def __init__(self, client: Client, feed: Feed) -> None:
        self._client = client
        self._feed = feed

    @property
    def note(self) -> str:
        """What of the subscription agentd passed over, and why: a start of one that goes on where it was."""
        return self._feed.note or ""

    def __enter__(self) -> Subscription:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._feed.settle_last(kind, error)
        self._feed.close()
        self._client.say()

    def __iter__(self) -> Subscription:
        return self

    def __next__(self) -> Message:
        feed = self._feed
        conversation = self._client.conversation
        feed.settle_last()
        if not feed.opened:
            self._open()
        while (event := feed.take()) is None:
            if conversation.left:
                raise StopIteration
            self._client.drive(feed.wait())
        message: Message = feed.hand_over(event)
        self._client.say()
        return message

    def _open(self) -> None:
        self._client.drive(self._client.verbs.subscribe(self._feed))

    def close(self) -> None:
        """End it. The last event of a durable one, unless it is settled, comes again."""
        self._feed.close()

    def __del__(self) -> None:
        self._feed.close()
