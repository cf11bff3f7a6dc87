"""The journal read from its beginning, for who wants the past, while the daemon goes on: in a thread of its own, which
has the interpreter for one record at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from agentd import _native
from agentd.wire.errors import BadRequest
from agentd.wire.stored import Record, decode_record

#: So often a segment may go that is just to be read.
_LOOKS: Final = 20


class LookingBack:
    """One look after the other."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._threads = ThreadPoolExecutor(1, "agentd-past")
        self._is_over = False

    def look(
        self,
        loop: asyncio.AbstractEventLoop,
        upto: int,
        take: Callable[[Record], None],
        then: Callable[[str], None],
        after: Callable[[], None],
    ) -> None:
        """Show it every record before that position, in the thread; then say in the loop why not, or nothing. `after`
        comes when that has had its effect."""

        def done(future: Future[None]) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(tell, _why(future))

        def tell(why: str) -> None:
            if not self._is_over:
                then(why)
                after()

        self._threads.submit(self._look, upto, take).add_done_callback(done)

    def _look(self, upto: int, take: Callable[[Record], None]) -> None:
        def show(position: int, sequence: int, type: int, body: bytes) -> bool:
            if position >= upto or self._is_over:
                return False
            try:
                take(decode_record(body))
            except BadRequest:
                pass  # of another version: the start has said so
            return True

        for left in reversed(range(_LOOKS)):
            try:
                _native.check_journal(str(self._directory), None, show)
                return
            except FileNotFoundError:  # a segment was retired between the listing and this
                if not left:
                    raise

    def close(self) -> None:
        """The end; waits for one record at most."""
        self._is_over = True
        self._threads.shutdown(cancel_futures=True)


def _why(future: Future[None]) -> str:
    try:
        error = future.exception()
    except CancelledError:
        return "agentd is stopping"
    return "" if error is None else str(error) or repr(error)
