"""`agentctl halt`: stop agents, first by asking, and then, if it must be, by signal."""

from __future__ import annotations

from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

import click

from agentd.cli import show
from agentd.cli.call import DEFAULT_TIMEOUT_S, Call, argument, option, verb

if TYPE_CHECKING:
    from agentd.wire.messages import Step
    from agentd_client.blocking import Client

_LOOK_S: Final = 0.02
#: How long an agent that was asked has to end, and one that was signalled.
_ASKED_S: Final = 10.0
_SIGNALLED_S: Final = 5.0


@verb("agentctl halt builder\nagentctl halt --all --kill --timeout 5s")
@argument("names", nargs=-1, metavar="NAME...")
@option("--all", "everyone", is_flag=True, help="Every live agent.")
@option("--kill", is_flag=True, help="SIGTERM those that have not ended in time, then SIGKILL.")
@option("--reason", default="", metavar="TEXT", help="Why; they are told.")
def halt(call: Call, names: tuple[str, ...], everyone: bool, kill: bool, reason: str) -> int:
    """Ask agents to stop, on the fastest way to each, and wait until they have; exit 1 when one has not.

    An agent of the Python client sees it as me.stopping. --timeout is how long it is waited for, 10s unless given.
    """
    if everyone == bool(names):
        raise click.UsageError("Name the agents to stop, or give --all.")
    with call.connect() as me:
        me.verbs.answer_s = DEFAULT_TIMEOUT_S  # the time given is for those who are to stop
        if everyone:
            names = tuple(one.name for one in me.agents().agents if one.live and one.name != me.name)
        halted = _Halt(me, dict.fromkeys(names), reason)
        halted.run(_ASKED_S if call.timeout is None else call.timeout, kill)
    if call.as_json:
        show.emit({"halted": halted.rows()})
    else:
        show.say(*halted.lines())
    return 1 if halted.left() else 0


class _Halt:
    """What is done to whom, and who is still there. A process is known by its agent's name and its pid."""

    def __init__(self, me: Client, names: dict[str, None], reason: str) -> None:
        from agentd.wire.messages import Step

        self._me = me
        self._names = list(names)
        self._reason = reason
        self._ended_by: dict[tuple[str, int], str] = {}
        self._commands: dict[tuple[str, int], str] = {}
        self._there: dict[tuple[str, int], str] = {}
        self._steps = Step
        self._step(Step.LOOK)
        self._commands.update(self._there)

    def run(self, patience_s: float, kill: bool) -> None:
        """Ask; then, if it must be, signal."""
        self._until_gone(self._steps.ASK, "asked", patience_s)
        if kill:
            self._until_gone(self._steps.TERM, "SIGTERM", _SIGNALLED_S)
            self._until_gone(self._steps.KILL, "SIGKILL", _SIGNALLED_S)

    def _until_gone(self, step: Step, name: str, patience_s: float) -> None:
        if not self._there:
            return
        self._step(step)
        until = monotonic() + patience_s
        while True:
            before = self._there
            self._step(self._steps.LOOK)
            self._ended_by.update({one: name for one in before if one not in self._there})
            if not self._there or monotonic() >= until:
                return
            sleep(_LOOK_S)

    def _step(self, step: Step) -> None:
        from agentd.wire.errors import NoSuchAgent

        looks = step is self._steps.LOOK
        there: dict[tuple[str, int], str] = {}
        for name in self._names:
            try:
                view = self._me.halt(name, step, self._reason)
            except NoSuchAgent:
                if not self._commands and step is self._steps.LOOK:
                    raise
                continue
            there.update({(name, row.pid): row.command for row in view.sessions if row.pid is not None})
        if looks:
            new = {one: command for one, command in there.items() if not self._commands or one in self._commands}
            self._there = new  # one that came later was not asked

    def left(self) -> list[tuple[str, int]]:
        """Who is still there."""
        return list(self._there)

    def rows(self) -> list[dict[str, Any]]:
        """One a process."""
        return [
            {"agent": name, "pid": pid, "command": command, "ended": self._ended_by.get((name, pid))}
            for (name, pid), command in self._commands.items()
        ]

    def lines(self) -> list[str]:
        """As a table, and who was not there at all."""
        lines = [
            f"{row['agent']}  {show.cell(row['command'])} ({row['pid']})  {self._words(row['ended'])}"
            for row in self.rows()
        ]
        seen = {name for name, _ in self._commands}
        return [*lines, *(f"{name}  is not live" for name in self._names if name not in seen)] or ["Nobody is live."]

    def _words(self, ended: str | None) -> str:
        if ended is None:
            return "has not stopped"
        return "has stopped" if ended == "asked" else f"took {ended}"
