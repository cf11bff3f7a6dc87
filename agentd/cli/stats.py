"""`agentctl stats`: the daemon's counters, read from shared memory, so that they can be had while it is busy."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentd.cli import show
from agentd.cli.call import DURATION, Call, option, verb

if TYPE_CHECKING:
    from agentd.wire.messages import FlowView, StatsView

#: After a turn the daemon takes so long until its figures have it: what happened before the call is to be in them.
_SETTLED_S: Final = 0.12
_CLEAR: Final = b"\x1b[H\x1b[2J"


@verb(
    "agentctl stats\nagentctl stats --agents\nagentctl stats --agent builder --watch\nagentctl stats --json --watch 10s"
)
@option("--agents", is_flag=True, help="A row for each agent, the busiest first.")
@option("--agent", metavar="NAME", help="That agent's row only.")
@option("--watch", is_flag=False, flag_value="1s", type=DURATION, metavar="[TIME]", help="Again every TIME; 1s.")
def stats(call: Call, agents: bool, agent: str | None, watch: float | None) -> int:
    """Show what was counted since the daemon started: in all, by lane, by agent.

    In an agent's row, sent is by it; delivered, acked, dead, expired and the times from acceptance to delivery are of
    its mail; refused of its own calls. Answers while the daemon is busy, and then says how old the figures are.
    --json has the size of every registry, too.
    """
    if watch is None:
        time.sleep(_SETTLED_S)
        _print(call, agents, agent)
        return 0
    while True:
        if show.is_terminal(sys.stdout) and not call.as_json:
            show.write(_CLEAR)
        _print(call, agents, agent)
        time.sleep(max(watch, 0.1))
        if not call.as_json and not show.is_terminal(sys.stdout):
            show.say("")


def _print(call: Call, agents: bool, agent: str | None) -> None:
    view, note = _current(call)
    if agent is not None:
        view.agents = [flow for flow in view.agents if flow.name == agent] or [_unknown(agent)]
    elif not agents:
        view.agents = []
    if call.as_json:
        show.emit_view(view)
        return
    if note:
        show.say(show.paint(note, "yellow"))
    if agent is None:
        show.say(*show.pairs(_totals(view)))
    flows = view.agents if agents or agent is not None else view.lanes
    show.say(*[""] * (agent is None), *_flows("agent" if agents or agent is not None else "lane", flows))


def _unknown(agent: str) -> FlowView:
    from agentd.wire.errors import NoSuchAgent

    raise NoSuchAgent(
        f"No counters of an agent {agent}", "`agentctl stats --agents` lists them; stats.max_agents bounds how many."
    )


def _current(call: Call) -> tuple[StatsView, str]:
    """The figures, and what must be said of their age."""
    if call.socket is None and not os.environ.get("AGENTD_SOCKET"):
        found = _in_memory()
        if found is not None:
            return found
    with call.connect() as me:
        return me.stats(agents=True), ""


def _in_memory() -> tuple[StatsView, str] | None:
    """From the segment; None when there is none. Unreachable when its daemon is gone."""
    from agentd.host import counters
    from agentd.wire.errors import Unreachable
    from agentd.wire.paths import runtime_dir
    from agentd.wire.snapshots import decode_snapshot

    snapshot = counters.read(Path(runtime_dir(os.environ, os.getuid())).absolute(), os.getuid())
    if snapshot is None:
        return None
    if not snapshot.alive:
        raise Unreachable(
            f"agentd is gone: its pid was {snapshot.pid}, its last figures are {show.span(snapshot.age_s)} old"
        )
    view = decode_snapshot(snapshot.data)
    if view is None:
        return None
    view.up_s += snapshot.age_s
    state = counters.state_of(snapshot.pid)
    if state == "T":
        return (
            view,
            f"The daemon, pid {snapshot.pid}, is stopped (SIGSTOP): figures of {show.span(snapshot.age_s)} ago.",
        )
    if state in "RD" and snapshot.age_s > 1:
        return view, f"The daemon, pid {snapshot.pid}, is busy: figures of {show.span(snapshot.age_s)} ago."
    return view, ""


_TROUBLE: Final = ("dead", "expired", "refused", "missed", "limited", "turned_away")
_ROWS: Final = ("cid", "lanes", "agents", "registries")


def _totals(view: StatsView) -> list[tuple[str, str]]:
    names = [*_TROUBLE, *(name for name in view.__struct_fields__ if name not in (*_ROWS, *_TROUBLE))]
    return [(_spoken(name), _value(name, getattr(view, name))) for name in names]


def _spoken(name: str) -> str:
    return {"up_s": "up", "rss_bytes": "memory", "cpu_s": "processor time", "fds": "open files"}.get(
        name, name.replace("_", " ")
    )


def _value(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return show.size(int(value))
    if name.endswith("_s"):
        return show.span(value)
    return show.paint(str(value), "red") if name == "dead" and value else str(value)


_HEAD: Final = ("sent", "delivered", "acked", "dead", "expired", "refused", "bytes", "depth", "oldest")
_TIMES: Final = ("p50", "p90", "p99", "p99.9")


def _flows(what: str, flows: list[FlowView]) -> list[str]:
    rows = []
    for flow in flows:
        counts = [str(getattr(flow, name)) for name in _HEAD[:6]]
        oldest = "" if flow.oldest_s is None else show.span(flow.oldest_s)
        took = flow.latency
        times = [took.p50_s, took.p90_s, took.p99_s, took.p999_s] if took.count else []
        shown = [show.short_span(one) for one in times] or [""] * len(_TIMES)
        rows.append([flow.name, *counts, show.size(flow.bytes), str(flow.depth), oldest, *shown])
    return show.table([what, *_HEAD, *_TIMES], rows)
