"""What most clients never need, imported when somebody does: threads and rings are 10 ms of a command's start."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentd_client._reading import Reading
    from agentd_client._receiver import Handler, Receiver
    from agentd_client.blocking import Client


def make_receiver(reading: Reading, blocking: Client | None = None) -> Receiver:
    """The lane's reader, for one of the faces."""
    if blocking is not None:
        from agentd_client._blocking_receiver import BlockingReceiver

        return BlockingReceiver(reading, blocking)
    from agentd_client._receiver import Receiver

    return Receiver(reading)


def make_handler(reading: Reading, handle: Callable[[Any], Any], pin: bool) -> Handler:
    """The lane's reader in a thread of its own."""
    from agentd_client._receiver import Handler

    return Handler(reading, handle, pin)
