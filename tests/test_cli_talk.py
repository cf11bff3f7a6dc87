"""send, recv, inbox and what becomes of a message, through processes and a real daemon."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from commands import AGENTCTL, Agentctl
from daemons import Daemon, wait_until

ID = r"[a-z2-7]{13}"


def send(agentctl: Agentctl, to: str, body: str, *options: str, name: str = "planner") -> str:
    """Send it; its id."""
    return str(agentctl("send", to, body, "--allow-absent", "--json", *options, name=name, status=0).json["id"])


def state(agentctl: Agentctl, id: str) -> str:
    return str(agentctl("trace", id, "--json", status=0).json["state"])


def test_send_says_what_was_reached(agentctl: Agentctl) -> None:
    out = agentctl("send", "builder", "hi", "--allow-absent", name="planner", status=0).out
    first = out.splitlines()[0].split()
    assert first[0] in ("accepted", "stored")
    assert "to builder" in out and "normal lane" in out and "route socket" in out
    assert state(agentctl, first[1]) == first[0]


def test_send_as_json(agentctl: Agentctl) -> None:
    shown = agentctl("send", "builder", "hi", "--allow-absent", "--json", name="planner", status=0).json
    assert set(shown) == {"id", "state", "at", "lane", "route", "note", "to"}
    assert (shown["to"], shown["lane"], shown["route"]) == ("builder", "normal", "socket")


def test_an_unknown_recipient_is_refused_with_the_nearest_name(agentctl: Agentctl) -> None:
    send(agentctl, "builder", "hi")
    refused = agentctl("send", "bulider", "hi", name="planner", status=66)
    assert refused.out == ""
    lines = refused.err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("agentctl: ") and "bulider" in lines[0]
    assert "builder" in refused.err
    error = agentctl("send", "bulider", "hi", "--json", name="planner", status=66).error
    assert error["code"] == "no_such_agent" and not error["retryable"] and "builder" in error["hint"] + error["message"]


def test_without_a_name_the_receipt_says_that_replies_cannot_come(agentctl: Agentctl) -> None:
    send(agentctl, "builder", "hi")
    assert "eplies can't reach you" in agentctl("send", "builder", "hi", status=0).out
    assert "eplies can't reach you" in agentctl("send", "builder", "hi", "--json", status=0).json["note"]
    assert "eplies can't reach you" not in agentctl("send", "builder", "hi", "--as", "x", status=0).out


@pytest.mark.parametrize(
    ("options", "sender"), [([], "inherited"), (["--as", "given"], "given")], ids=["AGENTD_AGENT", "--as"]
)
def test_who_i_am(agentctl: Agentctl, options: list[str], sender: str) -> None:
    agentctl("send", "builder", "hi", "--allow-absent", *options, name="inherited", status=0)
    assert agentctl("recv", "--json", name="builder", status=0).json["sender"] == sender


def test_on_a_terminal_i_am_my_login_name(agentctl: Agentctl) -> None:
    import pwd

    assert agentctl.on_terminal("send", "builder", "hi", "--allow-absent").status == 0
    assert agentctl("recv", "--json", name="builder", status=0).json["sender"] == pwd.getpwuid(os.getuid()).pw_name


def test_recv_prints_where_it_is_from_and_the_body(agentctl: Agentctl) -> None:
    id = send(agentctl, "builder", "line one\nline two")
    head, *body = agentctl("recv", name="builder", status=0).out.splitlines()
    assert head.startswith(id) and "from agent planner" in head and f"uid {os.getuid()}" in head
    assert body == ["line one", "line two"]
    assert state(agentctl, id) == "acked"


def test_recv_as_json(agentctl: Agentctl) -> None:
    id = send(agentctl, "builder", '{"pr": 7}', "--header", "k=v", "--header", "eq=a=b")
    shown = agentctl("recv", "--json", name="builder", status=0).json
    assert shown.pop("sent_at") > 1e9 and shown.pop("provenance")
    assert shown == {
        "id": id,
        "sender": "planner",
        "content": "json",
        "body": {"pr": 7},
        "attempt": 1,
        "lane": "normal",
        "wants_reply": False,
        "headers": {"k": "v", "eq": "a=b"},
    }


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_recv_with_nothing_there_is_a_negative_answer(agentctl: Agentctl, options: list[str]) -> None:
    result = agentctl("recv", *options, name="builder", status=1)
    assert (result.out, result.err) == ("", "")
    assert agentctl("recv", "--wait", "50ms", *options, name="builder", status=1).out == ""


def test_recv_waits_for_what_comes(agentctl: Agentctl, daemon: Daemon) -> None:
    waiting = agentctl.start("recv", "--wait", "1m", name="builder")
    wait_until(lambda: agentctl("send", "builder", "at last", name="planner").status == 0, "for builder to be known")
    result = waiting.result()
    assert result.status == 0 and result.out.endswith("at last\n")


@pytest.mark.parametrize("verb", ["recv", "inbox"])
def test_who_has_no_name_has_no_inbox(agentctl: Agentctl, verb: str) -> None:
    refused = agentctl(verb, status=2)
    assert "--as NAME" in refused.err and "AGENTD_AGENT" in refused.err
    assert agentctl(verb, "--json", status=2).error["code"] == "usage"


def test_recv_counts(agentctl: Agentctl) -> None:
    for number in range(3):
        send(agentctl, "builder", f"number {number}")
    shown = agentctl("recv", "--count", "2", "--json", name="builder", status=0).lines
    assert [one["body"] for one in shown] == ["number 0", "number 1"]
    assert len(agentctl("recv", "--count", "9", "--json", name="builder", status=0).lines) == 1


def test_recv_follows_until_interrupted(agentctl: Agentctl) -> None:
    following = agentctl.start("recv", "--follow", "--json", name="builder")
    for number in range(3):
        send(agentctl, "builder", f"number {number}")
        following.until(f"number {number}")
    result = following.end(signal.SIGINT)
    assert (result.status, result.err) == (130, "")


BODIES: list[tuple[list[str | bytes], bytes | None, str, Any]] = [
    (["hello"], None, "text", "hello"),
    (['{"a": [1, 2.5, null]}'], None, "json", {"a": [1, 2.5, None]}),
    (["[1, 2]"], None, "json", [1, 2]),
    (["{not json"], None, "text", "{not json"),
    (["7"], None, "text", "7"),
    (["7", "--json-body"], None, "json", 7),
    (['{"a": 1}', "--text"], None, "text", '{"a": 1}'),
    (["hello", "--bytes"], None, "bytes", "aGVsbG8="),
    (["-"], b"from stdin\n", "text", "from stdin\n"),
    (["-"], b"\xff\x00", "bytes", "/wA="),
    (["-"], b"", "text", ""),
    (["@@all: hi"], None, "text", "@all: hi"),
    ([b"\xff\xfe"], None, "bytes", "//4="),
    (["gr\u00fc\u00df dich \U0001f30d"], None, "text", "gr\u00fc\u00df dich \U0001f30d"),
]


@pytest.mark.parametrize(("args", "stdin", "content", "body"), BODIES)
def test_a_body_keeps_its_kind(
    agentctl: Agentctl, args: list[str | bytes], stdin: bytes | None, content: str, body: Any
) -> None:
    agentctl("send", "builder", *args, "--allow-absent", name="planner", input=stdin, status=0)
    shown = agentctl("recv", "--json", name="builder", status=0).json
    assert (shown["content"], shown["body"]) == (content, body)


@pytest.mark.parametrize("body", [b"text\n", b"\x00\xff\r\n\x1b[31m", bytes(range(256)) * 5000])
def test_a_file_arrives_as_it_is(agentctl: Agentctl, tmp_path: Path, body: bytes) -> None:
    (tmp_path / "body").write_bytes(body)
    agentctl("send", "builder", "@body", "--allow-absent", name="planner", status=0)
    assert agentctl("recv", name="builder", status=0).stdout.split(b"\n", 1)[1] == body


def test_what_is_not_of_the_kind_that_was_forced_is_refused(agentctl: Agentctl) -> None:
    assert agentctl("send", "x", "{", "--json-body", "--json", status=65).error["code"] == "bad_body"
    assert agentctl("send", "x", "-", "--text", "--json", input=b"\xff", status=65).error["code"] == "bad_body"


def test_a_file_that_is_not_there(agentctl: Agentctl) -> None:
    error = agentctl("send", "x", "@nothing", "--json", status=66).error
    assert error["code"] == "no_such_file" and "nothing" in error["message"]


def test_a_body_over_the_limit(agentctl: Agentctl, daemon: Daemon) -> None:
    daemon.config(message={"max_body_bytes": 2000})
    error = agentctl("send", "builder", "-", "--allow-absent", "--json", input=b"x" * 2001, status=65).error
    assert error["code"] == "too_large" and "2000" in error["message"]


@pytest.mark.parametrize(("wait", "reached"), [("delivered", "delivered"), ("acked", "acked")])
def test_send_waits_for_a_state(agentctl: Agentctl, wait: str, reached: str) -> None:
    waiting = agentctl.start("send", "builder", "hi", "--allow-absent", "--wait", wait, "--json", name="planner")
    agentctl("recv", "--wait", "1m", *(["--hold", "1m"] if wait == "delivered" else []), name="builder", status=0)
    result = waiting.result()
    assert (result.status, result.json["state"]) == (0, reached)


def test_a_wait_that_ends_in_dead(agentctl: Agentctl) -> None:
    waiting = agentctl.start("send", "builder", "hi", "--allow-absent", "--wait", "acked", "--json", name="planner")
    id = agentctl("recv", "--wait", "1m", "--hold", "1m", "--json", name="builder", status=0).json["id"]
    agentctl("reject", id, "--reason", "hopeless", name="builder", status=0)
    result = waiting.result()
    assert result.status == 1
    assert (result.error["code"], result.error["id"], result.error["state"]) == ("undelivered", id, "dead")
    assert "hopeless" in result.error["message"]


def test_a_wait_whose_time_is_over_tells_the_id_of_what_was_accepted(agentctl: Agentctl) -> None:
    refused = agentctl(
        "send", "builder", "hi", "--allow-absent", "--wait", "acked", "--timeout", "100ms", name="planner", status=75
    )
    waiting = agentctl("inbox", "builder", "--json", status=0).json["messages"]
    assert len(waiting) == 1 and waiting[0]["id"] in refused.err


def test_ttl(agentctl: Agentctl) -> None:
    id = send(agentctl, "builder", "hi", "--ttl", "10ms")
    wait_until(lambda: state(agentctl, id) == "expired", "for it to expire")
    assert agentctl("recv", name="builder").status == 1


def test_the_same_key_is_accepted_once(agentctl: Agentctl) -> None:
    assert send(agentctl, "builder", "hi", "--key", "k") == send(agentctl, "builder", "hi", "--key", "k")
    assert agentctl("inbox", "builder", "--json", status=0).json["total"] == 1


def test_a_lane_that_is_not_built_is_refused(agentctl: Agentctl) -> None:
    send(agentctl, "builder", "hi")
    error = agentctl("send", "builder", "hi", "--priority", "batch", "--json", name="planner", status=69).error
    assert error["code"] == "lane_unavailable"


def test_re_names_the_message_that_this_one_is_about(agentctl: Agentctl) -> None:
    first = send(agentctl, "builder", "hi")
    send(agentctl, "builder", "as I said", "--re", first[:8])
    assert agentctl("recv", "--count", "2", "--json", name="builder", status=0).lines[1]["re"] == first


def test_inbox_takes_nothing(agentctl: Agentctl) -> None:
    assert agentctl("inbox", "--json", name="builder", status=0).json["total"] == 0
    id = send(agentctl, "builder", "look at me")
    for _ in range(3):
        out = agentctl("inbox", name="builder", status=0).out
        assert id in out and "look at me" in out and "planner" in out
    shown = agentctl("inbox", "--json", name="builder", status=0).json
    assert (shown["name"], shown["total"], len(shown["messages"])) == ("builder", 1, 1)
    assert agentctl("recv", "--json", name="builder", status=0).json["attempt"] == 1


def test_inbox_begins_with_what_was_tried_before(agentctl: Agentctl) -> None:
    send(agentctl, "builder", "fresh")
    tried = send(agentctl, "builder", "tried")
    agentctl("recv", "--count", "2", "--hold", "1m", name="builder", status=0)
    agentctl("nack", tried, "--reason", "not now", name="builder", status=0)
    shown = agentctl("inbox", "--json", name="builder", status=0).json["messages"]
    assert [one["preview"] for one in shown] == ["tried", "fresh"]
    assert agentctl("inbox", name="builder", status=0).out.splitlines()[1].startswith(tried)


def test_inbox_says_when_there_is_more(agentctl: Agentctl) -> None:
    for number in range(3):
        send(agentctl, "builder", f"number {number}")
    assert "2 more" in agentctl("inbox", "builder", "--limit", "1", status=0).out


@pytest.mark.parametrize("sink", ["pipe", "/dev/full"])
def test_what_could_not_be_printed_is_not_acked(agentctl: Agentctl, sink: str) -> None:
    id = send(agentctl, "builder", "precious")
    if sink == "pipe":
        outlet, inlet = os.pipe()
        os.close(outlet)
    else:
        inlet = os.open(sink, os.O_WRONLY)
    done = subprocess.run(
        [*AGENTCTL, "recv", "--as", "builder"], env=agentctl.env, stdout=inlet, stderr=subprocess.PIPE, cwd="/"
    )
    os.close(inlet)
    assert done.returncode == (141 if sink == "pipe" else 74)
    assert b"Traceback" not in done.stderr
    shown = agentctl("recv", "--json", name="builder", status=0).json
    assert (shown["id"], shown["attempt"]) == (id, 1)


def test_without_a_stdout_nothing_is_taken(agentctl: Agentctl) -> None:
    id = send(agentctl, "builder", "precious")
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *AGENTCTL, "recv", "--as", "builder"]
    done = subprocess.run(closed, env=agentctl.env, stderr=subprocess.PIPE, cwd="/", text=True)
    assert done.returncode == 2 and "stdout is closed" in done.stderr
    assert agentctl("recv", "--json", name="builder", status=0).json["id"] == id


def test_a_closed_pipe_ends_a_list_quietly(agentctl: Agentctl) -> None:
    outlet, inlet = os.pipe()
    os.close(outlet)
    done = subprocess.run([*AGENTCTL, "agents"], env=agentctl.env, stdout=inlet, stderr=subprocess.PIPE, cwd="/")
    os.close(inlet)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_terminal_is_not_fooled_by_a_body(agentctl: Agentctl) -> None:
    send(agentctl, "builder", "\x1b[2Jgone\nnext \u202e line")
    out = agentctl.on_terminal("recv", name="builder").out
    assert "\\x1b[2Jgone\nnext \\u202e line\n" in out


class TestHolding:
    """recv --hold: one process takes, another settles."""

    @pytest.fixture
    def id(self, agentctl: Agentctl) -> str:
        sent = send(agentctl, "builder", "work")
        out = agentctl("recv", "--hold", "10m", name="builder", status=0).out
        assert out.startswith(sent) and "held" in out.splitlines()[0]
        assert state(agentctl, sent) == "delivered"
        assert agentctl("recv", name="builder").status == 1
        return sent

    @pytest.mark.parametrize("letters", [13, 8])
    def test_ack(self, agentctl: Agentctl, id: str, letters: int) -> None:
        assert id in agentctl("ack", id[:letters], name="builder", status=0).out
        assert state(agentctl, id) == "acked"

    def test_ack_as_json(self, agentctl: Agentctl, id: str) -> None:
        assert agentctl("ack", id, "--json", name="builder", status=0).json == {"state": "acked", "ids": [id]}

    def test_nack(self, agentctl: Agentctl, id: str) -> None:
        agentctl("nack", id, "--reason", "the database is down", name="builder", status=0)
        head = agentctl("recv", name="builder", status=0).out.splitlines()[0]
        assert head.startswith(id) and "attempt 2" in head
        assert "the database is down" in agentctl("trace", id, status=0).out

    def test_nack_after(self, agentctl: Agentctl, id: str) -> None:
        agentctl("nack", id, "--after", "1h", name="builder", status=0)
        assert agentctl("recv", name="builder").status == 1
        assert agentctl("inbox", "--json", name="builder", status=0).json["total"] == 1

    def test_reject(self, agentctl: Agentctl, id: str) -> None:
        agentctl("reject", id, "--reason", "no such branch", name="builder", status=0)
        assert state(agentctl, id) == "dead"
        assert "no such branch" in agentctl("dead", status=0).out

    def test_reply(self, agentctl: Agentctl, id: str) -> None:
        agentctl("reply", id, "done", name="builder", status=0)
        assert state(agentctl, id) == "acked"
        shown = agentctl("recv", "--json", name="planner", status=0).json
        assert (shown["body"], shown["sender"], shown["re"]) == ("done", "builder", id)

    def test_the_hold_ends(self, agentctl: Agentctl) -> None:
        id = send(agentctl, "tester", "work")
        agentctl("recv", "--hold", "10ms", name="tester", status=0)
        assert agentctl("recv", "--wait", "20s", "--json", name="tester", status=0).json["id"] == id

    def test_another_agent_cannot_ack_it(self, agentctl: Agentctl, id: str) -> None:
        assert agentctl("ack", id, name="stranger").status in (66, 77)
        assert state(agentctl, id) == "delivered"


@pytest.mark.parametrize("verb", ["ack", "nack", "reject", "trace"])
def test_an_id_that_nothing_has(agentctl: Agentctl, verb: str) -> None:
    assert agentctl(verb, "zzzz", "--json", name="x", status=66).error["code"] == "no_such_message"
    assert agentctl(verb, "no/id", "--json", name="x", status=66).error["code"] == "no_such_message"


def test_a_name_in_use(agentctl: Agentctl) -> None:
    first = agentctl.start("recv", "--follow", name="builder")
    # By looking, not by trying: a try could take the name first.
    wait_until(
        lambda: any(one["live"] for one in agentctl("agents", "--json").json["agents"]), "for the name to be taken"
    )
    refused = agentctl("recv", name="builder", status=77)
    assert str(first.process.pid) in refused.err and "--replace" in refused.err
    send(agentctl, "builder", "hi", name="builder")  # sending under it is free
    first.until("hi")
    assert agentctl("recv", "--replace", "--json", name="builder").status == 1
    assert first.result().status == 77


def test_taking_turns(agentctl: Agentctl) -> None:
    ones = [agentctl.start("recv", "--follow", "--share", "--json", name="builder") for _ in range(2)]
    ids = [send(agentctl, "builder", f"number {number}") for number in range(6)]
    wait_until(lambda: all(state(agentctl, id) == "acked" for id in ids), "for all to be acked")
    shown = [line for one in ones for line in one.end().lines]
    assert sorted(one["id"] for one in shown) == sorted(ids)
