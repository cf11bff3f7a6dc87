"""Under which name, at which socket, and how soon again: what both faces decide alike before there is a connection."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from agentd.wire.errors import BadRequest, Unreachable
from agentd.wire.messages import Join, Priority
from agentd.wire.names import check_name
from agentd.wire.paths import check_socket_path, socket_path

if TYPE_CHECKING:
    from agentd_client._link import Link
    from agentd_client._socket import Plug


class StandIn(Protocol):
    """What can be in the daemon's place: it makes the connections of both faces itself. See testing.py."""

    def link(self) -> Link:
        """For the asyncio face."""

    def plug(self) -> Plug:
        """For the blocking face."""


Place: TypeAlias = "str | os.PathLike[str] | StandIn | None"

#: Those that stand in for the daemon, whatever socket is named; the last one counts.
installed: list[StandIn] = []

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0


def make_join(name: str | None, share: bool, replace: bool, take: bool | None, direct: bool = False) -> Join:
    """A name that is given takes its mail unless told otherwise; AGENTD_AGENT, the parent's name, only sends."""
    if name is not None:
        return Join(0, check_name(name), take is not False, share, replace, direct)
    inherited = os.environ.get("AGENTD_AGENT") or None
    return Join(0, inherited and check_name(inherited), bool(take), share, replace, direct)


def find_stand_in(given: Place) -> StandIn | None:
    """What is connected to in the daemon's place."""
    if given is None or isinstance(given, (str, os.PathLike)):
        return installed[-1] if installed else None
    return given


def find_socket(given: Place) -> str:
    """The daemon's socket."""
    if isinstance(given, (str, os.PathLike)):
        return check_socket_path(os.fspath(given))
    return socket_path(os.environ, os.getuid())


def pauses() -> Iterator[float]:
    """How long to wait before each try to connect again: longer each time, and not all agents at once."""
    pause = _FIRST_PAUSE_S
    while True:
        yield pause * (0.5 + os.urandom(1)[0] / 512)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def no_daemon(path: str, error: OSError) -> Unreachable:
    """Nobody listens there."""
    return Unreachable(
        f"No agentd answers on {path}: {error.strerror or error}", "Start it with `agentctl daemon start`."
    )


def check_lane(lane: str) -> Priority:
    """Only the direct lanes have channels and receivers of their own."""
    if lane in ("critical", "high"):
        return Priority(lane)
    raise BadRequest(f"There is no direct lane {lane!r}", "critical and high are; normal messages come by inbox().")
