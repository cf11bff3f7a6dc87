"""The panel See: the daemon, its lanes, and what could not be delivered. Its counters are in stats.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentd.cli import letters, show
from agentd.cli.call import Call, Verbs, argument, option, verb

if TYPE_CHECKING:
    from agentd.wire.messages import LaneView, StatusView


@verb("agentctl status\nagentctl status --json")
def status(call: Call) -> int:
    """Show how the daemon is and what is in trouble."""
    with call.connect() as me:
        view = me.status()
    if call.as_json:
        show.emit_view(view)
    else:
        show.say(*_trouble(view), *show.pairs(_status(view)))
    return 0


def _trouble(view: StatusView) -> list[str]:
    lines = []
    if view.draining:
        lines.append("agentd is stopping: it takes no new work.")
    if view.dead:
        lines.append(f"{show.count(view.dead, 'dead letter')}: `agentctl dead` shows why.")
    return [show.paint(line, "red") for line in lines]


def _status(view: StatusView) -> list[tuple[str, str]]:
    closed = [lane for lane in view.lanes if not lane.open]
    lanes = ", ".join(str(lane.lane) for lane in view.lanes if lane.open) or "none"
    return [
        ("agentd", f"{view.daemon}, pid {view.pid}, up {show.span(view.up_s)}"),
        ("socket", view.socket),
        ("agents", f"{view.live} live of {view.agents} known, {show.count(view.sessions, 'connection')}"),
        ("mail", f"{view.waiting} waiting, {view.held} held, {view.dead} dead"),
        ("kept", view.persistence),
        ("lanes", lanes + (f"; {len(closed)} closed, `agentctl lanes` tells why" if closed else "")),
    ]


@verb("agentctl lanes\nagentctl lanes --json")
def lanes(call: Call) -> int:
    """Show which lanes are open, why the others are not, and how long messages took beside what they should take.

    Own: the daemon's time for a verb. End to end: from acceptance to delivery. A ! marks what misses the lane's aim,
    which is for its own time on normal and low, end to end on critical and high.
    """
    with call.connect() as me:
        found: list[LaneView] = me.status().lanes
    if call.as_json:
        from agentd.wire.ndjson import to_object

        show.emit({"lanes": [to_object(lane) for lane in found]})
        return 0
    rows = [_lane(lane) for lane in sorted(found, key=lambda lane: lane.open)]
    show.say(*show.table(["lane", "state", "cores", "aim", "own p50", "p99", "end to end p50", "p99", "why"], rows))
    if any(lane.open and lane.aim_s is not None and not _measured(lane) for lane in found):
        show.say("Nothing was measured yet where there is no figure.")
    return 0


def _lane(lane: LaneView) -> list[str]:
    """A row; what misses its aim is red."""
    times: list[str] = []
    for kind, found in (("own_time", lane.own_time), ("latency", lane.latency)):
        for took_s in (found.p50_s, found.p99_s) if found is not None and found.count else (None, None):
            missed = took_s is not None and lane.aim_s is not None and lane.aim_of == kind and took_s > lane.aim_s
            text = "" if took_s is None else show.short_span(took_s) + "!" * missed
            times.append(text)
    aim = "" if lane.aim_s is None else show.short_span(lane.aim_s)
    state = "open" if lane.open else "closed"
    return [str(lane.lane), state, lane.cores if lane.open else "", aim, *times, show.cell(lane.reason)]


def _measured(lane: LaneView) -> bool:
    return any(found is not None and found.count for found in (lane.own_time, lane.latency))


@verb("agentctl dead list\nagentctl dead list builder", name="list")
@argument("name", required=False)
@option("--limit", type=click.IntRange(1, 1000), default=100, metavar="N", help="Show so many; 100 by default.")
def dead_list(call: Call, name: str | None, limit: int) -> int:
    """List dead letters, of NAME or of all, newest first."""
    with call.connect() as me:
        view = me.dead(name, limit=limit)
    if call.as_json:
        show.emit_view(view)
        return 0
    if not view.letters:
        show.say("No dead letters.")
        return 0
    from agentd.wire.names import id_text

    rows = []
    for one in view.letters:
        died = show.clock(one.died_at)
        rows.append([id_text(one.id), one.to, one.sender, died, str(one.attempts), show.cell(one.reason)])
    show.say(*show.table(["id", "to", "from", "died", "attempts", "reason"], rows))
    if view.total > len(rows):
        show.say(f"… and {view.total - len(rows)} more: --limit N")
    return 0


@verb("agentctl dead show k7qa", name="show")
@argument("id", metavar="ID")
def dead_show(call: Call, id: str) -> int:
    """Show one dead letter and why it died: who had it when, and how each attempt ended."""
    from agentd.wire.errors import NoSuchMessage
    from agentd.wire.names import id_text
    from agentd.wire.ndjson import to_object

    with call.connect() as me:
        whole = me.find(id)
        view = me.trace(whole)
        to = view.to
        found = me.dead(to, limit=1000).letters if any(row.name == to for row in me.agents().agents) else []
        letter = next((one for one in found if id_text(one.id) == whole), None)
    if letter is None:
        raise NoSuchMessage(f"{whole} is no dead letter", f"`agentctl trace {whole}` tells what became of it.")
    if call.as_json:
        show.emit(to_object(letter) | {"transitions": to_object(view)["transitions"]})
        return 0
    rows = [
        ("reason", show.paint(show.cell(letter.reason), "red")),
        ("id", id_text(letter.id)),
        ("to", letter.to),
        ("from", letter.sender),
        ("attempts", str(letter.attempts)),
        ("sent", show.clock(letter.sent_at)),
        ("died", show.clock(letter.died_at)),
        ("body", f"{letter.content}, {show.size(letter.size_bytes)}: {show.cell(letter.preview)}"),
    ]
    show.say(*show.pairs(rows), *letters.way(view))
    return 0


@verb("agentctl dead requeue k7qa\nagentctl dead requeue --all", name="requeue")
@argument("ids", metavar="[ID...]", nargs=-1)
@option("--all", "everything", is_flag=True, help="All dead letters.")
def dead_requeue(call: Call, ids: tuple[str, ...], everything: bool) -> int:
    """Put dead letters back into their inboxes, their attempts counted anew."""
    from agentd.wire.names import id_text

    if bool(ids) == everything:
        raise click.UsageError("Give the ids of dead letters, or --all.")
    with call.connect() as me:
        if not everything:
            whole = [me.find(id) for id in ids]
            return _tell(call, "requeued", me.requeue(whole), whole)
        whole = []
        view = me.dead(limit=1000)
        while view.letters:
            batch = [id_text(one.id) for one in view.letters if id_text(one.id) not in whole]
            if not batch:
                break  # these have died again meanwhile
            me.requeue(batch)
            whole += batch
            view = me.dead(limit=1000)
    return _tell(call, "requeued", len(whole), whole)


@verb("agentctl dead drop k7qa", name="drop")
@argument("ids", metavar="ID...", nargs=-1, required=True)
def dead_drop(call: Call, ids: tuple[str, ...]) -> int:
    """Give dead letters up for good."""
    with call.connect() as me:
        whole = [me.find(id) for id in ids]
        done = me.drop(whole)
    return _tell(call, "dropped", done, whole)


def _tell(call: Call, what: str, done: int, ids: list[str]) -> int:
    if call.as_json:
        show.emit({what: done, "ids": ids})
    else:
        show.say(f"{what}  {show.count(done, 'dead letter')}")
    return 0


dead = Verbs(
    "dead",
    help="See the messages that ended dead, put them back or give them up.",
    example="agentctl dead\nagentctl dead show k7qa\nagentctl dead requeue --all",
    default="list",
    commands={"list": dead_list, "show": dead_show, "requeue": dead_requeue, "drop": dead_drop},
)
