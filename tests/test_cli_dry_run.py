"""`agentctl send --dry-run`: says what sending would do, exits as sending would, and sends nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from commands import Agentctl
from daemons import Daemon
from test_direct_relay import attached

from agentd_client import connect


def known(agentctl: Agentctl, name: str) -> None:
    """An agent that is absent, without mail."""
    agentctl("send", name, "hi", "--allow-absent", name="planner", status=0)
    agentctl("recv", name=name, status=0)


def test_it_says_the_way_the_reason_and_what_may_change(agentctl: Agentctl) -> None:
    known(agentctl, "builder")
    shown = agentctl("send", "builder", "hi", "--dry-run", name="planner", status=0)
    assert shown.out.splitlines() == [
        "normal · socket · builder is absent; agentd keeps this on disk for it",
        "may change: builder is absent now; it may have come by then",
        "nothing was sent; row kept of the table of ways",
    ]
    assert agentctl("send", "builder", "hi", "--dry-run", "--json", name="planner", status=0).json == {
        "to": "builder",
        "lane": "normal",
        "route": "socket",
        "row": "kept",
        "reason": "builder is absent; agentd keeps this on disk for it",
        "unless": ["builder is absent now; it may have come by then"],
    }
    assert agentctl("inbox", "builder", status=0).out == "No mail for builder.\n"


@pytest.mark.parametrize(
    ("arguments", "status", "row"),
    [
        (("nobody", "hi"), 66, "normal_unknown"),
        (("builder", "hi", "--priority", "low", "--route", "socket"), 69, "low_other_route"),
        (("builder", "hi", "--route", "direct"), 69, "normal_other_route"),
        (("builder", "hi", "--priority", "batch"), 69, "closed"),
        (("builder", "hi", "--priority", "critical"), 75, "direct_absent"),
        (("builder", "hi", "--priority", "critical", "--durable"), 65, "direct_durable"),
        (("builder", "hi", "--priority", "critical", "--key", "k"), 65, ""),
        (("builder", "{", "--json-body"), 65, ""),
        (("builder", "hi", "--re", "zzzz"), 66, ""),
    ],
)
def test_a_refusal_is_the_very_error_and_its_exit_code(
    agentctl: Agentctl, arguments: tuple[str, ...], status: int, row: str
) -> None:
    known(agentctl, "builder")
    real = agentctl("send", *arguments, name="planner", status=status)
    dry = agentctl("send", *arguments, "--dry-run", name="planner", status=status)
    assert (dry.out, dry.err) == ("", real.err)
    error = agentctl("send", *arguments, "--dry-run", "--json", name="planner", status=status).error
    assert error.pop("row", "") == row
    assert error == agentctl("send", *arguments, "--json", name="planner", status=status).error


def test_a_demanded_way_is_had_or_refused(agentctl: Agentctl) -> None:
    known(agentctl, "builder")
    sent = agentctl("send", "builder", "hi", "--route", "socket", "--json", name="planner", status=0)
    assert sent.json["route"] == "socket"
    agentctl("send", "builder", "hi", "--route", "relayed", name="planner", status=69)
    assert "direct" in agentctl("send", "builder", "hi", "--route", "road", name="planner", status=2).err


def test_without_a_daemon_nothing_is_known(agentctl: Agentctl) -> None:
    agentctl("send", "builder", "hi", "--dry-run", "--socket", "none.sock", status=69)


async def test_agentctl_says_who_is_not_attached(daemon: Daemon, agentctl: Agentctl) -> None:
    async with connect("builder", socket=daemon.socket) as builder:
        args = ("send", "builder", "stop", "--priority", "critical")

        async def run(*more: str, status: int = 0) -> Any:
            return await asyncio.to_thread(lambda: agentctl(*args, *more, name="planner", status=status))

        asked = await run("--dry-run", "--json")
        assert (asked.json["row"], asked.json["route"]) == ("relayed_attaching", "relayed")
        builder.on_critical(lambda message: None)
        await attached(builder)
        shown = await run("--dry-run")
        assert shown.out.splitlines()[:2] == [
            "critical · relayed · agentd.cli is not attached to shared memory; builder reads its ring",
            "may change: builder is live now; if it leaves first, this is refused: absent",
        ]
        assert (await run("--route", "direct", "--dry-run", "--json")).json["row"] == "direct"
        assert (await run("--route", "direct", "--json")).json["route"] == "direct"
        assert (await run("--json")).json["route"] == "relayed"
