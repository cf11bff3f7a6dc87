"""The journal as people and JSON see it: its positions and what its records hold. What lies where on disk stands in
native/journal.h, what the records mean is the daemon's business."""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from agentd._native import crc32c

#: A position is the segment's number, and behind it so many bits of where in its file.
OFFSET_BITS: Final = 32
#: Where the first record of a segment lies.
FIRST_RECORD: Final = 4096

_MOST_OFFSET: Final = (1 << OFFSET_BITS) - 1


def position_text(position: int) -> str:
    """SEGMENT:OFFSET."""
    return f"{position >> OFFSET_BITS}:{position & _MOST_OFFSET}"


def position_value(text: str) -> int | None:
    """The position that is written SEGMENT:OFFSET, or as the number that is both; None for what is neither."""
    segment, colon, offset = text.partition(":")
    if not all(part.isascii() and part.isdigit() and len(part) <= 20 for part in (segment, offset if colon else "0")):
        return None
    if not colon:
        return position if (position := int(segment)) < 1 << 64 else None
    if int(offset) > _MOST_OFFSET or int(segment) > _MOST_OFFSET:
        return None
    return int(segment) << OFFSET_BITS | int(offset)


#: A record before its body: crc32c, size, sequence, synced_upto, its own position, type, flags, nothing.
_RECORD: Final = struct.Struct("<IIQQQHHI")
RECORD_HEADER_BYTES: Final = _RECORD.size
#: Where in a segment the journal's id is.
ID_AT: Final = slice(32, 48)


def record_size(header: bytes, position: int) -> int | None:
    """The size of the body behind this header; None where it is not that of the record at `position`."""
    if len(header) < RECORD_HEADER_BYTES:
        return None
    _, size, _, _, own_position, _, _, _ = _RECORD.unpack(header)
    return int(size) if own_position == position else None


def is_record(id: bytes, header: bytes, body: bytes) -> bool:
    """Whether they are whole."""
    return int.from_bytes(header[:4], "little") == crc32c(body, crc32c(header[4:], crc32c(id)))


#: What a checkpoint begins with; then the crc32c of what follows, and msgpack.
_CHECKPOINT: Final = b"agentdK2"


def checkpoint_positions(data: bytes) -> tuple[int, int]:
    """Of a checkpoint: the position from which records are applied to it, and the first that is still needed.
    ValueError for what is none, or one of another version."""
    start = len(_CHECKPOINT) + 4
    if data[: len(_CHECKPOINT)] != _CHECKPOINT or int.from_bytes(data[start - 4 : start], "little") != crc32c(
        data[start:]
    ):
        raise ValueError("no checkpoint of this version, or a damaged one")
    try:
        _, position, _, _, mail, dead, *_ = msgspec.msgpack.decode(data[start:])
        return position, min([position, *(placed[0] for placed in (*mail, *dead))])
    except (msgspec.MsgspecError, TypeError, IndexError) as error:
        raise ValueError(str(error)) from None


def shown_body(body: bytes) -> Any:
    """What a body that is msgpack holds, as far as JSON can say it; ValueError for one that is none."""
    try:
        return msgspec.json.decode(msgspec.json.encode(msgspec.msgpack.decode(body)))
    except (msgspec.MsgspecError, TypeError, RecursionError) as error:
        raise ValueError(f"no msgpack that JSON could show: {error}") from None
