"""A channel, as the asyncio face opens it."""

from __future__ import annotations

from agentd_client._link import drive
from agentd_client._opened import Opened


class Channel(Opened):
    __doc__ = Opened.__doc__

    async def __aenter__(self) -> Channel:
        await drive(self._open())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def delivered(self, position: int, timeout: float | None = None) -> bool:
        """Wait until the receiver has taken the record there: False when it has not in time, or is gone."""
        return await drive(self._delivered(position, timeout))
