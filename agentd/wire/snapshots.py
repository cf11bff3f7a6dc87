"""The daemon's counters as they lie in shared memory (agentd/host/counters.py): a StatsView in msgpack."""

from __future__ import annotations

import msgspec

from agentd.wire.views import StatsView

_decode = msgspec.msgpack.Decoder(StatsView).decode
encode_snapshot = msgspec.msgpack.Encoder().encode


def decode_snapshot(data: bytes) -> StatsView | None:
    """What the daemon wrote; None when it is of a version that counts otherwise."""
    try:
        return _decode(data)
    except msgspec.MsgspecError:
        return None
