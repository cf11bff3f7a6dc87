"""The panel Together: who is here."""

from __future__ import annotations

from agentd.cli import show
from agentd.cli.call import Call, Verbs, argument, verb


@verb("agentctl agents\nagentctl agents list --json", name="list")
def list_(call: Call) -> int:
    """List all known agents, those in trouble first."""
    with call.connect() as me:
        view = me.agents()
    if call.as_json:
        show.emit_view(view)
        return 0
    if not view.agents:
        show.say("No agents yet.")
        return 0
    rows = []
    for one in sorted(view.agents, key=lambda one: not one.trouble):
        where = f"{one.command or '?'} ({one.pid})" if one.live else "gone"
        seen = "live" if one.live else f"{show.span(one.seen_s)} ago"
        oldest = "" if one.oldest_s is None else show.span(one.oldest_s)
        counts = [str(number) if number else "" for number in (one.waiting, one.held, one.dead)]
        rows.append([one.name, seen, show.cell(where), *counts, oldest, show.cell(one.trouble)])
    show.say(*show.table(["agent", "seen", "process", "waiting", "held", "dead", "oldest", "trouble"], rows))
    return 0


@verb("agentctl agents forget old-builder")
@argument("name")
def forget(call: Call, name: str) -> int:
    """Forget a known name that is not live and has no mail."""
    with call.connect() as me:
        me.forget(name)
    if call.as_json:
        show.emit({"forgotten": name})
    else:
        show.say(f"forgotten  {name}")
    return 0


@verb("agentctl pause builder")
@argument("names", nargs=-1, required=True, metavar="NAME...")
def pause(call: Call, names: tuple[str, ...]) -> int:
    """Give agents nothing until they are resumed: their mail waits, urgent messages to them are refused for now.

    What they hold they may finish. A restart of agentd resumes everybody.
    """
    return _set_paused(call, names, on=True)


@verb("agentctl resume builder")
@argument("names", nargs=-1, required=True, metavar="NAME...")
def resume(call: Call, names: tuple[str, ...]) -> int:
    """Give paused agents their mail again."""
    return _set_paused(call, names, on=False)


def _set_paused(call: Call, names: tuple[str, ...], *, on: bool) -> int:
    done = "paused" if on else "resumed"
    with call.connect() as me:
        for name in names:
            me.pause(name, on)
    if call.as_json:
        show.emit({done: list(names)})
    else:
        show.say(*(f"{done}  {name}" for name in names))
    return 0


agents = Verbs(
    "agents",
    help="See who is known here: who is live, how much mail waits, what is wrong.",
    example="agentctl agents\nagentctl agents forget old-builder",
    default="list",
    commands={"list": list_, "forget": forget},
)
