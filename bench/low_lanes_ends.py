"""One end of low_lanes.py: a process of its own, told by lines of JSON on stdin, answering on stdout.

    python low_lanes_ends.py ROLE SOCKET

sender   one agent of agentd_client, blocking: a message on the lane critical every ms, to the taker. A refusal ends the
         benchmark, and so does a message that goes another way than from process to process
taker    takes them, and tells how long each was under way, from before the send until it has the message
flood    one agent on the bare wire that writes messages of the lane low as fast as the daemon reads, to an agent that
         is absent, and wants no answers. Counts the refusals that it gets all the same
"""

from __future__ import annotations

import json
import sys
import time
from time import monotonic_ns
from typing import Final

from runaway_ends import flood, say

from agentd.wire import messages
from agentd.wire.bodies import Content
from agentd_client import Priority, blocking

SIZE_BYTES: Final = 64
PACE_S: Final = 0.001
_PATIENCE_S: Final = 30.0
_LAST: Final = bytes(SIZE_BYTES)


def sender(path: str) -> None:
    """As many as there is time for, and then one that says so."""
    with blocking.connect("sender", socket=path) as me:
        me.send("taker", _LAST, priority=Priority.CRITICAL, timeout=_PATIENCE_S)  # the way there is made
        say(ready=True)
        for line in sys.stdin:
            sent, started_ns = 0, monotonic_ns()
            due = time.monotonic()
            until = due + json.loads(line)["seconds"]
            while due < until:
                body = monotonic_ns().to_bytes(8, "little").ljust(SIZE_BYTES, b"\xa5")
                receipt = me.send("taker", body, priority=Priority.CRITICAL, timeout=_PATIENCE_S)
                if receipt.route != "direct":
                    raise SystemExit(f"it went {receipt.route}: {receipt.note}")
                sent += 1
                due += PACE_S
                time.sleep(max(0.0, due - time.monotonic()))
            me.send("taker", _LAST, priority=Priority.CRITICAL, timeout=_PATIENCE_S)
            say(sent=sent, started_ns=started_ns, ended_ns=monotonic_ns())


def taker(path: str) -> None:
    """Samples up to each last one."""
    with blocking.connect("taker", socket=path) as me, me.receiver(Priority.CRITICAL) as receiver:
        say(ready=True)
        samples: list[int] = []
        while (message := receiver.receive(_PATIENCE_S)) is not None:
            now_ns, body = monotonic_ns(), bytes(message.body)
            message.ack()
            if body == _LAST:
                say(samples_ns=samples)
                samples.clear()
            else:
                samples.append(now_ns - int.from_bytes(body[:8], "little"))


def low(path: str) -> None:
    """Floods the lane."""
    options = messages.Options(messages.Priority.LOW, allow_absent=True)
    flood(path, "flood", messages.Send(0, "store", Content.BYTES, bytes(SIZE_BYTES), options), lambda _: "refused")


if __name__ == "__main__":
    {"sender": sender, "taker": taker, "flood": low}[sys.argv[1]](sys.argv[2])
