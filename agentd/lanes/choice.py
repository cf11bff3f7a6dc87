"""Which lane a message takes: its priority names it; durable and a demanded route are kept or refused."""

from __future__ import annotations

from collections.abc import Iterable

from agentd.lanes.direct import DirectLane
from agentd.lanes.lane import Lane
from agentd.wire.errors import LaneUnavailable, NotOnThisLane
from agentd.wire.messages import LaneView, Options, Priority, Route

_NORMAL = Priority.NORMAL


class Lanes:
    """All five, by priority."""

    def __init__(self, lanes: Iterable[Lane]) -> None:
        given = {lane.priority: lane for lane in lanes}
        self.by_priority = {priority: given[priority] for priority in Priority if priority in given}
        self.normal = self.by_priority[_NORMAL]

    def choose(self, options: Options | None) -> Lane:
        """The lane for these options; LaneUnavailable where what they demand can't be had."""
        if options is None:
            return self.normal
        lane = self.normal if options.priority is _NORMAL else self.by_priority[options.priority]
        if not lane.open:
            return lane  # its own refusal says why
        if isinstance(lane, DirectLane):
            if options.durable:
                raise NotOnThisLane(
                    f"{lane.priority.value} messages are never durable: they go to live agents only",
                    "Leave out durable.",
                )
            if options.route is Route.SOCKET or options.route is Route.JOURNAL:
                raise LaneUnavailable(
                    f"The lane {lane.priority.value} goes direct or relayed, not by {options.route.value}",
                    "Ask for no route, or for another priority.",
                )
            return lane
        journal = self.by_priority[Priority.LOW]
        if options.durable and not journal.open:
            raise LaneUnavailable(
                f"durable needs the journal: {journal.reason}", "Without durable the message is kept in memory."
            )
        if options.route is not None and options.route is not Route.SOCKET:
            raise LaneUnavailable(
                f"The lane {lane.priority.value} goes by {Route.SOCKET.value}, not {options.route.value}",
                "Ask for no route, or for another priority.",
            )
        return lane

    def views(self) -> list[LaneView]:
        """Every lane with its state and reason."""
        return [LaneView(lane.priority, lane.open, lane.reason, _cores(lane)) for lane in self.by_priority.values()]


def _cores(lane: Lane) -> str:
    """Where its threads run, for the lanes that have threads of their own."""
    pinned = lane.pinned if isinstance(lane, DirectLane) else {}
    return "; ".join(f"{session.name}: {where}" for session, where in pinned.items()) or "any"
