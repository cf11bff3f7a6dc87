"""No room for the journal, under traffic through the real daemon: by its own limits, and on a disk that is full."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Agentctl
from daemons import Daemon, wait_until
from raw import Raw, Refused

from agentd.server.disk import measure
from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.messages import Accepted, DiskView, Error, Message, Options, Priority, State

MIB = 1 << 20
LOW = Options(Priority.LOW, allow_absent=True)
DURABLE = Options(durable=True, allow_absent=True)
BODY_BYTES = 20_000
LIMITS = {
    "rate": {"messages_per_s": 0},
    "inbox": {"max_messages": 100_000, "max_held": 100_000, "max_bytes": 1 << 29},
}


def journal_settings(max_bytes: int) -> dict[str, int]:
    return {"segment_bytes": MIB, "checkpoint_bytes": MIB // 2, "max_bytes": max_bytes, "min_free_bytes": 0}


def mount(directory: Path, *options: str) -> None:
    done = subprocess.run(["mount", *options, str(directory)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount {' '.join(options)}: {done.stderr.strip()}")


@pytest.fixture
def small_mount(tmp_path: Path) -> Iterator[Path]:
    """The state directory on a file system of its own, of 8 MiB."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    mount(state, "-t", "tmpfs", "-o", "size=8m,mode=0700", "none")
    yield state
    subprocess.run(["umount", "--lazy", str(state)], check=True)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.close()


@pytest.fixture(params=["limit", "mount"])
def narrow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemon]:
    """Some six segments are all there is: by its settings, or on its disk."""
    if request.param == "mount":
        request.getfixturevalue("small_mount")
    daemon = Daemon(tmp_path)
    daemon.start()
    daemon.config(journal=journal_settings(7 * MIB if request.param == "limit" else 1 << 30), **LIMITS)
    yield daemon
    daemon.close()


def send(to: str, number: int, size_bytes: int = BODY_BYTES) -> wire.Send:
    return wire.Send(0, to, Content.BYTES, number.to_bytes(8, "little") + bytes(size_bytes), LOW)


def number_of(message: Message) -> int:
    return int.from_bytes(message.body[:8], "little")


def fill(me: Raw, to: str = "sink", first: int = 0) -> tuple[list[int], Error]:
    """Mail that nobody takes, until it is refused: the numbers of what is stored, and the refusal."""
    stored: list[int] = []
    while len(stored) < 10_000:
        try:
            answer = me.ask(send(to, first + len(stored)))
        except Refused as refused:
            return stored, refused.error
        assert answer.state is State.STORED
        stored.append(first + len(stored))
    raise AssertionError("it was never refused")


def used_bytes(daemon: Daemon) -> int:
    return measure(daemon.state_dir / "journal").used_bytes


def disk(me: Raw) -> DiskView:
    view: DiskView | None = me.ask(wire.Status(0)).disk
    assert view is not None
    return view


def take_all(daemon: Daemon, name: str = "sink") -> list[Message]:
    with Raw(daemon.socket, name, take=True) as taker:
        taker.take(100_000)
        (row,) = [agent for agent in taker.ask(wire.Agents(0)).agents if agent.name == name]
        got = [taker.until(Message) for _ in range(row.waiting + row.held)]
        taker.ask(wire.Ack(0, [message.id for message in got]))
    return got


def can_send(me: Raw, number: int) -> bool:
    try:
        me.ask(send("sink", number))
    except Refused as refused:
        assert refused.code == "disk_full"
        return False
    return True


def test_mail_is_refused_and_what_was_stored_is_there(narrow: Daemon) -> None:
    with Raw(narrow.socket, "planner") as me:
        stored, error = fill(me)
        assert len(stored) > 3 * MIB // BODY_BYTES
        assert (error.code, error.retryable, error.retry_after) == ("disk_full", True, 1.0)
        assert "There is no room in " in error.message and str(narrow.state_dir) in error.message
        assert "sink holds the oldest of what is kept: `agentctl inbox sink`" in error.hint
        view = disk(me)
        assert view.full and (view.holder, view.holder_messages) == ("sink", len(stored))
        assert not can_send(me, 0)
    narrow.kill()
    narrow.start()
    with Raw(narrow.socket, "planner") as me:
        assert not can_send(me, 0)
        assert [number_of(message) for message in take_all(narrow)] == stored
        wait_until(lambda: can_send(me, 7), "room after the acks")
        assert disk(me).full == ""
    assert [number_of(message) for message in take_all(narrow)] == [7]


def test_mail_sent_in_one_breath_is_stored_up_to_where_it_is_refused(narrow: Daemon) -> None:
    with Raw(narrow.socket, "planner") as me:
        sends = []
        for number in range(600):
            verb = send("sink", number)
            verb.cid = 1000 + number
            sends.append(verb)
        me.say(*sends)
        stored: set[int] = set()
        refused: set[int] = set()
        while len(stored) + len(refused) < len(sends):
            answer: Accepted | Error = me.until((Accepted, Error))  # type: ignore[arg-type]
            if isinstance(answer, Error):
                assert answer.code in ("disk_full", "busy"), "the disk may be slower than one breath"
                refused.add(answer.cid - 1000)
            else:
                stored |= set(range(answer.cid - 1000, answer.cid - 1000 + answer.count))
    assert stored and refused
    narrow.kill()
    narrow.start()
    assert {number_of(message) for message in take_all(narrow)} == stored


def test_the_limit_holds_and_is_named(started: Daemon) -> None:
    started.start()
    started.config(journal=journal_settings(7 * MIB), **LIMITS)
    with Raw(started.socket, "planner") as me:
        _, error = fill(me)
        assert "journal.max_bytes is 7.0 MiB" in error.message
        assert used_bytes(started) <= 7 * MIB


def test_acks_are_kept_though_mail_is_refused(narrow: Daemon) -> None:
    with Raw(narrow.socket, "planner") as me, Raw(narrow.socket, "sink", take=True) as taker:
        stored, _ = fill(me)
        taker.take(10)
        for message in [taker.until(Message) for _ in range(10)]:
            taker.ask(wire.Ack(0, [message.id]))
    narrow.kill()
    narrow.start()
    assert [number_of(message) for message in take_all(narrow)] == stored[10:]


def test_traffic_goes_on_beside_a_consumer_that_takes_nothing(narrow: Daemon) -> None:
    """Its few old messages are appended once more, again and again, so that the segments behind them can go."""
    with Raw(narrow.socket, "planner") as me, Raw(narrow.socket, "sink", take=True) as taker:
        kept = []
        taker.take(100_000)
        for number in range(2000):
            if number % 40 == 0 and number < 800:
                me.ask(send("stuck", number))
                kept.append(number)
            wait_until(lambda number=number: can_send(me, number))  # type: ignore[misc]
            taker.ask(wire.Ack(0, [taker.until(Message).id]))
        assert used_bytes(narrow) <= 8 * MIB
        assert disk(me).holder == "stuck"
    narrow.kill()
    narrow.start()
    assert [number_of(message) for message in take_all(narrow, "stuck")] == kept
    assert not [message for message in take_all(narrow) if number_of(message) < 1999]


def test_dead_letters_are_moved_too(narrow: Daemon) -> None:
    with Raw(narrow.socket, "planner") as me, Raw(narrow.socket, "sink", take=True) as taker:
        taker.take(100_000)
        me.ask(send("sink", 0))
        taker.ask(wire.Reject(0, taker.until(Message).id, "not so"))
        for number in range(1, 800):
            wait_until(lambda number=number: can_send(me, number))  # type: ignore[misc]
            taker.ask(wire.Ack(0, [taker.until(Message).id]))
    narrow.kill()
    narrow.start()
    with Raw(narrow.socket) as me:
        (letter,) = me.ask(wire.Dead(0, "sink", 10)).letters
        assert (letter.reason, letter.size_bytes) == ("not so", BODY_BYTES + 8)
        me.ask(wire.Requeue(0, [letter.id]))
    assert number_of(take_all(narrow)[0]) == 0


def test_somebody_else_fills_the_disk(small_mount: Path, started: Daemon) -> None:
    started.start()
    started.config(journal=journal_settings(1 << 30), **LIMITS)
    ballast = small_mount / "ballast"
    with Raw(started.socket, "planner") as me:
        stored = [number for number in range(10) if can_send(me, number)]
        with ballast.open("wb", 0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(1 << 12))
        more, error = fill(me, first=10)
        assert "file system has 0." in error.message
        assert started.process is not None and started.process.poll() is None
    started.kill()
    started.start()
    with Raw(started.socket, "planner") as me:
        assert not can_send(me, 0)
        ballast.unlink()
        wait_until(lambda: can_send(me, 10 + len(more)), "it goes on by itself")
    assert [number_of(message) for message in take_all(started)] == [*stored, *more, 10 + len(more)]


def test_what_is_to_stay_free_is_left_free(small_mount: Path, started: Daemon) -> None:
    started.start()
    started.config(journal=journal_settings(1 << 30) | {"min_free_bytes": 3 * MIB}, **LIMITS)
    with Raw(started.socket, "planner") as me:
        _, error = fill(me)
        assert "journal.min_free_bytes keeps 3.0 MiB" in error.message
        found = os.statvfs(small_mount)
        assert found.f_bavail * found.f_frsize >= 3 * MIB


def test_a_limit_of_a_few_segments_is_refused(started: Daemon) -> None:
    started.start()
    started.stop()
    started.command += ["--set", "journal.max_bytes=3000000", "--set", "journal.segment_bytes=1048576"]
    done = subprocess.run(started.command, env=started.env, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert "journal.max_bytes = 3000000 is less than 4 of journal.segment_bytes" in done.stderr


def test_doctor_names_who_holds_a_full_disk(started: Daemon) -> None:
    started.start()
    started.config(journal=journal_settings(7 * MIB), **LIMITS)
    with Raw(started.socket, "planner") as me:
        fill(me)
    agentctl = Agentctl(started.env, started.directory)
    rows = {row["check"]: row for row in agentctl("doctor", "--json").json["findings"]}
    assert rows["journal"]["severity"] == "error"
    assert "journal.max_bytes" in rows["journal"]["what"] and "sink" in rows["journal"]["what"]
    assert "agentctl recv --as sink" in rows["journal"]["remedy"]
    agentctl.close()


# The directory itself.


def until_failed(me: Raw) -> Error:
    """Mail until the journal is found to have failed."""
    others = set()
    for number in range(600):
        try:
            verb = send("sink", number, 100_000)
            verb.options = DURABLE  # the lane low is closed by then, which says why in its own way
            me.ask(verb)
        except Refused as refused:
            if refused.code == "journal_failed":
                return refused.error
            others.add(str(refused))
    raise AssertionError(f"nobody has seen it: {others}")


def test_a_directory_that_vanishes_is_named(started: Daemon) -> None:
    started.start()
    with Raw(started.socket, "planner") as me:
        me.ask(send("sink", 0))
        shutil.rmtree(started.state_dir / "journal")
        error = until_failed(me)
        assert "No such file or directory" in error.message and "journal" in error.message
        assert started.process is not None and started.process.poll() is None
        assert "nothing more is kept" in me.ask(wire.Status(0)).persistence
    started.kill()


def test_nothing_is_called_stored_in_a_directory_that_is_gone(started: Daemon) -> None:
    started.start()
    with Raw(started.socket, "planner") as me:
        me.ask(send("sink", 0))
        (started.state_dir / "journal").rename(started.directory / "elsewhere")
        with pytest.raises(Refused) as refused:
            me.ask(send("sink", 1))
        assert refused.value.code == "journal_failed"
    started.kill()


def test_a_directory_that_becomes_read_only_is_named(started: Daemon) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount")
    started.start()
    journal = started.state_dir / "journal"
    with Raw(started.socket, "planner") as me:
        me.ask(send("sink", 0))
        mount(journal, "--bind", str(journal))
        try:
            mount(journal, "-o", "remount,bind,ro")
            assert "Read-only file system" in until_failed(me).message
            started.kill()
            done = subprocess.run(started.command, env=started.env, capture_output=True, text=True, check=False)
            assert done.returncode == 77
            assert f"{journal} can't be written" in done.stderr
        finally:
            subprocess.run(["umount", "--lazy", str(journal)], check=True)
    started.start()
    assert number_of(take_all(started)[0]) == 0
