"""The grants socket: who may attach; what is forged, late, too much or nonsense is refused and harms nobody."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon, wait_until

from agentd import _native
from agentd.wire import grants
from agentd.wire import messages as wire
from agentd_client import Priority, blocking, connect, errors

LONG = 20.0


def attachment(me: Any) -> wire.Attachment:
    """A token."""
    answer: wire.Attachment = me.drive(me.verbs.call(wire.Attach))
    return answer


@contextmanager
def grants_socket(path: str) -> Iterator[socket.socket]:
    """A bare connection."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(LONG)
        sock.connect(path)
        yield sock


def heard(sock: socket.socket) -> tuple[Any, list[int]]:
    """The next packet; None at the end."""
    data, fds, _, _ = socket.recv_fds(sock, grants.MAX_PACKET_BYTES, grants.MAX_FDS)
    return (grants.decode_daemon(data) if data else None), fds


def test_the_socket_is_ours_alone(daemon: Daemon) -> None:
    path = daemon.runtime_dir / "agentd.grants"
    assert path.stat().st_mode & 0o777 == 0o600
    daemon.stop()
    assert not path.exists()


def test_a_token_is_good_once(daemon: Daemon) -> None:
    with blocking.connect("me", socket=daemon.socket, take=True) as me:
        found = attachment(me)
        with grants_socket(found.socket) as sock:
            sock.send(found.token)
            packet, fds = heard(sock)
            assert isinstance(packet, grants.Attached) and len(fds) == 3
            for fd in fds:
                os.close(fd)
            with grants_socket(found.socket) as again:
                again.send(found.token)
                assert heard(again) == (None, [])


@pytest.mark.parametrize("first", [b"", b"x", b"\0" * 16, b"x" * 4096, b"x" * 20_000])
def test_what_is_no_token_is_turned_away(daemon: Daemon, first: bytes) -> None:
    with blocking.connect("me", socket=daemon.socket) as me:
        path = attachment(me).socket
        with grants_socket(path) as sock:
            if first:
                sock.send(first)
            else:
                sock.shutdown(socket.SHUT_WR)
            assert heard(sock) == (None, [])
        assert me.status().pid == daemon.pid


def test_another_process_can_not_use_a_token(daemon: Daemon) -> None:
    with blocking.connect("me", socket=daemon.socket) as me:
        found = attachment(me)
        child = os.fork()
        if child == 0:
            try:
                with grants_socket(found.socket) as sock:
                    sock.send(found.token)
                    os._exit(0 if heard(sock)[0] is None else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@contextmanager
def attached(me: Any) -> Iterator[socket.socket]:
    """A session of our own on the grants socket."""
    found = attachment(me)
    with grants_socket(found.socket) as sock:
        sock.send(found.token)
        _, fds = heard(sock)
        for fd in fds:
            os.close(fd)
        yield sock


@pytest.mark.parametrize(
    "packet",
    [
        b"\xc1",
        b"\x93\x01\x01",
        grants.encode(grants.Attached([], 1.0)),
        b"x" * 9000,
        grants.encode([1, 1, "a" * 300, 1]),
    ],
)
def test_nonsense_ends_the_connection_and_nothing_else(daemon: Daemon, packet: bytes) -> None:
    with blocking.connect("me", socket=daemon.socket) as me, attached(me) as sock:
        sock.send(packet)
        while heard(sock)[0] is not None:
            pass
        assert me.status().pid == daemon.pid


def test_descriptors_nobody_asked_for_are_closed(daemon: Daemon) -> None:
    with blocking.connect("me", socket=daemon.socket) as me, attached(me) as sock:
        before = daemon.descriptors()
        null = os.open("/dev/null", os.O_RDONLY)
        for _ in range(50):
            socket.send_fds(sock, [grants.encode(grants.Mapped(7))], [null, null])
        sock.send(grants.encode(grants.Open(1, "nobody", 1)))
        packet, _ = heard(sock)
        assert isinstance(packet, grants.Refused) and packet.code == "no_such_agent"
        assert daemon.descriptors() <= before
        os.close(null)


def forged(number: int, size: int = 65536) -> int:
    """A memfd that looks like a pair's."""
    return _native.create_pair(1, number, size, 16384, 0, False)


def test_a_pair_that_the_ends_present_differently_is_refused_to_both(daemon: Daemon) -> None:
    with (
        blocking.connect("a", socket=daemon.socket) as a,
        blocking.connect("b", socket=daemon.socket) as b,
        attached(a) as of_a,
        attached(b) as of_b,
    ):
        for number, sender, receiver, same in (
            (1, grants.Present(1, 1, True, "b", 65536, 16384), grants.Present(1, 1, False, "a", 65536, 16384), False),
            (2, grants.Present(2, 1, True, "c", 65536, 16384), grants.Present(2, 1, False, "a", 65536, 16384), True),
            (3, grants.Present(3, 1, True, "b", 65536, 16384), grants.Present(3, 1, True, "a", 65536, 16384), True),
            (4, grants.Present(4, 1, True, "b", 65536, 16384), grants.Present(4, 1, False, "a", 4096, 16384), True),
            (5, grants.Present(5, 1, True, "b", 65536, 16384), grants.Present(5, 2, False, "a", 65536, 16384), True),
        ):
            memory = forged(number)
            other = memory if same else forged(number)
            socket.send_fds(of_a, [grants.encode(sender)], [memory])
            socket.send_fds(of_b, [grants.encode(receiver)], [other])
            assert _next(of_a, grants.Closed).number == number
            assert _next(of_b, grants.Closed).number == number
            os.close(memory)
            if not same:
                os.close(other)
        good = forged(9)
        socket.send_fds(of_a, [grants.encode(grants.Present(9, 1, True, "b", 65536, 16384))], [good])
        socket.send_fds(of_b, [grants.encode(grants.Present(9, 1, False, "a", 65536, 16384))], [good])
        wait_until(lambda: a.stats().registries["pairs"]["pairs"] == 1)
        os.close(good)


def test_unsealed_memory_is_no_pair(daemon: Daemon) -> None:
    with blocking.connect("a", socket=daemon.socket) as a, attached(a) as sock:
        memory = os.memfd_create("forged", os.MFD_ALLOW_SEALING)
        os.ftruncate(memory, 65536)
        socket.send_fds(sock, [grants.encode(grants.Present(1, 1, True, "b", 65536, 16384))], [memory])
        assert "no pair" in _next(sock, grants.Closed).reason
        os.close(memory)


def _next(sock: socket.socket, kind: type[Any]) -> Any:
    while True:
        packet, fds = heard(sock)
        for fd in fds:
            os.close(fd)
        if isinstance(packet, kind):
            return packet
        assert packet is not None


async def test_limits_are_named_and_messages_are_relayed_past_them(daemon: Daemon, lane: Priority) -> None:
    daemon.stop()
    daemon.config_path.write_text("[direct]\nmax_pairs_a_session = 3\n")
    daemon.start()
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        channels = [me.channel("builder", lane) for _ in range(3)]
        with pytest.raises(errors.LimitReached, match="builder is sent to by 3"):
            for channel in channels:
                await channel.__aenter__()
        async with connect("other", socket=daemon.socket) as other:
            sending = asyncio.create_task(other.send("builder", "relayed", priority=lane, timeout=LONG))
            message = await builder.receive(timeout=LONG)
            assert message is not None and (message.value, message.sender) == ("relayed", "other")
            assert (await sending).route == "relayed"
        for channel in channels[:2]:
            await channel.__aexit__()


async def test_direct_lanes_can_be_switched_off(daemon: Daemon, lane: Priority) -> None:
    daemon.stop()
    daemon.config_path.write_text("[direct]\nenabled = false\n")
    daemon.start()
    async with connect("builder", socket=daemon.socket), connect("planner", socket=daemon.socket) as me:
        with pytest.raises(errors.LaneUnavailable, match=r"direct\.enabled is false"):
            await me.send("builder", "x", priority=lane)


def free_huge_pages() -> int:
    """As the kernel counts them."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("HugePages_Free")), 0)


async def test_huge_pages_degrade_with_one_notice(daemon: Daemon) -> None:
    daemon.stop()
    daemon.config_path.write_text("[direct]\nhuge_pages = true\n")
    daemon.start()
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder") as one, me.channel("builder") as two:
            one.send("a")
            two.send("b")
            assert await builder.receive(timeout=LONG) and await builder.receive(timeout=LONG)
    if not free_huge_pages():
        assert daemon.stderr.count("direct.huge_pages") == 1


async def test_a_receivers_long_excuse_harms_no_sender(daemon: Daemon, lane: Priority) -> None:
    def excuse() -> None:
        with blocking.connect("builder", socket=daemon.socket, take=True) as builder, attached(builder) as sock:
            sock.send(grants.encode(grants.Idle(grants.LANES[lane], True)))
            for _ in range(2 if lane is Priority.CRITICAL else 1):  # the relay's pair, and the sender's
                sock.send(grants.encode(grants.Mapped(_next(sock, grants.Offered).number, "x" * grants.MAX_TEXT)))
            over.wait(LONG)

    over = threading.Event()
    thread = threading.Thread(target=excuse)
    async with connect("planner", socket=daemon.socket) as me:
        thread.start()
        try:
            async with asyncio.timeout(LONG):
                while not any(one.name == "builder" for one in (await me.agents()).agents):
                    await asyncio.sleep(0.01)
            with pytest.raises(errors.LimitReached, match="builder can't read a pair: xxx"):
                async with me.channel("builder", lane):
                    pass
        finally:
            over.set()
            await asyncio.to_thread(thread.join)


async def test_who_attaches_again_keeps_its_pairs(daemon: Daemon, lane: Priority) -> None:
    daemon.stop()
    daemon.config_path.write_text("[direct]\nreturn_s = 0.1\n")
    daemon.start()
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        async with me.channel("builder", lane) as channel:
            direct = builder.conversation.go_direct()
            sock = direct.watcher._socket
            assert sock is not None
            sock.shutdown(socket.SHUT_RDWR)
            async with connect("other", socket=daemon.socket) as other, other.channel("builder", lane) as second:
                for number in range(3):
                    second.send(number)
                    assert (await builder.receive(timeout=LONG)).value == number  # type: ignore[union-attr]
                    relayed = other.send("builder", "x", priority=lane, route="relayed", timeout=LONG)
                    assert (await relayed).route == "relayed"
                    assert (await builder.receive(timeout=LONG)).value == "x"  # type: ignore[union-attr]
                    await asyncio.sleep(0.15)
                channel.send("still here")
                assert (await builder.receive(timeout=LONG)).value == "still here"  # type: ignore[union-attr]


def test_who_is_over_the_descriptors_of_a_packet_is_ended(daemon: Daemon) -> None:
    with blocking.connect("me", socket=daemon.socket) as me, attached(me) as sock:
        before = daemon.descriptors()
        null = os.open("/dev/null", os.O_RDONLY)
        sock.sendmsg(
            [grants.encode(grants.Mapped(7))],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("100i", *[null] * 100))],
        )
        os.close(null)
        while heard(sock)[0] is not None:
            pass
        wait_until(lambda: daemon.descriptors() < before)
        assert me.status().pid == daemon.pid
