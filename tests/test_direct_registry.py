"""What agentd keeps of pairs: nothing of ends that are gone, that never answer, or that answer for others."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from daemons import Daemon, wait_until
from test_direct_grants import attached, heard
from test_direct_truth import held

from agentd import _native
from agentd.wire import grants
from agentd_client import Priority, blocking, connect

LONG = 20.0
NUMBER = 77


def kept(me: Any, registry: str, name: str) -> int:
    """How much of it the daemon has."""
    found: int = me.stats().registries[registry][name]
    return found


@contextmanager
def ends(daemon: Daemon, *names: str) -> Iterator[list[tuple[Any, socket.socket]]]:
    """Sessions without a library, each with its grants socket."""
    with ExitStack() as stack:
        found = []
        for name in names:
            me = stack.enter_context(blocking.connect(name, socket=daemon.socket))
            found.append((me, stack.enter_context(attached(me))))
        yield found


def offered(sock: socket.socket) -> grants.Offered:
    """The next pair that it is to read."""
    while True:
        packet, fds = heard(sock)
        for fd in fds:
            os.close(fd)
        if isinstance(packet, grants.Offered):
            return packet


def read(sock: socket.socket, lane: Priority) -> int:
    """Say that the lane is read, and take the pair that relays. How many that makes: none on HIGH, until needed."""
    sock.send(grants.encode(grants.Idle(grants.LANES[lane], True)))
    if lane is Priority.HIGH:
        return 0
    found = offered(sock)
    assert found.relays
    sock.send(grants.encode(grants.Mapped(found.number)))
    return 1


def test_nobody_answers_for_another(daemon: Daemon, lane: Priority) -> None:
    with ends(daemon, "builder", "planner", "other") as [(builder, reads), (planner, opens), (_, other)]:
        relays = read(reads, lane)
        opens.send(grants.encode(grants.Open(1, "builder", grants.LANES[lane])))
        number = offered(reads).number
        for answer in (grants.Mapped(number), grants.Mapped(number, "no"), grants.Closed(number)):
            other.send(grants.encode(answer))
        other.send(grants.encode(grants.Open(2, "nobody", grants.LANES[lane])))
        assert isinstance(heard(other)[0], grants.Refused)  # all of it was heard
        assert (kept(planner, "direct", "offered"), kept(builder, "pairs", "pairs")) == (1, 1 + relays)
        reads.send(grants.encode(grants.Mapped(number)))
        assert isinstance(heard(opens)[0], grants.Granted)


def test_a_lane_that_is_not_read_is_not_sent_to(daemon: Daemon, lane: Priority) -> None:
    (other,) = {*grants.LANES} - {lane}
    with ends(daemon, "builder", "planner") as [(builder, reads), (_, opens)]:
        relays = read(reads, other)
        opens.send(grants.encode(grants.Open(1, "builder", grants.LANES[lane])))
        refused = heard(opens)[0]
        assert isinstance(refused, grants.Refused) and refused.code == "lane_unavailable"
        assert kept(builder, "pairs", "pairs") == relays
        read(reads, lane)
        opens.send(grants.encode(grants.Open(2, "builder", grants.LANES[lane])))
        assert offered(reads).lane == grants.LANES[lane]


def test_an_offer_that_is_never_answered_is_withdrawn(daemon: Daemon) -> None:
    lane = Priority.HIGH  # one is enough: it takes the daemon's 5 s
    with ends(daemon, "builder", "planner") as [(builder, reads), (_, opens)]:
        read(reads, lane)
        wait_until(lambda: kept(builder, "direct", "attached") == 2)
        before = daemon.descriptors()
        for cid in range(1, 4):
            opens.send(grants.encode(grants.Open(cid, "builder", grants.LANES[lane])))
        for _ in range(3):
            refused = heard(opens)[0]
            assert isinstance(refused, grants.Refused) and refused.code == "lane_unavailable"
            assert "has not answered" in refused.message
        assert (kept(builder, "direct", "offered"), kept(builder, "pairs", "pairs")) == (0, 0)
        wait_until(lambda: daemon.descriptors() <= before)


def test_a_pair_whose_sender_went_before_it_was_granted_is_over(daemon: Daemon, lane: Priority) -> None:
    with ends(daemon, "builder") as [(builder, reads)], blocking.connect("planner", socket=daemon.socket) as planner:
        relays = read(reads, lane)
        with attached(planner) as opens:
            opens.send(grants.encode(grants.Open(1, "builder", grants.LANES[lane])))
            number = offered(reads).number
        wait_until(lambda: kept(builder, "direct", "offered") == 1)
        reads.send(grants.encode(grants.Mapped(number)))
        assert heard(reads)[0] == grants.Closed(number, "the sender is not attached any more")
        assert kept(builder, "pairs", "pairs") == relays


def test_who_reads_now_and_then_leaves_no_pairs_behind(daemon: Daemon, lane: Priority) -> None:
    with ends(daemon, "builder") as [(builder, reads)]:
        for _ in range(5):
            read(reads, lane)
            reads.send(grants.encode(grants.Idle(grants.LANES[lane], False)))
        for _ in range(5):  # nor who changes its mind before it has the pair
            for on in (True, False):
                reads.send(grants.encode(grants.Idle(grants.LANES[lane], on)))
        wait_until(lambda: kept(builder, "pairs", "pairs") == 0)
        assert (kept(builder, "direct", "offered"), kept(builder, "direct", "relays")) == (0, 0)


def present(sock: socket.socket, lane: Priority, memory: int, sends: bool, peer: str) -> None:
    """As an end does after agentd came back."""
    packet = grants.Present(NUMBER, grants.LANES[lane], sends, peer, 65536, 16384)
    socket.send_fds(sock, [grants.encode(packet)], [memory])


@pytest.mark.parametrize("comes_back", [False, True])
def test_what_an_end_showed_goes_with_it(daemon: Daemon, comes_back: bool, lane: Priority) -> None:
    memory = _native.create_pair(grants.LANES[lane], NUMBER, 65536, 16384, 0, False)
    with ends(daemon, "builder") as [(builder, reads)]:
        with ends(daemon, "planner") as [(_, writes)]:
            present(writes, lane, memory, True, "builder")
            wait_until(lambda: kept(builder, "direct", "presented") == 1)
        wait_until(lambda: kept(builder, "direct", "attached") == 1)
        assert kept(builder, "direct", "presented") == 0
        if comes_back:
            with ends(daemon, "planner") as [(_, writes)]:
                present(writes, lane, memory, True, "builder")
                present(reads, lane, memory, False, "planner")
                wait_until(lambda: kept(builder, "pairs", "pairs") == 1)
        else:
            present(reads, lane, memory, False, "planner")
            wait_until(lambda: kept(builder, "direct", "presented") == 1)
        assert kept(builder, "pairs", "pairs") == 0
    os.close(memory)


async def test_what_is_relayed_finds_who_attached_anew(daemon: Daemon, lane: Priority) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        await me.send("builder", 0, priority=lane, timeout=LONG)
        direct = builder.conversation.direct
        assert direct is not None
        for number in range(1, 4):
            assert (await builder.receive(timeout=LONG)).value == number - 1  # type: ignore[union-attr]
            broken = direct.watcher._socket
            assert broken is not None
            broken.shutdown(socket.SHUT_RDWR)
            await held(lambda: not direct.attached.settled, "for the end to be seen")
            direct.invited()
            await held(lambda: direct.attached.settled, "for it to be attached")
            await me.send("builder", number, priority=lane, route="relayed", timeout=LONG)
        n = 3 if lane is Priority.CRITICAL else 4  # one between them, one that relays to each, and one that did on HIGH
        assert await asyncio.to_thread(pairs_of, daemon) == n


def pairs_of(daemon: Daemon) -> int:
    with blocking.connect(socket=daemon.socket) as me:
        return kept(me, "pairs", "pairs")
