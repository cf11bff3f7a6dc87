"""The state machine: whatever agents do in whatever order, every message that was accepted is in exactly one state and
in exactly one place, every request ends once, every watcher is told once, and nothing vanishes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from fakes import FakeSession, World
from hub_invariants import check, ended
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from msgspec import Struct

from agentd.hub.receipts import ACCEPTED, DEAD, DELIVERED, ENDED, Entry
from agentd.hub.session import Session
from agentd.wire.bodies import Content
from agentd.wire.errors import AgentdError
from agentd.wire.messages import Answer, Error, Join, Message, Options, Publish, Receipt, Reply, Request, Send, State

NAMES = ["a", "b", "c"]
LIMITS = {
    "max_attempts": 3,
    "max_hops": 4,
    "max_body_bytes": 100,
    "inbox__max_messages": 6,
    "max_names": 4,
    "max_keys": 2,
    "keep_keys_s": 30.0,
    "forget_after_s": 3600.0,
    "max_requests": 3,
    "trace__max_messages": 5,
    "trace__keep_s": 60.0,
    "dead__max_messages": 3,
    "max_subscriptions": 2,
    "max_events": 3,
}
some = st.integers(0, 1 << 16)
names = st.sampled_from(NAMES)
recipients = st.sampled_from([*NAMES, *NAMES, "ghost"])
bodies = st.sampled_from([b"", b"x", bytes(100), bytes(101)])
replies_about = st.one_of(st.none(), some)


class Watch(NamedTuple):
    """A call that waits for a state of its message."""

    session: FakeSession
    cid: int
    wanted: State
    entry: Entry
    since: int  # transitions before it


class Recorder(FakeSession):
    """Looks at each message as it is handed over."""

    def __init__(self, machine: HubMachine, pid: int) -> None:
        super().__init__(pid)
        self.machine = machine

    def write(self, message: Struct) -> None:
        """Note the order of first hand-overs; nothing that is over may be handed over."""
        super().write(message)
        inner = message.message if isinstance(message, Answer) else message
        if isinstance(inner, Message):
            self.machine.handed(self, inner, answer=inner is not message)


class HubMachine(RuleBasedStateMachine):
    """Three names, agents without one, and everything that they can do."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(**LIMITS)
        self.sessions: list[Recorder] = []
        self.tracked: dict[int, Entry] = {}
        self.next_id = self.world.hub.receipts.next_id
        self.was_handed: set[int] = set()
        self.disturbed: set[int] = set()  # nacked, held or rejected before anybody was sent it
        self.last_first: dict[tuple[str, str], int] = {}
        self.asked: list[tuple[Recorder, int]] = []
        self.watches: list[Watch] = []
        self.forgotten = 0
        self.pid = 0

    def teardown(self) -> None:
        """Leave no garbage."""
        self.world.let_go()
        self.tracked.clear()
        self.watches.clear()

    # What happens to be said of it.

    def handed(self, session: Recorder, message: Message, *, answer: bool) -> None:
        """A session is sent a message."""
        entry = self.world.hub.receipts.entries[message.id]
        assert entry.state is ACCEPTED
        assert message.attempt <= LIMITS["max_attempts"]
        if entry.topic is None and not answer and message.id not in self.was_handed | self.disturbed:
            pair = (message.sender, entry.agent.name)
            assert message.id > self.last_first.get(pair, 0), f"{pair} out of order"
            self.last_first[pair] = message.id
        self.was_handed.add(message.id)

    def snapshot(self) -> Any:
        """What a refused call must leave as it is."""
        hub = self.world.hub
        entries = hub.receipts.entries.items()
        return (
            {id: (entry.state, len(entry.trail), entry.message.attempt) for id, entry in entries},
            set(hub.agents.by_name),
            hub.receipts.next_id,
        )

    def call(self, action: Callable[..., Any], *arguments: Any) -> bool:
        """Whether it was done; a refusal must be a named one that has done nothing."""
        before = self.snapshot()
        try:
            action(*arguments, self.world.now)
        except AgentdError:
            assert self.snapshot() == before
            return False
        return True

    def session(self, number: int) -> Recorder:
        return self.sessions[number % len(self.sessions)]

    def message(self, number: int) -> int:
        """The id of one of the latest messages."""
        latest = sorted(self.world.hub.receipts.entries)[-8:]
        return latest[number % len(latest)] if latest else 4711

    def disturb(self, id: int) -> None:
        if id not in self.was_handed:
            self.disturbed.add(id)

    # Coming and going.

    @rule(name=st.one_of(st.none(), names), take=st.booleans(), share=st.booleans(), replace=st.booleans())
    def join(self, name: str | None, take: bool, share: bool, replace: bool) -> None:
        self.pid += 1
        session = Recorder(self, self.pid)
        if self.call(self.world.hub.join, session, Join(1, name, take and name is not None, share, replace)):
            self.sessions.append(session)

    @precondition(lambda self: self.sessions)
    @rule(which=some, why=st.sampled_from(["left", "killed"]))
    def leave(self, which: int, why: str) -> None:
        session = self.session(which)
        self.sessions.remove(session)
        self.world.leave(session, why)

    @precondition(lambda self: self.sessions)
    @rule(which=some, credit=st.sampled_from([1, 1, 2, 5, -1]))
    def receive(self, which: int, credit: int) -> None:
        session = self.session(which)
        self.call(lambda now: self.world.hub.inboxes.receive(session, credit))

    @precondition(lambda self: self.sessions)
    @rule(which=some)
    def stall_or_go_on(self, which: int) -> None:
        session = self.session(which)
        session.stalled = not session.stalled
        if not session.stalled and session.takes:
            self.world.hub.inboxes.pump(session.agent)

    @rule(seconds=st.sampled_from([0.5, 5.0, 5.0, 30.0, 60.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        names = set(self.world.hub.agents.by_name)
        self.world.after(seconds)
        self.forgotten += len(names - set(self.world.hub.agents.by_name))

    @rule(name=names)
    def forget(self, name: str) -> None:
        self.forgotten += self.call(lambda now: self.world.hub.agents.forget(name))

    @rule()
    def restart(self) -> None:
        """What lies in inboxes and dead letters outlives it; what is ended is forgotten."""
        for session in self.sessions:
            self.world.leave(session, "agentd is stopping")
        self.remember_accepted()
        names = {name for name, agent in self.world.hub.agents.by_name.items() if not agent.unnamed}
        before, mail = self.tracked, self.unfinished()
        letters = {id for id, entry in before.items() if id in entry.agent.dead}
        self.world.restart()
        hub = self.world.hub
        assert set(hub.agents.by_name) == names
        assert set(hub.receipts.entries) == {*mail, *letters}
        for id, entry in hub.receipts.entries.items():
            assert entry.state is (DEAD if id in letters else ACCEPTED)
            assert entry.message.attempt == before[id].message.attempt
            assert (entry.to, entry.body_bytes) == (before[id].to, before[id].body_bytes)
        self.tracked = dict(hub.receipts.entries)
        assert hub.receipts.next_id == self.next_id
        self.sessions.clear()
        self.watches.clear()
        self.asked.clear()
        self.forgotten = 0

    def unfinished(self) -> set[int]:
        """Mail of agents with a name."""
        return {id for id, entry in self.tracked.items() if not ended(entry) and not entry.agent.unnamed}

    # Talking.

    @precondition(lambda self: self.sessions)
    @rule(
        which=some,
        to=recipients,
        body=bodies,
        plain=st.booleans(),
        ttl=st.sampled_from([None, None, 5.0, 0.0]),
        key=st.sampled_from([None, None, "k", "l", "m"]),
        wait=st.sampled_from([State.ACCEPTED, State.DELIVERED, State.ACKED]),
        allow_absent=st.booleans(),
        re=replies_about,
        answered=st.booleans(),
    )
    def send(
        self,
        which: int,
        to: str,
        body: bytes,
        plain: bool,
        ttl: float | None,
        key: str | None,
        wait: State,
        allow_absent: bool,
        re: int | None,
        answered: bool,
    ) -> None:
        session = self.session(which)
        about = None if re is None else self.message(re)
        options = None if plain else Options(ttl=ttl, key=key, wait=wait, allow_absent=allow_absent, re=about)
        verb = Send(session.next_cid() if answered else 0, to, Content.BYTES, body, options)
        if self.call(self.world.hub.router.send, session, verb) and answered:
            self.watch(session, verb.cid, State.ACCEPTED if plain else wait)

    def watch(self, session: Recorder, cid: int, wanted: State) -> None:
        """From now on this call must be told once, when its message has come so far."""
        id = self.world.accepted(session, cid)
        entry = self.world.hub.receipts.entries.get(id)
        if wanted is not State.ACCEPTED and entry is not None:
            self.watches.append(Watch(session, cid, wanted, entry, len(entry.trail) - 1))

    @precondition(lambda self: self.sessions)
    @rule(
        which=some, to=recipients, body=bodies, timeout=st.sampled_from([1.0, 40.0]), ttl=st.sampled_from([None, 5.0])
    )
    def request(self, which: int, to: str, body: bytes, timeout: float, ttl: float | None) -> None:
        session = self.session(which)
        options = None if ttl is None else Options(ttl=ttl)
        verb = Request(session.next_cid(), to, Content.BYTES, body, timeout, options)
        if self.call(self.world.hub.router.request, session, verb):
            self.asked.append((session, verb.cid))

    @precondition(lambda self: self.sessions)
    @rule(which=some, what=some, wait=st.sampled_from([State.ACCEPTED, State.ACKED]), ttl=st.sampled_from([None, 5.0]))
    def reply(self, which: int, what: int, wait: State, ttl: float | None) -> None:
        session = self.session(which)
        mine = sorted(session.held) or [self.message(what)]
        verb = Reply(session.next_cid(), mine[what % len(mine)], Content.BYTES, b"r", Options(wait=wait, ttl=ttl))
        if self.call(self.world.hub.router.reply, session, verb):
            self.watch(session, verb.cid, wait)

    @precondition(lambda self: self.sessions)
    @rule(which=some, topic=st.sampled_from(["a", "t:u", "t:v"]), body=bodies)
    def publish(self, which: int, topic: str, body: bytes) -> None:
        session = self.session(which)
        self.call(self.world.hub.router.publish, session, Publish(session.next_cid(), topic, Content.BYTES, body))

    @precondition(lambda self: self.sessions)
    @rule(which=some, pattern=st.sampled_from(["**", "t:*", "a"]))
    def subscribe(self, which: int, pattern: str) -> None:
        session = self.session(which)
        self.call(lambda now: self.world.subscribe(session, pattern))

    @precondition(lambda self: self.sessions)
    @rule(which=some, what=some, end=st.booleans(), count=st.integers(1, 3))
    def take_events(self, which: int, what: int, end: bool, count: int) -> None:
        session = self.session(which)
        for number, subscription in list(session.subscriptions.items())[what % 2 :]:
            if end:
                self.call(self.world.hub.topics.unsubscribe, session, number)
            else:
                ids = list(subscription.outstanding)[:count]
                self.call(self.world.hub.topics.delivered, session, number, [*ids, 4711])

    # Verdicts.

    @precondition(lambda self: self.sessions)
    @rule(
        which=some,
        what=some,
        own=st.sampled_from([True, True, False]),
        verdict=st.sampled_from(["delivered", "ack", "nack", "nack later", "reject", "give back", "hold", "working"]),
    )
    def judge(self, which: int, what: int, own: bool, verdict: str) -> None:
        session, inboxes = self.session(which), self.world.hub.inboxes
        mine = sorted(session.held) if own else []
        id = mine[what % len(mine)] if mine else self.message(what)
        if verdict == "delivered":
            inboxes.delivered(session, [id], self.world.now)
        elif verdict == "give back":
            inboxes.give_back(session, [*mine[: what % 3], id], self.world.now)
        elif verdict == "ack":
            self.call(inboxes.ack, session, [id])
        else:
            self.disturb(id)
            actions: dict[str, Callable[..., Any]] = {
                "nack": lambda now: inboxes.nack(session, id, "", 0.0, now),
                "nack later": lambda now: inboxes.nack(session, id, "", 5.0, now),
                "reject": lambda now: inboxes.reject(session, id, "", now),
                "hold": lambda now: inboxes.working(session, id, 10.0, now),
                "working": lambda now: inboxes.working(session, id, None, now),
            }
            self.call(actions[verdict])

    @rule(name=names, what=some, requeue=st.booleans())
    def care_for_the_dead(self, name: str, what: int, requeue: bool) -> None:
        hub = self.world.hub
        letters = list(hub.agents.by_name[name].dead.values()) if name in hub.agents.by_name else []
        if letters and requeue:
            self.call(lambda now: hub.inboxes.requeue(letters[what % len(letters)], now, "me"))
        elif letters:
            hub.dead.drop(letters[what % len(letters)], self.world.now)

    # What must always be true.

    def remember_accepted(self) -> None:
        hub = self.world.hub
        while self.next_id < hub.receipts.next_id:
            self.tracked[self.next_id] = hub.receipts.entries[self.next_id]
            self.next_id += 1

    @invariant()
    def no_message_vanishes(self) -> None:
        self.remember_accepted()
        entries = self.world.hub.receipts.entries
        assert set(entries) <= set(self.tracked)
        for id, entry in list(self.tracked.items()):
            if id not in entries:
                assert ended(entry), f"{id} vanished as {entry.state}"
                del self.tracked[id]

    @invariant()
    def every_registry_agrees_with_the_others(self) -> None:
        check(self.world.hub, self.world.now, self.forgotten)
        assert self.world.hub.sessions == set(self.sessions)

    @invariant()
    def every_request_ends_once(self) -> None:
        live: set[Session] = self.world.hub.sessions
        for session, cid in self.asked:
            said = [m for m in session.everything() if isinstance(m, Answer | Error) and m.cid == cid]
            assert len(said) <= 1, f"request {cid} ended twice: {said}"
            if session in live:
                assert bool(said) != (cid in session.asking), f"request {cid}: {said}"

    @invariant()
    def every_watcher_is_told_once(self) -> None:
        for session, cid, wanted, entry, since in self.watches:
            if session not in self.world.hub.sessions:
                continue
            reached = {state for state, _, _, _ in entry.trail[since:]}
            due = wanted in reached or bool(reached.intersection(ENDED))
            if wanted is DELIVERED and len(entry.trail) >= 60:
                continue  # shortened
            told = [receipt for receipt in session.told(Receipt) if receipt.cid == cid]
            assert len(told) == due, f"{told} of {entry.trail}"
            assert all(receipt.state is wanted or receipt.state in ENDED for receipt in told)


TestHub = HubMachine.TestCase
TestHub.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@pytest.mark.stress
@pytest.mark.timeout(3600)
def test_hub_for_long() -> None:
    run_state_machine_as_test(
        HubMachine,
        settings=settings(
            max_examples=1500, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
