"""clients/vectors over agentd.wire: what every client in every language must read alike."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentd.wire import errors
from agentd.wire.bodies import Content, decode_body, encode_body
from agentd.wire.escapes import escaped, unescaped, value
from agentd.wire.frames import FrameReader, FrameWriter
from agentd.wire.messages import Chunk, ClientMessage, DaemonMessage
from agentd.wire.names import Pattern, check_name, check_pattern, check_topic, id_prefix, id_text, id_value
from agentd.wire.ndjson import LineReader, LineWriter, from_object, to_object, verb_of
from agentd.wire.text import TextFace

VECTORS = Path(__file__).parent.parent / "clients" / "vectors"
SIDES: dict[str, Any] = {"client": ClientMessage, "daemon": DaemonMessage}
MAX_BODY_BYTES = 16 << 20


def load(name: str, key: str) -> list[Any]:
    found: list[Any] = json.loads((VECTORS / f"{name}.json").read_text())[key]
    return found


def vectors(name: str, key: str) -> pytest.MarkDecorator:
    values = load(name, key)
    ids = [
        str(value.get("name", number)) if isinstance(value, dict) else str(number)
        for number, value in enumerate(values)
    ]
    return pytest.mark.parametrize("vector", values, ids=ids)


def reader(vector: dict[str, Any]) -> FrameReader[Any]:
    return FrameReader(SIDES[vector["from"]], MAX_BODY_BYTES)


def objects(messages: list[Any]) -> list[Any]:
    """Messages as the JSON face shows them."""
    shown = [{"verb": verb_of(type(message)), **to_object(message)} for message in messages]
    return list(json.loads(msgspec.json.encode(shown)))


# Frames.


@vectors("frames", "frames")
def test_a_frame_reads_as_its_messages(vector: dict[str, Any]) -> None:
    assert objects(reader(vector).feed(bytes.fromhex(vector["hex"]))) == vector["messages"]


@vectors("frames", "frames")
def test_what_the_json_face_reads_is_the_same(vector: dict[str, Any]) -> None:
    read = reader(vector).feed(bytes.fromhex(vector["hex"]))
    assert [from_object(given) for given in vector["messages"]] == read


@vectors("frames", "frames")
def test_what_is_written_reads_the_same(vector: dict[str, Any]) -> None:
    frames, lines = FrameWriter(), LineWriter()
    messages = reader(vector).feed(bytes.fromhex(vector["hex"]))
    for message in messages:
        frames.push(message)
        lines.push(message)
    assert reader(vector).feed(frames.take()) == messages
    assert LineReader(MAX_BODY_BYTES).feed(lines.take()) == messages


@vectors("frames", "lenient")
def test_other_versions_are_read(vector: dict[str, Any]) -> None:
    assert objects(reader(vector).feed(bytes.fromhex(vector["hex"]))) == vector["messages"]


@vectors("frames", "refused")
def test_a_frame_that_is_none_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(errors.AgentdError) as refused:
        reader(vector).feed(bytes.fromhex(vector["hex"]))
    assert refused.value.code == vector["code"]


def test_every_verb_has_a_vector() -> None:
    shown = {message["verb"] for vector in load("frames", "frames") for message in vector["messages"]}
    for side in SIDES.values():
        assert {verb_of(kind) for kind in typing.get_args(side) if kind is not Chunk} <= shown


@vectors("chunks", "sequences")
@pytest.mark.parametrize("step", [1, 3, 1 << 20])
def test_chunks_make_their_message(vector: dict[str, Any], step: int) -> None:
    data = bytes.fromhex("".join(vector["frames"]))
    one = reader(vector)
    got = [message for at in range(0, len(data), step) for message in one.feed(data[at : at + step])]
    assert objects(got) == vector["messages"]
    assert not one.unfinished


@vectors("chunks", "refused")
def test_chunks_that_do_not_fit_are_refused(vector: dict[str, Any]) -> None:
    one = reader(vector)
    with pytest.raises(errors.AgentdError) as refused:
        for frame in vector["frames"]:
            one.feed(bytes.fromhex(frame))
    assert refused.value.code == vector["code"]


# Ids and names.


@vectors("ids", "ids")
def test_an_id_and_its_letters(vector: dict[str, str]) -> None:
    assert id_text(int(vector["number"])) == vector["text"]
    assert id_value(vector["text"]) == int(vector["number"])


@vectors("ids", "prefixes")
def test_a_prefix_fixes_the_low_bits(vector: dict[str, str]) -> None:
    assert id_prefix(vector["text"]) == (int(vector["value"]), int(vector["mask"]))


@vectors("ids", "invalid")
def test_what_is_no_id(vector: str) -> None:
    with pytest.raises(errors.NoSuchMessage):
        id_prefix(vector)


@pytest.mark.parametrize(
    ("check", "valid", "invalid"),
    [
        (check_name, "names", "not_names"),
        (check_topic, "topics", "not_topics"),
        (check_pattern, "patterns", "not_patterns"),
    ],
)
def test_names(check: typing.Callable[[str], str], valid: str, invalid: str) -> None:
    for name in load("names", valid):
        assert check(name) == name
    for name in load("names", invalid):
        with pytest.raises(errors.BadName):
            check(name)


@vectors("names", "matches")
def test_what_a_pattern_matches(vector: dict[str, Any]) -> None:
    matches = Pattern(check_pattern(vector["pattern"])).matches
    assert [topic for topic in vector["yes"] if not matches(topic)] == []
    assert [topic for topic in vector["no"] if matches(topic)] == []


# Bodies and errors.


@vectors("bodies", "bodies")
def test_a_body_keeps_its_kind(vector: dict[str, Any]) -> None:
    value = bytes.fromhex(vector["bytes"]) if "bytes" in vector else vector["value"]
    content, body = encode_body(value)
    assert content == vector["content"]
    # JSON has more than one way to write a value; reading is what must agree.
    assert decode_body(content, bytes.fromhex(vector["hex"])) == decode_body(content, body) == value


@vectors("bodies", "refused")
def test_a_body_that_is_not_what_it_says(vector: dict[str, Any]) -> None:
    with pytest.raises(errors.BadBody):
        decode_body(Content(vector["content"]), bytes.fromhex(vector["hex"]))


def test_errors() -> None:
    known = {kind.code: (kind.retryable, kind.exit_status) for kind in errors.BY_CODE.values()}
    assert {one["code"]: (one["retryable"], one["exit_status"]) for one in load("errors", "errors")} == known


# Text.


@vectors("text", "escapes")
def test_a_body_is_written_so_and_read_back(vector: dict[str, Any]) -> None:
    body = bytes.fromhex(vector["body_hex"])
    assert escaped(body) == vector["line"].encode()
    assert unescaped(vector["line"].encode()) == body


@vectors("text", "bad_escapes")
def test_what_is_no_escape_is_refused(vector: str) -> None:
    with pytest.raises(errors.BadRequest):
        unescaped(vector.encode())


@vectors("text", "values")
def test_a_value_is_never_taken_for_a_refusal(vector: list[str]) -> None:
    assert value(vector[0].encode()) == vector[1].encode()


@vectors("text", "commands")
def test_a_line_is_these_verbs(vector: dict[str, Any]) -> None:
    face = TextFace(MAX_BODY_BYTES)
    verbs = face.feed("".join(line + "\n" for line in vector["lines"]).encode())
    assert objects(verbs) == vector["verbs"]


@vectors("text", "refused")
def test_a_line_that_is_no_command_is_refused_in_a_line(vector: str) -> None:
    face = TextFace(MAX_BODY_BYTES)
    assert not any(verb_of(type(verb)) not in ("hello", "join") for verb in face.feed(vector.encode() + b"\n"))
    assert face.take().startswith(b"!bad_request ")
    assert face.idle
