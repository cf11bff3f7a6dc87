"""The client of agentd. The asyncio face is imported when it is first used; agentd_client.blocking never needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentd.wire import errors
from agentd.wire.bodies import Content
from agentd.wire.messages import Priority, Route, State
from agentd_client.receipt import Receipt

if TYPE_CHECKING:
    from agentd_client.client import Client, Inbox, Message, Subscription, Ticket, connect

__all__ = [
    "Client",
    "Content",
    "Inbox",
    "Message",
    "Priority",
    "Receipt",
    "Route",
    "State",
    "Subscription",
    "Ticket",
    "connect",
    "errors",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from agentd_client import client

    value: object = getattr(client, name)
    globals()[name] = value
    return value
