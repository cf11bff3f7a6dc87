"""How much of the disk the journal may take. What it appends has its place already: only another segment takes more.

Mail needs one within both limits, less one segment: that one, and the rest of a segment in which mail ends, are kept
back for acks and for whatever else nobody can be refused. So a full journal can still be emptied.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from agentd.host.config import JournalSettings
from agentd.hub import checkpoint
from agentd.wire.errors import BadRequest, ConfigError

log = logging.getLogger(__name__)

#: What says that there is no room.
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
#: Nothing but room, for a checkpoint.
RESERVE: Final = "reserve"
#: Of at least that size.
_RESERVE_BYTES: Final = 64 << 10
#: The least of journal.max_bytes, in segments: what is written, what is made ahead, what is kept back, and one more.
LEAST_SEGMENTS: Final = 4
#: Of a segment, this part is for acks where no segment follows.
_KEPT_BACK_PART: Final = 8
#: So long what was measured is taken to be true.
_MEASURED_FOR_S: Final = 0.1
#: So long nobody tries again to make what the disk had no room for.
_FAILED_FOR_S: Final = 0.5
#: Counts for nothing: what recovery has set aside is for people to remove.
_SET_ASIDE: Final = "broken"
_SPARE: Final = "spare-"
#: What recovery has cut off the end, its position in the name; so many of these are left.
_CUT_OFF: Final = "broken-"
_MOST_CUT_OFF: Final = 8


class Room(NamedTuple):
    """As it is now."""

    used_bytes: int  # by the journal's files
    spare_bytes: int  # of that, files to be used again
    free_bytes: int  # of the file system


def measure(directory: Path) -> Room:
    """Look at the files."""
    used = spare = 0
    with os.scandir(directory) as files:
        for file in files:
            if _SET_ASIDE in file.name:
                continue
            try:
                size_bytes = file.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
            used += size_bytes
            if file.name.startswith(_SPARE):
                spare += size_bytes
    found = os.statvfs(directory)
    return Room(used, spare, found.f_bavail * found.f_frsize)


class Disk:
    """Of one journal."""

    def __init__(self, settings: JournalSettings, directory: Path) -> None:
        self._segment_bytes = settings.segment_bytes
        self._max_bytes = settings.max_bytes
        self._min_free_bytes = settings.min_free_bytes
        self._directory = directory
        self._room: Room | None = None
        self._room_until = 0.0
        self._failure = ""
        self._failed_until = 0.0
        self.give_way: Callable[[], bool] = lambda: False  # whether a segment went that nothing needs
        least = LEAST_SEGMENTS * settings.segment_bytes
        if settings.max_bytes < least:
            raise ConfigError(
                f"journal.max_bytes = {settings.max_bytes} is less than {LEAST_SEGMENTS} of journal.segment_bytes",
                f"At least {least}.",
            )

    @property
    def kept_back_bytes(self) -> int:
        """At the end of a segment, where no other one follows."""
        return self._segment_bytes // _KEPT_BACK_PART

    def hold_reserve(self) -> None:
        """For checkpoints on a full disk."""
        _keep_back(self._directory, 0)

    def missing(self, segment: int) -> OSError | None:
        """Why what was synced is no good, if so: a file without its name is gone when it is closed.

        Asked after every sync, and by access(2): once somebody has seen a file's times, as stat(2) does, the kernel
        gives the next write one of its own, and then the next fdatasync(2) writes the inode too: 0.1 ms of 0.3."""
        path = f"{self._directory}/{segment:016x}.segment"  # a Path takes longer than all of this
        if os.access(path, os.F_OK):
            return None
        try:
            os.stat(path)
        except OSError as error:
            return error
        return None

    def room(self) -> Room:
        """What was measured a moment ago, or is now. OSError where the directory is gone."""
        now = time.monotonic()
        if self._room is None or now >= self._room_until:
            self._room, self._room_until = measure(self._directory), now + _MEASURED_FOR_S
        return self._room

    def changed(self) -> None:
        """Segments went or came: measure anew."""
        self._room = None
        self._failed_until = 0.0

    def failed(self, error: OSError) -> None:
        """It had no room for a segment, whatever was measured: a quota, or somebody was faster."""
        self._failure = error.strerror or str(error)
        self._failed_until = time.monotonic() + _FAILED_FOR_S
        self._room = None

    def against_mail(self, segments: int = 1) -> str:
        """Which limit forbids so many more segments for mail, once all that nothing needs has gone; or nothing."""
        while (limit := self.limit_on_mail(segments)) and self.give_way():
            self.changed()
        return limit

    def limit_on_mail(self, segments: int = 1) -> str:
        """Which limit forbids it now, or nothing."""
        room, needed = self.room(), segments * self._segment_bytes
        if room.used_bytes - room.spare_bytes + needed > self._max_bytes - self._segment_bytes:
            return f"the journal has {_size(room.used_bytes)}, and journal.max_bytes is {_size(self._max_bytes)}"
        if needed > room.spare_bytes and room.free_bytes - needed < self._min_free_bytes:
            kept = f", and journal.min_free_bytes keeps {_size(self._min_free_bytes)}" if self._min_free_bytes else ""
            return f"the file system has {_size(room.free_bytes)} free{kept}"
        return self._failure if time.monotonic() < self._failed_until else ""

    def against_notes(self) -> str:
        """The same for one more for what nobody can be refused."""
        while (limit := self._limit_on_notes()) and self.give_way():
            self.changed()
        return limit

    def _limit_on_notes(self) -> str:
        room = self.room()
        if room.used_bytes - room.spare_bytes + self._segment_bytes > self._max_bytes:
            return f"the journal has {_size(room.used_bytes)}, and journal.max_bytes is {_size(self._max_bytes)}"
        return self._failure if time.monotonic() < self._failed_until else ""


def _size(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.1f} GiB" if size_bytes >= 1 << 30 else f"{size_bytes / (1 << 20):.1f} MiB"


def drop_old_cuts(directory: Path) -> list[str]:
    """The names of copies of what recovery has cut off that are gone now: the oldest of many. A daemon that is killed
    again and again would fill the disk with them."""
    names = sorted(name for name in os.listdir(directory) if name.startswith(_CUT_OFF))[:-_MOST_CUT_OFF]
    for name in names:
        (directory / name).unlink(missing_ok=True)
    return names


# The checkpoint, which must find room on a full disk: it is what makes room.


def _keep_back(directory: Path, size_bytes: int) -> None:
    """Hold so much for it. As much as there is, if that is less: none is needed while there is room."""
    with contextlib.suppress(OSError):
        fd = os.open(directory / RESERVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, max(size_bytes, _RESERVE_BYTES))
        finally:
            os.close(fd)


def read_checkpoint(path: Path) -> tuple[bytes, checkpoint.Checkpoint] | tuple[None, None]:
    """Its bytes and what they say; nothing where there is none, or none that can be read: that is set aside."""
    try:
        data = path.read_bytes()
        return data, checkpoint.decode(data)
    except FileNotFoundError:
        return None, None
    except BadRequest as error:
        aside = path.with_suffix(".broken")
        path.rename(aside)
        why = str(error).partition("\n")[0]
        log.error("%s can't be read (%s): set aside as %s; the whole journal is read instead", path, why, aside)
        return None, None


def write_checkpoint(path: Path, data: bytes) -> None:
    """Whole or not at all, whatever happens meanwhile. What it takes on a full disk is what was held for it, then the
    spare segments."""
    directory = path.parent
    for going in ([RESERVE], [f"{_SPARE}{number}" for number in range(2)], None):
        try:
            _replace(path, data)
            break
        except OSError as error:
            if error.errno not in FULL or going is None:
                raise
            for name in going:
                (directory / name).unlink(missing_ok=True)
    _keep_back(directory, 2 * len(data))


def _replace(path: Path, data: bytes) -> None:
    making = path.with_suffix(".tmp")
    try:
        with open(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
        making.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            making.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Have the disk know which files it has."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
