"""What most clients never need, imported when somebody does: threads and rings are 10 ms of a command's start."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentd_client._direct import Direct
    from agentd_client._receiver import Handler, Receiver


def make_receiver(direct: Direct) -> Receiver:
    """The lane's reader."""
    from agentd_client._receiver import Receiver

    return Receiver(direct)


def make_handler(direct: Direct, handle: Callable[[Any], Any], pin: bool) -> Handler:
    """The lane's reader in a thread of its own."""
    from agentd_client._receiver import Handler

    return Handler(direct, handle, pin)
