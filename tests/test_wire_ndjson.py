"""The JSON face: the same verbs, a line each; a line that is no message is answered and harms no other."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentd.wire.bodies import Content, decode_body, encode_body
from agentd.wire.errors import AgentdError, BadBody, TooLarge
from agentd.wire.frames import FRAME_SLACK_BYTES
from agentd.wire.messages import (
    Accepted,
    Ack,
    Details,
    Error,
    Hello,
    Join,
    Message,
    Options,
    Priority,
    Receipt,
    Send,
    State,
    Trace,
    TraceView,
    Transition,
)
from agentd.wire.names import id_text
from agentd.wire.ndjson import BadLine, LineReader, LineWriter

MAX_BODY_BYTES = 1 << 16
cids = st.integers(0, (1 << 63) - 1)
ids = st.integers(0, (1 << 64) - 1)
texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
bodies = st.one_of(
    st.binary(max_size=60),
    texts,
    json_values.filter(lambda value: not isinstance(value, str)),
).map(encode_body)
details = st.none() | st.builds(Details, topic=st.none() | texts, re=st.none() | ids, hops=st.integers(0, 32))
options = st.none() | st.builds(
    Options, priority=st.sampled_from(Priority), key=st.none() | texts, re=st.none() | ids, wait=st.sampled_from(State)
)
messages = st.one_of(
    bodies.flatmap(lambda b: st.builds(Send, cids, texts, st.just(b[0]), st.just(b[1]), options)),
    bodies.flatmap(
        lambda b: st.builds(
            Message, ids, texts, texts, st.just(b[0]), st.just(b[1]), st.floats(0, 2e9), details=details
        )
    ),
    st.builds(Ack, cids, st.lists(ids, max_size=4)),
    st.builds(Join, cids, st.none() | texts, st.booleans()),
    st.builds(Receipt, cids, ids, st.sampled_from(State), st.floats(0, 2e9), refused=st.lists(texts, max_size=3)),
    st.builds(Error, cids, texts, texts),
    st.builds(
        TraceView,
        cids,
        ids,
        st.sampled_from(State),
        texts,
        texts,
        st.sampled_from(Content),
        st.integers(0, 9),
        st.sampled_from(Priority),
        st.just("socket"),
        st.integers(1, 5),
        st.lists(st.builds(Transition, st.sampled_from(State), st.floats(0, 2e9), texts), max_size=3),
    ),
)


def read(data: bytes) -> list[Any]:
    return LineReader(MAX_BODY_BYTES).feed(data)


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


@given(st.lists(messages, max_size=6), st.lists(st.integers(0, 10_000), max_size=10))
def test_what_was_pushed_comes_out_wherever_the_bytes_are_cut(pushed: list[Any], cuts: list[int]) -> None:
    writer = LineWriter()
    for message in pushed:
        writer.push(message)
    assert writer.pending == bool(pushed)
    data = writer.take()
    assert not writer.pending
    assert data.count(b"\n") == len(pushed)
    reader, out = LineReader(MAX_BODY_BYTES), []
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(places):
        out += reader.feed(data[start:end])
    assert not reader.unfinished
    assert out == pushed


@given(st.lists(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()), max_size=5))
def test_any_line_is_a_message_or_a_named_refusal_in_its_place(lines: list[bytes]) -> None:
    good = line(verb="ack", cid=1, ids=[])
    whole = [part.replace(b"\n", b" ") for part in lines]
    out = read(b"".join(part + b"\n" + good for part in whole))
    assert [item for item in out if not isinstance(item, BadLine)] == [Ack(1, [])] * len(lines)
    assert len(out) == len(lines) + sum(bool(part.strip()) for part in whole)


@example({"body": "\x80", "content": "bytes"}, "")
@given(st.dictionaries(st.sampled_from(["cid", "to", "body", "content", "options", "ids", "id"]), json_values), texts)
def test_any_object_is_a_message_or_a_named_refusal(fields: dict[str, Any], other: str) -> None:
    for verb in ("send", "ack", "nack", "message", "join", other):
        for item in read(line(**{**fields, "verb": verb})):
            assert isinstance(item, BadLine) or type(item).__name__.lower() == verb


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b"{", "not JSON"),
        (b"[]", "no object"),
        (b"\xff", "not JSON"),
        (b'{"verb":"fly"}', "No verb 'fly'"),
        (b'{"verb":["send"]}', "No verb"),
        (b'{"verb":"send","cid":1,"to":"a"}', "send needs 'content'"),
        (b'{"verb":"send","to":"a","body":1,"color":2}', "has no field 'color'"),
        (b'{"verb":"ack","ids":["a"]}', "not a whole message id"),
        (b'{"verb":"ack","ids":[7]}', "An id is a JSON string"),
        (b'{"verb":"send","to":7,"body":""}', "Expected `str`"),
        (b'{"verb":"send","to":"a","body":"?","content":"bytes"}', "not base64"),
        (b'{"verb":"send","to":"a","body":7,"content":"text"}', "the body is a JSON string"),
        (b'{"verb":"chunk","stream":1,"size_bytes":1,"data":"x"}', "No verb 'chunk'"),
        (b'{"verb":' * 10_000, "not JSON"),
    ],
)
def test_a_line_that_is_no_message_says_why(bad: bytes, says: str) -> None:
    (error,) = read(bad + b"\n")
    assert isinstance(error, BadLine)
    assert says in error.message


def test_a_bad_line_keeps_its_cid_so_that_it_can_be_answered() -> None:
    for cid, found in ((7, 7), (-1, 0), (True, 0), ("7", 0), (1 << 64, 0)):
        (error,) = read(line(verb="fly", cid=cid))
        assert error.cid == found


def test_fields_have_their_names_and_ids_their_letters() -> None:
    writer = LineWriter()
    writer.push(Accepted(1, 5, 2, 1.5, note="n"))
    shown = json.loads(writer.take())
    assert shown == {"verb": "accepted", "cid": 1, "id": id_text(5), "count": 2, "at": 1.5, "note": "n"}
    assert read(line(verb="trace", cid=1, id=id_text(5))) == [Trace(1, 5)]


def test_a_body_is_text_json_or_base64() -> None:
    cases: list[tuple[dict[str, Any], tuple[Content, bytes]]] = [
        ({"body": "hi"}, (Content.TEXT, b"hi")),
        ({"body": {"pr": 7}}, (Content.JSON, b'{"pr":7}')),
        ({"body": None}, (Content.JSON, b"null")),
        ({"body": "hi", "content": "json"}, (Content.JSON, b'"hi"')),
        ({"body": "AP8=", "content": "bytes"}, (Content.BYTES, b"\x00\xff")),
    ]
    for fields, body in cases:
        (send,) = read(line(verb="send", to="a", **fields))
        assert (send.content, send.body) == body


@pytest.mark.parametrize("content", [Content.TEXT, Content.JSON])
def test_a_body_that_is_not_what_its_sender_said_is_shown_as_bytes(content: Content) -> None:
    writer = LineWriter()
    writer.push(Message(1, "a", "p", content, b"\xff", 1.0))
    shown = json.loads(writer.take())
    assert (shown["content"], shown["body"]) == ("bytes", "/w==")


def test_empty_lines_and_carriage_returns_are_passed_over() -> None:
    assert read(b"\n  \n\r\n" + line(verb="hello", version=1, client="nc")) == [Hello(1, "nc")]


def test_a_line_without_end_is_refused_once_it_is_too_long() -> None:
    reader = LineReader(1024)
    limit = 1024 + FRAME_SLACK_BYTES
    assert reader.feed(b"x" * limit) == []
    assert reader.unfinished
    with pytest.raises(TooLarge):
        reader.feed(b"x")
    with pytest.raises(TooLarge):
        LineReader(1024).feed(b"x" * (limit + 1) + b"\n")


@given(st.binary(max_size=50) | st.text(max_size=50) | json_values)
def test_a_body_keeps_its_kind(value: Any) -> None:
    content, body = encode_body(value)
    assert decode_body(content, body) == value
    assert (content is Content.BYTES) == isinstance(value, bytes)
    assert (content is Content.TEXT) == isinstance(value, str)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": b"x"}, object(), "\ud800"])
def test_what_would_be_changed_on_its_way_is_refused(value: Any) -> None:
    with pytest.raises(BadBody):
        encode_body(value)


@given(st.sampled_from(Content), st.binary(max_size=50))
def test_any_body_is_a_value_or_a_named_refusal(content: Content, body: bytes) -> None:
    try:
        decode_body(content, body)
    except AgentdError as error:
        assert isinstance(error, BadBody)
