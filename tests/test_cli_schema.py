"""Each verb prints with --json what its schema says: through the real daemon, every verb, every kind of line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
import msgspec
import pytest
from commands import Agentctl, Result
from daemons import wait_until
from journals import opened, spoil
from jsonschema import Draft202012Validator, ValidationError
from schemas import WHAT_TO_DO, check, validator, verb_of
from test_cli_help import TREE

from agentd.wire.outputs import OUTPUTS
from agentd.wire.schema import schema_of_all

LEAVES = [" ".join(path) for path, command in TREE if not isinstance(command, click.Group)]

#: Their output is another program's, which agentctl becomes.
OF_OTHERS = {"daemon logs"}

Printed = Result | list[Any]


def sent(agentctl: Agentctl, to: str = "builder", body: str = "hi", *more: str) -> str:
    """The id of a message that waits for an agent."""
    return str(agentctl("send", to, body, "--allow-absent", *more, "--json", name="planner", status=0).json["id"])


def held(agentctl: Agentctl) -> str:
    id = sent(agentctl)
    agentctl("recv", "--hold", "1m", name="builder", status=0)
    return id


def dead(agentctl: Agentctl) -> str:
    id = held(agentctl)
    agentctl("reject", id, "--reason", "never", name="builder", status=0)
    return id


def send(agentctl: Agentctl) -> list[Any]:
    runs = [agentctl("send", "x", "hi", "--allow-absent", "--json", *more, status=0) for more in ((), ("--dry-run",))]
    return [run.json for run in runs]


def recv(agentctl: Agentctl) -> Result:
    first = sent(agentctl)
    sent(agentctl, "builder", '{"pr": 7}', "--re", first, "--header", "a=b")
    sent(agentctl, "builder", "//4=", "--bytes")
    return agentctl("recv", "--count", "3", "--hold", "1m", "--json", name="builder", status=0)


def request(agentctl: Agentctl) -> Result:
    serving = agentctl.start("serve", "upper", "--", "tr", "a-z", "A-Z")
    wait_until(lambda: any(one["live"] for one in agentctl("agents", "--json").json["agents"]))
    result = agentctl("request", "upper", "hi", "--json", name="planner", status=0)
    serving.end()
    return result


def serve(agentctl: Agentctl) -> list[Any]:
    sent(agentctl, "upper")
    sent(agentctl, "upper", "again")
    serving = agentctl.start("serve", "upper", "--json", "--", "sh", "-c", "exit 1")
    wait_until(lambda: serving.out.count("\n") == 2)
    return serving.end().lines


def subscribe(agentctl: Agentctl) -> list[Any]:
    listening = agentctl.start("subscribe", "task:*", "--count", "1", "--json", name="watcher")
    shown = "0"
    while shown == "0":  # until it is subscribed
        shown = agentctl("publish", "task:done", '{"id": 7}', name="planner", status=0).out[0]
    return listening.result().lines


def unsubscribe(agentctl: Agentctl) -> Result:
    listening = agentctl.start("subscribe", "task:*", "--name", "ci", "--count", "1", "--json", name="watcher")
    wait_until(lambda: any(one["name"] == "sub:ci" for one in agentctl("agents", "--json").json["agents"]))
    for body in ("1", "2"):
        agentctl("publish", "task:done", body, name="planner", status=0)
    (event,) = listening.result().lines
    validator("subscribe").validate(event)
    assert event["event"] != event["id"]
    return agentctl("unsubscribe", "ci", "--json", status=0)


def forget(agentctl: Agentctl) -> Result:
    sent(agentctl)
    agentctl("recv", name="builder", status=0)
    return agentctl("agents", "forget", "builder", "--json", status=0)


def halted(agentctl: Agentctl) -> Result:
    running = agentctl.start("recv", "--follow", name="follower")
    wait_until(lambda: any(one["live"] for one in agentctl("agents", "--json").json["agents"]))
    result = agentctl("halt", "follower", "--json", name="planner", status=0)
    running.result()
    return result


def pausing(verb: str) -> Callable[[Agentctl], Result]:
    def act(agentctl: Agentctl) -> Result:
        sent(agentctl)
        return agentctl(verb, "builder", "--json", name="planner", status=0)

    return act


def seen(*args: str) -> Callable[[Agentctl], Result]:
    """A verb that looks, at mail that waits, is held, and is dead."""

    def look(agentctl: Agentctl) -> Result:
        dead(agentctl)
        id = held(agentctl)
        sent(agentctl, "tester", "look", "--re", id)
        return agentctl(*args, "--json", name="tester", status=0)

    return look


def on(make: Callable[[Agentctl], str], *args: str) -> Callable[[Agentctl], Result]:
    """A verb on a message; ID stands for it."""

    def act(agentctl: Agentctl) -> Result:
        id = make(agentctl)
        return agentctl(*(id if word == "ID" else word for word in args), "--json", name="builder", status=0)

    return act


def daemon(*verbs: str) -> Callable[[Agentctl], Result]:
    """Verbs that are not for the daemon of the test, but for one of their own; the last one's output."""

    def act(agentctl: Agentctl) -> Result:
        home = agentctl.directory / "own"
        names = {"AGENTD_RUNTIME_DIR": "run", "AGENTD_STATE_DIR": "state", "XDG_CONFIG_HOME": "config"}
        env = {name: str(home / place) for name, place in names.items()} | {"XDG_RUNTIME_DIR": str(home)}  # no systemd
        try:
            return [agentctl("daemon", verb, "--json", env=env, status=0) for verb in verbs][-1]
        finally:
            agentctl("daemon", "stop", env=env, status=0)

    return act


def journal(verb: str, *more: str) -> Callable[[Agentctl], Printed]:
    """A verb that looks at a journal, in which one place is no record."""

    def act(agentctl: Agentctl) -> Result:
        directory = agentctl.directory / "own-journal"
        with opened(directory) as journal:
            journal.append(1, msgspec.msgpack.encode({"to": "builder"}))
            journal.append(2, b"no msgpack")
            lost = journal.append(3, b"spoiled")
        spoil(directory, lost + 40)
        places = [str(agentctl.directory / "copy"), str(directory)] if "copy" in more else [str(directory), *more]
        return agentctl("journal", verb, *places, "--json", status=0)

    return act


def history(agentctl: Agentctl) -> list[Any]:
    sent(agentctl, "builder", "hi", "--header", "a=b")
    lines = agentctl("history", "--json", status=0).lines
    return [*lines, *agentctl("history", "--into", "tester", "--json", name="planner", status=0).lines]


#: Each verb of agentctl, and a call of it that succeeds.
CASES: dict[str, Callable[[Agentctl], Printed]] = {
    "send": send,
    "recv": recv,
    "inbox": seen("inbox"),
    "ack": on(held, "ack", "ID"),
    "nack": on(held, "nack", "ID"),
    "reject": on(held, "reject", "ID"),
    "reply": on(held, "reply", "ID", "done"),
    "request": request,
    "serve": serve,
    "publish": lambda run: run("publish", "task:done", "hi", "--json", status=0),
    "subscribe": subscribe,
    "unsubscribe": unsubscribe,
    "trace": on(dead, "trace", "ID"),
    "agents list": seen("agents", "list"),
    "agents forget": forget,
    "halt": halted,
    "pause": pausing("pause"),
    "resume": pausing("resume"),
    "status": seen("status"),
    "stats": seen("stats"),
    "lanes": seen("lanes"),
    "dead list": seen("dead", "list"),
    "dead show": on(dead, "dead", "show", "ID"),
    "dead requeue": on(dead, "dead", "requeue", "ID"),
    "dead drop": on(dead, "dead", "drop", "ID"),
    "daemon start": daemon("start"),
    "daemon restart": daemon("start", "restart"),
    "daemon stop": daemon("start", "stop"),
    "daemon status": daemon("start", "status"),
    "daemon install": daemon("install"),
    "daemon uninstall": daemon("install", "uninstall"),
    "doctor": lambda run: run("doctor", "--json"),
    "history": history,
    "journal check": journal("check"),
    "journal ls": journal("ls"),
    "journal dump": journal("dump"),
    "journal backup": journal("backup", "copy"),
    "journal gc": journal("gc", "--dry-run"),
    "journal repair": journal("repair"),
    "config show": lambda run: run("config", "show", "--json", status=0),
    "config check": lambda run: run("config", "check", "--json", status=0),
    "schema ls": lambda run: run("schema", "ls", "--json", status=0),
    "schema show": lambda run: run("schema", "show", "send", "--json", status=0),
    "completion": lambda run: run("completion", "bash", "--json", status=0),
    "guide": lambda run: run("guide", "--json", status=0),
    "version": lambda run: run("version", "--json", status=0),
}


def test_every_verb_has_a_schema_and_a_case() -> None:
    for verb in set(LEAVES) - OF_OTHERS:
        assert verb in OUTPUTS and verb in CASES, WHAT_TO_DO.format(verb)
    assert set(OUTPUTS) - {"error"} <= set(LEAVES), "a schema of a verb that is no more"


@pytest.mark.parametrize("verb", sorted(CASES))
def test_a_verb_prints_what_its_schema_says(agentctl: Agentctl, verb: str) -> None:
    printed = CASES[verb](agentctl)
    lines = printed.lines if isinstance(printed, Result) else printed
    assert lines
    for line in lines:
        validator(verb).validate(line)


def test_a_gap_is_a_line_of_subscribe() -> None:
    validator("subscribe").validate({"lagged": {"missed": 3}})
    validator("subscribe").validate({"lagged": {"missed": None}})


def test_errors_are_of_one_shape(agentctl: Agentctl) -> None:
    for args in (["trace", "zzzz"], ["send"], ["nonsense"], ["schema", "show", "nonsense"], ["recv"]):
        shown = agentctl(*args, "--json").json
        assert set(shown) == {"error"}
        validator("error").validate(shown)


@pytest.mark.parametrize(
    "wrong", [b'{"ids": []}', b'{"state": "acked", "ids": ["x"]}', b'{"state":"acked","ids":[],"new":1}']
)
def test_what_a_schema_does_not_say_is_found(wrong: bytes) -> None:
    with pytest.raises(AssertionError, match=r"outputs\.py"):
        check(("ack", "k7qa", "--json"), wrong)


def test_a_verb_without_a_schema_is_told_what_to_do() -> None:
    with pytest.raises(AssertionError, match=r"OUTPUTS under 'bogus'"):
        validator("bogus")


def test_a_call_is_known_by_its_verb() -> None:
    assert verb_of(("--json", "dead", "requeue", "--all")) == "dead requeue"
    assert verb_of(("dead", "--json")) == "dead list"
    assert verb_of(("--json",)) == "status"


def test_show_alone_holds_all_of_them(agentctl: Agentctl) -> None:
    whole = agentctl("schema", "--json", status=0).json
    assert whole == schema_of_all() == json.loads(agentctl("schema", "show", status=0).out)
    assert set(whole["properties"]) == set(OUTPUTS)
    checker = Draft202012Validator(whole)
    checker.validate({"version": agentctl("version", "--json").json, "error": agentctl("send", "--json").json})
    with pytest.raises(ValidationError):
        checker.validate({"version": {"agentctl": 7}})


def test_a_schema_is_found_by_its_verb(agentctl: Agentctl) -> None:
    assert agentctl("schema", "show", "dead", "list", "--json", status=0).json["title"] == "agentctl dead list --json"
    assert "dead list, dead show" in agentctl("schema", "show", "dead", "--json", status=66).error["hint"]
    assert "There is: trace" in agentctl("schema", "show", "trcae", status=66).err
    listed = agentctl("schema", "ls", status=0).out.splitlines()[1:]
    assert [line.split("  ")[0] for line in listed] == list(OUTPUTS)
