"""`agentctl history`: what was said and what became of it, read from the journal's files: the daemon may run or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from agentd.cli import show
from agentd.cli.call import Call, argument, option, verb
from agentd.cli.segments import Finding, Records, look_at, place_of
from agentd.wire.errors import AgentdError
from agentd.wire.types import State

if TYPE_CHECKING:
    from agentd.wire.history import Came, Story, Wanted
    from agentd.wire.messages import Message

#: What is remembered of a message until it is printed is a little, but not nothing.
MOST: Final = 1_000_000
#: So many have columns of one width.
_ROWS: Final = 1000
_PREVIEW: Final = 200
_RELATIVE: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class TooMany(AgentdError):
    """More messages than are gone through at once."""

    code = "too_many"
    exit_status = 65


class Past(click.ParamType[float]):
    """A time that was, as seconds since 1970: an hour of the day, the last one that there was; so long ago; a date."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """When `value` was."""
        from datetime import datetime, time, timedelta

        if isinstance(value, float):
            return value
        now = datetime.now()
        try:
            if value.startswith("-"):
                return now.timestamp() - float(value[1:-1]) * _RELATIVE[value[-1]]
            try:
                hour = time.fromisoformat(value)
            except ValueError:
                return datetime.fromisoformat(value).timestamp()
            at = datetime.combine(now, hour)
            return (at if at.timestamp() <= now.timestamp() else at - timedelta(days=1)).timestamp()
        except (ValueError, KeyError, OverflowError):
            self.fail(f"{value!r} is no time: write 10:00, -5m, 2026-12-24 or 2026-12-24T10:00.", param, ctx)


@verb(
    "agentctl history\nagentctl history builder --from 10:00 --state dead\n"
    "agentctl history --topic 'build:*' --from -1h --into tester    # once more"
)
@argument("name", metavar="[AGENT]", required=False)
@option("--topic", "pattern", metavar="PATTERN", help="Only events on topics that PATTERN matches.")
@option("--from", "start", type=Past(), metavar="TIME", help="Only what was sent since: 10:00, -5m, 2026-12-24T10:00.")
@option("--to", "end", type=Past(), metavar="TIME", help="Only what was sent before.")
@option("--lane", type=click.Choice(["normal", "low"]), help="Only that lane; the others pass agentd by.")
@option("--state", type=click.Choice([str(state) for state in State]), help="Only what came to that last.")
@option("--id", metavar="ID", help="Only that message; the first letters are enough.")
@option("--limit", type=click.IntRange(1, MOST), metavar="N", help="Only the newest N.")
@option("--into", metavar="AGENT", help="Print nothing: send the same bodies to AGENT, in the same order.")
@option("--journal", "directory", metavar="DIR", help="Of the journal in DIR, a backup for example.")
def history(
    call: Call,
    name: str | None,
    pattern: str | None,
    state: str | None,
    limit: int | None,
    into: str | None,
    directory: str | None,
    **narrowed: Any,
) -> int:
    """Show what was said, oldest first, and what each message came to; AGENT has sent it or is to get it.

    The last line says what is not held: what is older than journal.history_s and journal.history_bytes; of what is not
    kept on disk all, unless journal.history = "all"; critical and high.
    """
    place = place_of(directory)
    story = read(place, _wanted(name, pattern, **narrowed), limit if state is None else None)
    found = [id for id, came in sorted(story.messages.items()) if state in (None, came.last.state)]
    chosen = found[-limit:] if limit else found
    messages = _messages(place, story, chosen)
    count = _send(call, into, messages) if into is not None else _print(call, messages)
    _tell_the_end(call, place, story, count, len(chosen) - count)
    return 0


def read(place: str, wanted: Wanted, limit: int | None) -> Story:
    """What the journal's records come to, for the newest `limit` that are asked for."""
    from agentd.wire.errors import BadRequest
    from agentd.wire.history import Story
    from agentd.wire.stored import decode_record

    most = MOST if limit is None else limit + MOST // 10
    story, before = Story(wanted), 0

    def record(position: int, sequence: int, type: int, body: bytes) -> bool:
        nonlocal story, before
        if position <= before:  # a segment went, and it begins anew
            story = Story(wanted)
        before = position
        try:
            story.add(position, decode_record(body))
        except BadRequest:
            return True  # of another version
        if len(story.messages) > most:
            if limit is None:
                raise TooMany(
                    f"More than {MOST} messages are asked for",
                    "Narrow it down by --from and --to, or --limit.",
                )
            story.newest(limit)
        return True

    findings: list[Finding] = []
    look_at(place, findings, record)
    for finding in findings:
        if finding.is_damage:
            show.warn(f"agentctl: {finding}")
    return story


def _wanted(
    name: str | None,
    pattern: str | None,
    start: float | None = None,
    end: float | None = None,
    lane: str | None = None,
    id: str | None = None,
) -> Callable[[str, Message], bool]:
    from agentd.wire.names import Pattern, check_pattern, id_prefix

    topics = None if pattern is None else Pattern(check_pattern(pattern))
    bits, mask = (0, 0) if id is None else id_prefix(id)
    first, last = start or 0.0, float("inf") if end is None else end

    def wanted(to: str, message: Message) -> bool:
        if not first <= message.sent_at < last or message.id & mask != bits:
            return False
        if (name is not None and name not in (to, message.sender)) or (lane is not None and message.lane != lane):
            return False
        if topics is None:
            return True
        topic = None if message.details is None else message.details.topic
        return topic is not None and topics.matches(topic)

    return wanted


def _messages(place: str, story: Story, chosen: list[int]) -> Iterator[tuple[str, Message, Came]]:
    """To whom, and each as it lies on disk; those that are still there."""
    from agentd.wire.errors import BadRequest
    from agentd.wire.stored import Kept, Passed, decode_record

    with Records(place) as records:
        for id in chosen:
            body = records.read(story.messages[id].position)
            try:
                record = None if body is None else decode_record(body)
            except BadRequest:
                continue
            if isinstance(record, (Kept, Passed)) and record.message.id == id:
                yield record.to, record.message, story.messages[id]


def _print(call: Call, messages: Iterator[tuple[str, Message, Came]]) -> int:
    """A line each; how many."""
    from agentd.wire.names import id_text

    count = 0
    rows: list[list[str]] = []

    def flush() -> None:
        head = ["sent", "id", "from", "to", "lane", "state", "at", "size", "body"]
        show.say(*show.table(head, rows)[count > len(rows) :])
        rows.clear()

    for to, message, came in messages:
        count += 1
        if call.as_json:
            show.emit(_as_object(to, message, came))
            continue
        details, last = message.details, came.last
        whom = to if details is None or details.event is not None else details.topic or to
        at = show.clock(last.at) if last.at else ""
        sent = show.clock(message.sent_at)
        about = [id_text(message.id), message.sender, whom, str(message.lane), str(last.state), at]
        rows.append([sent, *about, show.size(len(message.body)), _preview(message)])
        if len(rows) == _ROWS:
            flush()
    if rows:
        flush()
    return count


def _preview(message: Message) -> str:
    """The first line of its body."""
    from agentd.wire.bodies import Content

    if message.content is Content.BYTES:
        return "(bytes)"
    first = message.body[: 4 * _PREVIEW].decode("utf-8", "replace").lstrip("\n").partition("\n")[0]
    return show.cell(first if len(first) <= _PREVIEW else first[:_PREVIEW] + "…")


def _as_object(to: str, message: Message, came: Came) -> dict[str, Any]:
    from agentd.cli.letters import body_to_json
    from agentd.wire.names import id_text

    content, body = body_to_json(message.content, message.body)
    shown: dict[str, Any] = {
        "id": id_text(message.id),
        "sender": message.sender,
        "to": to,
        "sent_at": message.sent_at,
        "lane": str(message.lane),
        "state": str(came.last.state),
        "at": came.last.at or None,
        "note": came.last.note,
        "content": str(content),
        "size_bytes": len(message.body),
        "body": body,
    }
    details = message.details
    if details is not None:
        more = {"topic": details.topic, "headers": details.headers, "hops": details.hops}
        shown |= {key: value for key, value in more.items() if value}
        if details.re is not None:
            shown["re"] = id_text(details.re)
        if details.event is not None:
            shown["event"] = id_text(details.event)
    return shown


def _send(call: Call, to: str, messages: Iterator[tuple[str, Message, Came]]) -> int:
    """One after the other, each event once; how many were gone through. An error says how many were sent."""
    from agentd.wire.bodies import Encoded

    seen, count = 0, 0
    events: set[int] = set()
    with call.connect() as me:
        for _, message, _ in messages:
            seen += 1
            event = None if message.details is None else message.details.event
            if (event or message.id) in events:
                continue  # each durable subscription has a copy
            if event or (message.details is not None and message.details.topic):
                events.add(event or message.id)
            headers = message.details.headers if message.details is not None else None
            body = Encoded(message.content, message.body)
            try:
                me.send(to, body, timeout=call.patience_s, allow_absent=True, headers=headers)
            except AgentdError as error:
                error.hint = f"{count} were sent before. {error.hint}".strip()
                raise
            count += 1
    if call.as_json:
        show.emit({"sent": count, "to": to})
    else:
        show.say(f"sent  {show.count(count, 'message')}  to {to}")
    return seen


def _tell_the_end(call: Call, place: str, story: Story, count: int, gone: int) -> None:
    if call.as_json:
        end = {"since": story.since, "all_since": story.all_since, "missed": story.missed, "gone": gone}
        show.emit({"history": {"directory": place, "messages": count, **end, "never": ["critical", "high"]}})
        return
    parts = [show.count(count, "message")]
    if gone:
        parts.append(f"{show.count(gone, 'more')} went while this was read")
    parts.append("nothing is held" if story.since is None else f"nothing is held from before {show.clock(story.since)}")
    if story.all_since is None:
        parts.append('of normal only what was kept on disk (journal.history = "all" records the rest)')
    else:
        parts.append(f"all of normal from {show.clock(story.all_since)} on, as long as journal.history was all")
    if story.missed:
        parts.append(f"{show.count(story.missed, 'record')} of it missing, for want of room")
    parts.append("never critical and high")
    show.say(show.paint("; ".join(parts), "dim"))


def is_held(id: str) -> bool:
    """Whether the journal that this environment names has records of a message."""
    try:
        return bool(read(place_of(None), _wanted(None, None, id=id), 1).messages)
    except (AgentdError, OSError):
        return False
