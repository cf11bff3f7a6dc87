"""The state machine: whatever agents do in whatever order, every message that was accepted is in exactly one state and
in exactly one place, every request ends once, every watcher is told once, and nothing vanishes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from fakes import FakeSession, World
from hub_invariants import Watch, check, check_requests, check_watches, ended
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from msgspec import Struct

from agentd.hub.agents import Agent
from agentd.hub.receipts import ACCEPTED, DEAD, DELIVERED, STORED, Entry
from agentd.wire.bodies import Content
from agentd.wire.errors import AgentdError
from agentd.wire.messages import Answer, Join, Message, Options, Publish, Reply, Request, Send, State, Unsubscribe

NAMES = ["a", "b", "c"]
LIMITS = {
    "max_attempts": 3,
    "max_hops": 4,
    "max_body_bytes": 100,
    "inbox__max_messages": 6,
    "max_held": 4,
    "max_names": 6,
    "max_keys": 2,
    "keep_keys_s": 30.0,
    "forget_after_s": 3600.0,
    "max_requests": 3,
    "trace__max_messages": 5,
    "trace__keep_s": 60.0,
    "dead__max_messages": 3,
    "max_subscriptions": 3,
    "max_events": 3,
    "topics__keep_s": 120.0,
}
some = st.integers(0, 1 << 16)
names = st.sampled_from(NAMES)
recipients = st.sampled_from([*NAMES, *NAMES, "ghost"])
bodies = st.sampled_from([b"", b"x", b"x", b"x", bytes(100), bytes(101)])
windows = st.sampled_from([0, 1, 1, 2])
rarely = st.sampled_from([False, False, False, True])


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


def filling(agent: Agent) -> bool:
    """A durable subscription that is being made: nothing of it outlives the daemon."""
    return agent.source is not None and agent.source.is_filling


class HubMachine(RuleBasedStateMachine):
    """Three names, agents without one, and everything that they can do."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(journal=True, **LIMITS)
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
        self.reserved: set[int] = set()  # ids that past events may have

    def teardown(self) -> None:
        """Leave no garbage."""
        self.world.hub.let_go()
        self.tracked.clear()
        self.watches.clear()

    # What happens to be said of it.

    def handed(self, session: Recorder, message: Message, *, answer: bool) -> None:
        """A session is sent a message."""
        entry = self.world.hub.receipts.entries[message.id]
        assert entry.state in (ACCEPTED, STORED)
        assert message.attempt <= LIMITS["max_attempts"]
        if not entry.is_event and not answer and message.id not in self.was_handed | self.disturbed:
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
        self.world.end_turn()
        return True

    def session(self, number: int) -> Recorder:
        if not self.sessions:
            self.begin(share=False)
        return self.sessions[number % len(self.sessions)]

    def message(self, number: int) -> int:
        """The id of one of the latest messages."""
        latest = sorted(self.world.hub.receipts.entries)[-8:]
        return latest[number % len(latest)] if latest else 4711

    def disturb(self, id: int) -> None:
        if id not in self.was_handed:
            self.disturbed.add(id)

    # Coming and going.

    @initialize(share=st.booleans())
    def begin(self, share: bool) -> None:
        """Somebody to talk to."""
        self.join("a", False, share, False, 5)
        self.join("b", False, False, False, 5)
        self.join("c", False, False, False, 0)

    @rule(
        name=st.sampled_from([*NAMES, *NAMES, None]),
        only_sends=rarely,
        share=st.booleans(),
        replace=rarely,
        credit=st.sampled_from([0, 1, 5]),
    )
    def join(self, name: str | None, only_sends: bool, share: bool, replace: bool, credit: int) -> None:
        self.pid += 1
        session = Recorder(self, self.pid)
        take = name is not None and not only_sends
        if self.call(self.world.hub.join, session, Join(1, name, take, share, replace)):
            self.sessions.append(session)
            if take and credit:
                self.world.hub.inboxes.receive(session, credit)

    @rule(which=some, why=st.sampled_from(["left", "killed"]))
    def leave(self, which: int, why: str) -> None:
        session = self.session(which)
        self.sessions.remove(session)
        self.world.leave(session, why)

    @rule(which=some, credit=st.sampled_from([1, 1, 2, 5, -1]))
    def receive(self, which: int, credit: int) -> None:
        session = self.session(which)
        self.call(lambda now: self.world.hub.inboxes.receive(session, credit))

    @rule(seconds=st.sampled_from([0.5, 5.0, 5.0, 30.0, 60.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        names = set(self.world.hub.agents.by_name)
        self.world.after(seconds)
        self.forgotten += len(names - set(self.world.hub.agents.by_name))

    @rule(which=some, what=st.sampled_from(["stall", "go on", "forget", "restart", "crash"]), name=names)
    def happens_rarely(self, which: int, what: str, name: str) -> None:
        session = self.session(which)
        if what == "forget":
            self.forgotten += self.call(lambda now: self.world.hub.agents.forget(name))
        elif what == "restart":
            self.restart()
        elif what == "crash":
            self.crash()
        else:
            session.stalled = what == "stall"
            for taker in session.all_takers() * (not session.stalled):
                self.world.hub.inboxes.pump(taker.agent)

    def restart(self) -> None:
        """Mail, holds and dead letters outlive it; what is ended is forgotten."""
        for session in self.sessions:
            self.world.leave(session, "agentd is stopping")
        self.remember_accepted()
        self.start_anew(self.unfinished(), self.world.restart)
        assert self.world.hub.receipts.next_id == self.next_id

    def crash(self) -> None:
        """What the journal has outlives it, and nothing else."""
        self.remember_accepted()
        self.start_anew({id for id in self.unfinished() if self.tracked[id].position}, self.world.crash)
        self.next_id = self.world.hub.receipts.next_id
        self.was_handed.clear()  # the numbers of what is lost are used again here
        agents = self.world.hub.agents.by_name.values()
        self.disturbed = {id for agent in agents for id in (*agent.delayed, *agent.detached)}
        self.last_first.clear()

    def start_anew(self, mail: set[int], start: Callable[[], None]) -> None:
        """That mail is there again."""
        by_name = self.world.hub.agents.by_name
        names = {name for name, agent in by_name.items() if not (agent.unnamed or filling(agent))}
        before = self.tracked
        letters = {id for id, entry in before.items() if id in entry.agent.dead and not filling(entry.agent)}
        detached = {id for id, entry in before.items() if id in entry.agent.detached}
        over = self.over()
        patterns = self.patterns()
        start()
        hub = self.world.hub
        assert set(hub.agents.by_name) == names and self.patterns() == patterns
        assert {*mail, *letters, *over} <= set(hub.receipts.entries)
        for id, entry in hub.receipts.entries.items():
            if id not in mail | letters | over.keys():  # it had made room for one that the journal did not have
                assert ended(entry) and entry.is_stored
                continue
            if id in over:
                assert [step[0] for step in entry.trail] == [step[0] for step in over[id]]
                times: list[Any] = [pytest.approx(at, abs=1e-3) for _, at, _, _ in over[id]]
                assert [at for _, at, _, _ in entry.trail] == times
                assert [step[2:] for step in entry.trail] == [step[2:] for step in over[id]]
                assert (entry.to, entry.body_bytes) == (before[id].to, before[id].body_bytes)
                continue
            assert entry.state is (DEAD if id in letters else DELIVERED if id in detached else STORED)
            assert (id in entry.agent.detached) == (id in detached)
            assert entry.message.attempt == before[id].message.attempt
            assert (entry.to, entry.body_bytes) == (before[id].to, before[id].body_bytes)
        self.tracked = dict(hub.receipts.entries)
        self.reserved.clear()
        self.sessions.clear()
        self.watches.clear()
        self.asked.clear()
        self.forgotten = 0

    def patterns(self) -> dict[str, tuple[str, bool]]:
        """Of durable subscriptions; and whether somebody has to be told of a gap."""
        agents = self.world.hub.agents.by_name.values()
        durable = [agent for agent in agents if agent.source is not None and not filling(agent)]
        return {agent.name: (agent.source.pattern, bool(agent.source.missed)) for agent in durable if agent.source}

    def over(self) -> dict[int, list[tuple[State, float, str, str]]]:
        """What became of those that have ended and that the journal had, while their agent is known."""
        return {
            entry.message.id: list(entry.trail)
            for agent in self.world.hub.agents.by_name.values()
            for entry in agent.ended.entries
            if (entry.position or entry.is_stored) and not (agent.unnamed or filling(agent))
        }

    def unfinished(self) -> set[int]:
        """Mail of agents with a name."""
        return {
            id
            for id, entry in self.tracked.items()
            if not (ended(entry) or entry.agent.unnamed or filling(entry.agent))
        }

    # Talking.

    @rule(which=some, to=recipients, body=bodies, count=st.integers(1, 4))
    def send(self, which: int, to: str, body: bytes, count: int) -> None:
        session = self.session(which)
        for _ in range(count):
            self.call(self.world.hub.router.send, session, Send(session.next_cid(), to, Content.BYTES, body))

    @rule(
        which=some,
        to=recipients,
        body=bodies,
        options=st.builds(
            Options,
            ttl=st.sampled_from([None, None, 5.0, 0.0]),
            key=st.sampled_from([None, None, "k", "l", "m"]),
            wait=st.sampled_from([State.ACCEPTED, State.DELIVERED, State.ACKED]),
            allow_absent=st.booleans(),
            delay=st.sampled_from([None, None, None, 0.0, 5.0, 60.0]),
        ),
        re=st.none() | some,
        answered=st.booleans(),
    )
    def send_with_options(
        self, which: int, to: str, body: bytes, options: Options, re: int | None, answered: bool
    ) -> None:
        session = self.session(which)
        options.re = None if re is None else self.message(re)
        if options.delay:
            self.disturb(self.world.hub.receipts.next_id)  # it comes when its time does, not in its order
        verb = Send(session.next_cid() if answered else 0, to, Content.BYTES, body, options)
        if self.call(self.world.hub.router.send, session, verb) and answered:
            self.watch(session, verb.cid, options.wait)

    def watch(self, session: Recorder, cid: int, wanted: State) -> None:
        """From now on this call must be told once, when its message has come so far."""
        id = self.world.accepted(session, cid)
        entry = self.world.hub.receipts.entries.get(id)
        if wanted is not State.ACCEPTED and entry is not None:
            self.watches.append(Watch(session, cid, wanted, entry, len(entry.trail) - 1))

    @rule(
        which=some, to=recipients, body=bodies, timeout=st.sampled_from([1.0, 40.0]), ttl=st.sampled_from([None, 5.0])
    )
    def request(self, which: int, to: str, body: bytes, timeout: float, ttl: float | None) -> None:
        session = self.session(which)
        options = None if ttl is None else Options(ttl=ttl)
        verb = Request(session.next_cid(), to, Content.BYTES, body, timeout, options)
        if self.call(self.world.hub.router.request, session, verb):
            self.asked.append((session, verb.cid))

    @rule(which=some, what=some, wait=st.sampled_from([State.ACCEPTED, State.ACKED]), ttl=st.sampled_from([None, 5.0]))
    def reply(self, which: int, what: int, wait: State, ttl: float | None) -> None:
        asked = [session for session in self.sessions if any(entry.asker for entry in session.held.values())]
        session = asked[which % len(asked)] if asked and what % 4 else self.session(which)
        mine = sorted(session.held) or [self.message(what)]
        verb = Reply(session.next_cid(), mine[what % len(mine)], Content.BYTES, b"r", Options(wait=wait, ttl=ttl))
        if self.call(self.world.hub.router.reply, session, verb):
            self.watch(session, verb.cid, wait)

    @rule(which=some, topic=st.sampled_from(["a", "t:u", "t:v"]), body=bodies)
    def publish(self, which: int, topic: str, body: bytes) -> None:
        session = self.session(which)
        self.call(self.world.hub.router.publish, session, Publish(session.next_cid(), topic, Content.BYTES, body))

    @rule(which=some, pattern=st.sampled_from(["**", "t:*", "a"]))
    def subscribe(self, which: int, pattern: str) -> None:
        session = self.session(which)
        self.call(lambda now: self.world.subscribe(session, pattern))

    @rule(
        which=some,
        name=st.sampled_from(["p", "p", "q"]),
        pattern=st.sampled_from(["**", "**", "t:*"]),
        window=windows,
        start=st.sampled_from(["new", "all", "-30s"]),
    )
    def subscribe_durably(self, which: int, name: str, pattern: str, window: int, start: str) -> None:
        session, next_id = self.session(which), self.world.hub.receipts.next_id
        self.call(lambda now: self.world.subscribe(session, pattern, name, window, start))
        self.reserved |= set(range(next_id, self.world.hub.receipts.next_id))

    @rule(which=some, name=st.sampled_from(["p", "q"]), for_good=rarely)
    def end_durable(self, which: int, name: str, for_good: bool) -> None:
        hub = self.world.hub
        cursors = [cursor for session in self.sessions for cursor in session.cursors.values()]
        session = self.session(which)
        if for_good:
            ended = self.call(lambda now: hub.unsubscribe(session, Unsubscribe(1, 0, name), now))
            self.forgotten += 2 * ended  # it may have been about to be filled
        elif cursors:
            cursor = cursors[which % len(cursors)]
            self.call(lambda now: hub.unsubscribe(cursor.session, Unsubscribe(1, cursor.number), now))

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

    def holder(self, which: int, own: bool = True) -> tuple[Recorder, list[int]]:
        """A session and what it holds; if it can be, one that holds something."""
        held = {
            session: sorted(id for taker in (session, *session.cursors.values()) for id in taker.held)
            for session in self.sessions
        }
        holders = [session for session in self.sessions if held[session]] if own else []
        session = holders[which % len(holders)] if holders else self.session(which)
        return session, held[session] if holders else []

    @rule(which=some, what=some, say_delivered=st.booleans())
    def ack(self, which: int, what: int, say_delivered: bool) -> None:
        session, mine = self.holder(which)
        ids = mine[what % 2 :][: 1 + what % 3]
        if say_delivered:
            self.world.hub.durables.delivered(session, ids, self.world.now)
        self.call(self.world.hub.durables.ack, session, ids)

    @rule(
        which=some,
        what=some,
        own=st.sampled_from([True, True, True, False]),
        verdict=st.sampled_from(["delivered", "ack", "nack", "nack later", "reject", "give back", "hold", "working"]),
    )
    def judge(self, which: int, what: int, own: bool, verdict: str) -> None:
        inboxes, durables = self.world.hub.inboxes, self.world.hub.durables
        session, mine = self.holder(which, own)
        id = mine[what % len(mine)] if mine else self.message(what)
        taker = durables.taker(session, id)
        if verdict == "delivered":
            durables.delivered(session, [id], self.world.now)
        elif verdict == "give back":
            durables.give_back(session, [*mine[: what % 3], id], self.world.now)
        elif verdict == "ack":
            self.call(durables.ack, session, [id])
        else:
            self.disturb(id)
            actions: dict[str, Callable[..., Any]] = {
                "nack": lambda now: inboxes.nack(taker, id, "", 0.0, now),
                "nack later": lambda now: inboxes.nack(taker, id, "", 5.0, now),
                "reject": lambda now: inboxes.reject(taker, id, "", now),
                "hold": lambda now: inboxes.working(taker, id, 10.0, now),
                "working": lambda now: inboxes.working(taker, id, None, now),
            }
            self.call(actions[verdict])

    @rule(name=st.sampled_from([*NAMES, "sub:p"]), what=some, requeue=st.booleans())
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
            if self.next_id not in self.reserved:
                self.tracked[self.next_id] = hub.receipts.entries[self.next_id]
            self.next_id += 1
        for id in self.reserved & hub.receipts.entries.keys():
            self.tracked[id] = hub.receipts.entries[id]

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
    def every_request_and_every_watcher_is_answered_once(self) -> None:
        check_requests(self.asked, self.world.hub)
        check_watches(self.watches, self.world.hub)


# A mutant need only be noticed, not explained.
PHASES = [phase for phase in Phase if phase is not Phase.shrink or "MUTANT" not in os.environ]

TestHub = HubMachine.TestCase
TestHub.settings = settings(max_examples=120, stateful_step_count=40, deadline=None, phases=PHASES)


@pytest.mark.stress
@pytest.mark.timeout(3600)
def test_hub_for_long() -> None:
    run_state_machine_as_test(
        HubMachine,
        settings=settings(
            max_examples=1000, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
