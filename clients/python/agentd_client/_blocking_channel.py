"""A channel, as the blocking face opens it."""

from __future__ import annotations

from agentd_client._opened import Opened


class Channel(Opened):
    __doc__ = Opened.__doc__

    def __enter__(self) -> Channel:
        self._client.drive(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def delivered(self, position: int, timeout: float | None = None) -> bool:
        """Wait until the receiver has taken the record there: False when it has not in time, or is gone."""
        found: bool = self._client.drive(self._delivered(position, timeout))
        return found
