"""clients/vectors of the direct lanes, over agentd.wire and agentd._native, and over the files in C (tests/c)."""

from __future__ import annotations

import json
import mmap
import os
import random
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from c_programs import C_CLIENT, CORE, ROOT, build
from hypothesis import given
from hypothesis import strategies as st
from test_vectors import vectors

from agentd import _native
from agentd.wire import grants, records
from agentd.wire.bodies import Content
from agentd.wire.errors import BadRequest
from agentd.wire.names import id_text
from agentd.wire.ndjson import verb_of

CONTENTS = {str(content): code for content, code in records.CODES.items()}
STATES = {
    "acked": records.ACKED,
    "expired": records.EXPIRED,
    "dead": records.DIED,
    "replied": records.REPLIED,
    "saving": records.SAVING,
    "saved": records.SAVED,
}
DECODERS = {"client": grants.decode_client, "daemon": grants.decode_daemon}
RING_BYTES, VERDICT_BYTES = 4096, 4096
RING_AT, VERDICTS_AT = 12288 + VERDICT_BYTES, 12288


class Core:
    """The program in C: it is asked in lines."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, *words: object) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "it has ended; what it said stands above"
        return answer[:-1]

    def close(self) -> None:
        """It must have found nothing wrong."""
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    sources = [ROOT / "tests" / "c" / "vectors.c", C_CLIENT / "packets.c", C_CLIENT / "lines.c", *CORE]
    one = Core(build(tmp_path_factory.mktemp("c") / "vectors", *sources))
    yield one
    one.close()


class Ends:
    """A pair, its two ends in Python, and its bytes."""

    def __init__(
        self, lane: int = grants.CRITICAL, ring: int = RING_BYTES, verdicts: int = VERDICT_BYTES, pool: int = 0
    ) -> None:
        shape = (lane, 7, ring, verdicts, pool)
        fd = _native.create_pair(*shape, False)
        self.memory = mmap.mmap(fd, 0)
        bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2)]
        self.channel = _native.Channel(fd, *shape, bells[0], lambda body: (0, body), lambda error, size: None)
        self.incoming = _native.Incoming(fd, *shape, bells[1])
        os.close(fd)

    def put(self, at: int, body: bytes) -> None:
        """As a writer in any language does, into a fresh ring."""
        self.memory[at + 8 : at + 8 + len(body)] = body
        self.memory[at : at + 8] = struct.pack("<II", len(body), 1)

    def written(self, at: int) -> bytes:
        """The body of the first record."""
        size, kind = struct.unpack_from("<II", self.memory, at)
        assert kind == 1
        return bytes(self.memory[at + 8 : at + 8 + size])

    def close(self) -> None:
        self.channel.close()
        self.incoming.close()
        self.memory.close()


class Taken(_native.Record):
    """What a mailbox makes."""

    __slots__ = ()


@pytest.fixture
def ends() -> Iterator[Ends]:
    one = Ends()
    yield one
    one.close()


def take(ends: Ends) -> Any:
    """What the receiver finds."""
    over: list[Any] = []
    mailbox = _native.Mailbox(Taken, over.append, over.append, 0)
    mailbox.add(ends.incoming)
    taken = mailbox.take()
    mailbox.close()
    return taken or over


def hexes(vector: dict[str, Any], *names: str) -> list[str]:
    return ["x" + vector[name] for name in names]


# Records and verdicts.


@vectors("records", "records")
def test_a_record_is_read(ends: Ends, vector: dict[str, Any]) -> None:
    ends.put(RING_AT, bytes.fromhex(vector["hex"]))
    record = take(ends)
    assert record.body.hex() == vector["body"] and (record.details_bytes or b"").hex() == vector["details"]
    assert (record.content_code, record.flags) == (CONTENTS[vector["content"]], vector["flags"])
    assert (record.sent_ns, record.deadline_ns) == (int(vector["sent_ns"]), int(vector["deadline_ns"]))


@vectors("records", "records")
def test_a_record_is_written(ends: Ends, vector: dict[str, Any]) -> None:
    body, details = bytes.fromhex(vector["body"]), bytes.fromhex(vector["details"])
    content, deadline_ns = CONTENTS[vector["content"]], int(vector["deadline_ns"])
    ends.channel.ask(body, content, vector["flags"] & ~2, details, deadline_ns)
    written, expected = ends.written(RING_AT), bytes.fromhex(vector["hex"])
    assert written[:8] + written[16:] == expected[:8] + expected[16:]  # but for the time


@vectors("records", "refused")
def test_what_is_no_record_ends_its_pair(ends: Ends, vector: dict[str, Any]) -> None:
    ends.put(RING_AT, bytes.fromhex(vector["hex"]))
    assert take(ends) == [ends.incoming]


@pytest.fixture
def pooled() -> Iterator[Ends]:
    one = Ends(2, 1024, 1024, 65536)
    yield one
    one.close()


@vectors("records", "pooled")
def test_a_record_whose_body_lies_in_the_pool(pooled: Ends, core: Core, vector: dict[str, Any]) -> None:
    body = bytes(range(251)) * (vector["size"] // 251 + 1)
    pooled.memory[vector["offset"] : vector["offset"] + vector["size"]] = body[: vector["size"]]
    pooled.put(12288 + 4096, bytes.fromhex(vector["hex"]))
    record = take(pooled)
    assert (record.size, record.body) == (vector["size"], body[: vector["size"]])
    assert (record.content_code, record.flags) == (CONTENTS[vector["content"]], vector["flags"])
    assert (record.details_bytes or b"").hex() == vector["details"]
    returned = struct.unpack_from("<Q", pooled.memory, 12288 + 4096 + 4096 + 8 * vector["slot"])
    assert returned == (int(vector["generation"]),)
    meaning = [CONTENTS[vector["content"]], vector["flags"], vector["sent_ns"], vector["deadline_ns"]]
    reference = [vector["slot"], vector["generation"], vector["offset"], vector["size"]]
    parts = [f"x{vector['details']}", f"x{vector['hex'][-64:]}"]
    assert core("record", *hexes(vector, "hex")) == " ".join(map(str, [*meaning, *parts, *reference]))


@vectors("records", "no_block")
def test_what_is_no_block_ends_its_pair(pooled: Ends, vector: dict[str, Any]) -> None:
    pooled.put(12288 + 4096, bytes.fromhex(vector["hex"]))
    assert take(pooled) == [pooled.incoming]


@vectors("records", "verdicts")
def test_a_verdict_is_written_and_read(ends: Ends, vector: dict[str, Any]) -> None:
    meaning = (int(vector["position"]), STATES[vector["state"]], CONTENTS[vector["content"]])
    payload = bytes.fromhex(vector["payload"])
    ends.incoming.settle(*meaning, payload)
    assert ends.written(VERDICTS_AT).hex() == vector["hex"]
    assert ends.channel.verdicts() == [(*meaning, payload)]


@vectors("records", "ids")
def test_the_id_of_a_record(core: Core, vector: dict[str, str]) -> None:
    number, position = int(vector["number"]), int(vector["position"])
    assert id_text(_native.message_id(number, position)) == vector["id"]
    assert id_text(int(core("id", number, position))) == vector["id"]


@vectors("records", "details")
def test_details_and_what_they_say(core: Core, vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    read = records.decode_details(data or None)
    headers = (read.details.headers or {}) if read.details is not None else {}
    assert (headers, read.sender, read.provenance) == (vector["headers"], vector["sender"], vector["provenance"])
    sender, provenance = (vector["sender"] or "").encode().hex(), vector["provenance"].encode().hex()
    assert core("details", "x" + vector["hex"]) == f"{int(bool(sender))} x{sender} x{provenance}"


@vectors("records", "files")
def test_what_begins_and_ends_a_file(vector: dict[str, Any]) -> None:
    offer = records.Offer(*vector["offer"]) if vector["offer"] else None
    end = records.End(*vector["end"]) if vector["end"] else None
    assert records.encode_file(None, offer=offer, end=end).hex() == vector["hex"]
    read = records.decode_file(bytes.fromhex(vector["hex"]))
    assert (read.offer, read.end) == (offer, end)


@vectors("records", "records")
def test_c_reads_and_writes_a_record(core: Core, vector: dict[str, Any]) -> None:
    meaning = [CONTENTS[vector["content"]], vector["flags"], vector["sent_ns"], vector["deadline_ns"]]
    parts = hexes(vector, "details", "body")
    assert core("record", *hexes(vector, "hex")) == " ".join(map(str, [*meaning, *parts]))
    assert core("write-record", *meaning, *parts) == "x" + vector["hex"]


@vectors("records", "refused")
def test_c_refuses_what_is_no_record(core: Core, vector: dict[str, Any]) -> None:
    assert core("record", *hexes(vector, "hex")) == "refused"


@vectors("records", "verdicts")
def test_c_reads_a_verdict(core: Core, vector: dict[str, Any]) -> None:
    meaning = f"{vector['position']} {STATES[vector['state']]} {CONTENTS[vector['content']]}"
    assert core("verdict", *hexes(vector, "hex")) == f"{meaning} x{vector['payload']}"


def test_every_content_has_a_record() -> None:
    assert set(CONTENTS) == {str(content) for content in Content}


# Packets.

#: Which field of C's one struct has what.
_PLACES = {
    "cid": 1, "number": 2, "lane": 3, "ring_bytes": 4, "verdict_bytes": 5, "taken": 6, "blocks": 6,
    "sends": 7, "reads": 7, "relays": 7, "on": 7, "wants": 7, "without_io_uring": 7,
    "spin_us": 8, "retry_after": 8, "kept_s": 8,
    "to": 9, "peer": 9, "agent": 9, "sender": 9, "code": 9,
    "error": 10, "reason": 10, "provenance": 10, "message": 10, "about_cores": 10,
    "about": 11, "hint": 11, "latencies_ns": 12, "counts": 12, "pool_bytes": 13, "async_bytes": 14,
}  # fmt: skip


def in_c(tag: int, packet: dict[str, Any]) -> str:
    """As the program in C shows it."""
    shown = [str(tag), "0", "0", "0", "0", "0", "0", "0", "-1.000000", "x", "x", "x", "", "0", "0"]
    for name, value in packet.items():
        if name == "packet":
            continue
        place = _PLACES.get(name) or (12 if isinstance(value, list) else 10)  # cores: a list, or a text
        if place == 8:
            shown[8] = f"{-1 if value is None else value:.6f}"
        elif isinstance(value, list):
            shown[12] = ",".join(map(str, value))
        else:
            shown[place] = "x" + value.encode().hex() if isinstance(value, str) else str(int(value))
    return " ".join(shown)


def shown(packet: Any) -> dict[str, Any]:
    """As the vectors show it: with the fields that have their default."""
    return {"packet": verb_of(type(packet)), **{name: getattr(packet, name) for name in packet.__struct_fields__}}


@vectors("grants", "packets")
def test_a_packet_is_read_and_written(core: Core, vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    packet = DECODERS[vector["from"]](data)
    assert shown(packet) == vector["packet"]
    assert grants.encode(packet) == data
    assert core("packet", "x" + vector["hex"]) == f"{in_c(_tag(packet), vector['packet'])}; x{vector['hex']}"


@vectors("grants", "lenient")
def test_other_ways_to_write_a_packet(core: Core, vector: dict[str, Any]) -> None:
    packet = DECODERS[vector["from"]](bytes.fromhex(vector["hex"]))
    assert shown(packet) == vector["packet"]
    again = grants.encode(packet).hex()
    assert core("packet", "x" + vector["hex"]) == f"{in_c(_tag(packet), vector['packet'])}; x{again}"


@vectors("grants", "refused")
def test_what_is_no_packet(core: Core, vector: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        DECODERS[vector["from"]](bytes.fromhex(vector["hex"]))
    assert core("packet", "x" + vector["hex"]) == "refused"


def _tag(packet: Any) -> int:
    tag = type(packet).__struct_config__.tag
    assert isinstance(tag, int)
    return tag


def test_every_packet_has_a_vector() -> None:
    found = {(one["from"], one["packet"]["packet"]) for one in _all_packets()}
    for side, union in (("client", grants.ClientPacket), ("daemon", grants.DaemonPacket)):
        assert {(side, verb_of(kind)) for kind in union.__args__} <= found


def _all_packets() -> list[Any]:
    return list(json.loads((ROOT / "clients" / "vectors" / "grants.json").read_text())["packets"])


def test_c_stands_any_bytes(core: Core) -> None:
    chance = random.Random(1)
    for vector in _all_packets():
        data = bytes.fromhex(vector["hex"])
        for size in range(len(data)):
            assert core("packet", "x" + data[:size].hex()) == "refused"
        for _ in range(200):
            changed = bytearray(data)
            for _ in range(chance.randint(1, 3)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            for question in ("packet", "details", "record"):
                assert core(question, "x" + changed.hex())


_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | _texts, lambda inner: st.lists(inner) | st.dictionaries(_texts, inner)
)


@given(st.dictionaries(st.sampled_from(["verb", "name", "verbs"]) | _texts, _values), st.booleans())
def test_c_finds_a_field_of_a_line_of_json(core: Core, line: dict[str, Any], ascii_only: bool) -> None:
    found = core("text", "verb", json.dumps(line, ensure_ascii=ascii_only))
    wanted = line.get("verb")
    if not isinstance(wanted, str):
        assert found == "none"
    elif not (ascii_only and any(ord(letter) > 0xFFFF for letter in wanted)):  # C shows question marks there
        assert found == "x" + wanted.encode().hex()


# Memory.


@vectors("pairs", "shapes")
def test_a_pairs_header(core: Core, vector: dict[str, Any]) -> None:
    shape = (vector["lane"], int(vector["number"]), vector["ring_bytes"], vector["verdict_bytes"], vector["pool_bytes"])
    fd = _native.create_pair(*shape, False)
    assert os.fstat(fd).st_size == vector["total_bytes"]
    assert os.pread(fd, 88, 0).hex() == vector["header"].ljust(2 * 88, "0")
    os.close(fd)
    assert core("header", *shape) == f"{vector['total_bytes']} x{vector['header']}"


@vectors("pairs", "rings")
def test_what_a_ring_is_written_like(core: Core, vector: dict[str, Any]) -> None:
    assert core("ring", vector["capacity"]) == "0 0"
    for step in vector["steps"]:
        if "take" in step:
            assert core("take", step["take"]) == str(step["take"])
        else:
            expected = "full" if "full" in step else "too_large" if "too_large" in step else str(step["at"])
            assert core("write", step["write"]) == expected, step
    for place, word in vector["words"].items():
        assert core("word", place) == "x" + word, place


@vectors("pairs", "words")
def test_what_a_reader_makes_of_a_word(core: Core, vector: dict[str, Any]) -> None:
    assert core("ring", vector["capacity"], vector["position"]) == "0 0"
    assert core("look", "x" + vector["word"]) == str(vector["found"])
