"""`agentctl history`: what was said and what became of it, out of the files, and said once more."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from commands import Agentctl
from daemons import Daemon, wait_until
from journals import spoil
from raw import Raw

from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.messages import Message, Options, Priority
from agentd.wire.names import id_text

LOW = Options(Priority.LOW, allow_absent=True)


@pytest.fixture
def agentctl(daemon: Daemon) -> Iterator[Agentctl]:
    agentctl = Agentctl(daemon.env, daemon.directory)
    yield agentctl
    agentctl.close()


def shown(agentctl: Agentctl, *args: str) -> tuple[list[Any], Any]:
    """The messages, and what is said of all."""
    *rows, end = agentctl("history", *args, "--json", status=0).lines
    return rows, end["history"]


def bodies(agentctl: Agentctl, *args: str) -> list[Any]:
    return [row["body"] for row in shown(agentctl, *args)[0]]


def test_what_was_kept_is_told_with_what_it_came_to(daemon: Daemon, agentctl: Agentctl) -> None:
    with Raw(daemon.socket, "planner") as me, Raw(daemon.socket, "worker", take=True) as taker:
        me.ask(wire.Send(0, "sink", Content.TEXT, b"waits\nwith a second line", LOW))
        for body in (b"done", b"never"):
            me.ask(wire.Send(0, "worker", Content.TEXT, body, LOW))
        me.ask(wire.Send(0, "sink", Content.BYTES, b"\xff\n", LOW))
        me.ask(wire.Send(0, "worker", Content.TEXT, b"on normal"))
        taker.take(9)
        done, never = taker.until(Message).id, taker.until(Message).id
        taker.ask(wire.Ack(0, [done]))
        taker.ask(wire.Reject(0, never, "not so"))
        rows, end = shown(agentctl)
        assert [(row["to"], row["state"], row["body"]) for row in rows] == [
            ("sink", "stored", "waits\nwith a second line"),
            ("worker", "acked", "done"),
            ("worker", "dead", "never"),
            ("sink", "stored", "/wo="),
        ]
        assert rows[2]["note"] == "not so" and rows[1]["sender"] == "planner" and rows[1]["id"] == id_text(done)
        assert all(row["sent_at"] <= row["at"] <= time.time() for row in rows)
        assert end["messages"] == 4 and end["since"] == rows[0]["sent_at"] and end["all_since"] is None
        head, *lines, last = agentctl("history", status=0).out.splitlines()
        assert head.split() == ["sent", "id", "from", "to", "lane", "state", "at", "size", "body"]
        assert re.search(r"planner +sink +low +stored +[\d:]+ +24 B +waits$", lines[0]), lines[0]
        assert lines[3].endswith("(bytes)")
        assert last.startswith("4 messages; nothing is held from before ") and 'journal.history = "all"' in last
        assert last.endswith("never critical and high")
    daemon.kill()
    after = [row for row in shown(agentctl)[0] if row["body"] != "on normal"]  # that was left behind in its inbox
    assert [row["id"] for row in after] == [row["id"] for row in rows]
    assert [row["state"] for row in after][:3] == ["stored", "acked", "dead"]


def test_it_is_narrowed_down(daemon: Daemon, agentctl: Agentctl) -> None:
    daemon.config(journal={"history": "all"})
    with Raw(daemon.socket, "planner") as me, Raw(daemon.socket, "worker", take=True) as taker:
        taker.ask(wire.Subscribe(0, "build:*"))
        me.ask(wire.Send(0, "worker", Content.TEXT, b"one", LOW))
        me.ask(wire.Send(0, "worker", Content.TEXT, b"two"))
        me.ask(wire.Publish(0, "build:done", Content.TEXT, b"three"))
        me.ask(wire.Publish(0, "test:done", Content.TEXT, b"four"))
        taker.take(9)
        mail = [taker.until(Message) for _ in range(3)]
        taker.ask(wire.Ack(0, [mail[-1].id]))
        taker.ask(wire.Send(0, "planner", Content.TEXT, b"five"))
    assert bodies(agentctl) == ["one", "two", "three", "four", "five"]
    assert bodies(agentctl, "worker") == ["one", "two", "five"]
    assert bodies(agentctl, "nobody") == []
    assert bodies(agentctl, "--topic", "build:*") == ["three"] and bodies(agentctl, "build:done") == ["three"]
    assert bodies(agentctl, "--topic", "**") == ["three", "four"]
    assert bodies(agentctl, "--lane", "low") == ["one"]
    assert bodies(agentctl, "--state", "expired") == ["three", "four"]  # its subscriber left without taking it
    assert bodies(agentctl, "--limit", "2") == ["four", "five"]
    assert bodies(agentctl, "--limit", "1", "--state", "expired") == ["four"]
    rows, end = shown(agentctl)
    assert end["all_since"] <= rows[0]["sent_at"] and end["missed"] == 0
    assert bodies(agentctl, "--id", rows[1]["id"][:12]) in (["two"], ["one", "two"])
    assert bodies(agentctl, "--id", rows[2]["id"]) == ["three"]
    assert "all of normal from " in agentctl("history", status=0).out.splitlines()[-1]


def test_times_are_hours_ages_and_dates(daemon: Daemon, agentctl: Agentctl) -> None:
    with Raw(daemon.socket, "planner") as me:
        me.ask(wire.Send(0, "sink", Content.TEXT, b"x", LOW))
    at = shown(agentctl)[0][0]["sent_at"]
    before, after = (time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(at + by)) for by in (-2, 2))
    for start in ("-5m", "-1h", "-3600s", before, time.strftime("%H:%M:%S", time.localtime(at - 2)), "2020-01-01"):
        assert bodies(agentctl, "--from", start) == ["x"], start
        assert bodies(agentctl, "--to", start) == [], start
    assert bodies(agentctl, "--from", after) == [] and bodies(agentctl, "--to", after) == ["x"]
    for wrong in ("soon", "-5", "-xm", "25:00", ""):
        assert "is no time: write 10:00, -5m" in agentctl("history", "--from", wrong, status=2).err


def test_it_is_said_once_more_to_the_byte_and_in_order(daemon: Daemon, agentctl: Agentctl) -> None:
    said = [
        (Content.JSON, b'{"b":1.0,  "a": [1e3]}'),
        (Content.TEXT, "grün\n".encode()),
        (Content.BYTES, bytes(range(256)) * 300),
        (Content.TEXT, b""),
    ] * 5
    with Raw(daemon.socket, "planner") as me:
        for content, body in said:
            me.ask(wire.Send(0, "sink", content, body, Options(Priority.LOW, allow_absent=True, headers={"a": "b"})))
    result = agentctl("history", "sink", "--into", "tester", "--json", name="me", status=0)
    assert result.lines[0] == {"sent": len(said), "to": "tester"}
    with Raw(daemon.socket, "tester", take=True) as taker:
        taker.take(100)
        got = [taker.until(Message) for _ in said]
    assert [(message.content, message.body) for message in got] == said
    assert all(message.sender == "me" and message.details and message.details.headers for message in got)
    assert "sent  20 messages  to tester" in agentctl("history", "sink", "--into", "tester", status=0).out


def test_an_event_is_said_once_more_once_whoever_had_a_copy(daemon: Daemon, agentctl: Agentctl) -> None:
    daemon.config(journal={"history": "all"})
    with Raw(daemon.socket, "planner") as me, Raw(daemon.socket, "worker", take=True) as taker:
        for name in ("one", "two"):
            taker.ask(wire.Subscribe(0, "build:*", name=name))
        for body in (b"first", b"second"):
            me.ask(wire.Publish(0, "build:done", Content.TEXT, body))
    rows, _ = shown(agentctl, "--topic", "build:*")
    assert [(row["to"], row["body"]) for row in rows] == [
        (to, body) for body in ("first", "second") for to in ("build:done", "sub:one", "sub:two")
    ]
    assert [row["event"] for row in rows[1:3]] == [rows[0]["id"]] * 2
    assert bodies(agentctl, "sub:one") == ["first", "second"]
    said = agentctl("history", "--topic", "build:*", "--into", "tester", "--json", name="me", status=0).lines
    assert said[0] == {"sent": 2, "to": "tester"}


def test_who_can_not_be_sent_to_is_told_and_how_many_were(daemon: Daemon, agentctl: Agentctl) -> None:
    daemon.config(inbox={"max_messages": 3})
    with Raw(daemon.socket, "planner") as me:
        for name in ("one", "two"):
            for _ in range(3):
                me.ask(wire.Send(0, name, Content.TEXT, b"x", LOW))
    error = agentctl("history", "--into", "tester", "--timeout", "1s", "--json", status=75).error
    assert error["code"] == "backpressure" and error["hint"].startswith("3 were sent before.")


def test_a_message_that_the_daemon_has_forgotten_is_found(daemon: Daemon, agentctl: Agentctl) -> None:
    daemon.config(trace={"keep_s": 0}, journal={"history": "all"})
    with Raw(daemon.socket, "planner") as me, Raw(daemon.socket, "worker", take=True) as taker:
        taker.take(1)
        me.ask(wire.Send(0, "worker", Content.TEXT, b"x"))
        id = taker.until(Message).id
        taker.ask(wire.Ack(0, [id]))
    wait_until(lambda: agentctl("trace", id_text(id)).status == 66)
    assert (
        agentctl("trace", id_text(id), "--json").error["hint"]
        == f"It is history: `agentctl history --id {id_text(id)}`."
    )
    assert shown(agentctl, "--id", id_text(id))[0][0]["state"] == "acked"
    assert "history" not in agentctl("trace", "zzzzzzzzzzzzz", "--json").error["hint"]


def test_damage_is_named_and_the_rest_is_told(daemon: Daemon, agentctl: Agentctl) -> None:
    with Raw(daemon.socket, "planner") as me:
        for body in (b"first", b"second", b"third"):
            me.ask(wire.Send(0, "sink", Content.TEXT, body, LOW))
    daemon.kill()
    journal = daemon.state_dir / "journal"
    data = (journal / "0000000000000001.segment").read_bytes()
    spoil(journal, 1 << 32 | data.index(b"second"))
    result = agentctl("history", "--json", status=0)
    assert [row["body"] for row in result.lines[:-1]] == ["first", "third"]
    assert "damaged" in result.err


def test_without_a_journal_it_says_where_it_looked(agentctl: Agentctl) -> None:
    error = agentctl("history", "--json", env={"AGENTD_STATE_DIR": "/nowhere"}, status=66).error
    assert error["code"] == "no_journal" and "/nowhere" in error["message"]


def test_more_than_can_be_remembered_is_refused(agentctl: Agentctl, daemon: Daemon, monkeypatch: Any) -> None:
    from agentd.cli import history

    with Raw(daemon.socket, "planner") as me:
        for _ in range(30):
            me.ask(wire.Send(0, "sink", Content.TEXT, b"x", LOW))
    place = str(daemon.state_dir / "journal")
    everything = history._wanted(None, None)
    monkeypatch.setattr(history, "MOST", 20)
    with pytest.raises(history.TooMany, match="More than 20"):
        history.read(place, everything, None)
    newest = sorted(history.read(place, everything, 3).messages)[-3:]
    monkeypatch.setattr(history, "MOST", 100)
    assert newest == sorted(history.read(place, everything, None).messages)[-3:]


def test_history_is_what_was_sent_in_order_over_restarts_and_kills(daemon: Daemon, agentctl: Agentctl) -> None:
    """With `all`: what its sender was told of is there, in its order, and what was acked is acked."""
    luck = random.Random(7)
    daemon.config(
        journal={"history": "all", "segment_bytes": 1 << 20, "checkpoint_bytes": 100_000, "history_bytes": 1 << 28}
    )
    told: list[int] = []
    acked: set[int] = set()
    number = 0
    for _ in range(6):
        with Raw(daemon.socket, "planner") as me, Raw(daemon.socket, "worker", take=True) as taker:
            taker.take(100_000)
            for _ in range(luck.randint(10, 60)):
                verbs: list[Any] = []
                first = number
                for _ in range(luck.choice([1, 1, 5, 40])):
                    body = json.dumps(number).encode() + b" " * luck.choice([0, 10, 3000])
                    low = LOW if luck.random() < 0.3 else None
                    verbs.append(wire.Send(me.number(), "worker", Content.JSON, body, low))
                    number += 1
                me.say(*verbs)
                for verb in verbs:
                    me.answer(verb.cid)
                told += range(first, number)
                got = [taker.until(Message) for _ in verbs]
                done = [message for message in got if luck.random() < 0.8]
                taker.ask(wire.Ack(0, [message.id for message in done]))
                acked |= {json.loads(message.body) for message in done}
            if luck.random() < 0.5:
                daemon.kill()
            else:
                daemon.stop()
        daemon.start()
        with Raw(daemon.socket, "worker", take=True):
            pass  # what comes again is not looked at
    rows, end = shown(agentctl)
    assert [row["body"] for row in rows] == told
    assert end["missed"] == 0
    assert acked <= {row["body"] for row in rows if row["state"] == "acked"}
