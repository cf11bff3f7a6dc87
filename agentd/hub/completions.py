"""Completions: the words that a shell offers. Somebody waits with a finger on TAB: at most MAX_WORDS, and no list is
gone through that could be long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from agentd.hub.agents import Agent
from agentd.hub.hub import Hub
from agentd.hub.receipts import Entry
from agentd.hub.views import preview
from agentd.wire.messages import Completion, CompletionView, WordView
from agentd.wire.messages import Word as Kind
from agentd.wire.names import ID_LETTERS, id_text

MAX_WORDS: Final = 100
#: So many of the latest messages are looked at for topics, and for ids that nobody's inbox has.
_LATEST: Final = 2000
_LETTERS: Final = 4
#: Past so many messages nobody looks whether the beginning of an id is enough.
_MAX_COMPARED: Final = 50_000


def completion(hub: Hub, verb: Completion, now: float) -> CompletionView:
    """The words that fit."""
    match verb.kind:
        case Kind.AGENT:
            words = _agents(hub, verb.prefix)
        case Kind.TOPIC | Kind.PATTERN:
            words = _topics(hub, verb.prefix, patterns=verb.kind is Kind.PATTERN)
        case _:
            words = _ids(hub, verb.prefix, _messages(hub, verb), dead=verb.kind is Kind.DEAD)
    return CompletionView(verb.cid, words[:MAX_WORDS])


def _agents(hub: Hub, prefix: str) -> list[WordView]:
    """Names, the live ones first."""
    found = [a for a in hub.agents.by_name.values() if a.name.startswith(prefix) and not a.unnamed]
    found.sort(key=lambda agent: (not agent.live, agent.name))
    return [WordView(agent.name, _about(agent)) for agent in found[:MAX_WORDS]]


def _about(agent: Agent) -> str:
    waiting = len(agent.waiting) + len(agent.delayed)
    return ("live" if agent.live else "gone") + (f", {waiting} waiting" if waiting else "")


def _topics(hub: Hub, prefix: str, *, patterns: bool) -> list[WordView]:
    """What is subscribed to, and on what was published lately."""
    subscribers: dict[str, int] = {}
    for subscription in hub.topics.subscriptions.values():
        if patterns or "*" not in subscription.pattern:
            subscribers[subscription.pattern] = subscribers.get(subscription.pattern, 0) + 1
    for agent in hub.agents.by_name.values():
        if agent.source is not None and (patterns or "*" not in agent.source.pattern):
            subscribers[agent.source.pattern] = subscribers.get(agent.source.pattern, 0) + 1
    about = {topic: f"{count} subscribed" for topic, count in subscribers.items()}
    for entry in _latest(hub):
        if entry.topic is not None:
            about.setdefault(entry.topic, f"from {entry.message.sender}")
    return [WordView(topic, about[topic]) for topic in sorted(about) if topic.startswith(prefix)]


def _messages(hub: Hub, verb: Completion) -> Iterable[Entry]:
    """Candidates, the likeliest first."""
    agent = hub.agents.by_name.get(verb.name or "")
    if verb.kind is Kind.DEAD:
        return hub.dead.listed([agent] if agent is not None else list(hub.agents.by_name.values()))
    mail = () if agent is None else (*agent.held(), *agent.delayed.values(), *agent.waiting.values())
    if verb.kind is Kind.MAIL:
        return mail
    others = (e for e in _latest(hub) if verb.name is None or verb.name in (e.message.sender, e.agent.name))
    return {entry.message.id: entry for entry in (*mail, *others)}.values()


def _latest(hub: Hub) -> Iterator[Entry]:
    return islice(reversed(hub.receipts.entries.values()), _LATEST)


def _ids(hub: Hub, prefix: str, entries: Iterable[Entry], *, dead: bool) -> list[WordView]:
    chosen = list(islice((e for e in entries if id_text(e.message.id).startswith(prefix)), MAX_WORDS))
    letters = _shortest(hub, [entry.message.id for entry in chosen], max(_LETTERS, len(prefix)))
    return [
        WordView(
            id_text(entry.message.id)[: letters[entry.message.id]],
            f"to {entry.to}: {hub.dead.reason(entry)}" if dead else f"{entry.message.sender}: {preview(entry)}",
        )
        for entry in chosen
    ]


def _shortest(hub: Hub, ids: list[int], letters: int) -> dict[int, int]:
    """So many letters name each of these: `letters`, or all."""
    mask = (1 << 5 * letters) - 1
    seen = dict.fromkeys((id & mask for id in ids), 0)
    if len(hub.receipts.entries) <= _MAX_COMPARED:
        for id in hub.receipts.entries:
            if id & mask in seen:
                seen[id & mask] += 1
    return {id: letters if seen[id & mask] == 1 else ID_LETTERS for id in ids}
