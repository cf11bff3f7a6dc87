"""agentctl and messages for later: --delay, --at, and what inbox and trace say of them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import click
import pytest
from commands import Agentctl

from agentd.cli.call import MOMENT


def test_a_delayed_message_says_until_when_and_comes_then(agentctl: Agentctl) -> None:
    sent = agentctl("send", "builder", "later", "--allow-absent", "--delay", "5s", "--json", name="planner", status=0)
    id = sent.json["id"]
    assert sent.json["state"] == "stored" and sent.json["until"] == pytest.approx(sent.json["at"] + 5.0)
    (mail,) = agentctl("inbox", "builder", "--json", status=0).json["messages"]
    assert mail["until"] == pytest.approx(sent.json["until"], abs=0.01)
    assert agentctl("trace", id, "--json", status=0).json["until"] == mail["until"]
    assert agentctl("recv", "--wait", "60s", "--json", name="builder", status=0).json["id"] == id
    assert agentctl("trace", id, "--json", status=0).json.get("until") is None


def test_people_see_until_when(agentctl: Agentctl) -> None:
    out = agentctl("send", "builder", "x", "--allow-absent", "--at", "2999-01-02T17:30", name="planner", status=75).err
    assert "message.max_delay_s" in out
    sent = agentctl("send", "builder", "x", "--allow-absent", "--delay", "10d", name="planner", status=0).out
    assert re.search(r"^stored  .*  until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  normal", sent, re.MULTILINE)
    assert "kept on disk until its time comes" in sent
    assert re.search(r"  waits until \d{4}-", agentctl("inbox", "builder", status=0).out)
    assert re.search(r"  waits until \d{4}-", agentctl("trace", sent.split()[1], status=0).out)
    agentctl("send", "builder", "now", name="planner", status=0)
    agentctl("recv", "--hold", "1h", name="builder", status=0)
    assert "held until " in agentctl("inbox", "builder", status=0).out
    said = agentctl("send", "builder", "x", "--delay", "1h", "--dry-run", name="planner", status=0).out
    assert "its time is to come" in said


@pytest.mark.parametrize(
    "options",
    [
        ("--at", "soon"),
        ("--at", "2001-01-01"),
        ("--at", "25:00"),
        ("--delay", "soon"),
        ("--delay", "1m", "--at", "17:30"),
    ],
)
def test_what_is_no_time_is_a_usage_error(agentctl: Agentctl, options: tuple[str, ...]) -> None:
    agentctl("send", "builder", "x", "--allow-absent", *options, name="planner", status=2)


def test_an_hour_is_the_next_one_that_there_is() -> None:
    now = datetime.now()
    for shift in (-60, 60):
        hour = (now + timedelta(minutes=shift)).replace(second=0, microsecond=0)
        at = datetime.fromtimestamp(MOMENT.convert(f"{hour:%H:%M}", None, None))
        assert (at.hour, at.minute) == (hour.hour, hour.minute)
        assert 0 < (at - now).total_seconds() <= 86400


def test_a_date_may_name_its_zone() -> None:
    assert MOMENT.convert("2990-06-01T12:00+02:00", None, None) == MOMENT.convert("2990-06-01T10:00Z", None, None)
    with pytest.raises(click.BadParameter, match="is over"):
        MOMENT.convert("1990-06-01T12:00+02:00", None, None)
