"""clients/PROTOCOL.md says what the code does: its tables are the structs', its examples work."""

from __future__ import annotations

import json
import re
import socket

import pytest
from daemons import Daemon
from protocol_tables import DOCUMENTS, PROTOCOL, filled, tables

from agentd.host.config import DirectLimits
from agentd.wire import grants, ndjson, records
from agentd.wire.frames import CHUNK_BYTES, FRAME_SLACK_BYTES, MAGIC, MAX_STREAMS
from agentd.wire.messages import VERSION


def test_the_tables_are_those_of_the_structs() -> None:
    everything = "".join(document.read_text() for document in DOCUMENTS)
    for name in tables():
        assert f"<!-- table: {name} -->" in everything
    assert filled(PROTOCOL.read_text()) == PROTOCOL.read_text(), "run: python tests/protocol_tables.py"


def test_the_numbers_are_those_of_the_code() -> None:
    text = PROTOCOL.read_text()
    assert f"`0x{MAGIC:02X}`" in text
    assert f"protocol version {VERSION}" in text
    assert f"{CHUNK_BYTES // 1024} KiB" in text
    assert f"body limit + {FRAME_SLACK_BYTES // 1024} KiB" in text
    assert f"at most {MAX_STREAMS} large messages" in text


def test_the_numbers_of_the_direct_lanes_are_those_of_the_code() -> None:
    text = PROTOCOL.read_text()
    assert f"at most {grants.MAX_PACKET_BYTES} bytes and {grants.MAX_FDS} descriptors" in text
    assert f"a token of {grants.TOKEN_BYTES} bytes" in text
    assert f"for {DirectLimits().token_s:g} seconds" in text and f"within {DirectLimits().return_s:g} seconds" in text
    assert f"A verdict takes {records.VERDICT_BYTES} bytes" in text
    assert f"(verdict ring / {2 * records.VERDICT_BYTES}) records" in text
    assert f"cut to {records.MAX_REASON_BYTES} bytes" in text
    for flag, name in ((records.ASKED, "ASKED"), (records.STOP, "STOP"), (records.REQUEST, "REQUEST")):
        assert re.search(rf"flags: .*\b{flag} {name}", text)


def examples() -> list[tuple[str, list[str]]]:
    """Each fenced JSON conversation of the document: its first line, all its lines."""
    blocks = re.findall(r"```jsonl\n(.*?)```", PROTOCOL.read_text(), re.DOTALL)
    return [(block.split("\n")[0], block.strip().split("\n")) for block in blocks]


def test_every_example_line_is_a_message() -> None:
    for _, lines in examples():
        for line in lines:
            ndjson.from_object(json.loads(re.sub(r"^[<>] ", "", line)))


@pytest.mark.parametrize("lines", [lines for _, lines in examples()], ids=range(len(examples())))
def test_the_daemon_answers_as_the_examples_say(daemon: Daemon, lines: list[str]) -> None:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(10)
        wire.connect(str(daemon.socket))
        answers = wire.makefile("r")
        for line in lines:
            if line.startswith("> "):
                wire.sendall(line[2:].encode() + b"\n")
                continue
            expected, got = json.loads(line[2:]), json.loads(answers.readline())
            assert got["verb"] == expected["verb"]
            assert set(got) == set(expected), (got, expected)
            for name in ("cid", "code", "body", "name", "sender", "state", "count", "reached"):
                assert got.get(name) == expected.get(name)
        answers.close()
