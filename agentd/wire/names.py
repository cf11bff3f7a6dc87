"""The naming rules: agents, topics, patterns, ids. Names are keys, never paths."""

from __future__ import annotations

import re
from typing import Final

from agentd.wire.errors import BadName, NoSuchMessage

MAX_NAME_BYTES: Final = 255
#: Names the daemon gives to sessions that joined without one; nobody may join under such a name.
ANONYMOUS: Final = "anonymous."
#: Nobody else may bear it.
DAEMON: Final = "agentd"
#: What the name of a durable subscription has before it where agents are named: no agent can bear such a name.
SUBSCRIPTION: Final = "sub:"
#: Topics on which the daemon publishes its own facts; agents may subscribe to them, never publish.
OWN_TOPICS: Final = "agentd:"

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_TOPIC = re.compile(r"[A-Za-z0-9_-]+(?:[:.][A-Za-z0-9_-]+)*")
_PATTERN = re.compile(r"[A-Za-z0-9_*-]+(?:[:.][A-Za-z0-9_*-]+)*")


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 60 else name[:57] + "...")


def check_name(name: str) -> str:
    """`name` if an agent may bear it, else BadName."""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_BYTES:
        raise BadName(
            f"{_shown(name)} is not an agent name",
            f"Use letters, digits, '.', '_' and '-', at most {MAX_NAME_BYTES} of them.",
        )
    if name == DAEMON:
        raise BadName(f"{_shown(name)} is the daemon's own name", "Choose another.")
    if name.startswith(ANONYMOUS):
        raise BadName(f"{_shown(name)} is reserved for agents without a name", f"Names can't begin with {ANONYMOUS!r}.")
    return name


def check_topic(topic: str) -> str:
    """`topic` if an agent may publish on it, else BadName."""
    if not _TOPIC.fullmatch(topic) or len(topic) > MAX_NAME_BYTES:
        raise BadName(
            f"{_shown(topic)} is not a topic",
            "Topics are segments of letters, digits, '_' and '-' joined by ':' or '.', such as task:created.",
        )
    if topic.startswith(OWN_TOPICS):
        raise BadName(f"{_shown(topic)} is a topic of the daemon's own", f"Publish outside {OWN_TOPICS}*.")
    return topic


def check_pattern(pattern: str) -> str:
    """`pattern` if it is a topic glob, else BadName."""
    if not _PATTERN.fullmatch(pattern) or len(pattern) > MAX_NAME_BYTES or _misplaced(pattern):
        raise BadName(
            f"{_shown(pattern)} is not a topic pattern",
            "A topic, where * stands for any part of one segment and a segment ** for any number of segments: task:*",
        )
    return pattern


def _misplaced(pattern: str) -> bool:
    return any("**" in segment and segment != "**" for segment in re.split("[:.]", pattern))


class Pattern:
    """A topic pattern, ready to match. It follows all ways through the pattern at once, so that no pattern takes more
    than its length times that of the topic: a regular expression of it could take for ever."""

    __slots__ = ("_steps",)

    def __init__(self, pattern: str) -> None:
        self._steps = [
            (separator, None if segment == "**" else _segment(segment)) for separator, segment in _split(pattern)
        ]

    def matches(self, topic: str) -> bool:
        """Whether the pattern stands for this topic."""
        steps = self._steps
        ways = self._closure({0})  # steps to take next
        inside: set[int] = set()  # steps ** that have taken a segment and may take more
        for place, (separator, segment) in enumerate(_split(topic)):
            taken: set[int] = set()
            for way in ways:
                if way == len(steps):
                    continue
                before, matcher = steps[way]
                if place and separator != before:
                    continue
                if matcher is None:
                    inside = inside | {way}
                elif matcher.fullmatch(segment):
                    taken.add(way + 1)
            ways = self._closure(taken | {way + 1 for way in inside})
        return len(steps) in ways

    def _closure(self, ways: set[int]) -> set[int]:
        """These, and those that a ** for no segment at all leads to."""
        for way in sorted(ways):
            while way < len(self._steps) and self._steps[way][1] is None:
                way += 1
                ways.add(way)
        return ways


def _split(text: str) -> list[tuple[str, str]]:
    """Each segment with the separator before it."""
    first, *rest = re.split("([:.])", text)
    return [("", first), *zip(rest[::2], rest[1::2], strict=True)]


def _segment(glob: str) -> re.Pattern[str]:
    first, *parts = map(re.escape, glob.split("*"))
    if not parts:
        return re.compile(first)
    *middle, last = parts
    # An atomic group takes the first place that fits and never looks back.
    return re.compile(first + "".join(f"(?>.*?{part})" for part in middle) + ".*" + last, re.DOTALL)


# Ids: 64 bits, counted up from the time of the daemon's start (seconds and their fraction, 32 bits each), which the
# clock outruns: no later start gives one out again. In text, base32 with the fast-moving bits first, so that the
# first four letters usually name one message and any unique prefix is accepted.

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
ID_LETTERS: Final = 13


def id_text(id: int) -> str:
    """The 13 letters of an id."""
    a = _ALPHABET  # written out: every receipt has one, and a loop takes three times as long
    return (
        f"{a[id & 31]}{a[id >> 5 & 31]}{a[id >> 10 & 31]}{a[id >> 15 & 31]}{a[id >> 20 & 31]}{a[id >> 25 & 31]}"
        f"{a[id >> 30 & 31]}{a[id >> 35 & 31]}{a[id >> 40 & 31]}{a[id >> 45 & 31]}{a[id >> 50 & 31]}{a[id >> 55 & 31]}"
        f"{a[id >> 60]}"
    )


def id_prefix(text: str) -> tuple[int, int]:
    """The bits that a prefix of an id's letters fixes, and their mask."""
    value = 0
    for place, letter in enumerate(text):
        bits = _VALUES.get(letter)
        if bits is None or place >= ID_LETTERS:
            break
        value |= bits << (5 * place)
    else:
        if text and value < 1 << 64:
            return value, (1 << min(64, 5 * len(text))) - 1
    raise NoSuchMessage(f"{_shown(text)} is not a message id", f"An id is {ID_LETTERS} letters a-z and digits 2-7.")


def id_value(text: str) -> int:
    """The id that 13 letters stand for."""
    value, _ = id_prefix(text)
    if len(text) != ID_LETTERS:
        raise NoSuchMessage(f"{_shown(text)} is not a whole message id", f"A whole id has {ID_LETTERS} letters.")
    return value
