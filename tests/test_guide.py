"""Every command line that `agentctl guide` shows does what the guide says, for an agent that does what it reads."""

from __future__ import annotations

import re
import shlex

import pytest
from commands import Agentctl
from daemons import wait_until

from agentd.cli.care import GUIDE

COMMANDS = list(dict.fromkeys(re.findall(r"`(agentctl [^`]*)`", GUIDE.replace("\n  ", " "))))


def words(command: str, id: str) -> list[str]:
    """The command as an agent fills it in."""
    filled = {"ID": id, "NAME": "other", "WHY": "too hard"}
    return [filled.get(word, word) for word in shlex.split(command)[1:]]


def test_the_guide_shows_the_verbs_that_an_agent_needs() -> None:
    verbs = {command.split()[1] for command in COMMANDS}
    assert verbs >= {"recv", "inbox", "ack", "nack", "reject", "reply", "send", "request", "agents", "trace", "dead"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_guide_works(agentctl: Agentctl, command: str) -> None:
    serving = agentctl.start("serve", "other", "--", "cat")
    wait_until(lambda: any(one["live"] for one in agentctl("agents", "--json").json["agents"]))
    id = agentctl("send", "me", "compile it", "--allow-absent", "--json", name="other", status=0).json["id"]
    given = words(command, id[:6])
    if given[0] in ("ack", "nack", "reject", "reply"):
        agentctl("recv", "--hold", "1m", name="me", status=0)
    if given[0] == "subscribe":
        listening = agentctl.start(*given, name="me")
        wait_until(lambda: not agentctl("publish", "task:done", "7", name="other").out.startswith("0 "))
        assert "task:done" in listening.result().out
        return
    out = agentctl(*given, name="me", status=0).out
    shows = {"recv": "compile it", "inbox": "compile it", "request": "question", "agents": "other", "trace": id}
    if "--help" not in given:
        assert shows.get(given[0], "") in out
    serving.end()
    if given[0] == "nack":
        assert "too hard" in agentctl("trace", id).out
    if given[0] == "reply":
        assert "text" in agentctl("inbox", name="other").out or "acked" in agentctl("trace", id).out
