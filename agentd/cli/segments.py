"""The files of a journal, as `agentctl journal` sees them: its segments, and what in them is no record."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from agentd.cli import show
from agentd.wire.errors import AgentdError

if TYPE_CHECKING:
    from collections.abc import Callable

#: What is said of a place, as agentd._native has it.
_ABOUT: Final = {
    "skipped": "damaged: no record, though what lies behind it was synced. The daemon passes over it",
    "missing": "the segment is not there, though later ones are",
    "cut": "the end, never synced and not whole: the next start of the daemon moves it to broken-POSITION",
    "set aside": "a file with a segment's name that is none: the next start of the daemon renames it",
}
#: So often somebody may take away what is just being looked at.
_LOOKS: Final = 20
#: What a crash leaves behind: nobody was told that it was stored.
_HARMLESS: Final = "cut"


class NoJournal(AgentdError):
    """The directory is not there, or has no segment in it."""

    code = "no_journal"
    exit_status = 66


class Finding:
    """What is no record in a place where one could be."""

    def __init__(self, what: str, position: int, size_bytes: int) -> None:
        self.what = what
        self.position = position
        self.size_bytes = size_bytes

    @property
    def is_damage(self) -> bool:
        """Whether something is lost that was there."""
        return self.what != _HARMLESS

    def __str__(self) -> str:
        from agentd.wire.journal import position_text

        where = position_text(self.position)
        size = f", {show.size(self.size_bytes)}" if self.size_bytes else ""
        return f"{self.what} at {where}{size}: {_ABOUT.get(self.what, 'found')}"

    def as_object(self) -> dict[str, Any]:
        """As --json shows it."""
        return {"what": self.what, "position": self.position, "bytes": self.size_bytes}


def place_of(directory: str | None) -> str:
    from agentd.wire.paths import journal_dir

    return directory or journal_dir(os.environ)


def look_at(
    place: str,
    findings: list[Finding],
    record: Callable[[int, int, int, bytes], bool] | None = None,
    start: int = 0,
) -> list[dict[str, Any]]:
    """Every segment; what is wrong comes into `findings`, then the records from `start` on go to `record`, until it
    returns false."""
    from agentd import _native

    for left in reversed(range(_LOOKS)):
        findings.clear()
        try:
            looked = _native.check_journal(place, lambda *what: findings.append(Finding(*what)), record, start)
            break
        except FileNotFoundError:  # no journal; or a daemon retired a segment between the listing and this
            looked = []
            if not left and _has_segments(place):
                raise
    if not looked and not findings and not _has_segments(place):
        hint = "AGENTD_STATE_DIR says where the daemon keeps its state; or name the directory of the journal itself."
        raise NoJournal(f"There is no journal in {place}", hint)
    segments = []
    for number, made_ns, written_ns, file_bytes, records, size_bytes, first, last, end in looked:
        segments.append(
            {
                "segment": number,
                "records": records,
                "bytes": size_bytes,
                "first": first or None,
                "last": last or None,
                "end": end,
                "file_bytes": file_bytes,
                "made_at": made_ns / 1e9,
                "written_at": written_ns / 1e9,
            }
        )
    return segments


class Records:
    """Single ones of a journal that may be written meanwhile, and whose segments may go; for `with`."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._number = 0
        self._file = -1
        self._id = b""

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def read(self, position: int) -> bytes | None:
        """Its body; None where it is not there any more."""
        from agentd.wire.journal import OFFSET_BITS, RECORD_HEADER_BYTES, is_record, record_size

        number, offset = position >> OFFSET_BITS, position & ((1 << OFFSET_BITS) - 1)
        if not self._open(number):
            return None
        header = os.pread(self._file, RECORD_HEADER_BYTES, offset)
        size_bytes = record_size(header, position)
        if size_bytes is None:
            return None
        body = os.pread(self._file, size_bytes, offset + RECORD_HEADER_BYTES)
        return body if is_record(self._id, header, body) else None

    def _open(self, number: int) -> bool:
        from agentd.wire.journal import FIRST_RECORD, ID_AT

        if number != self._number:
            self._close()
            try:
                self._file = os.open(os.path.join(self._place, f"{number:016x}.segment"), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            self._number = number
            self._id = os.pread(self._file, FIRST_RECORD, 0)[ID_AT]
        return True

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._number = -1, 0


def _has_segments(place: str) -> bool:
    return os.path.isdir(place) and any(name.endswith(".segment") for name in os.listdir(place))
