"""The words that messages are made of."""

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta

VERSION: Final = 1

#: A message id: a number here, 13 letters wherever people or JSON see it (names.id_text).
Id = Annotated[int, Meta(ge=0, extra={"id": True})]
Ids = Annotated[list[Id], Meta(max_length=1 << 16)]
Cid = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Seconds = Annotated[float, Meta(ge=0, le=366 * 86400)]
Moment = Annotated[float, Meta(ge=0, le=10**11)]  # seconds since 1970


class Priority(StrEnum):
    """How soon: it chooses the lane of the same name."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"
    BATCH = "batch"


class State(StrEnum):
    """Where a message stands. It is in exactly one; `unknown` is what nobody can know any more."""

    ACCEPTED = "accepted"
    STORED = "stored"
    DELIVERED = "delivered"
    ACKED = "acked"
    EXPIRED = "expired"
    DEAD = "dead"
    UNKNOWN = "unknown"


class Level(StrEnum):
    """What a message that the journal keeps survives once it is called stored."""

    MAPPED = "mapped"  # a kill of the daemon: the kernel has it
    SYNCED = "synced"  # a power cut too: the disk has said so


class Word(StrEnum):
    """What a word on a command line stands for."""

    AGENT = "agent"
    TOPIC = "topic"
    PATTERN = "pattern"
    MAIL = "mail"  # what an agent holds, or could take
    MESSAGE = "message"  # any that is remembered
    DEAD = "dead"  # letters


class Route(StrEnum):
    """Which way a message went."""

    DIRECT = "direct"
    RELAYED = "relayed"
    SOCKET = "socket"
    JOURNAL = "journal"


class Kind(StrEnum):
    """What is to be sent."""

    SEND = "send"
    REQUEST = "request"
    PUBLISH = "publish"


class Step(StrEnum):
    """How an agent is stopped."""

    LOOK = "look"  # nothing is done
    ASK = "ask"  # it is told, and decides
    TERM = "term"  # SIGTERM to its processes
    KILL = "kill"  # SIGKILL
