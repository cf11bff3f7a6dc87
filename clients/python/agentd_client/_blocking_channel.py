"""A channel, as the blocking face opens it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from agentd_client._joining import check_lane

if TYPE_CHECKING:
    from agentd_client._pairs import Outgoing
    from agentd_client.blocking import Client


class Channel:
    """The direct pair to one live session of an agent. See the asyncio face's."""

    def __init__(self, client: Client, to: str, lane: str) -> None:
        self._client = client
        self._to = to
        check_lane(lane)
        self._pair: Outgoing | None = None
        self.send: Callable[[object], int] = self._not_open

    def __enter__(self) -> Channel:
        client = self._client
        direct = client.conversation.go_direct()
        self._pair = pair = client.drive(direct.channel(self._to, monotonic() + client.verbs.answer_s))
        self.send = pair.send
        return self

    def __exit__(self, *_: object) -> None:
        self._client.conversation.go_direct().drop(self.pair, "the channel was closed")
        self.send = self._not_open

    def _not_open(self, body: object) -> int:
        raise RuntimeError("This channel is not open: it is opened by `with`, and closed at its end")

    @property
    def pair(self) -> Outgoing:
        """Its memory, once it is open."""
        if self._pair is None:
            raise RuntimeError("A channel is opened by `with`")
        return self._pair

    def delivered(self, position: int, timeout: float | None = None) -> bool:
        """Wait until the receiver has taken the record there: False when it has not in time, or is gone."""
        from agentd_client import _ringing

        return self._client.drive(_ringing.delivered(self.pair, position, timeout))

    @property
    def sent(self) -> int:
        """How many records."""
        return self.pair.sent

    @property
    def dead(self) -> int:
        """How many the receiver had not taken when it went, and never will; 0 while it is there."""
        return self.pair.dead

    @property
    def unknown(self) -> int:
        """Of how many nobody knows: it had taken them and not finished, of those that asked; or had not taken them when
        this end was closed."""
        return self.pair.unknown

    @property
    def state(self) -> str:
        """open, paused or closed."""
        return self.pair.state
