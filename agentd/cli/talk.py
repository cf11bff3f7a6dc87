"""The panel Talk: messages, requests and events."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from agentd.cli import files, letters, show
from agentd.cli.bodies import read_body, takes_body
from agentd.cli.call import DURATION, MOMENT, Call, argument, option, verb

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentd.wire.errors import AgentdError
    from agentd_client.blocking import Client


def _headers(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str] | None:
    headers = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{item!r} has no value. Write {name or 'name'}=VALUE.", ctx, param)
        headers[name] = value
    return headers or None


@verb(
    "agentctl send builder '{\"pr\": 7}' --wait acked\n"
    "git diff | agentctl send reviewer - --ttl 2h\n"
    "agentctl send builder 'how far is it?' --at 17:30\n"
    "agentctl send builder stop --priority critical --dry-run\n"
    "agentctl send builder @model.bin --priority high    # of any size, into the directory of its recv --save"
)
@argument("to", metavar="TO")
@takes_body
@option("--allow-absent", is_flag=True, help="Keep it for TO even if nobody knows that name yet.")
@option("--wait", type=click.Choice(["stored", "delivered", "acked"]), help="Wait until it got that far.")
@option("--durable", is_flag=True, default=None, help="Write it to disk before saying so.")
@option(
    "--level",
    type=click.Choice(["mapped", "synced"]),
    help="Stored is said when a kill of agentd, or a power cut, can't lose it; else as journal.level has it.",
)
@option("--ttl", type=DURATION, metavar="TIME", help="Not worth delivering after TIME.")
@option("--delay", type=DURATION, metavar="TIME", help="Nobody is given it before; --ttl counts from then.")
@option("--at", type=MOMENT, metavar="WHEN", help="The same until an hour, 17:30, or a date, 2026-12-24T17:30.")
@option("--priority", type=click.Choice(["critical", "high", "normal", "low", "batch"]), default="normal")
@option(
    "--route",
    type=click.Choice(["direct", "relayed", "socket", "journal"]),
    help="Only this way; refused where it can't be had.",
)
@option("--dry-run", is_flag=True, help="Send nothing: say which way it would go and why, or what would refuse it.")
@option("--key", metavar="KEY", help="Sent again under the same KEY it is accepted only once.")
@option("--header", "headers", multiple=True, callback=_headers, metavar="K=V", help="A header; repeatable.")
@option("--re", metavar="ID", help="The message that this one is about.")
def send(
    call: Call,
    to: str,
    body: str,
    kind: str | None,
    wait: str | None,
    re: str | None,
    dry_run: bool,
    **more: Any,
) -> int:
    """Send a message to one agent and say what state it reached.

    BODY that is a JSON object or array goes as JSON, any other as text; @FILE reads a file, - reads stdin. With
    --priority high @FILE is sent as a file, from disk to disk, and saved there when this ends; --timeout is then how
    long nothing may move.
    --dry-run says what holds now, and what may change until it is sent; it exits as sending would.
    """
    if more["delay"] is not None and more["at"] is not None:
        raise click.UsageError("--delay and --at say the same in two ways: give one of them.")
    as_file = files.is_file(body, kind, more["priority"])
    value = b"" if as_file else read_body(body, kind)
    with call.connect() as me:
        if as_file and not dry_run:
            return files.send(call, me, to, body[1:], wait, more | {"re": re})
        if as_file:
            more["route"] = "direct"
        about = me.find(re) if re else None
        more |= {"wait": wait or "accepted", "re": about}
        if dry_run:
            return letters.show_choice(call, me.choose(to, value, **more), to)
        receipt = me.send(to, value, timeout=call.patience_s, **more)
    until = more["at"] or (more["delay"] and receipt.at and receipt.at + more["delay"])
    return letters.show_receipt(call, receipt, to=to, **({"until": until} if until else {}))


@verb(
    "agentctl recv --wait 45s\nagentctl recv --hold 10m    # then work on it, then: agentctl ack ID\n"
    "agentctl recv --follow --save incoming/"
)
@option("--wait", type=DURATION, default=0.0, metavar="TIME", help="Wait so long for one; not at all by default.")
@option("--count", type=click.IntRange(1), metavar="N", help="Take up to N.")
@option("--follow", is_flag=True, help="Take what comes until interrupted.")
@option("--hold", type=DURATION, metavar="TIME", help="Don't ack: keep it for this agent, so long, to ack later.")
@option(
    "--save",
    type=click.Path(exists=True, file_okay=False, writable=True),
    metavar="DIR",
    help="Save files that come into DIR, beside what is there; print messages as ever.",
)
@option("--share", is_flag=True, help="Take turns with others that take this name's mail and share it too.")
@option("--replace", is_flag=True, help="Take over from whoever takes this name's mail now.")
def recv(
    call: Call,
    wait: float,
    count: int | None,
    follow: bool,
    hold: float | None,
    save: str | None,
    share: bool,
    replace: bool,
) -> int:
    """Take the next message, print it, and ack it once it was printed; exit 1 when there is none.

    A message that could not be printed goes back into the inbox. Files come only while --save waits for them.
    """
    from time import monotonic

    call.must_name("recv")
    if sys.stdout is None:
        raise click.UsageError("stdout is closed: what is taken could not be shown.")
    if save is not None and hold is not None:
        raise click.UsageError("--save and --hold: a file can't be held, it is saved and acked.")
    wanted = count or (None if follow else 1)
    deadline = monotonic() + wait
    taken = 0
    with call.connect(take=True, share=share, replace=replace) as me:
        if save is not None:
            me.attach()
        while wanted is None or taken < wanted:
            message = me.receive(timeout=None if follow else max(0.0, deadline - monotonic()))
            if message is None:
                break
            if save is not None and message.file is not None:
                files.take(call, message, save, go_on=follow)
            else:
                _hand_over(call, me, message, hold)
            taken += 1
    return 0 if taken else 1


def _hand_over(call: Call, me: Client, message: Any, hold: float | None) -> None:
    """Print a message, then let go of it: it is the reader's now, or still the inbox's."""
    if hold is not None:
        me.hold(message.id, hold)  # before it is printed: who reads the id may act on it at once
    try:
        letters.show_message(call, message, **({} if hold is None else {"held": show.span(hold)}))
    except OSError:
        me.give_back(message.id)
        raise
    if hold is None:
        me.ack(message.id)


def _notice(call: Call, name: str | None) -> int:
    """As notice.py does it, for all that it leaves to click."""
    from agentd.cli.notice import PATIENCE_S, line
    from agentd.wire.errors import AgentdError

    whose = name or call.name
    if whose is None:
        return 0
    call.timeout = PATIENCE_S if call.timeout is None else call.timeout
    option = f" --as {whose}" if name or call.as_name else ""
    try:
        with call.connect() as me:
            view = me.notice(whose)
            if view.fresh and call.as_json:
                show.emit_view(view)
            elif view.fresh:
                rows = [(row.sender, row.count, str(row.lane)) for row in view.senders]
                show.say(line(view.name, option, view.fresh, view.waiting, rows))
    except (AgentdError, OSError):
        pass
    return 0


@verb("agentctl inbox\nagentctl inbox builder --json\nagentctl inbox --notice --as builder")
@argument("name", required=False)
@option("--limit", type=click.IntRange(1, 1000), default=100, metavar="N", help="Show so many; 100 by default.")
@option("--notice", is_flag=True, help="Only one line, only if mail came that no notice told of. Exit 0 always.")
def inbox(call: Call, name: str | None, limit: int, notice: bool) -> int:
    """Look at the messages that wait for you, or for NAME; takes none and counts no attempt.

    --notice is for hooks: it announces each message once, and says nothing where there is nothing or no daemon.
    """
    from agentd.wire.names import id_text

    if notice:
        return _notice(call, name)
    name = name or call.must_name("inbox")
    with call.connect() as me:
        view = me.look(name, limit=limit)
    mail = sorted(view.messages, key=lambda one: (one.attempt < 2, not one.holder))  # in trouble first
    if call.as_json:
        view.messages = mail
        show.emit_view(view)
        return 0
    if not mail:
        show.say(f"No mail for {name}.")
        return 0
    rows = []
    for one in mail:
        state = f"held by {one.holder}" if one.holder not in ("", "held") else one.holder or str(one.state)
        if one.until is not None:
            state = f"{one.holder or 'waits'} until {show.clock(one.until)}"
        if one.attempt > 1:
            state += f", attempt {one.attempt}"
        preview = show.cell(one.preview) if one.content != "bytes" else "(bytes)"
        rows.append([id_text(one.id), state, one.sender, show.clock(one.sent_at), show.size(one.size_bytes), preview])
    show.say(*show.table(["id", "state", "from", "sent", "size", "body"], rows))
    if view.total > len(mail):
        show.say(f"… and {view.total - len(mail)} more: --limit N")
    return 0


@verb("agentctl ack k7qa\nagentctl ack k7qa m2fb")
@argument("ids", metavar="ID...", nargs=-1, required=True)
def ack(call: Call, ids: tuple[str, ...]) -> int:
    """Say that you are done with messages you hold."""
    return _settle(call, "ack", ids, "acked", lambda me, id: me.ack(id))


@verb("agentctl nack k7qa --reason 'the database is down' --after 5m")
@argument("ids", metavar="ID...", nargs=-1, required=True)
@option("--reason", default="", metavar="TEXT", help="Why; the next taker and `agentctl trace` see it.")
@option("--after", type=DURATION, default=0.0, metavar="TIME", help="Try again in TIME at the earliest.")
def nack(call: Call, ids: tuple[str, ...], reason: str, after: float) -> int:
    """Give messages you hold back to the inbox, to be tried again."""
    return _settle(call, "nack", ids, "nacked", lambda me, id: me.nack(id, reason, after=after))


@verb("agentctl reject k7qa --reason 'there is no such branch'")
@argument("ids", metavar="ID...", nargs=-1, required=True)
@option("--reason", default="", metavar="TEXT", help="Why; the sender and `agentctl dead` see it.")
def reject(call: Call, ids: tuple[str, ...], reason: str) -> int:
    """Say that nobody will ever do it: the messages become dead letters now."""
    return _settle(call, "reject", ids, "rejected", lambda me, id: me.reject(id, reason))


def _settle(
    call: Call, verb_name: str, ids: tuple[str, ...], done: str, settle: Callable[[Client, str], object]
) -> int:
    call.must_name(verb_name)
    whole = []
    with call.connect() as me:
        for id in ids:
            whole.append(me.find(id))
            settle(me, whole[-1])
            if not call.as_json:
                show.say(f"{done}  {whole[-1]}")
    if call.as_json:
        show.emit({"state": done, "ids": whole})
    return 0


@verb("agentctl reply k7qa 'done, all tests pass'")
@argument("id", metavar="ID")
@takes_body
def reply(call: Call, id: str, body: str, kind: str | None) -> int:
    """Answer a message and ack it; works after an ack too."""
    value = read_body(body, kind)
    call.must_name("reply")
    with call.connect() as me:
        receipt = me.reply(id, value, timeout=call.patience_s)
    return letters.show_receipt(call, receipt)


@verb("agentctl request builder 'status?' --timeout 10s")
@argument("to", metavar="TO")
@takes_body
def request(call: Call, to: str, body: str, kind: str | None) -> int:
    """Ask an agent that is live and print its answer's body.

    Exit 75 when nobody there answers or the time is over, 1 when the request is rejected.
    """
    value = read_body(body, kind)
    with call.connect() as me:
        answer = me.request(to, value, timeout=call.patience_s)
    letters.show_body(call, answer)
    return 0


@verb("agentctl serve upper -- tr a-z A-Z\nagentctl serve builder --jobs 4 -- ./build.sh")
@argument("name")
@argument("command", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@option("--jobs", type=click.IntRange(1, 64), default=1, metavar="N", help="Run up to N at a time.")
@option("--replace", is_flag=True, help="Take over from whoever takes NAME's mail now.")
def serve(call: Call, name: str, command: tuple[str, ...], jobs: int, replace: bool) -> int:
    """Be agent NAME: run COMMAND for each message, its body on stdin.

    Exit 0: what it printed is the reply, if one is wanted. Exit 75: the message is tried again later. Any other: it is
    rejected with the last line of stderr. AGENTD_MESSAGE_ID, AGENTD_SENDER, AGENTD_AGENT, AGENTD_ATTEMPT and
    AGENTD_CONTENT are set. No shell is involved. On Ctrl-C the command is ended and its message goes back.
    """
    from agentd.cli.serving import Server

    if call.as_name is not None and call.as_name != name:
        raise click.UsageError(f"It serves as {name}: --as {call.as_name} can't be somebody else")
    call.as_name = name
    return Server(call, command, jobs, replace=replace).run()


@verb("agentctl publish task:created '{\"id\": 7}'")
@argument("topic")
@takes_body
@option("--header", "headers", multiple=True, callback=_headers, metavar="K=V", help="A header; repeatable.")
def publish(call: Call, topic: str, body: str, kind: str | None, headers: dict[str, str] | None) -> int:
    """Publish an event to those subscribed to TOPIC, and say how many have it.

    Durable subscriptions (`agentctl subscribe --name`) have it on disk then, and it says stored.
    """
    value = read_body(body, kind)
    with call.connect() as me:
        receipt = me.publish(topic, value, headers=headers, timeout=call.patience_s)
    refused = list(receipt.refused)
    if call.as_json or receipt.state == "unknown":
        return letters.show_receipt(call, receipt, topic=topic, reached=receipt.reached, refused=refused)
    if refused:
        show.say(show.paint(f"Not taken, no room: {', '.join(refused)}", "red"))
    stored = "  stored" if receipt.state == "stored" else ""
    show.say(f"{show.count(receipt.reached or 0, 'subscription')} reached  {receipt.id}  on {topic}{stored}")
    return 0


@verb("agentctl subscribe 'task:*'\nagentctl subscribe 'agentd:*' --json\nagentctl subscribe 'build:*' --name ci")
@argument("pattern")
@option("--count", type=click.IntRange(1), metavar="N", help="End after N events.")
@option("--name", metavar="NAME", help="Durable: events wait under NAME while nobody is there; several share it.")
@option("--start", default="new", metavar="WHEN", help="Of a new NAME: new (the default), all, -5m, or an event's id.")
def subscribe(call: Call, pattern: str, count: int | None, name: str | None, start: str) -> int:
    """Print events whose topic matches PATTERN, until interrupted.

    `*` stands for any part of one segment, `**` for any number of segments. A gap is told, never hidden.

    With --name an event is acked once it was printed; `agentctl inbox sub:NAME` shows those that wait, `unsubscribe`
    ends it. --start has a new one begin with what the journal still has: what other durable subscriptions had, and with
    journal.history = "all" everything.
    """
    from agentd.wire.errors import Lagged

    if name is not None and sys.stdout is None:
        raise click.UsageError("stdout is closed: what is taken could not be shown.")
    with call.connect() as me, me.subscribe(pattern, start, name) as events:
        if events.note:
            show.warn(f"agentctl: {events.note}")
        while count is None or count > 0:
            try:
                event = next(events, None)
            except Lagged as gap:
                _tell_gap(call, gap)
                continue
            if event is None:
                break
            try:
                letters.show_event(call, event)
            except OSError:
                event.give_back()
                raise
            count = None if count is None else count - 1
    return 0


@verb("agentctl unsubscribe ci")
@argument("name", metavar="NAME")
def unsubscribe(call: Call, name: str) -> int:
    """End the durable subscription NAME for good, with all that waits for it."""
    name = name.removeprefix("sub:")
    with call.connect() as me:
        given_up = me.unsubscribe(name)
    if call.as_json:
        show.emit({"unsubscribed": name, "given_up": given_up})
    else:
        show.say(f"unsubscribed  {name}" + (f": {show.count(given_up, 'message')} given up" if given_up else ""))
    return 0


def _tell_gap(call: Call, gap: Any) -> None:
    if call.as_json:
        show.emit({"lagged": {"missed": gap.missed}})
    else:
        show.warn(f"agentctl: {gap.message}")


@verb("agentctl trace k7qa")
@argument("id", metavar="ID")
def trace(call: Call, id: str) -> int:
    """Show what happened to a message: each state, when, and by whom."""
    from agentd.wire.errors import NoSuchMessage

    with call.connect() as me:
        try:
            view = me.trace(id)
        except NoSuchMessage as error:
            _point_to_history(error, id)
            raise
    if call.as_json:
        show.emit_view(view)
    else:
        letters.show_trace(view)
    return 0


def _point_to_history(error: AgentdError, id: str) -> None:
    """The daemon has forgotten it, or never knew it; the disk may still have it."""
    from agentd.cli.history import is_held

    if error.message.startswith("No message") and is_held(id):
        error.hint = f"It is history: `agentctl history --id {id}`."
