"""Messages and receipts as agentctl shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentd.cli import show
from agentd.cli.call import NO_NAME, Call
from agentd.wire.bodies import Content
from agentd.wire.errors import BadBody

if TYPE_CHECKING:
    from agentd.wire.messages import ChoiceView, TraceView
    from agentd_client import Receipt
    from agentd_client.blocking import Message

#: Nobody knows whether it went: as after a time-out, the caller may try again with a key.
UNKNOWN = 75
_COLOUR = {"acked": "green", "delivered": "green", "dead": "red", "expired": "red", "unknown": "red"}


def show_receipt(call: Call, receipt: Receipt, **more: Any) -> int:
    """The state that was reached, and how; 1 when that is one nobody hoped for."""
    state, notes = str(receipt.state), [receipt.note] if receipt.note else []
    if call.name is None:
        notes.append(NO_NAME)
    if call.as_json:
        shown = {"id": receipt.id, "state": state, "at": receipt.at}
        shown |= {"lane": receipt.lane, "route": receipt.route, "note": " ".join(notes)}
        show.emit(shown | more)
    else:
        shown = {name: show.clock(value) if name == "until" else value for name, value in more.items()}
        way = "".join(f"  {name} {value}" for name, value in shown.items() if isinstance(value, (str, int)))
        colour = _COLOUR.get(state, "bold")
        id = f"  {receipt.id}" if receipt.id else ""
        road = f"  {receipt.lane} lane, route {receipt.route}" if receipt.lane else ""
        show.say(
            f"{show.paint(state, colour)}{id}{way}{road}",
            *(show.cell(note) for note in notes),
        )
    return UNKNOWN if state == "unknown" else 1 if state in ("dead", "expired") else 0


def show_choice(call: Call, view: ChoiceView, to: str) -> int:
    """The way that a message would take, and the row of the table that says so."""
    if call.as_json:
        shown = {"to": to, "lane": str(view.lane), "route": str(view.route), "row": view.row, "reason": view.reason}
        show.emit(shown | {"unless": view.unless})
        return 0
    show.say(
        f"{show.paint(f'{view.lane} · {view.route}', 'bold')} · {show.cell(view.reason)}",
        *(f"may change: {show.cell(one)}" for one in view.unless),
        show.paint(f"nothing was sent; row {view.row} of the table of ways", "dim"),
    )
    return 0


def body_to_json(content: Content, data: bytes) -> tuple[Content, Any]:
    """A body as JSON has it; one that is not what it says comes as bytes, in base64."""
    from agentd.wire import ndjson

    try:
        return content, ndjson.body_to_json(content, data)
    except BadBody:
        return Content.BYTES, ndjson.body_to_json(Content.BYTES, data)


def to_json(message: Message) -> dict[str, Any]:
    """A message as one JSON object."""
    content, body = body_to_json(message.content, message.body)
    shown: dict[str, Any] = {
        "id": message.id,
        "sender": message.sender,
        "provenance": message.provenance,
        "content": str(content),
        "body": body,
        "sent_at": message.sent_at,
        "attempt": message.attempt,
        "lane": str(message.lane),
        "wants_reply": message.wants_reply,
    }
    for name in ("topic", "headers", "re", "hops", "event"):
        if value := getattr(message, name):
            shown[name] = value
    return shown


def show_message(call: Call, message: Message, **more: Any) -> None:
    """A message taken: one line on where it is from, then its body, written in one go so that it comes whole."""
    if call.as_json:
        show.emit(to_json(message) | more)
        return
    facts = [
        show.paint(message.id, "bold"),
        f"from agent {message.sender}, {show.cell(message.provenance)}",
        show.clock(message.sent_at),
    ]
    if message.attempt > 1:
        facts.append(show.paint(f"attempt {message.attempt}", "yellow"))
    if message.re:
        facts.append(f"re {message.re}")
    if message.wants_reply:
        facts.append(f"wants a reply: agentctl reply {message.id} BODY")
    facts += [f"{name} {value}" for name, value in more.items()]
    show.write((show.GAP.join(facts) + "\n").encode("utf-8", "backslashreplace") + shown_body(message))


def show_body(call: Call, message: Message) -> None:
    """An answer: its body alone."""
    if call.as_json:
        show.emit(to_json(message))
    else:
        show.write(shown_body(message))


def show_event(call: Call, message: Message) -> None:
    """An event: one line, unless its body has more."""
    if call.as_json:
        show.emit(to_json(message))
        return
    head = show.GAP.join([show.clock(message.sent_at), show.paint(message.topic or "", "bold"), message.sender])
    body = shown_body(message)
    between = b"\n" if body.count(b"\n") > 1 else show.GAP.encode()
    show.write(head.encode() + between + body)


def shown_body(message: Message) -> bytes:
    """The bytes to print for a body."""
    return show.body_bytes(message.body, text=message.content is not Content.BYTES)


def show_trace(view: TraceView) -> None:
    """A message's way, a state a line."""
    from agentd.wire.names import id_text

    state = str(view.state)
    about = [f"{view.content}, {show.size(view.size_bytes)}", f"{view.lane} lane, route {view.route}"]
    about += [f"attempt {view.attempt}"] if view.attempt > 1 else []
    about += [f"re {id_text(view.re)}"] if view.re is not None else []
    about += [f"hops {view.hops}"] if view.hops else []
    if view.until is not None:
        about.append(f"{'held' if state == 'delivered' else 'waits'} until {show.clock(view.until)}")
    head = [
        show.paint(id_text(view.id), "bold"),
        f"{view.sender} to {view.to}",
        show.paint(state, _COLOUR.get(state, "bold")),
    ]
    show.say(show.GAP.join(head), show.GAP.join(about), *way(view))


def way(view: TraceView) -> list[str]:
    """The table of its states."""
    rows = []
    began = view.transitions[0].at if view.transitions else 0.0
    for step in view.transitions:
        after = f"+{(step.at - began) * 1000:.1f} ms"
        rows.append([show.clock(step.at, fine=True), after, str(step.state), show.cell(step.who), show.cell(step.note)])
    return show.table(["time", "after", "state", "who", "note"], rows)
