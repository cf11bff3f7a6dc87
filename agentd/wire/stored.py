"""What the records of the journal say: of messages that are kept, and of names. One a record, in msgpack.

agentd.hub.stored says which of them is written when; a checkpoint (agentd.hub.checkpoint) is all that they come to.
"""

from __future__ import annotations

from typing import Final

from msgspec import MsgspecError, Struct, msgpack

from agentd.wire.errors import BadRequest
from agentd.wire.messages import Message, Transition


class Kept(Struct, array_like=True, tag=1):
    """A message, as it stands: from here on the journal knows it. `key` is the sender's, if it gave one."""

    to: str
    message: Message
    transitions: list[Transition]
    until: float | None = None  # held by its agent, or delayed, until then
    key: str | None = None


class Acked(Struct, array_like=True, tag=2):
    """These are done: each was acked by that agent, in one turn. When each was stored and delivered is told here; where
    there is more to tell, its end is an Ended."""

    ids: list[int]
    at: float = 0.0  # 0: an earlier version wrote it
    who: str = ""
    stored: list[float] = []  # 0: it was not yet
    delivered: list[float] = []


class Ended(Struct, array_like=True, tag=3):
    """These ended otherwise, all alike; or died and are no dead letters any more: then this is how they died."""

    ids: list[int]
    transition: Transition | None = None
    story: list[Transition] = []  # of the one that it is about: all of its transitions


class Moved(Struct, array_like=True, tag=4):
    """It waits (again): for its next attempt, until a time, or for the end of a hold."""

    id: int
    attempt: int
    transitions: list[Transition]
    until: float | None = None


class Died(Struct, array_like=True, tag=5):
    """It is a dead letter."""

    id: int
    attempt: int
    transitions: list[Transition]


class Passed(Struct, array_like=True, tag=8):
    """A message that is not kept, as it was accepted: for history alone, nothing of it comes back. `to` is an agent or,
    of an event, the topic."""

    to: str
    message: Message
    transitions: list[Transition]


class Named(Struct, array_like=True, tag=6):
    """A name is known."""

    name: str
    at: float


class Forgotten(Struct, array_like=True, tag=7):
    """It is not any more."""

    name: str


class Recording(Struct, array_like=True, tag=13):
    """From here on everything on NORMAL is recorded; before it, so many messages were not, for want of room."""

    at: float
    missed: int = 0


class Durable(Struct, array_like=True, tag=9):
    """A durable subscription is known, and what it is now. Its name is as agents are named: sub:NAME."""

    name: str
    pattern: str
    at: float
    missed: int = 0  # events that it has a gap of, nobody was told; -1: nobody knows how many
    filling: bool = False  # it is being made: until it is, nothing is to come back of it


Record = Kept | Acked | Ended | Moved | Died | Passed | Named | Forgotten | Recording | Durable

encode_record: Final = msgpack.Encoder().encode
_decode: Final = msgpack.Decoder(Record).decode


def decode_record(body: bytes) -> Record:
    """The record; BadRequest for what is none of this version."""
    try:
        record: Record = _decode(body)
        return record
    except (MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(str(error)) from None
