"""The JSON face: one object a line, the same verbs and fields as the binary face by name.

    {"verb": "send", "cid": 1, "to": "builder", "body": {"pr": 7}}

Names are snake_case of the struct's name. Ids are their 13 letters. A body is a JSON string (text), any other JSON
value (json), or base64 with "content": "bytes". There are no chunks: a line is one message, within the frame's limit.
"""

from __future__ import annotations

import base64
import re
import types
import typing
from typing import Any, Final, NamedTuple

import msgspec

from agentd.wire.bodies import Content, decode_body
from agentd.wire.errors import AgentdError, BadBody, BadRequest
from agentd.wire.frames import CHUNK_BYTES
from agentd.wire.lines import Lines
from agentd.wire.messages import Chunk, ClientMessage, DaemonMessage
from agentd.wire.names import id_text, id_value

FIRST: Final = ord("{")

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


class BadLine(BadRequest):
    """A line that is no message. The lines after it are read all the same; `cid` is what could be made out of it."""

    def __init__(self, message: str, cid: int = 0) -> None:
        super().__init__(message, "One JSON object a line, as clients/PROTOCOL.md says.")
        self.cid = cid


class _Field(NamedTuple):
    name: str
    is_id: bool
    struct: type[msgspec.Struct] | None
    required: bool
    default: Any


class _Plan(NamedTuple):
    """How one struct and its object map to each other."""

    fields: list[_Field]
    has_body: bool


_plans: dict[type, _Plan] = {}


def _plan(kind: type[msgspec.Struct]) -> _Plan:
    plan = _plans.get(kind)
    if plan is None:
        hints = typing.get_type_hints(kind, include_extras=True)
        fields = []
        for info in msgspec.structs.fields(kind):
            leaves = list(_leaves(hints[info.name]))
            struct = next(
                (leaf for leaf in leaves if isinstance(leaf, type) and issubclass(leaf, msgspec.Struct)), None
            )
            default = None if info.default_factory is msgspec.NODEFAULT else info.default_factory()
            if info.default is not msgspec.NODEFAULT:
                default = info.default
            fields.append(_Field(info.name, any(map(is_id, leaves)), struct, info.required, default))
        plan = _plans[kind] = _Plan(fields, any(field.name == "body" for field in fields))
    return plan


def _leaves(hint: Any) -> typing.Iterator[Any]:
    """The types that a hint is made of, looking through unions and lists."""
    if typing.get_origin(hint) is typing.Annotated and typing.get_origin(hint.__origin__) is list:
        hint = hint.__origin__
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) in (list, typing.Union):
        for part in typing.get_args(hint):
            yield from _leaves(part)
    else:
        yield hint


def is_id(hint: Any) -> bool:
    """Whether this type is a message id."""
    return any((getattr(meta, "extra", None) or {}).get("id") for meta in getattr(hint, "__metadata__", ()))


def verb_of(kind: type[msgspec.Struct]) -> str:
    """The verb's name on the JSON face."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


_VERBS: Final = {
    verb_of(kind): kind
    for kind in (*typing.get_args(ClientMessage), *typing.get_args(DaemonMessage))
    if kind is not Chunk
}


def to_object(struct: msgspec.Struct, *, bodies_as_bytes: bool = False) -> dict[str, Any]:
    """A struct as the JSON face shows it, without the verb. Also what `agentctl --json` prints. A body that is not what
    its sender said it is is shown as bytes: they are the truth."""
    plan = _plan(type(struct))
    out: dict[str, Any] = {}
    for field in plan.fields:
        value = getattr(struct, field.name)
        if not field.required and value == field.default and not isinstance(value, msgspec.Struct):
            continue
        if field.is_id and value is not None:
            value = [id_text(id) for id in value] if isinstance(value, list) else id_text(value)
        elif field.struct and value is not None:
            if isinstance(value, list):
                value = [to_object(item) for item in value]
            else:
                value = to_object(value, bodies_as_bytes=bodies_as_bytes)
        elif plan.has_body and field.name == "body":
            if bodies_as_bytes:
                out["content"] = Content.BYTES
            try:
                value = body_to_json(out["content"], value)
            except BadBody:
                out["content"], value = Content.BYTES, body_to_json(Content.BYTES, value)
        out[field.name] = value
    return out


def body_to_json(content: Content, body: bytes) -> Any:
    """A body as a JSON value: text and json as they are, bytes (and what is not what it says) as base64."""
    if content is Content.BYTES:
        return base64.b64encode(body).decode()
    return decode_body(content, body)


def body_from_json(content: str | None, body: Any) -> tuple[Content, bytes]:
    """The content kind and bytes of a body on the JSON face."""
    if content is None:
        content = Content.TEXT if isinstance(body, str) else Content.JSON
    if content == Content.JSON:
        return Content.JSON, _encoder.encode(body)
    if not isinstance(body, str):
        raise BadBody(f'With "content": "{content}" the body is a JSON string')
    try:
        return (
            (Content.TEXT, body.encode())
            if content == Content.TEXT
            else (Content.BYTES, base64.b64decode(body, validate=True))
        )
    except ValueError as error:  # of either kind; base64 has a third for letters that are not ASCII
        raise BadBody(f"The body is not {'base64' if content == 'bytes' else 'UTF-8'}: {error}") from None


def _to_array(kind: type[msgspec.Struct], given: Any, skip: str | None = None) -> list[Any]:
    """An object's fields as the positional array of its struct, for msgspec to check."""
    if not isinstance(given, dict):
        raise BadRequest(f"{verb_of(kind)} takes an object")
    plan = _plan(kind)
    known = {field.name for field in plan.fields}
    for name in given:
        if name not in known and name != skip:
            raise BadRequest(f"{verb_of(kind)} has no field {name!r}", f"It has: {', '.join(sorted(known))}.")
    if plan.has_body and "body" in given:
        content, body = body_from_json(given.get("content"), given["body"])
        given = {**given, "content": content, "body": body}
    out: list[Any] = []
    for field in plan.fields:
        if field.name not in given:
            if field.required and not (field.name == "cid"):
                raise BadRequest(f"{verb_of(kind)} needs {field.name!r}")
            out.append(0 if field.name == "cid" else field.default)
            continue
        value = given[field.name]
        if field.is_id and value is not None:
            value = [_id(item) for item in value] if isinstance(value, list) else _id(value)
        elif field.struct and isinstance(value, dict):
            value = _tagged(field.struct, value)
        elif field.struct and isinstance(value, list):
            value = [_tagged(field.struct, item) for item in value]
        out.append(value)
    return out


def _tagged(kind: type[msgspec.Struct], given: Any, skip: str | None = None) -> list[Any]:
    """The same as msgspec expects it: a verb, also one within another (an answer has a message), begins with a tag."""
    tag = kind.__struct_config__.tag
    return [*(() if tag is None else (tag,)), *_to_array(kind, given, skip)]


def _id(text: Any) -> int:
    if not isinstance(text, str):
        raise BadRequest("An id is a JSON string of 13 letters")
    return id_value(text)


def from_object(given: Any) -> Any:
    """The message that an object with a verb stands for; BadLine when it stands for none."""
    if not isinstance(given, dict):
        raise BadLine("The line is JSON but no object")
    cid = given.get("cid", 0)
    cid = cid if isinstance(cid, int) and not isinstance(cid, bool) and 0 <= cid < 1 << 63 else 0
    kind = _VERBS.get(given.get("verb", "")) if isinstance(given.get("verb"), str) else None
    if kind is None:
        raise BadLine(f"No verb {given.get('verb')!r}", cid)
    try:
        return msgspec.convert(_tagged(kind, given, skip="verb"), type=kind)
    except msgspec.ValidationError as error:
        raise BadLine(f"{given['verb']}: {_named(kind, str(error))}", cid) from None
    except AgentdError as error:
        raise BadLine(f"{given['verb']}: {error.message}", cid) from None


def _named(kind: type[msgspec.Struct], text: str) -> str:
    """msgspec names a place in the array; people know the field."""

    def name(match: re.Match[str]) -> str:
        place = int(match[1]) - 1
        fields = _plan(kind).fields
        return f"`{fields[place].name}`" if 0 <= place < len(fields) else match[0]

    return re.sub(r"`\$\[(\d+)\][^`]*`", name, text)


class LineReader(Lines):
    """Bytes to messages, a line each. A line that is no message comes out as a BadLine in its place."""

    def feed(self, data: bytes) -> list[Any]:
        """All messages completed by `data`, a BadLine for each line that is none; TooLarge for one without end."""
        return [self._read(line) for line in self.cut(data) if line.strip()]

    def _read(self, line: bytes) -> Any:
        try:
            return from_object(_decoder.decode(line))
        except BadLine as error:
            return error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return BadLine(f"The line is not JSON: {error}")


class LineWriter:
    """Messages to lines, with the interface of FrameWriter."""

    def __init__(self) -> None:
        self._lines = bytearray()

    @property
    def pending(self) -> bool:
        """Whether `take` would give bytes."""
        return bool(self._lines)

    @property
    def full(self) -> bool:
        """Whether a frame's worth and more waits."""
        return len(self._lines) > CHUNK_BYTES

    def push(self, message: msgspec.Struct) -> None:
        """Add a message to what will be written."""
        verb = verb_of(type(message))
        try:
            line = _encoder.encode({"verb": verb, **to_object(message)})
        except RecursionError:  # a body as deep as can be read, and a little deeper here
            line = _encoder.encode({"verb": verb, **to_object(message, bodies_as_bytes=True)})
        self._lines += line + b"\n"

    def take(self) -> bytes:
        """All that was pushed."""
        taken = bytes(self._lines)
        self._lines.clear()
        return taken
