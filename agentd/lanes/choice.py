"""Which lane a message takes: its priority names it, and the table (wire/choice.py) says whether it can have what its
sender asks for."""

from __future__ import annotations

from collections.abc import Iterable

from agentd.lanes.direct import DirectLane
from agentd.lanes.lane import Lane
from agentd.wire import choice
from agentd.wire.messages import LaneView, Options, Priority, Route

_NORMAL = Priority.NORMAL


class Lanes:
    """All five, by priority."""

    def __init__(self, lanes: Iterable[Lane]) -> None:
        given = {lane.priority: lane for lane in lanes}
        self.by_priority = {priority: given[priority] for priority in Priority if priority in given}
        self.normal = self.by_priority[_NORMAL]
        #: What was not refused before: as many as the options have values.
        self._carries: dict[tuple[str, Priority, bool | None, Route | None], Lane] = {}

    def choose(self, verb: str, options: Options | None) -> Lane:
        """The lane for what came through agentd's socket with these options; the refusal of what they demand and can't
        have. What depends on the recipient the lane itself finds out."""
        if options is None:
            return self.normal
        asked = (verb, options.priority, options.durable, options.route)
        lane = self._carries.get(asked)
        if lane is not None and lane.open:
            return lane
        lane = self.by_priority[options.priority]
        row = choice.decide(
            choice.Case(verb, options.priority, bool(options.durable), options.route, lane.open, attached=False)
        )
        if row is not None and row.code:
            raise choice.refusal(row.name, **self.words(options))
        self._carries[asked] = lane
        return lane

    def words(self, options: Options) -> dict[str, object]:
        """What the rows say of a message with these options."""
        lane = self.by_priority[options.priority]
        return {
            "lane": lane.priority.value,
            "why": lane.reason,
            "route": options.route.value if options.route else "",
        }

    def views(self) -> list[LaneView]:
        """Every lane with its state and reason."""
        return [LaneView(lane.priority, lane.open, lane.reason, _cores(lane)) for lane in self.by_priority.values()]


def _cores(lane: Lane) -> str:
    """Where its threads run, for the lanes that have threads of their own."""
    pinned = lane.pinned if isinstance(lane, DirectLane) else {}
    return "; ".join(f"{session.name}: {where}" for session, where in pinned.items()) or "any"
