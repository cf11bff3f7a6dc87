"""Stopping an agent: its sessions are told, on the lane that reaches them first; or their processes are signalled, by
pidfd, so that a pid used again is never hit."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Final

from agentd.lanes.direct import DirectLane
from agentd.wire.errors import AgentdError
from agentd.wire.messages import Halt, HaltRow, HaltView, Priority, Step, Stop

if TYPE_CHECKING:
    from agentd.server.served import ServedSession

_SIGNALS: Final = {Step.TERM: signal.SIGTERM, Step.KILL: signal.SIGKILL}


def halt(session: ServedSession, verb: Halt) -> HaltView:
    """Do that step to every session of the agent, but to those of the process that asks."""
    agent = session.server.hub.agents.get(verb.name)
    others: list[Any] = [other for other in agent.sessions if other.pid != session.pid]
    rows = [HaltRow(other.pid, other.command, _do(session, other, verb)) for other in others]
    return HaltView(verb.cid, agent.name, rows)


def _do(session: ServedSession, other: ServedSession, verb: Halt) -> str:
    if verb.step is Step.LOOK:
        return ""
    if verb.step is Step.ASK:
        return _ask(session, other, verb.reason)
    number = _SIGNALS[verb.step]
    if other.pidfd is None:
        return "its process is not known"
    try:
        signal.pidfd_send_signal(other.pidfd, number)
    except OSError as error:
        return f"{number.name}: {error.strerror}"
    return number.name


def _ask(session: ServedSession, other: ServedSession, reason: str) -> str:
    """Through its ring too, where a thread of its own may read while its main one is busy."""
    lane = session.server.lanes.by_priority[Priority.CRITICAL]
    relay = lane.relays.get(other) if isinstance(lane, DirectLane) else None
    if relay is not None:
        try:
            relay.stop(session.name, session.provenance, reason)
        except AgentdError:
            pass  # a full ring; its socket has room
    other.push(Stop(session.name, reason))
    return "asked"
