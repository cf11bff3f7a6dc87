"""The file that carries names and kept mail from one run of the daemon to the next.

It is written at an orderly stop (temporary file, fsync, rename, fsync of the directory) and consumed at the next
start: a message acked after that must not come back out of an old file. A kill or a power cut loses what came in
since. What was consumed lies beside it as `kept.before` until the next one is written: should the disk be full by
then, a person can still go back to it, and get again what has been acked meanwhile.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from agentd.hub import kept
from agentd.hub.hub import Hub
from agentd.wire.errors import BadRequest

log = logging.getLogger(__name__)

FILE = "kept"


class Keeper:
    """Reads and writes the kept file of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE
        self._before = self._path.with_suffix(".before")
        self.persistence = (
            f"names and kept mail are written to {self._path} at an orderly stop; a kill or power cut loses them"
        )

    def restore(self, hub: Hub, now: float) -> None:
        """Into the fresh hub what the last run kept. A file that can't be read is set aside, never deleted."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        try:
            found = kept.decode(data)
        except BadRequest as error:
            aside = self._path.with_suffix(".broken")
            self._path.rename(aside)
            log.error("%s can't be read (%s): set aside as %s", self._path, str(error).partition("\n")[0], aside)
            return
        kept.restore(hub, found, now)
        self._path.rename(self._before)
        log.info("took over %d names, %d messages, %d dead letters", len(found.names), len(found.mail), len(found.dead))

    def write(self, hub: Hub, now: float) -> None:
        """Keep what the hub has. The sessions must have left."""
        found = kept.collect(hub, now)
        making = self._path.with_suffix(".tmp")
        try:
            self._write(making, kept.encode(found))
        except OSError as error:
            making.unlink(missing_ok=True)
            before = f"; {self._before} has those of the run before" if self._before.exists() else ""
            raise OSError(
                error.errno, f"{error.strerror}: the names and mail of this run are lost{before}", str(self._path)
            ) from None
        self._before.unlink(missing_ok=True)
        log.info("kept %d names, %d messages, %d dead letters", len(found.names), len(found.mail), len(found.dead))

    def _write(self, making: Path, data: bytes) -> None:
        with open(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        making.rename(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
