"""What is said on the grants socket: one packet a message, descriptors beside it. See messages.py for the rules.

A session asks for a token on its main connection (Attach), connects here, and sends the token's 16 bytes as its first
packet. From then on packets are msgpack arrays [tag, field, ...]; which descriptors travel with which is said below.
The capacities and the pair's number are what its header must say (native/pair.h).
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, MsgspecError, Struct
from msgspec.msgpack import Decoder, Encoder

from agentd.wire.errors import BadRequest
from agentd.wire.types import Priority

TOKEN_BYTES: Final = 16
#: A packet and its descriptors: more is a violation.
MAX_PACKET_BYTES: Final = 8192
MAX_FDS: Final = 4

Name = Annotated[str, Meta(max_length=255)]
#: Letters of a text.
MAX_TEXT: Final = 512
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Size = Annotated[int, Meta(ge=0, le=1 << 31)]

#: The direct lanes as a pair's header names them, what priority has which, and the other way round.
CRITICAL: Final = 1
HIGH: Final = 2
PRIORITIES: Final = {CRITICAL: Priority.CRITICAL, HIGH: Priority.HIGH}
LANES: Final = {priority: lane for lane, priority in PRIORITIES.items()}
#: What Submitted counts, in its order.
OPERATIONS: Final = ("nop", "read", "write", "fsync", "poll", "cancel", "doorbell")


# Client to daemon.


class Open(Struct, array_like=True, tag=1):
    """A pair to a live session of agent `to`. Answered by Granted or Refused."""

    cid: Number
    to: Name
    lane: int


class Mapped(Struct, array_like=True, tag=2):
    """The receiver reads this pair from now on; or can't, and why."""

    number: Number
    error: Text = ""


class Closed(Struct, array_like=True, tag=3):
    """This end has left the pair. Either way; never answered."""

    number: Number
    reason: Text = ""


class Present(Struct, array_like=True, tag=4):
    """After agentd came back: a pair that this end still has. With its memory. The daemon believes what both ends
    present alike."""

    number: Number
    lane: int
    sends: bool
    peer: Name  # the agent at the other end
    ring_bytes: Size
    verdict_bytes: Size
    pool_bytes: Size = 0


class Pinned(Struct, array_like=True, tag=5):
    """Where the thread that reads a lane runs, and why there."""

    lane: int
    cores: Text
    about: Text = ""


class Idle(Struct, array_like=True, tag=6):
    """Whether anything reads this lane here: a pair to a lane that nobody reads is not granted."""

    lane: int
    reads: bool


class Measured(Struct, array_like=True, tag=7):
    """How many records of a lane were taken since this was last said, and of some of them how long they took."""

    lane: int
    taken: Number
    latencies_ns: Annotated[list[Number], Meta(max_length=64)]


class Submitted(Struct, array_like=True, tag=8):
    """How many operations a sender has submitted to io_uring since this was last said, by kind: see OPERATIONS."""

    lane: int
    counts: Annotated[list[Number], Meta(max_length=64)]


class Lease(Struct, array_like=True, tag=9):
    """A core for a thread of the kernel that takes what this sender submits: wanted, answered by Leased; or given back,
    and why. Who has one still when agentd comes back says which."""

    lane: int
    wants: bool
    about: Text = ""
    has: Annotated[list[Size], Meta(max_length=1)] = []


class Kept(Struct, array_like=True, tag=10):
    """The receiver of this pair has kept so many blocks of its pool, the oldest for so long; or none any more."""

    number: Number
    blocks: Number
    kept_s: Annotated[float, Meta(ge=0.0)]


# Daemon to client.


class Attached(Struct, array_like=True, tag=20):
    """The token was good. With three eventfds: what senders of critical mail ring, what receivers ring when there are
    verdicts, and what senders of high mail ring."""

    cores: list[int]  # that a pinned thread should choose from
    spin_us: float
    about_cores: Text = ""
    async_bytes: Size = 0  # larger bodies are copied by the kernel, while the sender goes on; 0: none
    without_io_uring: bool = False  # the configuration has it so


class Granted(Struct, array_like=True, tag=21):
    """A pair to send into. With its memory, the receiver's doorbell and the receiver's process."""

    cid: Number
    number: Number
    lane: int
    ring_bytes: Size
    verdict_bytes: Size
    agent: Name
    provenance: Text
    pool_bytes: Size = 0


class Offered(Struct, array_like=True, tag=22):
    """A pair to read. With its memory, the sender's doorbell for verdicts and the sender's process. Answered by Mapped.
    In one that relays, agentd writes, and each record names its sender itself."""

    number: Number
    lane: int
    ring_bytes: Size
    verdict_bytes: Size
    sender: Name
    provenance: Text
    relays: bool = False
    pool_bytes: Size = 0


class Refused(Struct, array_like=True, tag=23):
    """No pair, and why (wire/errors.py)."""

    cid: Number
    code: Text
    message: Text
    hint: Text = ""
    retry_after: float | None = None


class Paused(Struct, array_like=True, tag=24):
    """The receiver of this pair is to let nothing in for now."""

    number: Number
    on: bool


class Leased(Struct, array_like=True, tag=25):
    """The core that was leased, or none."""

    lane: int
    cores: Annotated[list[Size], Meta(max_length=1)]


ClientPacket = Open | Mapped | Closed | Present | Pinned | Idle | Measured | Submitted | Lease | Kept
DaemonPacket = Attached | Granted | Offered | Refused | Paused | Closed | Leased

encode: Final = Encoder().encode
_decode_client: Final = Decoder(ClientPacket).decode
_decode_daemon: Final = Decoder(DaemonPacket).decode


def decode_client(data: bytes) -> ClientPacket:
    """What a client said; BadRequest for what is no packet of its."""
    try:
        packet: ClientPacket = _decode_client(data)
    except MsgspecError as error:
        raise BadRequest(f"no packet: {error}") from None
    return packet


def decode_daemon(data: bytes) -> DaemonPacket:
    """What the daemon said; BadRequest for what is no packet of its."""
    try:
        packet: DaemonPacket = _decode_daemon(data)
    except MsgspecError as error:
        raise BadRequest(f"no packet: {error}") from None
    return packet
