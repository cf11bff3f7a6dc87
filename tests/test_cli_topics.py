"""request, publish, subscribe and trace, through processes and a real daemon."""

from __future__ import annotations

import re
import signal

import pytest
from commands import Agentctl, Running
from daemons import wait_until


def answer(agentctl: Agentctl, *args: str, name: str = "builder") -> str:
    """Take a request and settle it; its id."""
    id = str(agentctl("recv", "--wait", "20s", "--hold", "1m", "--json", name=name, status=0).json["id"])
    agentctl(args[0], id, *args[1:], name=name, status=0)
    return id


@pytest.fixture
def builder(agentctl: Agentctl) -> Running:
    """A live agent that answers."""
    running = agentctl.start("serve", "builder", "--", "cat")
    wait_until(lambda: "builder" in agentctl("agents").out, "for builder to join")
    return running


def test_request_prints_the_answers_body(agentctl: Agentctl, builder: Running) -> None:
    assert agentctl("request", "builder", "echo", name="planner", status=0).out == "echo\n"
    shown = agentctl("request", "builder", '{"a": 1}', "--json", name="planner", status=0).json
    assert (shown["sender"], shown["body"], shown["content"]) == ("builder", {"a": 1}, "json")


def test_request_without_a_name(agentctl: Agentctl, builder: Running) -> None:
    assert agentctl("request", "builder", "echo", status=0).out == "echo\n"


@pytest.mark.parametrize("body", [b"", b"\n", b"\xff\x00", b"x" * 200_000])
def test_an_answer_comes_as_it_is(agentctl: Agentctl, builder: Running, body: bytes) -> None:
    out = agentctl("request", "builder", "-", input=body, name="planner", status=0).stdout
    assert out == (body if body[:1] in (b"\n", b"\xff") else body + b"\n")


def test_nobody_there_is_told_at_once(agentctl: Agentctl) -> None:
    agentctl("send", "builder", "hi", "--allow-absent", name="planner", status=0)
    assert agentctl("request", "builder", "?", "--json", name="planner", status=75).error["code"] == "no_responder"
    assert agentctl("request", "stranger", "?", "--json", name="planner").error["code"] in (
        "no_such_agent",
        "no_responder",
    )


def test_a_request_whose_time_is_over(agentctl: Agentctl) -> None:
    agentctl.start("serve", "sleeper", "--", "sleep", "60")
    wait_until(lambda: "sleeper" in agentctl("agents").out, "for sleeper to join")
    error = agentctl("request", "sleeper", "?", "--timeout", "200ms", "--json", name="planner", status=75).error
    assert error["code"] == "timeout" and error["retryable"]


def test_a_request_that_is_rejected(agentctl: Agentctl) -> None:
    agentctl.start("serve", "grump", "--", "sh", "-c", "echo not today >&2; exit 3")
    wait_until(lambda: "grump" in agentctl("agents").out, "for grump to join")
    error = agentctl("request", "grump", "?", "--json", name="planner", status=1).error
    assert error["code"] == "rejected" and "exit 3: not today" in error["message"]


def test_publish_says_how_many_it_reached(agentctl: Agentctl) -> None:
    assert "0 subscriptions reached" in agentctl("publish", "task:created", "hi", name="planner", status=0).out
    following = agentctl.start("subscribe", "task:*", "--count", "2")
    wait_until(
        lambda: "1 subscription reached" in agentctl("publish", "task:created", "hi").out, "for the subscription"
    )
    shown = agentctl("publish", "task:done", '{"id": 7}', "--header", "k=v", "--json", name="planner", status=0).json
    assert (shown["reached"], shown["refused"], shown["topic"]) == (1, [], "task:done")
    agentctl("publish", "other:thing", "not for you", status=0)
    result = following.result()
    assert result.status == 0
    lines = result.out.splitlines()
    assert len(lines) == 2 and "task:created" in lines[0]
    assert re.fullmatch(r'\d\d:\d\d:\d\d  task:done  planner  {"id":7}', lines[1])


def test_subscribe_as_json_until_interrupted(agentctl: Agentctl) -> None:
    following = agentctl.start("subscribe", "**", "--json")
    wait_until(lambda: agentctl("publish", "a:b", "probe", "--json").json["reached"] == 1, "for the subscription")
    agentctl("publish", "a.b:c", '{"x": 1}', name="planner", status=0)
    following.until("a.b:c")
    result = following.end(signal.SIGINT)
    assert (result.status, result.err) == (130, "")
    event = result.lines[-1]
    assert (event["topic"], event["body"], event["sender"]) == ("a.b:c", {"x": 1}, "planner")


@pytest.mark.parametrize(
    "args", [("publish", "no topic", "x"), ("publish", "agentd:joined", "x"), ("subscribe", "a:**b")]
)
def test_what_is_no_topic(agentctl: Agentctl, args: tuple[str, ...]) -> None:
    assert agentctl(*args, "--json", status=65).error["code"] == "bad_name"


def test_trace_tells_each_state_when_and_by_whom(agentctl: Agentctl) -> None:
    id = agentctl("send", "builder", "hi", "--allow-absent", "--json", name="planner", status=0).json["id"]
    assert answer(agentctl, "reply", "done") == id
    out = agentctl("trace", id[:9], status=0).out
    assert out.splitlines()[0].split()[0] == id
    for word in ("planner to builder", "text, 2 B", "normal lane", "acked", "+0.0 ms"):
        assert word in out
    view = agentctl("trace", id, "--json", status=0).json
    states = [step["state"] for step in view["transitions"]]
    assert states[0] in ("accepted", "stored") and states[-2:] == ["delivered", "acked"]
    times = [step["at"] for step in view["transitions"]]
    assert times == sorted(times)
    assert all(step["who"] for step in view["transitions"])
    assert (view["id"], view["sender"], view["to"], view["state"]) == (id, "planner", "builder", "acked")


def test_subscribing_to_the_daemons_own_topics_is_a_live_tap(agentctl: Agentctl) -> None:
    tap = agentctl.start("subscribe", "agentd:*", "--json")
    wait_until(lambda: agentctl("agents").status == 0 and "agentd:joined" in tap.out)  # each call joins
    agentctl("send", "builder", "the body", "--allow-absent", name="planner", status=0)
    agentctl("recv", name="builder", status=0)
    tap.until("agentd:acked")
    assert "the body" not in tap.end().out
