"""The tables of the documents that are made from the code: fields of structs, errors, ways of messages.
`python tests/protocol_tables.py` writes them."""

from __future__ import annotations

import enum
import re
import types
import typing
from pathlib import Path
from typing import Any

import msgspec

from agentd.wire import choice, grants, messages
from agentd.wire.errors import BY_CODE
from agentd.wire.messages import ClientMessage, DaemonMessage
from agentd.wire.ndjson import verb_of

_ROOT = Path(__file__).parent.parent
PROTOCOL = _ROOT / "clients" / "PROTOCOL.md"
DOCUMENTS = (PROTOCOL, _ROOT / "README.md", _ROOT / "docs" / "design.md")
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PLAIN = {str: "text", int: "number", float: "number", bool: "true or false", bytes: "bytes", type(None): "null"}


def _shown(hint: Any) -> str:
    """A type in words."""
    if typing.get_origin(hint) is typing.Annotated:
        base, *metas = typing.get_args(hint)
        if any((getattr(meta, "extra", None) or {}).get("id") for meta in metas):
            return "id"
        return _shown(base) + "".join(_bounds(meta) for meta in metas if isinstance(meta, msgspec.Meta))
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " or ".join(_shown(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return f"list of {_shown(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) is dict:
        return "object of texts"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
        return " · ".join(member.value for member in hint)
    return _PLAIN[hint]


def _bounds(meta: msgspec.Meta) -> str:
    low = meta.ge if meta.ge is not None else meta.gt
    if meta.max_length is not None:
        return f" of at most {meta.max_length}"
    if low is None:
        return ""
    sign = "≥" if meta.ge is not None else ">"
    high = "2^63-1" if meta.le == (1 << 63) - 1 else meta.le
    return f", {sign} {low}" + (f", ≤ {high}" if meta.le is not None else "")


def _default(field: Any) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return "`[]`"
    if field.default is msgspec.NODEFAULT:
        return ""
    return f"`{msgspec.json.encode(field.default).decode()}`"


def _struct(kind: type[msgspec.Struct]) -> list[str]:
    tag = kind.__struct_config__.tag
    title = f"`{verb_of(kind)}`, tag {tag}" if tag is not None else kind.__name__
    doc = " ".join((kind.__doc__ or "").split())
    out = [f"#### {title}", "", doc, ""]
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = msgspec.structs.fields(kind)
    if fields:
        out += ["| field | type | default |", "|---|---|---|"]
        out += [f"| {one.encode_name} | {_shown(hints[one.name])} | {_default(one)} |" for one in fields]
        out.append("")
    return out


def _parts(kinds: tuple[Any, ...]) -> list[type[msgspec.Struct]]:
    """The structs within structs, each once, in the order of their first use."""
    found: list[type[msgspec.Struct]] = []

    def look(hint: Any) -> None:
        for part in typing.get_args(hint):
            look(part)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and hint not in found:
            if hint not in kinds:
                found.append(hint)
            for inner in typing.get_type_hints(hint).values():
                look(inner)

    for kind in kinds:
        for hint in typing.get_type_hints(kind).values():
            look(hint)
    return found


def _errors() -> list[str]:
    out = ["| code | retryable | meaning |", "|---|---|---|"]
    for kind in sorted(BY_CODE.values(), key=lambda kind: kind.code):
        doc = " ".join((kind.__doc__ or "").split())
        out.append(f"| `{kind.code}` | {'yes' if kind.retryable else 'no'} | {doc} |")
    return [*out, ""]


#: What a condition of the table of ways says in words, by its field and its values.
_CONDITIONS = {
    "open": {(False,): "its lane is closed"},
    "durable": {(True,): "durable"},
    "attached": {(False,): "the sender has no shared memory", (True,): "the sender has shared memory"},
}
_NAMED = {"recipient": "recipient", "size": "size", "route": "demanded:"}


def _condition(field: str, values: tuple[Any, ...]) -> str:
    if field in _CONDITIONS:
        return _CONDITIONS[field][values]
    words = " or ".join(str(value) for value in values)
    return f"{_NAMED[field]} {words}" if field in _NAMED else words


def _ways() -> list[str]:
    """The whole table, as another language needs it."""
    out = ["| row | when | then | what is said of it |", "|---|---|---|---|"]
    for row in choice.TABLE:
        when = " · ".join(_condition(field, values) for field, values in row.when.items())
        then = f"**{row.route}**" if row.route else f"`{row.code}`"
        out.append(f"| `{row.name}` | {when} | {then} | {_plain(row.reason)} |")
    return [*out, ""]


def _roads(*, changes: bool) -> list[str]:
    """Those that carry something, as a user needs them; with what may change until a message is sent, or without."""
    out = ["| way | when |" + " what may change until it is sent |" * changes, "|---|---|" + "---|" * changes]
    for row in choice.TABLE:
        if row.route:
            cells = [f"{', '.join(row.when['priority'])} · {row.route}", row.reason, *([row.unless] if changes else [])]
            out.append("| " + " | ".join(map(_plain, cells)) + " |")
    return [*out, ""]


def _plain(template: str) -> str:
    return re.sub(r"{(\w+)}", r"*\1*", template)


def tables() -> dict[str, str]:
    """Each table by its name in the document."""
    client, daemon = typing.get_args(ClientMessage), typing.get_args(DaemonMessage)
    daemon_only = tuple(kind for kind in daemon if kind is not messages.Chunk)
    made = {
        "client": [line for kind in client for line in _struct(kind)],
        "daemon": [line for kind in daemon_only for line in _struct(kind)],
        "parts": [line for kind in _parts((*client, *daemon_only)) for line in _struct(kind)],
        "grants_client": [line for kind in typing.get_args(grants.ClientPacket) for line in _struct(kind)],
        "grants_daemon": [line for kind in typing.get_args(grants.DaemonPacket) for line in _struct(kind)],
        "errors": _errors(),
        "ways": _ways(),
        "roads": _roads(changes=False),
        "changes": _roads(changes=True),
    }
    return {name: "\n".join(["", *lines]) for name, lines in made.items()}


def filled(text: str) -> str:
    """The document with its tables as they should be."""
    made = tables()
    return _BLOCK.sub(lambda found: found[1] + made[found[2]] + found[3], text)


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(filled(document.read_text()))
