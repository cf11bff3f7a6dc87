"""Which segments of a journal stay though nothing that is kept lies in them: for history."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agentd.host.config import JournalSettings
from agentd.wire.journal import OFFSET_BITS


class SegmentFile(NamedTuple):
    """A segment as the file system sees it."""

    number: int
    size_bytes: int
    written_at: float


def segment_files(directory: Path) -> list[SegmentFile]:
    """Those of a journal, oldest first; none where it is not there."""
    found = []
    try:
        with os.scandir(directory) as files:
            for file in files:
                number, _, kind = file.name.partition(".")
                if kind != "segment" or len(number) != 16:
                    continue
                try:
                    status = file.stat(follow_symlinks=False)
                    found.append(SegmentFile(int(number, 16), status.st_size, status.st_mtime))
                except (ValueError, FileNotFoundError):
                    continue
    except FileNotFoundError:
        return []
    return sorted(found)


def history_begins(files: Sequence[SegmentFile], needed: int, settings: JournalSettings, now: float) -> int:
    """The number of the first segment that stays, where what is kept begins at the position `needed`: those before it
    are worth it together, up to the first that is too old or too much."""
    first, room = needed >> OFFSET_BITS, settings.history_bytes
    for file in reversed(files):
        if file.number >= needed >> OFFSET_BITS:
            continue
        room -= file.size_bytes
        if room < 0 or file.written_at <= now - settings.history_s:
            break
        first = file.number
    return first
