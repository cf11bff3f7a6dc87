"""`agentctl journal`: what is on disk, looked at with the daemon down, and beside one that writes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from commands import Agentctl
from daemons import wait_until
from journals import FIRST, SEGMENT_BYTES, opened, prepare, segment_file, spoil, sync

from agentd import _native
from agentd.cli.main import run
from agentd.wire.journal import position_text, position_value, shown_body


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "journal"


@pytest.fixture
def agentctl(tmp_path: Path) -> Iterator[Agentctl]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("AGENTD_")}
    agentctl = Agentctl(
        {**env, "AGENTD_RUNTIME_DIR": str(tmp_path), "AGENTD_STATE_DIR": str(tmp_path / "state")}, tmp_path
    )
    yield agentctl
    agentctl.close()


@pytest.fixture
def positions(directory: Path) -> list[int]:
    """Of the records of a journal of two segments that is whole, all synced, and said so in the last record."""
    bodies = [
        msgspec.msgpack.encode({"to": "builder", "n": 7}),
        b"\xc1 no msgpack",
        b"",
        *[bytes(262_000)] * 4,
        b"\x01",
    ]
    with opened(directory) as journal:
        found = []
        for number, body in enumerate(bodies):
            found.append(journal.append(number, body))
            sync(journal)
        assert found[-1] >> 32 == 2
    return found


def names(directory: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in directory.iterdir()}


def test_a_journal_that_is_whole_is_fine(agentctl: Agentctl, directory: Path, positions: list[int]) -> None:
    before = names(directory)
    out = agentctl("journal", "check", status=0).out
    assert re.fullmatch(rf"{directory}: 8 records in 2 segments, 1\.0 MiB: fine\n", out)
    assert agentctl("journal", "check", "--json", status=0).json == {
        "ok": True,
        "directory": str(directory),
        "segments": 2,
        "records": len(positions),
        "bytes": 4 * 262_000 + 15 + 12 + 1,
        "findings": [],
    }
    assert names(directory) == before


def test_damage_is_named_with_its_place(agentctl: Agentctl, directory: Path, positions: list[int]) -> None:
    spoil(directory, positions[1] + 42)
    result = agentctl("journal", "check", status=1)
    assert f"skipped at {position_text(positions[1])}, 56 B: damaged" in result.out
    assert "7 records" in result.out and "1 place damaged" in result.out
    shown = agentctl("journal", "check", "--json", status=1).json
    assert (shown["ok"], shown["records"]) == (False, 7)
    assert shown["findings"] == [{"what": "skipped", "position": positions[1], "bytes": 56}]
    assert "1 place damaged" in agentctl("journal", "ls", status=0).out


@pytest.mark.parametrize("number", range(8))
def test_each_record_is_looked_at(agentctl: Agentctl, directory: Path, positions: list[int], number: int) -> None:
    with opened(directory) as journal:  # what is last says that all before it was synced
        journal.append(0, b"the last")
    spoil(directory, positions[number] + 8, b"\xee")
    shown = agentctl("journal", "check", "--json", status=1).json
    # What should be the first of its segment is missed behind the one before.
    place = positions[number] if number != 6 else positions[5] + 40 + 262_000
    assert [row["position"] for row in shown["findings"]] == [place]


def test_a_segment_that_is_not_there_is_damage(agentctl: Agentctl, directory: Path) -> None:
    with opened(directory) as journal:
        while journal.tail >> 32 < 4:
            journal.append(1, bytes(100_000))
            sync(journal)
    segment_file(directory, 2).unlink()
    assert "missing at 2:" in agentctl("journal", "check", status=1).out
    assert [row["segment"] for row in agentctl("journal", "ls", "--json", status=0).json["segments"]] == [1, 3, 4]


def test_an_end_that_was_never_synced_is_named_and_is_no_damage(agentctl: Agentctl, directory: Path) -> None:
    with opened(directory) as journal:
        journal.append(1, b"kept")
        sync(journal)
        lost = journal.append(2, b"spoiled")
        journal.append(3, b"behind it")
    spoil(directory, lost + 40)
    shown = agentctl("journal", "check", "--json", status=0).json
    assert shown["ok"] is True
    assert [(row["what"], row["position"]) for row in shown["findings"]] == [("cut", lost)]
    assert "never synced" in agentctl("journal", "check", status=0).out
    with opened(directory) as journal:
        assert journal.tail == lost


def test_segments_are_listed(agentctl: Agentctl, directory: Path, positions: list[int]) -> None:
    rows = agentctl("journal", "ls", "--json", status=0).json["segments"]
    assert [(row["segment"], row["records"], row["first"], row["last"]) for row in rows] == [(1, 6, 1, 6), (2, 2, 7, 8)]
    assert all(row["file_bytes"] == SEGMENT_BYTES for row in rows)
    assert rows[0]["made_at"] <= rows[1]["made_at"] <= rows[1]["written_at"]
    assert rows[1]["end"] == positions[-1] + 48
    assert agentctl("journal", "--json", status=0).json["segments"] == rows  # the default
    head, first, second = agentctl("journal", "ls", status=0).out.splitlines()
    assert head.split() == ["segment", "records", "size", "first", "last", "made", "written"]
    assert (first.split()[:2], second.split()[:2]) == (["1", "6"], ["2", "2"])


def test_a_journal_without_a_record_is_fine(agentctl: Agentctl, directory: Path) -> None:
    with opened(directory) as journal:
        prepare(journal, directory)
    shown = agentctl("journal", "check", "--json", status=0).json
    assert (shown["ok"], shown["records"], shown["findings"]) == (True, 0, [])
    assert agentctl("journal", "dump", "--json", status=0).lines == []
    agentctl("journal", "ls", status=0)


def test_records_are_dumped(agentctl: Agentctl, positions: list[int]) -> None:
    lines = agentctl("journal", "dump", "--json", status=0).lines
    assert [(line["position"], line["sequence"], line["type"]) for line in lines] == [
        (position, number + 1, number) for number, position in enumerate(positions)
    ]
    assert lines[0]["body"] == {"to": "builder", "n": 7}
    assert lines[1]["first_bytes"] == b"\xc1 no msgpack".hex()
    assert (lines[2]["size_bytes"], lines[2]["first_bytes"]) == (0, "")
    assert (lines[3]["size_bytes"], lines[3]["first_bytes"]) == (262_000, "00" * 32 + "…")
    assert lines[7]["body"] == 1
    text = agentctl("journal", "dump", status=0).out.splitlines()
    assert text[0].split() == ["position", "sequence", "type", "size", "body"]
    assert text[1].split(maxsplit=4) == ["1:4096", "1", "0", "15", '{"to": "builder", "n": 7}']
    assert len(text) == 9


def test_a_dump_begins_and_ends_where_it_should(agentctl: Agentctl, positions: list[int]) -> None:
    def dumped(*args: str) -> list[int]:
        return [line["position"] for line in agentctl("journal", "dump", "--json", *args, status=0).lines]

    assert dumped("--limit", "2") == positions[:2]
    assert dumped("--from", position_text(positions[1]), "--limit", "3") == positions[1:4]
    assert dumped("--from", str(positions[3])) == positions[3:]
    assert dumped("--from", "2:4096") == positions[6:]


def test_a_dump_says_where_there_is_no_record(agentctl: Agentctl, directory: Path, positions: list[int]) -> None:
    spoil(directory, positions[1] + 42)
    lines = agentctl("journal", "dump", "--json", status=0).lines
    assert lines[1] == {"no_record": {"what": "skipped", "position": positions[1], "bytes": 56}}
    assert [line.get("position") for line in lines] == [positions[0], None, *positions[2:]]
    assert agentctl("journal", "dump", "--limit", "1", "--json", status=0).lines == lines[:1]
    assert "skipped at 1:" in agentctl("journal", "dump", status=0).err


@pytest.mark.parametrize("verb", ["check", "ls", "dump"])
def test_where_there_is_no_journal_that_is_said(agentctl: Agentctl, tmp_path: Path, verb: str) -> None:
    error = agentctl("journal", verb, "--json", status=66).error
    assert error["code"] == "no_journal"
    assert str(tmp_path / "state" / "journal") in error["message"]
    assert "AGENTD_STATE_DIR" in error["hint"]
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in agentctl("journal", verb, str(tmp_path / "empty"), status=66).err
    assert list((tmp_path / "empty").iterdir()) == []


def test_another_directory_can_be_named(agentctl: Agentctl, directory: Path, positions: list[int]) -> None:
    elsewhere = directory.rename(directory.parent / "backup")
    assert agentctl("journal", "check", str(elsewhere), "--json", status=0).json["records"] == len(positions)


@pytest.mark.parametrize("given", ["", "x", "1:", ":1", "1:2:3", "-1", "1:4294967296", "4294967296:0", str(1 << 64)])
def test_what_is_no_position_is_refused(agentctl: Agentctl, given: str) -> None:
    assert position_value(given) is None
    assert "is no position" in agentctl("journal", "dump", f"--from={given}", status=2).err


@pytest.mark.parametrize("position", [0, FIRST, (1 << 64) - 1])
def test_a_position_is_written_in_two_ways(position: int) -> None:
    assert position_value(position_text(position)) == position_value(str(position)) == position


def test_a_body_is_shown_as_json_can() -> None:
    assert shown_body(msgspec.msgpack.encode([1, "a", b"\xff", None, float("nan"), {1: 2}])) == [
        1,
        "a",
        "/w==",
        None,
        None,
        {"1": 2},
    ]
    for body in (b"", b"\xc1", b"\x01\x01", b"\x91" * 10_000):
        with pytest.raises(ValueError, match="no msgpack"):
            shown_body(body)


def test_a_daemon_that_writes_meanwhile_is_no_damage(agentctl: Agentctl, directory: Path) -> None:
    """It makes and retires segments as fast as it can."""
    code = f"""
import os
from agentd import _native
journal = _native.Journal({str(directory)!r}, {SEGMENT_BYTES})
while True:
    for _ in range(20):
        journal.append(1, b"x" * 20_000)
    for fd in journal.begin_sync()[1]:
        os.fdatasync(fd)
    journal.end_sync()
    journal.retire(max(journal.tail - (3 << 32), 0))
    os.write(1, b".")
"""
    with subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.DEVNULL) as writer:
        try:
            wait_until(lambda: len(list(directory.glob("*.segment"))) > 2)
            for _ in range(3):
                assert agentctl("journal", "check", "--json").json["ok"] is True
            assert writer.poll() is None
        finally:
            writer.send_signal(signal.SIGKILL)
    assert agentctl("journal", "check", "--json", status=0).json["ok"] is True


def test_a_segment_that_is_retired_meanwhile_is_looked_for_again(
    directory: Path, positions: list[int], monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    look, retired = _native.check_journal, [True] * 3

    def check(*args: Any) -> Any:
        if retired:
            retired.pop()
            raise FileNotFoundError
        return look(*args)

    monkeypatch.setattr(_native, "check_journal", check)
    assert run(["journal", "check", str(directory)]) == 0
    assert b"8 records" in capsysbinary.readouterr().out


def test_what_looks_like_damage_only_once_is_none(
    directory: Path, positions: list[int], monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """As a record may that is just being stored, when what comes behind it is read a moment later."""
    reported = [[("skipped", 8, 48)], []]

    def check(place: str, report: Callable[[str, int, int], None], *more: Any) -> Any:
        for one in reported.pop(0):
            report(*one)
        return [(1, 0, 0, SEGMENT_BYTES, 0, 0, 0, 0, FIRST)]

    monkeypatch.setattr(_native, "check_journal", check)
    assert run(["journal", "check", str(directory)]) == 0
    assert b"fine" in capsysbinary.readouterr().out
    reported += [[("skipped", 8, 48)], [("skipped", 8, 56), ("skipped", 4096, 8)]]
    assert run(["journal", "check", str(directory)]) == 1
    out = capsysbinary.readouterr().out
    assert b"skipped at 0:8, 56 B" in out and b"1 place damaged" in out
