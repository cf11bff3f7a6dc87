"""Names, topics, patterns and ids."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.wire.errors import AgentdError, BadName, NoSuchMessage
from agentd.wire.names import (
    Pattern,
    check_name,
    check_pattern,
    check_topic,
    id_prefix,
    id_text,
    id_value,
)

ids = st.integers(0, (1 << 64) - 1)
segments = st.text("ab_", min_size=1, max_size=3)
topics = (
    st.lists(segments, min_size=1, max_size=4)
    .flatmap(
        lambda parts: st.tuples(
            st.just(parts), st.lists(st.sampled_from(":."), min_size=len(parts), max_size=len(parts))
        )
    )
    .map(lambda both: "".join(part + separator for part, separator in zip(*both, strict=True))[:-1])
)
patterns = st.lists(st.text("ab*", min_size=1, max_size=3) | st.just("**"), min_size=1, max_size=4).map(":".join)


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 255, "-", "..", "0", "anonymous"])
def test_a_name_is_letters_digits_and_three_signs(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "a:b", "ä", "a\n", "\0", "x" * 256, "anonymous.b", "*"])
def test_everything_else_is_no_name(name: str) -> None:
    with pytest.raises(BadName):
        check_name(name)


@given(st.text(max_size=300))
def test_any_text_is_a_name_or_refused_in_plain_ascii(text: str) -> None:
    for check in (check_name, check_topic, check_pattern):
        try:
            check(text)
        except BadName as error:
            assert error.message.isascii() and "\n" not in error.message
            assert len(error.message) < 400


@pytest.mark.parametrize("topic", ["a", "a:b", "a.b:c", "task_1:x-y"])
def test_a_topic_is_segments_with_a_colon_or_a_point_between(topic: str) -> None:
    assert check_topic(topic) == topic


@pytest.mark.parametrize("topic", ["", ":", "a:", ":a", "a::b", "a:*", "a b", "agentd:joined", "a\n", "x" * 256])
def test_everything_else_is_no_topic(topic: str) -> None:
    with pytest.raises(BadName):
        check_topic(topic)


def test_own_topics_can_be_subscribed_to() -> None:
    assert check_pattern("agentd:*") == "agentd:*"


@pytest.mark.parametrize("pattern", ["", "a:", "a**", "**a", "a:b**", "***", "a:?"])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(BadName):
        check_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("a", ["a"], ["b", "a:b", "aa"]),
        ("a:b", ["a:b"], ["a.b", "a:bb"]),
        ("*", ["a", "bc"], ["a:b", "a.b"]),
        ("task:*", ["task:a", "task:bc"], ["task", "task:a:b", "task:a.b", "task.a"]),
        ("task_*:x", ["task_1:x", "task_:x"], ["task:x", "task_1:y", "task_a:b:x"]),
        ("*a*", ["a", "bab"], ["b", "a:b"]),
        ("**", ["a", "a:b", "a.b:c"], []),
        ("a:**", ["a", "a:b", "a:b.c"], ["ab", "a.b", "b:a"]),
        ("**:z", ["z", "a:z", "a.b:z"], ["zz", "a:z:b"]),
        ("a:**:z", ["a:z", "a:b:z", "a:b.c:z"], ["a", "z", "a:zz"]),
        ("a.b", ["a.b"], ["a:b", "axb"]),
    ],
)
def test_a_pattern_matches_within_segments_and_over_them(pattern: str, matches: list[str], others: list[str]) -> None:
    expression = Pattern(check_pattern(pattern))
    for topic in matches:
        assert expression.matches(topic), topic
    for topic in others:
        assert not expression.matches(topic), topic


def plainly(pattern: list[str], topic: list[str]) -> bool:
    """Whether they match, the slow and obvious way."""
    if not pattern:
        return not topic
    if pattern[0] == "**":
        return plainly(pattern[1:], topic) or (bool(topic) and plainly(pattern, topic[1:]))
    expression = "".join(".*" if letter == "*" else re.escape(letter) for letter in pattern[0])
    return bool(topic) and re.fullmatch(expression, topic[0]) is not None and plainly(pattern[1:], topic[1:])


@given(patterns, st.lists(segments, min_size=1, max_size=5).map(":".join))
def test_a_pattern_means_what_the_obvious_way_says(pattern: str, topic: str) -> None:
    try:
        check_pattern(pattern)
    except BadName:
        assert any("**" in segment and segment != "**" for segment in pattern.split(":"))
        return
    assert Pattern(pattern).matches(topic) == plainly(pattern.split(":"), topic.split(":"))


@given(topics)
def test_a_topic_is_a_pattern_that_matches_itself_alone(topic: str) -> None:
    expression = Pattern(check_pattern(check_topic(topic)))
    assert expression.matches(topic)
    assert not expression.matches(topic + "a")


@given(ids, st.integers(1, 13))
def test_an_id_is_thirteen_letters_and_every_prefix_finds_it(id: int, letters: int) -> None:
    text = id_text(id)
    assert len(text) == 13
    assert id_value(text) == id
    bits, mask = id_prefix(text[:letters])
    assert id & mask == bits


@given(ids, ids, st.integers(1, 13))
def test_a_prefix_finds_no_id_that_begins_otherwise(one: int, other: int, letters: int) -> None:
    bits, mask = id_prefix(id_text(one)[:letters])
    assert (other & mask == bits) == id_text(other).startswith(id_text(one)[:letters])


def test_ids_that_follow_each_other_differ_in_their_first_letter() -> None:
    assert id_text(1 << 40)[0] != id_text((1 << 40) + 1)[0]


@given(st.text(max_size=20))
def test_any_text_is_an_id_or_a_named_refusal(text: str) -> None:
    for parse in (id_value, id_prefix):
        try:
            parse(text)
        except AgentdError as error:
            assert isinstance(error, NoSuchMessage)
    if text == text.lower() and re.fullmatch("[a-z2-7]{13}", text) and text[-1] in "abcdefghijklmnop":
        assert id_text(id_value(text)) == text


def test_no_pattern_takes_for_ever() -> None:
    """Following one way after the other would take longer than anybody waits."""
    assert not Pattern("a*" * 40 + "b").matches("a" * 200)
    assert not Pattern("**:a:" * 40 + "b").matches(":".join("a" * 100))
    assert Pattern("**:a:" * 40 + "a").matches(":".join("a" * 100))
