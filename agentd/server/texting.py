"""A session on the text face: which line comes when, how long a RECV waits, and the end that waits for the answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agentd.wire.text import MAX_WAITING, TextFace

if TYPE_CHECKING:
    from agentd.server.session import SocketSession


class Texting:
    """Commands are done one after the other: each begins when the answer to the one before it was written."""

    def __init__(self, session: SocketSession, face: TextFace) -> None:
        self._session = session
        self._face = face
        self._due = False
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False  # too many lines wait: it is not read
        self._ended = False  # the client has said all it will say

    @property
    def crowded(self) -> bool:
        """Whether so many lines wait that no more are to be read."""
        return self._face.waiting > MAX_WAITING

    def look(self) -> None:
        """Something was said or answered: see to it at the end of this turn."""
        if not self._due:
            self._due = True
            self._session.server.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._due = False
        session, face = self._session, self._face
        if session.closed:
            return
        if face.more:
            session.take_in(face.next_verbs())
        session.write_now()
        self._mind_the_time()
        if self.crowded != self._stopped:
            self._stopped = self.crowded
            if self._stopped:
                session.stop_reading()
            else:
                session.read_on()
        if self._ended and face.idle and not session.held_up:
            session.close("left")
        elif face.more:
            self.look()

    def _mind_the_time(self) -> None:
        wait_s = self._face.wait_s
        if wait_s and self._timer is None:
            self._timer = self._session.server.loop.call_later(wait_s, self._time_over)
        elif not wait_s and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_over(self) -> None:
        self._timer = None
        if not self._session.closed:
            self._session.take_in(self._face.give_up())
            self._session.write_now()
            self.look()

    def end_of_input(self) -> bool:
        """The client has shut down its side, as `nc -N` does. True: the answers are still to be written."""
        self._ended = True
        self.look()
        return True

    def close(self) -> None:
        """The session is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
