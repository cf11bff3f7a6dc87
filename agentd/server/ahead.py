"""The next segment of the journal, made in a thread before it is needed."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agentd import _native
from agentd.host.config import JournalSettings
from agentd.server.disk import FULL, Disk

log = logging.getLogger(__name__)

#: What passes without anybody doing something about the disk.
PASSING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

Done = Callable[[BaseException | None], None]


class Ahead:
    """Of one journal. `do(action, then)` runs in a thread, and then in the loop, if there still is one."""

    def __init__(
        self,
        settings: JournalSettings,
        directory: Path,
        disk: Disk,
        do: Callable[[Callable[[], None], Done], None],
        fail: Callable[[OSError], None],
    ) -> None:
        self.is_preparing = False
        self._segment_bytes = settings.segment_bytes
        self._directory = directory
        self._disk = disk
        self._do = do
        self._fail = fail

    def prepare(self, native: _native.Journal) -> None:
        """Begin to make it, if nobody has and it may be. OSError where the directory can't be seen."""
        if self.is_preparing or not native.needs_prepare or self._disk.against_mail():
            return
        self.is_preparing = True
        what = (str(self._directory), native.id, native.next_number, self._segment_bytes)
        self._do(lambda: _native.prepare_segment(*what), self._prepared)

    def _prepared(self, error: BaseException | None) -> None:
        self.is_preparing = False
        self._disk.changed()
        if error is None:
            return
        if not isinstance(error, OSError):
            error = OSError(errno.EIO, repr(error))
        if error.errno in FULL:
            self._disk.failed(error)
        elif error.errno in PASSING:
            log.warning("the next segment of the journal could not be prepared: %s", error)
        else:
            self._fail(error)
