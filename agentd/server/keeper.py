"""The file that carries names and kept mail from one run of the daemon to the next.

    magic (8 bytes) | crc32c of what follows (4 bytes, little-endian) | msgpack of hub/kept.py's Kept

It is written at an orderly stop (temporary file, fsync, rename, fsync of the directory) and consumed at the next start:
a message acked after that must not come back out of an old file. A kill or a power cut loses what came in since.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from agentd._native import crc32c
from agentd.hub import kept
from agentd.hub.hub import Hub
from agentd.hub.kept import Kept
from agentd.wire.errors import BadRequest

log = logging.getLogger(__name__)

FILE = "kept"
MAGIC = b"agentdK1"


class Keeper:
    """Reads and writes the kept file of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE
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
            found = msgspec.msgpack.decode(unsealed(data), type=Kept)
            kept.check(found)
        except (msgspec.MsgspecError, UnicodeDecodeError, BadRequest) as error:
            aside = self._path.with_suffix(".broken")
            self._path.rename(aside)
            log.error("%s can't be read (%s): set aside as %s", self._path, str(error).partition("\n")[0], aside)
            return
        kept.restore(hub, found, now)
        self._path.unlink()
        log.info("took over %d names, %d messages, %d dead letters", len(found.names), len(found.mail), len(found.dead))

    def write(self, hub: Hub, now: float) -> None:
        """Keep what the hub has. The sessions must have left."""
        found = kept.collect(hub, now)
        making = self._path.with_suffix(".tmp")
        with open(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(sealed(msgspec.msgpack.encode(found)))
            file.flush()
            os.fsync(file.fileno())
        making.rename(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        log.info("kept %d names, %d messages, %d dead letters", len(found.names), len(found.mail), len(found.dead))


def sealed(data: bytes) -> bytes:
    return MAGIC + crc32c(data).to_bytes(4, "little") + data


def unsealed(sealed: bytes) -> memoryview:
    """What was sealed; BadRequest when that is not what lies there."""
    start = len(MAGIC) + 4
    data = memoryview(sealed)[start:]
    if sealed[: len(MAGIC)] != MAGIC or int.from_bytes(sealed[len(MAGIC) : start], "little") != crc32c(data):
        raise BadRequest("it is cut short, damaged, or something else")
    return data
