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
from agentd_client import blocking, connect

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


def read(sock: socket.socket) -> None:
    """Say that the lane is read, and take the pair that relays."""
    sock.send(grants.encode(grants.Idle(grants.CRITICAL, True)))
    found = offered(sock)
    assert found.relays
    sock.send(grants.encode(grants.Mapped(found.number)))


def test_nobody_answers_for_another(daemon: Daemon) -> None:
    with ends(daemon, "builder", "planner", "other") as [(builder, reads), (planner, opens), (_, other)]:
        read(reads)
        opens.send(grants.encode(grants.Open(1, "builder", grants.CRITICAL)))
        number = offered(reads).number
        for answer in (grants.Mapped(number), grants.Mapped(number, "no"), grants.Closed(number)):
            other.send(grants.encode(answer))
        other.send(grants.encode(grants.Open(2, "nobody", grants.CRITICAL)))
        assert isinstance(heard(other)[0], grants.Refused)  # all of it was heard
        assert (kept(planner, "direct", "offered"), kept(builder, "pairs", "pairs")) == (1, 2)
        reads.send(grants.encode(grants.Mapped(number)))
        assert isinstance(heard(opens)[0], grants.Granted)


def test_an_offer_that_is_never_answered_is_withdrawn(daemon: Daemon) -> None:
    with ends(daemon, "builder", "planner") as [(builder, reads), (_, opens)]:
        read(reads)
        wait_until(lambda: kept(builder, "direct", "relays") == 1)
        before = len(os.listdir(f"/proc/{daemon.pid}/fd"))
        for cid in range(1, 4):
            opens.send(grants.encode(grants.Open(cid, "builder", grants.CRITICAL)))
        for _ in range(3):
            refused = heard(opens)[0]
            assert isinstance(refused, grants.Refused) and refused.code == "lane_unavailable"
            assert "has not answered" in refused.message
        assert (kept(builder, "direct", "offered"), kept(builder, "pairs", "pairs")) == (0, 1)
        wait_until(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) <= before)


def test_a_pair_whose_sender_went_before_it_was_granted_is_over(daemon: Daemon) -> None:
    with ends(daemon, "builder") as [(builder, reads)], blocking.connect("planner", socket=daemon.socket) as planner:
        read(reads)
        with attached(planner) as opens:
            opens.send(grants.encode(grants.Open(1, "builder", grants.CRITICAL)))
            number = offered(reads).number
        wait_until(lambda: kept(builder, "direct", "offered") == 1)
        reads.send(grants.encode(grants.Mapped(number)))
        assert heard(reads)[0] == grants.Closed(number, "the sender is not attached any more")
        assert kept(builder, "pairs", "pairs") == 1


def test_who_reads_now_and_then_leaves_no_pairs_behind(daemon: Daemon) -> None:
    with ends(daemon, "builder") as [(builder, reads)]:
        for _ in range(5):
            read(reads)
            reads.send(grants.encode(grants.Idle(grants.CRITICAL, False)))
        for _ in range(5):  # nor who changes its mind before it has the pair
            for on in (True, False):
                reads.send(grants.encode(grants.Idle(grants.CRITICAL, on)))
        wait_until(lambda: kept(builder, "pairs", "pairs") == 0)
        assert (kept(builder, "direct", "offered"), kept(builder, "direct", "relays")) == (0, 0)


def present(sock: socket.socket, memory: int, sends: bool, peer: str) -> None:
    """As an end does after agentd came back."""
    packet = grants.Present(NUMBER, grants.CRITICAL, sends, peer, 65536, 16384)
    socket.send_fds(sock, [grants.encode(packet)], [memory])


@pytest.mark.parametrize("comes_back", [False, True])
def test_what_an_end_showed_goes_with_it(daemon: Daemon, comes_back: bool) -> None:
    memory = _native.create_pair(grants.CRITICAL, NUMBER, 65536, 16384, 0, False)
    with ends(daemon, "builder") as [(builder, reads)]:
        with ends(daemon, "planner") as [(_, writes)]:
            present(writes, memory, True, "builder")
            wait_until(lambda: kept(builder, "direct", "presented") == 1)
        wait_until(lambda: kept(builder, "direct", "attached") == 1)
        assert kept(builder, "direct", "presented") == 0
        if comes_back:
            with ends(daemon, "planner") as [(_, writes)]:
                present(writes, memory, True, "builder")
                present(reads, memory, False, "planner")
                wait_until(lambda: kept(builder, "pairs", "pairs") == 1)
        else:
            present(reads, memory, False, "planner")
            wait_until(lambda: kept(builder, "direct", "presented") == 1)
        assert kept(builder, "pairs", "pairs") == 0
    os.close(memory)


async def test_what_is_relayed_finds_who_attached_anew(daemon: Daemon) -> None:
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        await me.send("builder", 0, priority="critical", timeout=LONG)
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
            await me.send("builder", number, priority="critical", route="relayed", timeout=LONG)
        assert await asyncio.to_thread(pairs_of, daemon) == 3  # one between them, and one that relays to each


def pairs_of(daemon: Daemon) -> int:
    with blocking.connect(socket=daemon.socket) as me:
        return kept(me, "pairs", "pairs")
