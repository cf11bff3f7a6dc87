"""A session as the domain sees it: one live connection of an agent, what it holds, and a way to tell it things.

The server's session (a socket) and the tests' (a list) derive from this one.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from agentd.wire.errors import AgentdError
from agentd.wire.messages import Accepted, DaemonMessage, Error, Message, Priority, Route, State

if TYPE_CHECKING:
    from agentd.hub.agents import Agent
    from agentd.hub.durable import Cursor
    from agentd.hub.pairs import Pair
    from agentd.hub.rates import Bucket
    from agentd.hub.receipts import Entry, Trail
    from agentd.hub.tally import Tally
    from agentd.hub.topics import Subscription


class Session:
    """Invariant: `held` has exactly the entries whose holder is this session."""

    agent: Agent  # set by the hub's join
    bucket: Bucket  # its agent's
    tally: Tally  # its agent's
    name: str
    provenance = ""  # what the kernel says of the process: "uid 1000 pid 4711 (aider)"
    pid: int | None = None
    command = ""

    def __init__(self) -> None:
        self.joined = False
        self.takes = False
        self.shares = False
        self.credit = 0  # messages it may still be sent
        self.stalled = False  # it does not read what it was sent: nothing more until it does
        self.gone = False  # its process has ended: what it said before is done, but it hears nothing
        self.held: dict[int, Entry] = {}
        self.subscriptions: dict[int, Subscription] = {}
        self.cursors: dict[int, Cursor] = {}  # its shares of durable subscriptions, by number
        self.event_bytes = 0  # events on their way to it
        self.asking: dict[int, Entry] = {}  # by cid: its requests that still wait for a reply
        self.watching: dict[int, int] = {}  # by cid: the messages of whose state it waits to be told
        self.mark: Trail = ((State.ACCEPTED, -1.0, "", ""),)  # its latest acceptance
        self.can_attach = False  # it can be invited to the direct lanes
        self.sends_into: dict[int, Pair] = {}  # by number
        self.reads_from: dict[int, Pair] = {}
        self.announced: tuple[Agent, set[int]] | None = None  # whose mail it was told of, and may not have shown yet
        self._run: Accepted | None = None

    def write(self, message: DaemonMessage) -> None:
        """Queue a message for the client; the one thing a kind of session must bring."""
        raise NotImplementedError

    def all_takers(self) -> list[Session]:
        """Itself, if it takes mail, and its cursors."""
        return [*([self] if self.takes else []), *self.cursors.values()]

    def take_no_more(self) -> None:
        """It gets nothing more, also not of what others leave behind: the daemon stops."""
        self.credit = 0
        for cursor in self.cursors.values():
            cursor.window = 0

    def more_waits(self) -> None:
        """It was handed as much as it may be at once: its inbox is to be pumped again once that was sent. For those
        whom `at_once_bytes` bounds."""

    @property
    def at_once_bytes(self) -> float:
        """Of what waits for it, so much may be handed to it before others have their turn; charged as in inboxes."""
        return inf

    def write_all(self, messages: list[Message]) -> None:
        """Queue several."""
        for message in messages:
            self.write(message)

    def push(self, message: DaemonMessage) -> None:
        """Tell the client, after everything it was told before."""
        if self._run is not None:
            self.end_run()
        self.write(message)

    def push_all(self, messages: list[Message]) -> None:
        """Tell it of several."""
        if self._run is not None:
            self.end_run()
        self.write_all(messages)

    def accept(
        self,
        cid: int,
        id: int,
        at: float,
        note: str = "",
        count: int = 1,
        state: State = State.ACCEPTED,
        lane: Priority = Priority.NORMAL,
    ) -> None:
        """Tell the client that so many calls from `cid` on were accepted. Consecutive ones become one Accepted (a third
        of the cost)."""
        run = self._run
        if run is not None:
            before = run.count
            follows = cid == run.cid + before and id == run.id + before
            if follows and note == run.note and state is run.state and lane is run.lane:
                run.count = before + count
                return
            self.end_run()
        route = Route.JOURNAL if lane is Priority.LOW else Route.SOCKET
        self._run = Accepted(cid, id, count, at, lane, route, note, state)
        self.run_begun()

    def run_begun(self) -> None:
        """A run is being gathered that nobody has written yet; whoever sends must call `end_run` first."""

    def end_run(self) -> None:
        """Write the Accepted that is being gathered."""
        if self._run is not None:
            run, self._run = self._run, None
            self.write(run)

    def refuse(self, cid: int, error: AgentdError) -> None:
        """Tell the client that its call was refused, and why."""
        self.push(Error(cid, error.code, error.message, error.hint, error.retryable, error.retry_after))
