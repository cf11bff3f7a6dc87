"""`agentctl journal` backup, gc and repair: copied under load and started on, told what is not needed, put in order."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Agentctl
from daemons import Daemon, wait_until
from journals import opened, spoil, sync
from raw import Raw

from agentd.hub import checkpoint
from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.journal import checkpoint_positions
from agentd.wire.messages import Message, Options, Priority

LOW = Options(Priority.LOW, allow_absent=True)


@pytest.fixture
def agentctl(daemon: Daemon) -> Iterator[Agentctl]:
    agentctl = Agentctl(daemon.env, daemon.directory)
    yield agentctl
    agentctl.close()


def send(number: int) -> wire.Send:
    return wire.Send(0, "sink", Content.BYTES, number.to_bytes(8, "little") + bytes(5000), LOW)


def taken(daemon: Daemon) -> list[int]:
    with Raw(daemon.socket, "sink", take=True) as taker:
        taker.take(100_000)
        (row,) = [agent for agent in taker.ask(wire.Agents(0)).agents if agent.name == "sink"]
        got = [taker.until(Message) for _ in range(row.waiting + row.held)]
    return [int.from_bytes(message.body[:8], "little") for message in got]


def test_a_backup_taken_under_load_restores(daemon: Daemon, agentctl: Agentctl) -> None:
    daemon.config(
        journal={"segment_bytes": 1 << 20, "checkpoint_bytes": 300_000},
        rate={"messages_per_s": 0},
        inbox={"max_messages": 100_000, "max_bytes": 1 << 29},
    )
    stored, is_over = 0, threading.Event()

    def load() -> None:
        nonlocal stored
        with Raw(daemon.socket, "planner") as me:
            while not is_over.is_set() and stored < 20_000:
                me.ask(send(stored))
                stored += 1

    sender = threading.Thread(target=load)
    sender.start()
    backups: list[tuple[int, Path]] = []
    for number in range(4):
        wait_until(lambda number=number: stored > 500 * (number + 1))  # type: ignore[misc]
        before, place = stored, daemon.directory / f"backup-{number}"
        agentctl("journal", "backup", str(place), status=0)
        backups.append((before, place))
    is_over.set()
    sender.join()
    daemon.stop()
    journal = daemon.state_dir / "journal"
    for before, place in backups:
        assert agentctl("journal", "check", str(place), "--json", status=0).json["findings"] == []
        shutil.rmtree(journal)
        shutil.copytree(place, journal)
        daemon.start()
        numbers = taken(daemon)
        assert len(numbers) >= before and numbers == list(range(len(numbers)))
        daemon.kill()


def test_a_backup_goes_into_a_fresh_directory(daemon: Daemon, agentctl: Agentctl) -> None:
    with Raw(daemon.socket, "planner") as me:
        me.ask(send(1))
    daemon.stop()
    shown = agentctl("journal", "backup", str(daemon.directory / "one"), "--json", status=0).json
    assert (shown["copy"], shown["segments"]) == (str(daemon.directory / "one"), 1)
    error = agentctl("journal", "backup", str(daemon.directory / "one"), "--json", status=73).error
    assert "is not empty" in error["message"]


def test_what_is_not_needed_is_told(daemon: Daemon, agentctl: Agentctl, tmp_path: Path) -> None:
    with Raw(daemon.socket, "planner") as me:
        me.ask(send(1))
    daemon.stop()
    shown = agentctl("journal", "gc", "--dry-run", "--json", status=0).json
    assert (shown["segments"], shown["bytes"]) == ([], 0)
    assert "--dry-run" in agentctl("journal", "gc", status=2).err
    place = tmp_path / "other"
    with opened(place) as journal:
        while journal.tail >> 32 < 4:
            journal.append(1, bytes(100_000))
            sync(journal)
        kept = journal.append(1, b"kept")
    found = checkpoint.Checkpoint(checkpoint.FORMAT, kept + 48, 1, [], [checkpoint.Placed(kept, 1, [])], [])
    (place / "checkpoint").write_bytes(checkpoint.encode(found))
    assert checkpoint_positions(checkpoint.encode(found)) == (kept + 48, kept)
    before = sorted(os.listdir(place))
    gc = ("journal", "gc", str(place), "--dry-run")
    none = {"AGENTD_JOURNAL_HISTORY_BYTES": "0"}
    shown = agentctl(*gc, "--json", env=none, status=0).json
    assert [row["segment"] for row in shown["segments"]] == [1, 2, 3]
    assert (shown["bytes"], shown["needed_from"], shown["history"]) == (3 << 20, kept, [])
    assert "3 segments not needed, 3.0 MiB" in agentctl(*gc, env=none, status=0).out
    shown = agentctl(*gc, "--json", env={"AGENTD_JOURNAL_HISTORY_BYTES": str(2 << 20)}, status=0).json
    assert [row["segment"] for row in shown["segments"]] == [1]
    assert ([row["segment"] for row in shown["history"]], shown["history_bytes"]) == ([2, 3], 2 << 20)
    assert "3 segments history" in agentctl(*gc, status=0).out
    assert sorted(os.listdir(place)) == before


def test_a_repair_needs_the_daemon_to_be_down(daemon: Daemon, agentctl: Agentctl) -> None:
    with Raw(daemon.socket, "planner") as me:
        me.ask(send(1))
    assert "its daemon runs" in agentctl("journal", "repair", "--json", status=75).error["message"]
    daemon.kill()
    assert "nothing was to be done" in agentctl("journal", "repair", status=0).out
    daemon.start()
    assert taken(daemon) == [1]


def test_a_repair_says_what_it_did_and_keeps_a_copy(daemon: Daemon, agentctl: Agentctl, tmp_path: Path) -> None:
    place = tmp_path / "other"
    with opened(place) as journal:
        journal.append(1, b"first")
        lost = journal.append(1, b"damaged")
        sync(journal)
        journal.append(1, b"says that all before was synced")
        sync(journal)
        cut = journal.append(1, b"the end")
    spoil(place, lost + 40)
    spoil(place, cut + 40)
    damaged = (place / "0000000000000001.segment").read_bytes()
    shown = agentctl("journal", "repair", str(place), "--json", status=0).json
    assert {(row["what"], row["position"]) for row in shown["findings"]} == {("skipped", lost), ("cut", cut)}
    copy = Path(shown["copy"])
    assert copy.parent == place.parent and (copy / "0000000000000001.segment").read_bytes() == damaged
    assert [name for name in os.listdir(place) if name.startswith("broken-")]
    with opened(place) as journal:
        assert journal.tail == cut


def test_a_repair_sets_a_checkpoint_aside_that_is_none(daemon: Daemon, agentctl: Agentctl, tmp_path: Path) -> None:
    with Raw(daemon.socket, "planner") as me:
        me.ask(send(1))
    daemon.stop()
    (daemon.state_dir / "journal" / "checkpoint").write_bytes(b"nonsense")
    shown = agentctl("journal", "repair", "--json", status=0).json
    assert shown["checkpoint_is_broken"] is True
    assert (daemon.state_dir / "journal" / "checkpoint.broken").exists()
    daemon.start()
    assert taken(daemon) == [1]
