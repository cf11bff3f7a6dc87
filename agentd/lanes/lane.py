"""What a lane is: a way for messages of one priority, open or closed for a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agentd.hub.session import Session
from agentd.wire.messages import Priority, Publish, Reply, Request, Send


class Lane(Protocol):
    """All five satisfy this. Each verb is taken on, or refused by name and nothing is done."""

    @property
    def priority(self) -> Priority: ...

    @property
    def open(self) -> bool:
        """Whether messages can go this way here and now."""

    @property
    def reason(self) -> str:
        """How it carries them, or why it can't."""

    @property
    def send(self) -> Callable[[Session, Send, float], None]: ...
    @property
    def request(self) -> Callable[[Session, Request, float], None]: ...
    @property
    def reply(self) -> Callable[[Session, Reply, float], None]: ...
    @property
    def publish(self) -> Callable[[Session, Publish, float], None]: ...
