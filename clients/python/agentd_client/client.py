"""The asyncio face: what users get from `async with connect(...) as me`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from agentd.wire import messages as wire
from agentd.wire.messages import GiveBack, Nack, Working
from agentd.wire.names import id_text
from agentd_client._channel import Channel as Channel
from agentd_client._conversation import Conversation
from agentd_client._feeds import Feed
from agentd_client._joining import Place, check_lane, find_socket, find_stand_in, make_join
from agentd_client._lazily import make_handler, make_receiver
from agentd_client._link import Link, drive, until_settled
from agentd_client._mail import Window
from agentd_client._subscription import Subscription as Subscription
from agentd_client._verbs import Verbs
from agentd_client._waiter import Waiter, receive, wait
from agentd_client.message import Received, failure
from agentd_client.receipt import Posted, Receipt

if TYPE_CHECKING:
    from typing import Unpack

    from agentd_client._options import FileOptions, FilePath, PostOptions, SendOptions
    from agentd_client._receiver import Handler, Receiver, ThreadMessage

#: How long leaving waits for the answers to posts.
CLOSE_S: Final = 5.0


def connect(
    name: str | None = None,
    *,
    share: bool = False,
    replace: bool = False,
    take: bool | None = None,
    socket: Place = None,
    timeout: float = 10.0,
) -> Client:
    """A client for `async with`. A name that is given takes its mail; with take=False it is only sent as. Without a
    name: AGENTD_AGENT if set, to send as only, else anonymous. `timeout` bounds every answer that has no other."""
    return Client(name, share=share, replace=replace, take=take, socket=socket, timeout=timeout)


class Ticket(Posted, eq=False, gc=False):
    """A post on its way: await it for the receipt. A failure that nobody awaited is raised on leaving."""

    def __await__(self) -> Generator[Any, None, Receipt]:
        if not self.settled:
            yield from until_settled(self, None).__await__()
        return self.outcome()


class Message(Received, eq=False):
    """A message, and the verbs that answer it. `async with message:` acks on a clean exit, nacks on an exception and
    gives it back when cancelled."""

    async def ack(self) -> None:
        """Done with it. Once is enough, twice does no harm. It travels with what is written next."""
        self.client.conversation.ack(self)

    async def nack(self, reason: str = "", after: float = 0.0) -> None:
        """Not now: it comes back, at the earliest after that many seconds, one attempt gone."""
        await drive(self.client.verbs.settle(self, wire.Nack, reason, after))

    async def reject(self, reason: str = "") -> None:
        """Never: it is a dead letter now."""
        await drive(self.client.verbs.settle(self, wire.Reject, reason))

    async def give_back(self) -> None:
        """Not wanted after all: to the front of the inbox, no attempt counted."""
        self.client.conversation.mail.settle(self, GiveBack(0, [self.wire.id]))

    def working(self) -> None:
        """Still at it."""
        self.client.conversation.out.say(Working(0, self.wire.id))

    async def reply(self, body: object, timeout: float | None = None, **options: Unpack[PostOptions]) -> Receipt:
        """Answer, and ack. After an ack too."""
        return await drive(self.client.verbs.reply(self, body, timeout, options))

    async def __aenter__(self) -> Message:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.settled:
            return
        conversation = self.client.conversation
        if kind is None:
            conversation.ack(self)
        elif conversation.closed is None:
            id = self.wire.id
            conversation.mail.settle(
                self, Nack(0, id, failure(error)) if issubclass(kind, Exception) else GiveBack(0, [id])
            )


def _direct_message() -> type:
    from agentd_client._direct_message import DirectMessage

    return DirectMessage


class Inbox:
    """The messages of a name, each when it is there, up to `window` of them unsettled. Leaving the loop, or a cancelled
    wait, gives back what was not seen."""

    def __init__(self, client: Client, size: int) -> None:
        self._client = client
        self._conversation = client.conversation
        self._window = Window(self._conversation, size)
        self._mail = self._conversation.mail

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> Message:
        window = self._window
        waited = False
        mail = self._mail
        direct = self._conversation.direct
        if direct is not None and direct.breathe:
            direct.breathe = False
            await asyncio.sleep(0)
        while window.unsettled >= window.limit or (taken := mail.next()) is None:
            if waited:
                window.check()
            if self._conversation.left:
                raise StopAsyncIteration
            waited = True
            try:
                await wait(mail, window.enlist())
            except BaseException:
                window.close()
                raise
        message = self._conversation.hand_over(taken, window)
        if waited:
            self._client.took()
        return message

    async def aclose(self) -> None:
        """Take no more."""
        self._window.close()

    def __del__(self) -> None:
        self._window.close()


class Client:
    """An agent, as its own process sees it. Use it from one event loop. Ids are given as text, of which any beginning
    that only one message has will do, or as the numbers that views hold."""

    in_loop = True
    stops_anywhere = False  # `stopping` belongs to the loop

    def __init__(
        self,
        name: str | None,
        *,
        share: bool,
        replace: bool,
        take: bool | None,
        socket: Place,
        timeout: float,
    ) -> None:
        stand_in = find_stand_in(socket)
        self._link = Link(find_socket(socket)) if stand_in is None else stand_in.link()
        join = make_join(name, share, replace, take, direct=stand_in is None)
        self.conversation: Conversation[Message, Ticket] = Conversation(
            join, self, Message, Ticket, self._link.wake, self._link.lazily, self._link.flush
        )
        self.conversation.io = self._link
        self.conversation.record = _direct_message
        self.conversation.may_attach = stand_in is None
        self.conversation.eager = stand_in is None
        self.conversation.mail.waiter = Waiter
        self.verbs = Verbs(self.conversation, timeout)
        #: Set when somebody asks this agent to stop (`agentctl halt`).
        self.stopping = asyncio.Event()
        self._handler: Handler | None = None
        self._took = False
        self.post = self.conversation.post  # no method in between: this is the hot way out

    async def __aenter__(self) -> Client:
        await self._link.open(self.conversation, self.verbs)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await self._leave(CLOSE_S if kind is None else 0.0)
        except BaseException:
            self.conversation.leave()
            self._link.abort()
            raise
        failed = self.conversation.posts.unread()
        if kind is None and failed is not None:
            raise failed

    async def _leave(self, timeout: float) -> None:
        if self._handler is not None:
            await asyncio.to_thread(self._handler.close, timeout)  # it may wait for this loop
        await drive(self.verbs.leave(timeout))
        self.conversation.leave()
        await self._link.close()

    def took(self) -> None:
        """Say `delivered` of the first message at once: what kills each of its takers before the loop turns comes
        first to the next one, and must be counted."""
        if not self._took:
            self._took = True
            self._link.flush()

    @property
    def name(self) -> str | None:
        """The name that others know us by."""
        return self.conversation.name

    # Talk.

    async def send(
        self, to: str, body: object, *, timeout: float | None = None, **options: Unpack[PostOptions]
    ) -> Receipt:
        """One message to one agent; waits for room, and for the state that `wait` names, until `timeout`."""
        return await drive(self.verbs.send(to, body, timeout, options))

    async def choose(
        self, to: str, body: object, *, verb: wire.Kind | str = "send", **options: Unpack[PostOptions]
    ) -> wire.ChoiceView:
        """Which way that would take now, and why: nothing is sent. Raises what sending it would be refused with."""
        return await drive(self.verbs.choose(to, body, verb, options))

    async def request(self, to: str, body: object, timeout: float = 30.0, **options: Unpack[SendOptions]) -> Message:
        """Ask, and get the reply. NoResponder at once where nobody would reply."""
        reply = await drive(self.verbs.request(to, body, timeout, options))
        return Message(reply, self, None, True)

    async def publish(
        self, topic: str, body: object, *, timeout: float | None = None, **options: Unpack[SendOptions]
    ) -> Receipt:
        """An event to whoever subscribes; the receipt says how many have it and who had no room."""
        return await drive(self.verbs.publish(topic, body, timeout, options))

    def subscribe(self, pattern: str, start: str = "new", name: str | None = None, window: int = 1) -> Subscription:
        """Events whose topic matches, for `async with` and `async for`. With a name those wait that come while nobody
        is there, and each is yours until it is settled: by its own verbs, or as done when you ask for the next. A new
        one can begin with what is on record: start="all", an age such as "-5m", or the id of an event."""
        return Subscription(self, Feed(self.conversation, pattern, start, name, window))

    async def unsubscribe(self, name: str) -> int:
        """End the durable subscription of that name for good, with what waits for it; how many messages these were."""
        return int((await drive(self.verbs.call(wire.Unsubscribe, 0, name))).count)

    async def receive(self, timeout: float | None = None) -> Message | None:
        """One message, or None when the time is over first."""
        if timeout is None:
            message = await receive(self.conversation)
        else:
            message = await drive(self.verbs.receive(timeout))
            if message is None:
                return None
        received = self.conversation.hand_over(message, None)
        self.took()
        return received

    def inbox(self, window: int = 1) -> Inbox:
        """Messages, for `async for`; up to `window` are here at a time."""
        return Inbox(self, window)

    # Shared memory.

    async def send_file(self, to: str, path: FilePath, **options: Unpack[FileOptions]) -> Receipt:
        """A file of any size to one live agent: delivered when it has saved it whole. Any other end is an error, and
        then nothing of it stays there; FileChanged where it changes meanwhile."""
        return await drive(self.verbs.send_file(to, path, **options))

    def channel(self, to: str, lane: str = "critical") -> Channel:
        """A pair to one live session of that agent, for `async with`."""
        return Channel(self, to, lane)

    def receiver(self, lane: str = "critical") -> Receiver:
        """The lane's mail for a plain thread, for `with`: inbox() does not get it meanwhile. LaneBusy while another
        has it. May be called in that thread."""
        which = check_lane(lane)
        self.conversation.check_taking()
        receiver = make_receiver(self.conversation.go_direct().readings[which])
        self._link.soon(self._attach)
        return receiver

    def on_critical(self, handler: Callable[[ThreadMessage], Any], *, pin: bool = True) -> None:
        """Call it with each critical message, in a thread of its own on a fast core; returning acks, raising ends the
        message as dead. Give it a process whose other threads do not compute."""
        self.conversation.check_taking()
        self._handler = make_handler(self.conversation.go_direct().readings[check_lane("critical")], handler, pin)
        self._link.soon(self._attach)

    def _attach(self) -> None:
        direct = self.conversation.go_direct()
        direct.invited()

    # One message, by id.

    async def ack(self, id: str | int) -> None:
        """Done with it."""
        await drive(self.verbs.on_ids(wire.Ack, [id]))

    async def nack(self, id: str | int, reason: str = "", after: float = 0.0) -> None:
        """Not now: it comes back, one attempt gone."""
        await drive(self.verbs.on_id(wire.Nack, id, reason, after))

    async def reject(self, id: str | int, reason: str = "") -> None:
        """Never: it is a dead letter now."""
        await drive(self.verbs.on_id(wire.Reject, id, reason))

    async def give_back(self, id: str | int) -> None:
        """Not wanted after all."""
        await drive(self.verbs.on_ids(wire.GiveBack, [id]))

    async def reply(
        self, id: str | int, body: object, timeout: float | None = None, **options: Unpack[PostOptions]
    ) -> Receipt:
        """Answer, and ack."""
        return await drive(self.verbs.reply(id, body, timeout, options))

    async def working(self, id: str | int) -> None:
        """Still at it."""
        await drive(self.verbs.on_id(wire.Working, id))

    async def hold(self, id: str | int, seconds: float) -> None:
        """Keep it that long, even when this process ends."""
        await drive(self.verbs.on_id(wire.Working, id, seconds))

    async def find(self, prefix: str) -> str:
        """The whole id of the one message whose id begins so."""
        return id_text(await drive(self.verbs.id(prefix)))

    # See and care.

    async def trace(self, id: str | int) -> wire.TraceView:
        """What happened to a message."""
        view: wire.TraceView = await drive(self.verbs.on_id(wire.Trace, id))
        return view

    async def look(self, name: str, limit: int = 100) -> wire.InboxView:
        """What waits in an inbox; takes nothing."""
        view: wire.InboxView = await drive(self.verbs.call(wire.Inbox, name, limit))
        return view

    async def notice(self, name: str) -> wire.NoticeView:
        """Whose mail waits for a name and was not announced before; takes nothing. It is announced once, counted from a
        clean exit, or from the next notice."""
        return await drive(self.verbs.notice(name))

    async def agents(self) -> wire.AgentsView:
        """Everybody known, those in trouble first."""
        view: wire.AgentsView = await drive(self.verbs.call(wire.Agents))
        return view

    async def status(self) -> wire.StatusView:
        """The daemon in brief."""
        view: wire.StatusView = await drive(self.verbs.call(wire.Status))
        return view

    async def stats(self, *, agents: bool = False) -> wire.StatsView:
        """Its counters; with `agents` a row for each of the busiest."""
        view: wire.StatsView = await drive(self.verbs.call(wire.Stats, agents))
        return view

    async def dead(self, name: str | None = None, limit: int = 100) -> wire.DeadView:
        """Dead letters, newest first."""
        view: wire.DeadView = await drive(self.verbs.call(wire.Dead, name, limit))
        return view

    async def requeue(self, ids: list[str | int] | list[str] | list[int]) -> int:
        """Put dead letters back into their inboxes; how many."""
        return await drive(self.verbs.on_ids(wire.Requeue, ids))

    async def drop(self, ids: list[str | int] | list[str] | list[int]) -> int:
        """Give dead letters up for good; how many."""
        return await drive(self.verbs.on_ids(wire.Drop, ids))

    async def forget(self, name: str) -> None:
        """Forget a name that is not live and has no mail."""
        await drive(self.verbs.call(wire.Forget, name))

    async def halt(self, name: str, step: wire.Step | str = wire.Step.ASK, reason: str = "") -> wire.HaltView:
        """Stop an agent: ask its sessions, or signal their processes; the sessions that were there."""
        view: wire.HaltView = await drive(self.verbs.call(wire.Halt, name, step, reason))
        return view

    async def pause(self, name: str, on: bool = True) -> None:
        """Give that agent nothing, or its mail again with on=False."""
        await drive(self.verbs.call(wire.Pause, name, on))
