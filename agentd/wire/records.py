"""What is in a record of a direct lane beside its body, and what its numbers mean. The bytes are in native/record.h."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, MsgspecError, Struct
from msgspec.msgpack import Decoder, Encoder

from agentd.wire.bodies import Content
from agentd.wire.messages import Details, State

#: Flags of a record.
ASKED: Final = 1
STOP: Final = 4
REQUEST: Final = 8
#: The body is in the pool, and the record has a reference to it.
POOLED: Final = 16
#: States in a verdict.
ACKED: Final = 1
EXPIRED: Final = 2
DIED: Final = 3
REPLIED: Final = 4
#: Of a file, and they end nothing: so many of its bytes are saved, and at first that they are wanted; it is whole.
SAVING: Final = 5
SAVED: Final = 6
#: What a verdict of each kind says of the message.
STATES: Final = {ACKED: State.ACKED, EXPIRED: State.EXPIRED, DIED: State.DEAD, REPLIED: State.ACKED}

#: What a record has beside its body: its commit word and its header; a deadline, where it has one.
_WORD_BYTES: Final = 8
_HEADER_BYTES: Final = 16
DEADLINE_BYTES: Final = 8

#: A verdict's largest size but for replies, and how much of a reason it has.
VERDICT_BYTES: Final = 128
MAX_REASON_BYTES: Final = 104

CODES: Final = {Content.BYTES: 0, Content.TEXT: 1, Content.JSON: 2}
CONTENTS: Final = {code: content for content, code in CODES.items()}


class RecordDetails(Struct, array_like=True):
    """What most records do without. Sender and provenance only where agentd relays: else the pair says who it is."""

    details: Details | None = None
    sender: str | None = None
    provenance: str = ""


class Offer(Struct, array_like=True):
    """A file that comes as soon as its receiver says that it wants it. The name is what its sender calls it."""

    name: Annotated[str, Meta(max_length=255)]
    size: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class End(Struct, array_like=True):
    """What comes after a file's bytes: how many those were and their CRC-32C; or why there are no more."""

    size: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    crc: Annotated[int, Meta(ge=0, lt=1 << 32)]
    code: str = ""
    message: str = ""


class FileDetails(RecordDetails, array_like=True):
    """Those of the records that begin and end a file; the others of its pair are its bytes."""

    offer: Offer | None = None
    end: End | None = None


_encode = Encoder().encode
_decode = Decoder(RecordDetails).decode
_decode_file = Decoder(FileDetails).decode


def encode_details(details: Details | None, sender: str | None = None, provenance: str = "") -> bytes:
    """As bytes; none where there is nothing to say."""
    if details is None and sender is None:
        return b""
    return _encode(RecordDetails(details, sender, provenance))


def decode_details(data: bytes | None) -> RecordDetails:
    """What the sender wrote, which may be anything: what can't be read says nothing."""
    if data is None:
        return _NOTHING
    try:
        return _decode(data)
    except MsgspecError:
        return _NOTHING


_NOTHING: Final = RecordDetails()


def encode_file(details: Details | None, *, offer: Offer | None = None, end: End | None = None) -> bytes:
    """The details of a record that begins or ends a file."""
    return _encode(FileDetails(details, offer=offer, end=end))


def decode_file(data: bytes | None) -> FileDetails:
    """As decode_details(), with what they say of a file."""
    if data is None:
        return _NO_FILE
    try:
        return _decode_file(data)
    except MsgspecError:
        return _NO_FILE


_NO_FILE: Final = FileDetails()


def digest_text(crc: int) -> str:
    """A file's checksum as people see it."""
    return f"crc32c:{crc:08x}"


def reason_bytes(reason: str) -> bytes:
    """As much of it as a verdict takes."""
    return reason.encode("utf-8", "replace")[:MAX_REASON_BYTES]


def verdict_text(payload: bytes) -> str:
    """A reason, as it may be read; its last letter may have been cut."""
    return payload.decode("utf-8", "ignore")


#: Where a pair has a pool, a body over that part of the ring travels there, and one that is larger than so much.
POOLED_PART: Final = 16
POOLED_BYTES: Final = 16 << 10


def max_body_bytes(ring_bytes: int) -> int:
    """The largest body of a record without details and deadline, in a ring of that capacity."""
    return ring_bytes // 8 - _WORD_BYTES - _HEADER_BYTES
